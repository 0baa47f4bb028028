"""What the mark sees of a picture: working frame, normalised band, how much change it hides; knows no key.

Every picture is looked at with the same number of pixels (WORKING_AREA) and its own aspect: cost does not
grow with the picture, and a resized copy needs no search.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from provenance.mark_pattern import TILE

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

WORKING_AREA = 512 * 512
_NEAR, _FAR, _LOCAL = 1.2, 9.0, 7.0  # px: Gaussian scales of the band and of its local energy
_FLOOR = 0.9  # grey levels: band energy below which nothing is amplified
_CLIP = 2.5


def working_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the working frame of a picture, WORKING_AREA pixels up to rounding."""
    scale = math.sqrt(WORKING_AREA / (width * height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(plane: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resize to (width, height): area average when shrinking, cubic when growing."""
    shrinks = size[0] < plane.shape[1]
    mode = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(plane, size, interpolation=mode), np.float32)


def working_luma(rgb: UInt8Array) -> FloatArray:
    """float32 [h, w] in [0, 255], the luma (BT.601) of uint8 [H, W, 3] RGB in the working frame."""
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return resize(luma, working_size(rgb.shape[1], rgb.shape[0]))


def _blur(plane: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)


def normalised_band(luma: FloatArray) -> FloatArray:
    """float32 [h, w]: the band-pass of the luma over its local rms, clipped (edges count like skin)."""
    band = _blur(luma, _NEAR) - _blur(luma, _FAR)
    energy = _blur(band * band, _LOCAL) + _FLOOR * _FLOOR
    return np.asarray(np.clip(band / np.sqrt(energy), -_CLIP, _CLIP), np.float32)


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
    rows = (np.arange(height) - height // 2) % TILE
    columns = (np.arange(width) - width // 2) % TILE
    return tile[rows[:, None], columns[None, :]]


def hiding_room(luma: FloatArray) -> FloatArray:
    """float32 [h, w], grey levels: amplitude of noise that the neighbourhood hides.

    Contrast masking by the weaker of nearby textures (an edge beside a flat field hides nothing) plus a
    floor: flat pictures carry the mark too. The shape follows SSIM's own denominator (Wang 2004, eq. 13).
    """
    mean = _blur(luma, 2.0)
    variance = _blur((luma - mean) ** 2, 3.0)
    weakest = np.asarray(cv2.erode(variance, np.ones((9, 9), np.uint8)), np.float32)
    return np.asarray(np.sqrt(_blur(weakest, 3.0) * 2 + 58.5) * 0.1, np.float32)
