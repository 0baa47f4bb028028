"""The fixed triangulation under every portrait and the dense maps between its shapes; knows no texture and no network.

A shape is float32 [478, 2] in pixels of a square canvas (MediaPipe topology, iris last). The template adds a ring of
points on the canvas border, so that hair, neck and ground move with the face. Iris centres and corners are knots too:
textures stay registered on the pupil. Iris top and bottom are not, because the lids hide them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

CANVAS_PX = 256
KNOTS = (*range(469), 469, 471, 473, 474, 476)
BORDER_STEPS = 6


def border_points(size: int = CANVAS_PX, steps: int = BORDER_STEPS) -> FloatArray:
    """Points float32 [4 * steps, 2] on the border of a square canvas, a little outside of it."""
    t = np.linspace(-1.0, size, steps + 1)[:-1]
    low, high = np.full(steps, -1.0), np.full(steps, float(size))
    sides = [(t, low), (high, t), (size - 1.0 - t, high), (low, size - 1.0 - t)]
    return np.concatenate([np.stack(side, axis=1) for side in sides]).astype(np.float32)


def knots_of(shape: FloatArray) -> FloatArray:
    """Mesh knots float32 [473 + border, 2] of one shape [478, 2]."""
    return np.concatenate([shape[list(KNOTS)], border_points()]).astype(np.float32)


def triangulate(shape: FloatArray) -> IntArray:
    """Delaunay triangles int32 [T, 3] over the knots of a mean shape; made once and stored."""
    return np.asarray(Delaunay(knots_of(shape)).simplices, np.int32)


def _affines(from_triangles: FloatArray, to_triangles: FloatArray) -> FloatArray:
    """Affine maps float32 [T, 2, 3] taking each triangle [T, 3, 2] onto its partner; slivers go to their centre."""
    ones = np.ones((*from_triangles.shape[:2], 1))
    system = np.concatenate([from_triangles.astype(np.float64), ones], axis=2)  # [T, 3, 3]
    flat = np.abs(np.linalg.det(system)) < 1e-3
    system[flat] = np.eye(3)
    solved = np.linalg.solve(system, to_triangles.astype(np.float64)).transpose(0, 2, 1)
    solved[flat] = 0.0
    solved[flat, :, 2] = to_triangles[flat].mean(axis=1)
    return solved.astype(np.float32)


def rasterise(knots: FloatArray, triangles: IntArray, size: int = CANVAS_PX) -> IntArray:
    """Index int32 [size, size] of the triangle that covers each pixel; folded triangles lie under the others."""
    corners = knots[triangles]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    index = np.full((size, size), -1, np.int32)
    fixed = np.round(corners * 16).astype(np.int32)
    for t in np.argsort(area * np.sign(np.median(area)), kind="stable"):
        cv2.fillConvexPoly(index, fixed[t], int(t), shift=4)
    return np.where(index < 0, 0, index)


@dataclass(frozen=True, eq=False)
class Template:
    """One triangulation and the mean shape [478, 2] of the canvas it was made on."""

    mean_shape: FloatArray
    triangles: IntArray

    def map_between(self, at_shape: FloatArray, to_shape: FloatArray) -> FloatArray:
        """For each pixel of the canvas under `at_shape`, its place float32 [H, W, 2] (x, y) under `to_shape`."""
        at, to = knots_of(at_shape), knots_of(to_shape)
        affine = _affines(at[self.triangles], to[self.triangles])
        per_pixel = affine[rasterise(at, self.triangles)]  # [H, W, 2, 3]
        y, x = np.mgrid[0:CANVAS_PX, 0:CANVAS_PX].astype(np.float32)
        out = per_pixel[..., 0] * x[..., None] + per_pixel[..., 1] * y[..., None] + per_pixel[..., 2]
        return np.asarray(np.clip(out, 0.0, CANVAS_PX - 1.0), np.float32)


def sample(picture: npt.NDArray[np.float32], place: FloatArray) -> npt.NDArray[np.float32]:
    """Values float32 [H, W, C] of a picture at the places [H, W, 2] of a dense map."""
    warped = cv2.remap(
        picture, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.float32)
