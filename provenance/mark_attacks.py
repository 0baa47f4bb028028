"""What happens to pictures on their way, each attack a pure function of a picture and a random generator.

Case names are the command line's (`facsimile bench mark`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from provenance.mark_signal import UInt8Array

Attack = Callable[[UInt8Array, np.random.Generator], UInt8Array]


def _coded(rgb: UInt8Array, extension: str, flag: int, quality: int) -> UInt8Array:
    data = cv2.imencode(extension, rgb[..., ::-1], [flag, quality])[1]
    bgr = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(bgr[..., ::-1])


def jpeg(quality: int) -> Attack:
    """JPEG 4:2:0 at a quality."""
    return lambda rgb, rng: _coded(rgb, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


def webp(quality: int) -> Attack:
    """Lossy WebP at a quality."""
    return lambda rgb, rng: _coded(rgb, ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)


def sized(rgb: UInt8Array, width: int, height: int) -> UInt8Array:
    """Resize: area average when shrinking, cubic when growing."""
    mode = cv2.INTER_AREA if width < rgb.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=mode), np.uint8)


def scaled(factor: float) -> Attack:
    """Resize both sides by a factor and leave it so."""
    return lambda rgb, rng: sized(rgb, round(rgb.shape[1] * factor), round(rgb.shape[0] * factor))


def crop(removed: float, back: bool = False) -> Attack:
    """Cut a share off each side's length at a random place; `back`: resize to the old size."""

    def attack(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        height, width = rgb.shape[:2]
        kept_h, kept_w = round(height * (1 - removed)), round(width * (1 - removed))
        top, left = int(rng.integers(0, height - kept_h + 1)), int(rng.integers(0, width - kept_w + 1))
        cut = np.ascontiguousarray(rgb[top : top + kept_h, left : left + kept_w])
        return sized(cut, width, height) if back else cut

    return attack


def linear(gain: float, offset: float = 0.0) -> Attack:
    """Every value times gain plus offset, saturated."""
    return lambda rgb, rng: np.clip(np.rint(rgb * gain + offset), 0, 255).astype(np.uint8)


def rotate(degrees: float) -> Attack:
    """Turn about the centre by a random sign of an angle, same size, border mirrored."""

    def attack(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        height, width = rgb.shape[:2]
        angle = degrees if rng.random() < 0.5 else -degrees
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
        turned = cv2.warpAffine(
            rgb, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        return np.asarray(turned, np.uint8)

    return attack


def chain(*attacks: Attack) -> Attack:
    """One attack after another."""

    def attack(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        for step in attacks:
            rgb = step(rgb, rng)
        return rgb

    return attack


def denoised(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """An adversary that smooths what it can without blurring edges: bilateral, median, then JPEG q70."""
    smooth = cv2.medianBlur(cv2.bilateralFilter(rgb, 7, 25, 3), 3)
    return jpeg(70)(np.asarray(smooth, np.uint8), rng)


ATTACKS: Mapping[str, Attack] = {
    "clean": lambda rgb, rng: rgb,
    "jpeg_q75": jpeg(75),
    "jpeg_q50": jpeg(50),
    "jpeg_q30": jpeg(30),
    "webp_q60": webp(60),
    "resize_0.5": scaled(0.5),
    "screenshot": chain(scaled(0.75), crop(0.02), jpeg(80)),
    "social": chain(scaled(0.6), jpeg(70)),
    "brightness_up": linear(1.2),
    "brightness_down": linear(0.8),
    "contrast_up": linear(1.2, -25.6),
    "blur_2": lambda rgb, rng: np.asarray(cv2.GaussianBlur(rgb, (0, 0), 2), np.uint8),
    "mirror": lambda rgb, rng: np.ascontiguousarray(rgb[:, ::-1]),
    "crop_10": crop(0.10),
    "crop_10_back": crop(0.10, back=True),
    "crop_50": crop(1 - math.sqrt(0.5)),  # half of the area
    "rotate_5": rotate(5),
    "adversary_denoise": denoised,
}
