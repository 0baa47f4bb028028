"""Worse views of an aligned crop, as cameras, codecs and careless framing make them; knows no network.

The same strong mixture is used to train the identity network and to measure it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]

OUTPUT_HW = (112, 96)


def move(crop: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Turn (σ 3.5°), scale (σ 5 %) and shift (σ 1.5 px) as inexact eye points cause; frame → 112 x 96."""
    angle = np.deg2rad(np.clip(rng.normal(0, 3.5), -12, 12))
    scale = float(np.exp(np.clip(rng.normal(0, 0.05), -0.15, 0.15)))
    stretch = float(np.exp(rng.normal(0, 0.02)))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.diag([stretch, 1 / stretch])
    centre = np.array([crop.shape[1] - 1, crop.shape[0] - 1]) / 2
    goal = np.array([OUTPUT_HW[1] - 1, OUTPUT_HW[0] - 1]) / 2 + np.clip(rng.normal(0, 1.5, 2), -5, 5)
    matrix = np.concatenate([linear, (goal - linear @ centre)[:, None]], axis=1)
    moved = cv2.warpAffine(
        crop, matrix, OUTPUT_HW[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, np.uint8)


def light(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Exposure, contrast, gamma, white balance, saturation and a lamp from one side; x in [0, 255]."""
    x = 255 * np.clip(x / 255, 0, 1) ** float(np.exp(rng.normal(0, 0.25)))
    mean = float(x.mean())
    x = (x - mean) * float(np.exp(rng.normal(0, 0.2))) + mean * float(np.exp(rng.normal(0, 0.2)))
    x = x * np.exp(rng.normal(0, 0.08, 3))
    grey = x.mean(axis=2, keepdims=True)
    saturation = 0.0 if rng.random() < 0.1 else float(np.exp(rng.normal(0, 0.3)))
    x = grey + (x - grey) * saturation
    if rng.random() < 0.4:
        y, z = np.mgrid[-1 : 1 : x.shape[0] * 1j, -1 : 1 : x.shape[1] * 1j]
        turn, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6)
        x = x * (1 + depth * (np.cos(turn) * z + np.sin(turn) * y))[..., None]
    return np.clip(x, 0, 255).astype(np.float32)


def soften(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Low resolution (face crop down to 28 px), blur, sensor noise."""
    height, width = x.shape[:2]
    if rng.random() < 0.45:
        scale = float(rng.uniform(0.25, 0.9))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        down = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR
        up = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
        x = np.asarray(
            cv2.resize(cv2.resize(x, small, interpolation=down), (width, height), interpolation=up)
        )
    if rng.random() < 0.3:
        x = np.asarray(cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.4, 1.8))))
    if rng.random() < 0.4:
        x = x + rng.standard_normal(x.shape, dtype=np.float32) * float(rng.uniform(2, 16))
    return np.clip(x, 0, 255).astype(np.float32)


def compress(x: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """JPEG at quality 20 to 95, half of the time."""
    if rng.random() < 0.5:
        return x
    _, code = cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 96))])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)


def occlude(x: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """One ellipse of one colour over up to a sixth of the crop, one time in five."""
    if rng.random() < 0.8:
        return x
    height, width = x.shape[:2]
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    axes = (int(rng.integers(5, width // 4)), int(rng.integers(5, height // 4)))
    colour = tuple(int(v) for v in rng.integers(0, 256, 3))
    return np.asarray(
        cv2.ellipse(x.copy(), centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1), np.uint8
    )


def worsen(x: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Another light, a worse camera, a codec, something in front; shape kept."""
    worse = np.asarray(soften(light(x.astype(np.float32), rng), rng), np.uint8)
    return occlude(compress(worse, rng), rng)


def expose(x: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Only a little more or less light; shape kept."""
    return np.asarray(np.clip(x * float(np.exp(rng.normal(0, 0.1))), 0, 255), np.uint8)


def strong_view(crop: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """uint8 [136, 120, 3] RGB → uint8 [112, 96, 3] RGB, another and worse picture of the same portrait."""
    return worsen(move(crop, rng), rng)
