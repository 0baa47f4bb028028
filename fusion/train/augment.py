"""What happens to pictures in the wild, done to training crops; knows no task and no labels.

Every function takes and gives uint8 [H, W, 3] RGB of any size, draws from the generator given, moves no
pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from fusion.face import FloatArray, UInt8Array

Rng = np.random.Generator


def chance(rng: Rng, probability: float) -> bool:
    """True with that probability."""
    return bool(rng.random() < probability)


def jpeg(rgb: UInt8Array, quality: int) -> UInt8Array:
    """Through a JPEG file of that quality and back."""
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    bgr = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(bgr[..., ::-1])


def blur(rgb: UInt8Array, sigma: float) -> UInt8Array:
    """Gaussian blur, sigma in pixels."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.uint8)


def motion_blur(rgb: UInt8Array, length: int, angle: float) -> UInt8Array:
    """Averaged along a line of `length` pixels."""
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), angle, 1)
    kernel = np.asarray(cv2.warpAffine(line, turn, (length, length)), np.float32)
    return np.asarray(cv2.filter2D(rgb, -1, kernel / np.float32(max(float(kernel.sum()), 1e-6))), np.uint8)


def coarsen(rgb: UInt8Array, factor: float) -> UInt8Array:
    """Reduced by `factor` > 1 and enlarged again, as a small face is."""
    height, width = rgb.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return np.asarray(
        cv2.resize(cv2.resize(rgb, small, interpolation=cv2.INTER_AREA), (width, height)), np.uint8
    )


def tone(rgb: UInt8Array, gain: FloatArray, offset: float, gamma: float) -> UInt8Array:
    """Per channel gain [3], offset and gamma through one table; 1, 0, 1 change nothing."""
    ramp = np.arange(256, dtype=np.float32)[:, None] / 255
    table = (ramp**gamma * gain[None] + offset) * 255
    return np.asarray(cv2.LUT(rgb, table.clip(0, 255).astype(np.uint8).reshape(1, 256, 3)), np.uint8)


def smooth_field(rng: Rng, height: int, width: int, cells: int) -> FloatArray:
    """Smooth random field float32 [H, W], about normal, `cells` bumps across."""
    coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def relight(rgb: UInt8Array, rng: Rng, strength: float) -> UInt8Array:
    """Uneven light: multiplied by exp of a smooth field of that standard deviation."""
    height, width = rgb.shape[:2]
    light = np.exp(strength * smooth_field(rng, height, width, int(rng.integers(2, 4))))
    return np.asarray((rgb * light[..., None]).clip(0, 255), np.uint8)


def sensor_noise(rgb: UInt8Array, rng: Rng, sigma: float) -> UInt8Array:
    """Normal noise of that many grey levels, the same for the channels in half of the draws."""
    height, width, channels = rgb.shape
    grain = rng.standard_normal((height, width, 1 if chance(rng, 0.5) else channels), np.float32)
    return np.asarray((rgb + sigma * grain).clip(0, 255), np.uint8)


def grey(rgb: UInt8Array) -> UInt8Array:
    """Black and white, still three channels."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def random_colour(rng: Rng) -> tuple[int, int, int]:
    """Any RGB colour."""
    red, green, blue = rng.integers(0, 256, 3)
    return int(red), int(green), int(blue)


def random_texture(rng: Rng, height: int, width: int) -> UInt8Array:
    """Ground without a face: colour ramp, clouds, noise or stripes, uint8 [H, W, 3]."""
    first, second = np.array(random_colour(rng), np.float32), np.array(random_colour(rng), np.float32)
    kind = rng.integers(0, 4)
    if kind == 0:
        mix = np.linspace(0, 1, width, dtype=np.float32)[None] * np.ones((height, 1), np.float32)
    elif kind == 1:
        mix = 0.5 + 0.4 * smooth_field(rng, height, width, int(rng.integers(2, 12)))
    elif kind == 2:
        mix = rng.random((height, width), np.float32)
    else:
        xx, yy = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 40)
        mix = 0.5 + 0.5 * np.sin((xx * np.cos(angle) + yy * np.sin(angle)) * (2 * np.pi / period))
    mix = mix.clip(0, 1)[..., None]
    picture: UInt8Array = (first * mix + second * (1 - mix)).astype(np.uint8)
    return picture


def occlude(rgb: UInt8Array, rng: Rng, patch: UInt8Array | None = None) -> UInt8Array:
    """One bar, ellipse or polygon over a part of the picture, filled with colour, texture or `patch`."""
    height, width = rgb.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
    reach = float(min(height, width))
    kind = rng.integers(0, 3)
    if kind == 0:
        axes = (int(reach * rng.uniform(0.05, 0.25)), int(reach * rng.uniform(0.05, 0.25)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    elif kind == 1:
        end = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.line(mask, centre, end, 255, max(1, int(reach * rng.uniform(0.02, 0.12))))
    else:
        corners = np.array(centre) + rng.normal(0, reach * 0.15, (int(rng.integers(3, 7)), 2))
        cv2.fillPoly(mask, [cv2.convexHull(corners.astype(np.int32))], 255)
    if patch is not None and chance(rng, 0.5):
        fill = np.asarray(cv2.resize(patch, (width, height)), np.uint8)
    elif chance(rng, 0.5):
        fill = random_texture(rng, height, width)
    else:
        fill = np.full_like(rgb, random_colour(rng))
    return np.where(mask[..., None] > 0, fill, rgb)


def degrade(rgb: UInt8Array, rng: Rng, strength: float = 1.0) -> UInt8Array:
    """Light, colour, blur, size, noise and JPEG, each with its own chance, in the order of a camera."""
    if chance(rng, 0.3 * strength):
        rgb = relight(rgb, rng, 0.3)
    if chance(rng, 0.8 * strength):
        gain = rng.uniform(0.6, 1.4) * rng.uniform(0.85, 1.15, 3)
        rgb = tone(rgb, gain.astype(np.float32), float(rng.uniform(-0.1, 0.1)), float(rng.uniform(0.7, 1.4)))
    if chance(rng, 0.1 * strength):
        rgb = grey(rgb)
    if chance(rng, 0.25 * strength):
        rgb = coarsen(rgb, float(rng.uniform(1.3, 4.5)))
    elif chance(rng, 0.25 * strength):
        rgb = blur(rgb, float(rng.uniform(0.4, 2.2)))
    elif chance(rng, 0.1 * strength):
        rgb = motion_blur(rgb, int(rng.integers(3, 10)), float(rng.uniform(0, 180)))
    if chance(rng, 0.3 * strength):
        rgb = sensor_noise(rgb, rng, float(rng.uniform(1, 16)))
    if chance(rng, 0.35 * strength):
        rgb = jpeg(rgb, int(rng.integers(25, 90)))
    return rgb
