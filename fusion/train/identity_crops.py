"""Crops for the identity recipe: portraits aligned, portraits blended into new people, views made worse.

Knows no network: labels are added by the recipe. Everything lives in one frame of 136 x 120 px: the 112 x 96
that the network sees and a margin of 12 px for shifts and turns.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

from fusion.align import Matrix, apply_matrix, similarity_from_points, warp_crop
from fusion.train.teacher import TEACHER_POINTS_112X96
from provenance.errors import InputError

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

MARGIN_PX = 12
FRAME_HW = (112 + 2 * MARGIN_PX, 96 + 2 * MARGIN_PX)
FRAME_POINTS = TEACHER_POINTS_112X96 + MARGIN_PX
POINT_COLUMNS = tuple(
    f"{p}_{a}" for p in ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth") for a in "xy"
)
# Points around the frame, so that a blend also carries hair and background along.
RING = np.array(
    [(x, y) for y in (-24, 30, 90, 160) for x in (-24, 60, 144) if not (x == 60 and y in (30, 90))],
    np.float32,
)


@dataclass(frozen=True, eq=False)
class Portraits:
    """Aligned portraits of one split: crops uint8 [N, 136, 120, 3] RGB, points float32 [N, 5, 2], landmarks
    float32 [N, 468, 2], both in pixels of the frame, group labels [N]."""

    crops: UInt8Array
    points: FloatArray
    landmarks: FloatArray
    groups: tuple[str, ...]


def align_picture(rgb: UInt8Array, points: FloatArray) -> tuple[UInt8Array, Matrix]:
    """Crop uint8 [136, 120, 3] of a picture with five points [5, 2], and its matrix frame_from_image."""
    matrix = similarity_from_points(points, FRAME_POINTS)
    return warp_crop(rgb, matrix, FRAME_HW[::-1], border="replicate"), matrix


def read_portraits(data: Path, split: str) -> Portraits:
    """Portraits of a folder laid out as portraits.csv, portraits/, portraits_landmarks478.npz.

    Raises InputError `train.data` when a file is missing or the split is empty.
    """
    table, marks = data / "portraits.csv", data / "portraits_landmarks478.npz"
    if not (table.is_file() and marks.is_file()):
        raise InputError(
            "train.data", f"{data} holds no portraits.csv with landmarks", "Give --data such a folder."
        )
    with table.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    if not rows:
        raise InputError(
            "train.data", f"{table} has no row of split {split!r}", "Mark rows train, val and test."
        )
    with np.load(marks, allow_pickle=False) as archive:
        index = {str(name): i for i, name in enumerate(archive["name"])}
        all_landmarks = archive["points"][:, :468, :2].astype(np.float32)
    crops, points, landmarks = [], [], []
    for row in rows:
        rgb = np.asarray(cv2.imread(str(data / "portraits" / row["file"]), cv2.IMREAD_COLOR_RGB), np.uint8)
        five = np.array([float(row[c]) for c in POINT_COLUMNS], np.float32).reshape(5, 2)
        crop, matrix = align_picture(rgb, five)
        crops.append(crop)
        points.append(apply_matrix(matrix, five))
        landmarks.append(apply_matrix(matrix, all_landmarks[index[row["file"]]]))
    groups = tuple(f"{row['group_label']} {row['gender_label']}" for row in rows)
    return Portraits(np.stack(crops), np.stack(points), np.stack(landmarks), groups)


class Blender:
    """Makes crops of new people out of two or three portraits."""

    def __init__(self, portraits: Portraits) -> None:
        self.portraits = portraits
        mean = np.concatenate([portraits.landmarks.mean(0), RING])
        self.triangles = Delaunay(mean).simplices.astype(np.int64)  # [T, 3]
        labels = np.array(portraits.groups)
        self.kin = {group: np.flatnonzero(labels == group) for group in set(portraits.groups)}

    def warp(self, index: int, shape: FloatArray) -> UInt8Array:
        """Portrait `index` moved onto `shape`, float32 [468, 2]; piecewise affine."""
        source = np.concatenate([self.portraits.landmarks[index], RING])
        target = np.concatenate([shape, RING])
        ids = np.zeros(FRAME_HW, np.int32)
        corners = np.round(target[self.triangles] * 16).astype(np.int32)  # [T, 3, 2], 4 bits after the point
        for number, triangle in enumerate(corners):
            cv2.fillConvexPoly(ids, triangle, number, lineType=cv2.LINE_8, shift=4)
        homogeneous = np.concatenate([target[self.triangles], np.ones((len(self.triangles), 3, 1))], axis=2)
        flat = np.abs(np.linalg.det(homogeneous)) < 1e-3
        homogeneous[flat] = np.eye(3)
        affine = np.linalg.solve(homogeneous, source[self.triangles]).astype(np.float32)  # [T, 3, 2]
        y, x = np.mgrid[: FRAME_HW[0], : FRAME_HW[1]].astype(np.float32)
        m = affine[ids]  # [H, W, 3, 2]
        where = m[..., 0, :] * x[..., None] + m[..., 1, :] * y[..., None] + m[..., 2, :]
        crop = self.portraits.crops[index]
        return np.asarray(
            cv2.remap(
                crop, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            ),
            np.uint8,
        )

    def pick_pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two different portraits; half of the time of one group, since look-alikes must be told apart."""
        count = len(self.portraits.crops)
        first = int(rng.integers(count))
        kin = self.kin[self.portraits.groups[first]]
        akin = rng.random() < 0.5 and len(kin) > 1
        second = int(rng.choice(kin)) if akin else int(rng.integers(count))
        return (first, second) if second != first else (first, (first + 1) % count)

    def draw(self, rng: np.random.Generator) -> UInt8Array:
        """A new person, uint8 [136, 120, 3] RGB: blend (60 %), face in another head (25 %) or caricature."""
        kind = rng.random()
        first, second = self.pick_pair(rng)
        points, marks = self.portraits.points, self.portraits.landmarks
        share = rng.uniform(0.2, 0.8) if kind < 0.6 else rng.uniform(0.0, 1.0)
        if kind >= 0.85:
            share = rng.uniform(-0.6, 0.6)
        five = (1 - share) * points[first] + share * points[second]
        matrix = similarity_from_points(five, FRAME_POINTS)
        shape = apply_matrix(matrix, (1 - share) * marks[first] + share * marks[second])
        base = self.warp(first, shape)
        if kind >= 0.85:
            return base
        other = self.warp(second, shape)
        if kind >= 0.6:
            return put_face(base, other, shape, weight=float(rng.uniform(0.6, 1.0)))
        weight = float(np.clip(share + rng.normal(0, 0.2), 0.15, 0.85))
        return np.asarray(cv2.addWeighted(base, 1 - weight, other, weight, 0.0), np.uint8)


def put_face(base: UInt8Array, other: UInt8Array, shape: FloatArray, weight: float) -> UInt8Array:
    """`other`'s face in `base`'s head: colour moments matched inside the hull, edge feathered."""
    mask = np.zeros(base.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(shape).astype(np.int32)), 255)
    inside = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
    a, b = base.astype(np.float32), other.astype(np.float32)
    if inside.any():
        gain = np.clip(a[inside].std(0) / (b[inside].std(0) + 1e-3), 0.6, 1.6)
        b = (b - b[inside].mean(0)) * gain + a[inside].mean(0)
    alpha = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 3.0)[..., None] * weight
    return np.clip(a + alpha * (b - a), 0, 255).astype(np.uint8)


def centre_crop(crops: UInt8Array) -> UInt8Array:
    """uint8 [N, 136, 120, 3] → [N, 112, 96, 3], the frame without its margin."""
    return crops[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
