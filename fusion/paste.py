"""The classical baseline `paste`: one affine map and a seamless rim; knows no network and no file."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fusion import mesh
from fusion.face import FloatArray, UInt8Array
from fusion.warp import WarpOptions, WarpResult


def paste_face(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    options: WarpOptions | None = None,
    *,
    identity: FloatArray | None = None,
) -> WarpResult:
    """Baseline: the source's face by one affine map into the target's oval, seam by Poisson (Pérez 2003)."""
    del options, identity
    oval = list(mesh.OVAL)
    seen, wanted = source_landmarks[:, :2].astype(np.float32), target_landmarks[:, :2].astype(np.float32)
    ones = np.ones((mesh.NUM_MESH, 1), np.float32)
    affine = np.linalg.lstsq(np.hstack([seen[: mesh.NUM_MESH], ones]), wanted[: mesh.NUM_MESH], rcond=None)[0]
    height, width = target_rgb.shape[:2]
    moved = cv2.warpAffine(source_rgb, affine.T, (width, height), borderMode=cv2.BORDER_REFLECT101)
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [np.rint(wanted[oval]).astype(np.int32)], 1)
    inside[[0, -1]] = 0
    inside[:, [0, -1]] = 0
    altered = inside > 0
    difference = target_rgb.astype(np.float32) - moved.astype(np.float32)
    seamless = np.clip(np.rint(moved + membrane(difference, altered)), 0, 255).astype(np.uint8)
    rgb = np.where(altered[..., None], seamless, target_rgb)
    return WarpResult(rgb, inside.astype(np.float32), (0, 0, width, height), altered)


def membrane(values: FloatArray, inside: npt.NDArray[np.bool_], rounds: int = 60) -> FloatArray:
    """Values [H, W, C] with the inside replaced by the harmonic function that meets them at its rim.

    The Poisson equation of Pérez, Gangnet and Blake 2003 (eq. 4) for a difference of pictures; Jacobi steps
    from coarse to fine. (cv2.seamlessClone of OpenCV 5.0.0 returns the target nearly unchanged.)
    """
    height, width = inside.shape
    start = values
    if min(height, width) > 16:
        half = (width // 2, height // 2)
        small_inside = cv2.resize(inside.astype(np.float32), half, interpolation=cv2.INTER_AREA) > 0
        small_values = cv2.resize(values, half, interpolation=cv2.INTER_AREA)
        small = membrane(np.asarray(small_values, np.float32), small_inside, rounds)
        start = np.asarray(cv2.resize(small, (width, height)), np.float32)
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
    solved = np.where(inside[..., None], start, values)
    for _ in range(rounds):
        solved = np.where(inside[..., None], cv2.filter2D(solved, -1, cross), values)
    return np.asarray(solved, np.float32)
