"""What of a face is replaced: soft masks from contours, and skin told from hair, glasses and hands; knows no files.

Masks are float32 [H, W] in [0, 1] on the grid whose pixel coordinates the points are given in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from fusion import mesh
from fusion.face import FloatArray

_SHIFT: Final = 4  # fixed-point bits of cv2.fillPoly


def fill_contour(points: FloatArray, contour: Sequence[int], size: tuple[int, int]) -> FloatArray:
    """Anti-aliased inside of a closed contour of points, grid `size` = (height, width)."""
    canvas = np.zeros(size, np.uint8)
    polygon = np.rint(points[list(contour)] * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(canvas, [polygon], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return np.asarray(canvas, np.float32) / np.float32(255)


def feather_inside(mask: FloatArray, width_px: float) -> FloatArray:
    """Fall from 1 to 0 over the last `width_px` within the mask; 0 outside. Smooth at both ends."""
    padded = cv2.copyMakeBorder((mask > 0.5).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)
    return smooth_step(distance / np.float32(max(width_px, 1.0)))


def smooth_step(x: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, 3x² - 2x³ between."""
    t = np.clip(x, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def widen(mask: FloatArray, radius_px: float) -> FloatArray:
    """Grow a mask by a disc."""
    size = 2 * max(1, round(radius_px)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.dilate(mask, kernel), np.float32)


def feature_mask(points: FloatArray, size: tuple[int, int], width: float) -> FloatArray:
    """Eyes, brows, lips and nostrils: places where colour says nothing about occlusion. `width`: face_width."""
    mask = np.zeros(size, np.float32)
    for contour in (
        mesh.LEFT_EYE,
        mesh.RIGHT_EYE,
        mesh.OUTER_LIPS,
        mesh.LEFT_BROW,
        mesh.RIGHT_BROW,
        NOSTRILS,
    ):
        mask = np.maximum(mask, fill_contour(points, contour, size))
    return widen(mask, 0.025 * width)


NOSTRILS: Final[tuple[int, ...]] = (98, 97, 2, 326, 327, 358, 279, 1, 49, 129)
