"""Plane geometry of faces: points to crop_from_image and back; knows no network and no file.

Matrices are float64 [2, 3], named right to left: `crop_from_image @ point_image`; pixel centres are integers.
"""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from fusion.face import FloatArray, UInt8Array

Matrix = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]
Border = Literal["constant", "replicate"]

# Five points of the 112 px crop that ArcFace (arXiv 1801.07698) made customary: eyes, nose tip, mouth.
ARCFACE_112: Final[FloatArray] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)
# Where the five points sit among the 478: iris centres, nose tip, mouth corners (picture's left one first).
FIVE_OF_478: Final[tuple[int, ...]] = (468, 473, 1, 61, 291)

_BORDERS: Final[dict[str, int]] = {"constant": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE}


def similarity_from_points(src_points: Points, dst_points: Points, weights: Points | None = None) -> Matrix:
    """Least-squares rotation, uniform scale and shift: dst_from_src, float64 [2, 3]; never mirrors.

    Both point sets [N, 2], N >= 2, weights [N] >= 0. Umeyama 1991, eq. 40-43, closed form for the plane.
    Coinciding source points give scale 0. ValueError on other shapes.
    """
    src, dst = np.asarray(src_points, np.float64), np.asarray(dst_points, np.float64)
    if src.shape != dst.shape or src.ndim != 2 or src.shape[1] != 2 or len(src) < 2:
        raise ValueError(f"two equal point sets [N>=2, 2] needed, got {src.shape} and {dst.shape}")
    w = np.full(len(src), 1 / len(src)) if weights is None else np.asarray(weights, np.float64)
    w = (w / w.sum())[:, None]
    src_mean, dst_mean = (w * src).sum(0), (w * dst).sum(0)
    a, b = src - src_mean, dst - dst_mean
    spread = max(float((w * a * a).sum()), 1e-12)
    cos = float((w * a * b).sum()) / spread
    sin = float((w[:, 0] * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])).sum()) / spread
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate([linear, (dst_mean - linear @ src_mean)[:, None]], axis=1)


def apply_matrix(matrix: Matrix, points: Points) -> FloatArray:
    """Points [..., 2] through an affine matrix [2, 3], float32."""
    mapped: Points = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return mapped.astype(np.float32)


def invert_matrix(matrix: Matrix) -> Matrix:
    """image_from_crop of a crop_from_image. ValueError where the matrix collapses the plane."""
    linear = matrix[:, :2]
    if abs(float(np.linalg.det(linear))) < 1e-12:
        raise ValueError("the matrix collapses the plane and has no inverse")
    inverse = np.linalg.inv(linear)
    return np.concatenate([inverse, (-inverse @ matrix[:, 2])[:, None]], axis=1)


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """outer @ inner as affine maps: `compose(c_from_b, b_from_a)` is c_from_a."""
    linear = outer[:, :2] @ inner[:, :2]
    return np.concatenate([linear, (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], axis=1)


def scale_of(matrix: Matrix) -> float:
    """Crop pixels per image pixel (square root of the area's change)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def roll_degrees(points_px: Points) -> float:
    """Angle of the line from the picture's left eye to the other, in degrees, clockwise positive."""
    across = np.asarray(points_px, np.float64)[1] - np.asarray(points_px, np.float64)[0]
    return float(np.degrees(np.arctan2(across[1], across[0])))


def arcface_crop_from_image(points_px: Points, size: int = 112) -> Matrix:
    """crop_from_image that puts five points [5, 2] on the ArcFace template, scaled to `size` pixels."""
    return similarity_from_points(points_px, scale_template(ARCFACE_112, 112, size))


def scale_template(template: Points, from_size: int, to_size: int) -> FloatArray:
    """A template's points for another crop size (pixel centres on integers)."""
    ratio = to_size / from_size
    return ((np.asarray(template, np.float64) + 0.5) * ratio - 0.5).astype(np.float32)


def five_points(landmarks_px: Points) -> FloatArray:
    """The five detector points [5, 2] of the 478 landmarks."""
    return np.ascontiguousarray(np.asarray(landmarks_px, np.float32)[list(FIVE_OF_478)])


def landmarks_box(landmarks_px: Points) -> FloatArray:
    """Tight box_xyxy [4] of the mesh (iris left out)."""
    mesh = np.asarray(landmarks_px, np.float32)[:468]
    return np.concatenate([mesh.min(0), mesh.max(0)])


def warp_crop(
    rgb: UInt8Array, crop_from_image: Matrix, size: int | tuple[int, int], border: Border = "constant"
) -> UInt8Array:
    """Resample a picture uint8 [H, W, 3] into a crop uint8 [h, w, 3]; `size` is the side or (w, h).

    Bilinear; where the crop is less than half as fine as the picture, the picture's part is first averaged
    by a whole factor, so that nothing aliases. Outside the picture: black or the nearest pixel.
    """
    width, height = (size, size) if isinstance(size, int) else size
    matrix = crop_from_image
    factor = int(0.75 / max(scale_of(matrix), 1e-6))
    if factor > 1:
        rgb, matrix = _shrink_region(rgb, matrix, (width, height), factor)
    warped = cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=_BORDERS[border])
    return np.asarray(warped, np.uint8)


def _shrink_region(
    rgb: UInt8Array, crop_from_image: Matrix, size: tuple[int, int], factor: int
) -> tuple[UInt8Array, Matrix]:
    """Cut out what the crop needs and average it by `factor` (or less, where the part is thin)."""
    corners = np.array([[-1, -1], [size[0], -1], [size[0], size[1]], [-1, size[1]]], np.float64)
    seen = apply_matrix(invert_matrix(crop_from_image), corners)
    limit = np.array([rgb.shape[1], rgb.shape[0]])
    low = np.clip(np.floor(seen.min(0)).astype(int) - 2 * factor, 0, limit - 1)
    high = np.clip(np.ceil(seen.max(0)).astype(int) + 2 * factor, low + 1, limit)
    part = rgb[low[1] : high[1], low[0] : high[0]]
    target = np.maximum((high - low) // factor, 1)
    small = cv2.resize(part, (int(target[0]), int(target[1])), interpolation=cv2.INTER_AREA)
    step = (high - low) / target  # image pixels per small pixel, nearly `factor`
    image_from_small = np.array(
        [[step[0], 0, low[0] + step[0] / 2 - 0.5], [0, step[1], low[1] + step[1] / 2 - 0.5]]
    )
    return np.asarray(small, np.uint8), compose(crop_from_image, image_from_small)
