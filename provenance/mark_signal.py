"""What the mark sees of a picture: working frame, normalised band, how much change it hides; knows no key.

Every picture is looked at with the same number of pixels (WORKING_AREA) and its own aspect: cost does not
grow with the picture, and a resized copy needs no search. The change is drawn at DRAWN times that resolution.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from provenance.mark_pattern import TILE

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

WORKING_AREA = 256 * 256
DRAWN = 2
_EDGES, _LOCAL = (
    (0.4, 0.8, 3.0),
    2.5,
)  # working px: Gaussian scales between which bands lie, and of their local energy
_FLOORS = (0.7, 1.5)  # grey levels: band rms below which nothing more is amplified
_CLIP = 2.5  # of the rms
_MOST = 2.0  # grey levels rms in a flat field


def working_size(width: int, height: int, times: int = 1) -> tuple[int, int]:
    """(width, height) of the working frame of a picture, drawn `times` as fine."""
    scale = times * math.sqrt(WORKING_AREA / (width * height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(plane: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resize to (width, height): area average when shrinking, cubic when growing."""
    if size == (plane.shape[1], plane.shape[0]):
        return plane
    mode = cv2.INTER_AREA if size[0] < plane.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(plane, size, interpolation=mode), np.float32)


def luma_of(rgb: UInt8Array) -> FloatArray:
    """float32 [H, W] in [0, 255], the luma (BT.601) of uint8 [H, W, 3] RGB."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


def working_band(rgb: UInt8Array) -> FloatArray:
    """float32 [h, w]: `normalised_band` of a picture's luma in the working frame."""
    return normalised_band(resize(luma_of(rgb), working_size(rgb.shape[1], rgb.shape[0])))


def _blur(plane: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)


def normalised_band(luma: FloatArray) -> FloatArray:
    """float32 [h, w]: the sum of two band-passes of the luma, each over its own local power, clipped, of equal rms.

    The matched filter for a change of even size in noise of uneven power, so that an edge weighs less than skin. Two
    bands, because a blur leaves short waves far below the long ones' power, but not below their own.
    """
    blurred = [_blur(luma, each) for each in _EDGES]
    total = np.zeros(luma.shape, np.float32)
    for near, far, floor in zip(blurred[:-1], blurred[1:], _FLOORS, strict=True):
        band = near - far
        band /= _blur(band * band, _LOCAL) + floor * floor
        limit = _CLIP * float(np.sqrt((band * band).mean()))
        band = np.clip(band, -limit, limit)
        total += band / np.float32(math.sqrt(float((band * band).mean()) + 1e-12))
    return total


def fold(plane: FloatArray, size: int = TILE) -> FloatArray:
    """float32 [size, size]: all periods of the plane summed, the plane's centre at (0, 0)."""
    height, width = plane.shape
    top, left = -(height // 2) % size, -(width // 2) % size
    rows, columns = -(-(top + height) // size), -(-(left + width) // size)
    canvas = np.zeros((rows * size, columns * size), np.float32)
    canvas[top : top + height, left : left + width] = plane
    return np.asarray(canvas.reshape(rows, size, columns, size).sum((0, 2)), np.float32)


def spread(tile: FloatArray, height: int, width: int) -> FloatArray:
    """float32 [height, width]: the tile repeated, its (0, 0) at the plane's centre; the inverse of `fold`."""
    size = tile.shape[0]
    rows = (np.arange(height) - height // 2) % size
    columns = (np.arange(width) - width // 2) % size
    return np.asarray(tile[rows].take(columns, axis=1), np.float32)


def hiding_room(luma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(relative room, most rms in grey levels), float32 [h, w], for luma drawn DRAWN times as fine as the frame.

    Both grow with what the neighbourhood hides: contrast masking by the weaker of nearby textures (an edge beside a
    flat field hides nothing) plus a floor, the shape of SSIM's denominator (Wang 2004, eq. 13). The relative room
    falls with what disturbs reading there: the best of 20 such products, measured in docs/log.md.
    """
    mean = _blur(luma, 2.0)
    variance = _blur((luma - mean) ** 2, 3.0)
    hidden = 2 * _blur(np.asarray(cv2.erode(variance, np.ones((9, 9), np.uint8)), np.float32), 3.0) + 58.5
    half = resize(mean, (mean.shape[1] // 2, mean.shape[0] // 2))
    band = mean - resize(_blur(half, 4.5), (mean.shape[1], mean.shape[0]))
    disturbance = _blur(band * band, 5.0) + 0.8
    room = hidden**0.5 / disturbance**0.25
    return np.asarray(room, np.float32), np.asarray(_MOST * (hidden / 58.5) ** 0.75, np.float32)
