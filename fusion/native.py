"""Aligned crop of a generator, and its answer drawn into a picture of any size; knows no network and no file.

What a generator paints is coarse: fields of 128 or 256 px across the face. They are enlarged and applied to the
picture's own pixels, so that bands finer than the generator's stay those of the pictures it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import cv2
import numpy as np

from fusion import mask, mesh
from fusion.align import (
    ARCFACE_112,
    Matrix,
    apply_matrix,
    compose,
    five_points,
    invert_matrix,
    scale_template,
    similarity_from_points,
)
from fusion.blend import blur
from fusion.face import FloatArray, UInt8Array
from fusion.warp import WarpResult

TEMPLATE_PX: Final = 128
# ArcFace's five points enlarged by 1.1 about the middle of the face's oval, which then leaves a tenth free all around.
TEMPLATE_128: Final[FloatArray] = (1.1 * (ARCFACE_112.astype(np.float64) - [56.1, 69.1]) + 64.0).astype(
    np.float32
)


def generator_crop_from_image(landmarks_px: FloatArray, size: int = TEMPLATE_PX) -> Matrix:
    """crop_from_image of the square that a generator of `size` px sees; landmarks [478, 2]."""
    return similarity_from_points(
        five_points(landmarks_px[:, :2]), scale_template(TEMPLATE_128, TEMPLATE_PX, size)
    )


def crop_share(result: WarpResult, crop_from_image: Matrix, size: int) -> FloatArray:
    """Trust map of a composite seen in the crop: share of the source, float32 [size, size] in [0, 1]."""
    x0, y0, _, _ = result.roi_xyxy
    crop_from_roi = compose(crop_from_image, np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]]))
    scale = float(np.sqrt(abs(np.linalg.det(crop_from_roi[:, :2]))))
    share = blur(result.mask, 0.35 / scale) if scale < 0.7 else result.mask
    return np.asarray(cv2.warpAffine(share, crop_from_roi, (size, size), flags=cv2.INTER_LINEAR), np.float32)


def fields_in_roi(
    fields: FloatArray, crop_from_image: Matrix, roi_xyxy: tuple[int, int, int, int]
) -> FloatArray:
    """Fields [S, S, C] of the crop over a region of the picture, float32 [h, w, C], bicubic; 0 beyond the crop."""
    x0, y0, x1, y1 = roi_xyxy
    image_from_crop = invert_matrix(crop_from_image)
    roi_from_crop = compose(np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]]), image_from_crop)
    drawn = cv2.warpAffine(fields, roi_from_crop, (x1 - x0, y1 - y0), flags=cv2.INTER_CUBIC)
    return np.asarray(drawn, np.float32).reshape(y1 - y0, x1 - x0, fields.shape[2])


def spare(
    fields: FloatArray, landmarks_px: FloatArray, crop_from_image: Matrix, contours: Sequence[tuple[int, ...]]
) -> FloatArray:
    """Fields [S, S, C] without what lies within contours of the mesh, which stays the target's.

    Between the lips a network greys teeth; between the lids it veils eyes. Without contours nothing is left out.
    """
    if not contours:
        return fields
    points = apply_matrix(crop_from_image, landmarks_px[: mesh.NUM_MESH, :2])
    size = (fields.shape[0], fields.shape[1])
    inside = np.max([mask.fill_contour(points, contour, size) for contour in contours], axis=0)
    spared = np.minimum(1.5 * blur(inside, 0.7 * fields.shape[0] / TEMPLATE_PX), 1)
    return np.asarray(fields * (1 - spared)[..., None], np.float32)


def apply_fields(
    target_rgb: UInt8Array, composite: WarpResult, fields: FloatArray, crop_from_image: Matrix
) -> UInt8Array:
    """target + gate * (composite - target) + residual at the picture's own resolution, uint8 [H, W, 3].

    `fields` float32 [S, S, 4]: residual R, G, B (of pictures in [0, 1]), then 1 - gate. Pixels that the composite
    left alone equal the target's to the bit, and nothing is drawn where it left a cover (share 0) on top.
    """
    x0, y0, x1, y1 = composite.roi_xyxy
    kept = target_rgb[y0:y1, x0:x1]
    drawn = fields_in_roi(fields, crop_from_image, composite.roi_xyxy)
    drawn *= (_soft_rim(composite) * np.minimum(4 * composite.mask, 1))[..., None]  # nor on a cover
    under = kept.astype(np.float32) / np.float32(255)
    over = composite.rgb[y0:y1, x0:x1].astype(np.float32) / np.float32(255)
    merged = over + np.clip(drawn[..., 3:], 0, 1) * (under - over) + drawn[..., :3]
    new = np.clip(np.rint(merged * 255), 0, 255).astype(np.uint8)
    rgb = target_rgb.copy()
    rgb[y0:y1, x0:x1] = np.where(composite.altered[..., None], new, kept)
    return rgb


@cache
def face_window(size: int) -> FloatArray:
    """1 where a face has its features, falling to 0 at its outline in the generator's crop, float32 [S, S].

    An ellipse from above the brows to the chin. Beyond it recognisers see hair and ground, and a network that is paid
    by them paints there what no face has.
    """
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size
    across, down = ((line - 0.5) / 0.46) ** 2, ((line - 0.56) / 0.44) ** 2
    away = np.sqrt(across[None] + down[:, None])
    slope = np.clip((1 - away) / 0.3, 0, 1)
    window = np.asarray(slope * slope * (3 - 2 * slope), np.float32)
    window.flags.writeable = False
    return window


def _soft_rim(composite: WarpResult) -> FloatArray:
    """1 inside the altered region, falling to 0 at its rim, float32 [h, w]."""
    inside = cv2.copyMakeBorder(composite.altered.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    distance = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1], np.float32)
    width = 0.08 * float(np.sqrt(max(int(composite.altered.sum()), 1)))
    return np.asarray(np.clip(distance / width, 0, 1), np.float32)
