"""Looks up the Fourier transform of a band at any frequency, so that a size and a turn cost no picture; knows no key.

A picture enlarged by s and turned has its transform shrunk by s and turned alike. So one padded transform serves every
pose: carriers are looked up in it by cubic interpolation, after the band was divided by what that kernel takes away
towards the borders (gridding: Jackson et al. 1991).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft

from provenance.mark_pattern import RING, TILE, ComplexArray, FloatArray, IntArray

Poses = npt.NDArray[np.float32]
"""[P, 3]: scale, turn in degrees, 1 where mirrored."""
MOST_TURN_DEG = 12.0
_PADDED = 2.0  # sides of the transform, of the band's
_LARGEST = 1.2  # scale up to which all carriers are kept
_MARGIN = 2  # lines more, for the kernel
_BIN = 2.0 / TILE  # cycles a pixel, of the radial profile


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The transform about a band's centre.

    lines: float32 [rows, columns, 2], real and imaginary, `zero` (row, column) the constant term; sides: (height,
    width) of the padded transform; loudness: float32, rms by radius, in bins of _BIN; uneven: 1 where the width is
    even, so that the mirror image has its centre a pixel beside.
    """

    lines: FloatArray
    zero: tuple[int, int]
    sides: tuple[int, int]
    loudness: FloatArray
    uneven: int


@functools.lru_cache(maxsize=32)
def _kept(count: int, side: int) -> FloatArray:
    """float32 [count]: what cubic interpolation over `side` frequencies keeps of pixels about the centre."""
    taps = np.arange(-64, 65) / 32  # as fine as OpenCV's tables
    near = np.abs(taps)
    inner, outer = (
        1.25 * near**3 - 2.25 * near**2 + 1,
        -0.75 * (near**3 - 5 * near**2 + 8 * near - 4),
    )
    waves = np.cos(2 * np.pi * np.outer((np.arange(count) - count // 2) / side, taps))
    return np.asarray(waves @ np.where(near < 1, inner, outer) / 32, np.float32)


@functools.lru_cache(maxsize=8)
def _bins(reach: tuple[int, int], sides: tuple[int, int]) -> tuple[IntArray, FloatArray]:
    """The bin of the radius of every line (-rows..rows, 0..columns), and how many lines each bin has."""
    fy, fx = np.arange(-reach[0], reach[0] + 1) / sides[0], np.arange(reach[1] + 1) / sides[1]
    bins = (np.hypot(fy[:, None], fx) / _BIN).astype(np.int64).ravel()
    return bins, np.maximum(np.bincount(bins), 1).astype(np.float32)


def _about_centre(band: FloatArray, sides: tuple[int, int]) -> FloatArray:
    """float32 [sides]: the band in zeros, its centre (h // 2, w // 2) at (0, 0) of the periodic plane."""
    top, left = band.shape[0] // 2, band.shape[1] // 2
    canvas = np.zeros(sides, np.float32)
    canvas[: band.shape[0] - top, : band.shape[1] - left] = band[top:, left:]
    canvas[: band.shape[0] - top, -left:] = band[top:, :left]
    canvas[-top:, : band.shape[1] - left] = band[:top, left:]
    canvas[-top:, -left:] = band[:top, :left]
    return canvas


def spectrum_of(band: FloatArray) -> Spectrum:
    """The transform of a band [h, w]; carriers are kept at scales up to 1.2 and turns up to MOST_TURN_DEG."""
    height, width = (fft.next_fast_len(math.ceil(_PADDED * n), real=True) for n in band.shape)
    lost = np.outer(_kept(band.shape[0], height), _kept(band.shape[1], width))
    canvas = _about_centre(band / lost, (height, width))
    rows, columns = (
        min(n // 2 - 1, math.ceil(_LARGEST * RING[1] / TILE * n) + _MARGIN) for n in (height, width)
    )
    half = fft.fft(fft.rfft(canvas, axis=1)[:, : columns + 1], axis=0)
    right = np.concatenate([half[-rows:], half[: rows + 1]])
    bins, counts = _bins((rows, columns), (height, width))
    power = np.bincount(bins, (right.real**2 + right.imag**2).ravel()) / counts
    left = math.ceil(columns * math.sin(math.radians(MOST_TURN_DEG))) + _MARGIN
    lines = np.concatenate([np.conj(right[::-1, left:0:-1]), right], axis=1)  # F(-f) is the conjugate of F(f)
    return Spectrum(
        lines=lines.view(np.float32).reshape(*lines.shape, 2),
        zero=(rows, left),
        sides=(height, width),
        loudness=np.asarray(np.sqrt(power + 1e-12), np.float32),
        uneven=1 - band.shape[1] % 2,
    )


def looked_up(spectrum: Spectrum, kx: IntArray, ky: IntArray, poses: Poses) -> ComplexArray:
    """complex64 [P, K]: the carriers (kx, ky) of the folded tile at poses [P, 3], shifts left alone; about 2 % off.

    Turning and folding the picture itself, by linear interpolation, is 20 to 30 % off.
    """
    turn = np.radians(poses[:, 1])
    size = poses[:, :1] / np.float32(TILE)
    c, s = size * np.cos(turn)[:, None], size * np.sin(turn)[:, None]
    x, y = kx.astype(np.float32), ky.astype(np.float32)
    across = c * x + s * y  # cycles a seen pixel
    flip = np.where(poses[:, 2:] > 0, np.float32(-1), np.float32(1))
    columns = across * np.float32(spectrum.sides[1]) + np.float32(spectrum.zero[1])
    rows = (c * y - s * x) * (flip * np.float32(spectrum.sides[0])) + np.float32(spectrum.zero[0])
    values = cv2.remap(spectrum.lines, columns, rows, cv2.INTER_CUBIC).view(np.complex64)[..., 0]
    mirrored = poses[:, 2] > 0  # F of the mirror image at (fx, fy) is F(-fx, fy), the conjugate of F(fx, -fy)
    if mirrored.any():
        moved = np.exp(2j * np.pi * spectrum.uneven * across[mirrored])
        values[mirrored] = np.conj(values[mirrored]) * moved.astype(np.complex64)
    return np.asarray(values, np.complex64)


def loudness_at(spectrum: Spectrum, radius: FloatArray, scale: FloatArray) -> FloatArray:
    """float32 [P, K]: the band's rms about where carriers of a radius [K], cycles a tile, lie at scales [P]."""
    at = scale[:, None] * radius * np.float32(1 / (TILE * _BIN)) - np.float32(0.5)
    return np.asarray(np.interp(at, np.arange(len(spectrum.loudness)), spectrum.loudness), np.float32)
