"""The fixed face mesh: contours of the 478 landmarks and a rasteriser of triangles; knows no picture and no network.

The 898 triangles over the 468 mesh points come with the shape model (fusion/pose.py). Around the face's oval lies
one ring of further points, so that a moved outline can fade into an unmoved picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fusion.face import FloatArray

IntArray = npt.NDArray[np.int32]

NUM_MESH: Final = 468
NUM_LANDMARKS: Final = 478
# Contours run clockwise in the picture, from the named start. "left" and "right" are sides of the picture.
OVAL: Final[tuple[int, ...]] = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
INNER_LIPS: Final[tuple[int, ...]] = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
OUTER_LIPS: Final[tuple[int, ...]] = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
)
LEFT_EYE: Final[tuple[int, ...]] = (
    *(33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
)
RIGHT_EYE: Final[tuple[int, ...]] = (
    *(362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382),
)
LEFT_BROW: Final[tuple[int, ...]] = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW: Final[tuple[int, ...]] = (336, 296, 334, 293, 300, 276, 283, 282, 295, 285)
LEFT_IRIS: Final[tuple[int, ...]] = (468, 469, 470, 471, 472)
RIGHT_IRIS: Final[tuple[int, ...]] = (473, 474, 475, 476, 477)


@dataclass(frozen=True, eq=False)
class Raster:
    """Which triangle covers each pixel, and where in it the pixel's centre lies.

    triangle   int32 [h, w], -1 where none does
    weights    float32 [h, w, 3], barycentric, 0 where no triangle is
    """

    triangle: IntArray
    weights: FloatArray

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """[h, w], True inside the mesh."""
        return self.triangle >= 0


def face_width(points_px: npt.NDArray[np.floating]) -> float:
    """Size of the face that does not shrink as the head turns: square root of the oval's area, in pixels."""
    oval = np.asarray(points_px, np.float64)[list(OVAL), :2]
    nxt = np.roll(oval, -1, axis=0)
    return float(np.sqrt(abs((oval[:, 0] * nxt[:, 1] - oval[:, 1] * nxt[:, 0]).sum()) / 2))


def ring_around(points_px: npt.NDArray[np.floating], factor: float) -> FloatArray:
    """The oval's 36 points [36, 2] moved away from their centre by `factor`."""
    oval = np.asarray(points_px, np.float32)[list(OVAL), :2]
    centre = oval.mean(0)
    return np.asarray(centre + factor * (oval - centre), np.float32)


def triangles_with_ring(triangles: IntArray) -> IntArray:
    """The mesh's triangles followed by 72 between the oval and a ring whose points are numbered from 468."""
    inner = np.array(OVAL, np.int32)
    outer = NUM_MESH + np.arange(len(OVAL), dtype=np.int32)
    inner_next, outer_next = np.roll(inner, -1), np.roll(outer, -1)
    halves = (np.stack([inner, outer, outer_next], 1), np.stack([inner, outer_next, inner_next], 1))
    return np.concatenate([triangles, *halves]).astype(np.int32)


def signed_areas(points: FloatArray, triangles: IntArray) -> FloatArray:
    """Twice the signed area [T]; positive for triangles turned to the viewer (y down)."""
    a, b, c = (points[triangles[:, i], :2] for i in range(3))
    cross = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    return np.asarray(cross, np.float32)


def rasterise(
    points: FloatArray, triangles: IntArray, size: tuple[int, int], depth: FloatArray | None = None
) -> Raster:
    """Pixel centres (integers) of a grid `size` = (height, width) to triangle and barycentric weights.

    points [V, 2] in grid pixels; triangles [T, 3], those turned away from the viewer are left out. `depth` [V]
    (greater = nearer) decides where triangles overlap. All boxes of all triangles are tested at once.
    """
    height, width = size
    keep = np.flatnonzero(signed_areas(points, triangles) > 1e-6)
    if depth is not None:
        keep = keep[np.argsort(depth[triangles[keep]].mean(1), kind="stable")]
    corners = points[triangles[keep]].astype(np.float32)  # [T, 3, 2]
    low = np.clip(np.ceil(corners.min(1) - 1e-3), 0, [width, height]).astype(np.int32)
    high = np.clip(np.floor(corners.max(1) + 1e-3) + 1, 0, [width, height]).astype(np.int32)
    span = np.maximum(high - low, 0)
    counts = span[:, 0] * span[:, 1]
    owner = np.repeat(np.arange(len(keep)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    x = low[owner, 0] + within % np.maximum(span[owner, 0], 1)
    y = low[owner, 1] + within // np.maximum(span[owner, 0], 1)
    bary = _barycentric(corners, owner, x, y)
    inside = (bary[:, 0] >= -1e-4) & (bary[:, 1] >= -1e-4) & (bary[:, 2] >= -1e-4)
    out = Raster(np.full(size, -1, np.int32), np.zeros((*size, 3), np.float32))
    out.triangle[y[inside], x[inside]] = keep[owner[inside]]
    out.weights[y[inside], x[inside]] = bary[inside]
    return out


def _barycentric(
    corners: FloatArray, owner: npt.NDArray[np.intp], x: npt.NDArray[np.integer], y: npt.NDArray[np.integer]
) -> FloatArray:
    """Weights [N, 3] of points (x, y) in the triangles `owner` [N] of `corners` [T, 3, 2]."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    px, py = x - a[owner, 0], y - a[owner, 1]
    edge_ab, edge_ac = (b - a) / area[:, None], (c - a) / area[:, None]
    second = px * edge_ac[owner, 1] - py * edge_ac[owner, 0]
    third = py * edge_ab[owner, 0] - px * edge_ab[owner, 1]
    return np.stack([1 - second - third, second, third], 1).astype(np.float32)


def interpolate(raster: Raster, triangles: IntArray, values: FloatArray) -> FloatArray:
    """Per-point values [V, C] over the raster, float32 [h, w, C], 0 where no triangle is."""
    corners = values[triangles[np.maximum(raster.triangle, 0)]]  # [h, w, 3, C]
    return np.asarray(np.einsum("hwkc,hwk->hwc", corners, raster.weights), np.float32)
