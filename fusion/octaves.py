"""A picture's finest octaves, and how strong they are on a face's bare skin; knows no engine, no network, no file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fusion import mask, mesh
from fusion.face import FloatArray, UInt8Array

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as cv2.COLOR_RGB2GRAY

# Rms luma that rounding to 8 bits adds to each octave, finest first.
ROUNDING: Final = np.array([0.182, 0.028, 0.012, 0.006, 0.003], np.float32) / 255


def before_rounding(amplitudes: FloatArray) -> FloatArray:
    """Amplitudes [K] that a picture not yet rounded to 8 bits must have to show these afterwards; K up to 5."""
    left = np.square(amplitudes) - np.square(ROUNDING[: len(amplitudes)])
    return np.asarray(np.sqrt(np.maximum(left, 0)), np.float32)


def split_octaves(picture: FloatArray, octaves: float) -> list[tuple[float, FloatArray]]:
    """(share, band) of the finest octaves of a picture float32 [H, W] or [H, W, C], finest first.

    A band is the difference of two neighbouring levels of the Gaussian pyramid. Of 1.4 octaves the second has the
    share 0.4: no step where a face grows from one size to the next.
    """
    whole = int(octaves)
    shares = [1.0] * whole + ([octaves - whole] if octaves > whole else [])
    levels = _levels(picture, len(shares))
    return [
        (share, finer - coarser) for share, (finer, coarser) in zip(shares, pairwise(levels), strict=True)
    ]


def fine_bands(picture: FloatArray, octaves: float) -> FloatArray:
    """What the finest octaves of a picture hold together, each by its share, float32 like the picture."""
    total = np.zeros_like(picture)
    for share, band in split_octaves(picture, octaves):
        total += np.float32(share) * band
    return total


def _levels(picture: FloatArray, count: int) -> Iterator[FloatArray]:
    """The picture and `count` levels of its Gaussian pyramid, all at its own size."""
    yield picture
    sizes, low = [], picture
    for _ in range(count):
        sizes.append((low.shape[1], low.shape[0]))
        low = np.asarray(cv2.pyrDown(low), np.float32)
        seen = low
        for size in reversed(sizes):
            seen = np.asarray(cv2.pyrUp(seen, dstsize=size), np.float32)
        yield seen


def skin_grey(rgb: UInt8Array, landmarks_px: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """(luma float32 [h, w] in [0, 1] around the mesh, where it is surely bare skin: cheeks and ridge of the nose)."""
    points = landmarks_px[: mesh.NUM_MESH, :2]
    limit = [rgb.shape[1], rgb.shape[0]]
    low = np.clip(np.floor(points.min(0)), 0, limit).astype(int)
    high = np.clip(np.ceil(points.max(0)) + 1, 0, limit).astype(int)
    part = np.ascontiguousarray(rgb[low[1] : high[1], low[0] : high[0]])
    grey = np.asarray(part.astype(np.float32) @ LUMA, np.float32) / np.float32(255)  # cv2 would round it
    skin = mask.cheek_mask((points - low).astype(np.float32), (grey.shape[0], grey.shape[1])) > 0.5
    return grey, skin


def band_energies(rgb: UInt8Array, landmarks_px: FloatArray, octaves: int) -> FloatArray:
    """Amplitude (rms luma) of each of the finest octaves on bare skin, finest first, [octaves]."""
    grey, skin = skin_grey(rgb, landmarks_px)
    if not skin.any():
        return np.zeros(octaves, np.float32)
    found = [float(np.sqrt((band[skin] ** 2).mean())) for _, band in split_octaves(grey, octaves)]
    return np.array(found, np.float32)
