"""What happens to a picture between its making and its check, drawn once and done to every member of a pair.

Knows no labels: a Delivery is a list of numbers, so that both members get the same codec, size, noise and tone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fusion.face import UInt8Array

Rng = np.random.Generator


@dataclass(frozen=True)
class Delivery:
    """jpeg and webp: quality or 0 for none; resize: factor of the side; blur: sigma in px; noise: grey levels;
    gain, offset, gamma: tone; seed: of the noise; jpeg_first: quality of an earlier save, or 0; crop: share cut off
    at left and top (0.7 of it each), done by the caller."""

    jpeg: int = 0
    webp: int = 0
    resize: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    seed: int = 0
    jpeg_first: int = 0
    crop: float = 0.0


def draw_delivery(rng: Rng, hardness: float) -> Delivery:
    """Random delivery, resize left at 1 (the caller scales); `hardness` 0 is nearly clean, 1 the whole range."""
    low = round(92 - 57 * hardness)
    codec = rng.random()
    toned = rng.random() < 0.5
    return Delivery(
        jpeg=int(rng.integers(low, 98)) if codec < 0.35 + 0.35 * hardness else 0,
        webp=int(rng.integers(low, 98)) if codec > 0.9 else 0,
        blur=float(rng.uniform(0.3, 0.3 + 0.9 * hardness)) if rng.random() < 0.2 * hardness else 0.0,
        noise=float(rng.uniform(0.5, 1 + 5 * hardness)) if rng.random() < 0.2 else 0.0,
        gain=float(rng.uniform(0.8, 1.2)) if toned else 1.0,
        offset=float(rng.uniform(-15, 15)) if toned else 0.0,
        gamma=float(np.exp(rng.uniform(-0.25, 0.25))) if toned else 1.0,
        seed=int(rng.integers(1 << 31)),
        jpeg_first=int(rng.integers(70, 98)) if rng.random() < 0.15 else 0,
    )


def deliver(rgb: UInt8Array, delivery: Delivery) -> UInt8Array:
    """The picture uint8 [H, W, 3] as it arrives; tone, size, blur, noise, then the codecs."""
    d = delivery
    if d.jpeg_first:
        rgb = _through(rgb, ".jpg", cv2.IMWRITE_JPEG_QUALITY, d.jpeg_first)
    if (d.gain, d.offset, d.gamma) != (1.0, 0.0, 1.0):
        ramp = 255 * (np.arange(256) / 255) ** d.gamma * d.gain + d.offset
        rgb = np.asarray(cv2.LUT(rgb, np.clip(np.rint(ramp), 0, 255).astype(np.uint8)), np.uint8)
    if d.resize != 1:
        size = (max(1, round(rgb.shape[1] * d.resize)), max(1, round(rgb.shape[0] * d.resize)))
        kernel = cv2.INTER_AREA if d.resize < 1 else cv2.INTER_CUBIC
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=kernel), np.uint8)
    if d.blur:
        rgb = np.asarray(cv2.GaussianBlur(rgb, (0, 0), d.blur), np.uint8)
    if d.noise:
        grain = np.random.default_rng(d.seed).standard_normal(rgb.shape, np.float32)
        rgb = np.clip(np.rint(rgb + d.noise * grain), 0, 255).astype(np.uint8)
    if d.jpeg:
        rgb = _through(rgb, ".jpg", cv2.IMWRITE_JPEG_QUALITY, d.jpeg)
    if d.webp:
        rgb = _through(rgb, ".webp", cv2.IMWRITE_WEBP_QUALITY, d.webp)
    return rgb


def _through(rgb: UInt8Array, suffix: str, flag: int, quality: int) -> UInt8Array:
    _, data = cv2.imencode(suffix, rgb[..., ::-1], [flag, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
