"""Warps that give a labelled face another pose, expression or shape; knows no network and no picture.

All in the frame of the landmark crop (128 px, mean shape at its fixed place). A warp is a backward field:
what is seen at q of the new picture comes from q + field(q) of the old one, so labels follow exactly:
p_new + field(p_new) = p_old.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.optimize import linear_sum_assignment

from fusion.align import Matrix, apply_matrix, similarity_from_points
from fusion.face import FloatArray
from fusion.train.augment import Rng, chance, smooth_field

LOW, STEP, NODES = -32.0, 4.0, 49  # the field's nodes: -32, -28 … 160 px in x and y
UPPER_LIDS = ((246, 161, 160, 159, 158, 157, 173), (466, 388, 387, 386, 385, 384, 398))
LOWER_LIDS = ((7, 163, 144, 145, 153, 154, 155), (249, 390, 373, 374, 380, 381, 382))
UPPER_INNER_LIP = (191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_INNER_LIP = (95, 88, 178, 87, 14, 317, 402, 318, 324)
LOWER_OUTER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375)
CHIN = (152, 148, 377, 176, 400, 149, 378, 175, 199, 200, 18, 83, 313)


def mean_shape(points: FloatArray, crop_px: int, height_px: float) -> FloatArray:
    """Procrustes mean [478, 2] of shapes [N, 478, >=2], upright, `height_px` high, centred in the crop."""
    mean = points[0, :, :2].astype(np.float64)
    for _ in range(4):
        fitted = [apply_matrix(similarity_from_points(p[:, :2], mean), p[:, :2]) for p in points]
        mean = np.mean(fitted, axis=0)
        tilt = mean[473] - mean[468]
        turn = np.array([[tilt[0], tilt[1]], [-tilt[1], tilt[0]]]) / np.hypot(*tilt)
        mean = mean @ turn.T
        low, high = mean[:468].min(0), mean[:468].max(0)
        mean = (mean - (low + high) / 2) * (height_px / (high[1] - low[1])) + (crop_px - 1) / 2
    return mean.astype(np.float32)


def mirror_index(mean: FloatArray) -> np.ndarray:
    """For every point the one that it becomes when the face is mirrored, int [478], its own inverse."""
    mirrored = mean * [-1, 1] + [2 * float(mean[:468, 0].mean()), 0]
    index = np.empty(len(mean), int)
    for part in (slice(0, 468), slice(468, 478)):
        cost = np.linalg.norm(mirrored[part, None] - mean[None, part], axis=2)
        index[part] = linear_sum_assignment(cost)[1] + part.start
    if not (index[index] == np.arange(len(index))).all():
        raise ValueError("the mean shape is not symmetric enough to derive its mirror image")
    return index


@dataclass(frozen=True, eq=False)
class Warper:
    """What warps share: mean shape [478, 2], nodes_from_points [49 * 49, 468], aligned shapes [N, 478, 2]."""

    mean: FloatArray
    nodes_from_points: FloatArray
    shapes: FloatArray

    def draw_field(self, rng: Rng, xyz: FloatArray, strength: float = 1.0) -> FloatArray:
        """Random backward field float32 [49, 49, 2] for a face with aligned points [478, 3]."""
        moved = np.zeros((478, 2), np.float32)
        if chance(rng, 0.5):
            moved += turn_head(xyz, float(rng.normal(0, 16)), float(rng.normal(0, 8)))
        if chance(rng, 0.5):
            other = self.shapes[rng.integers(len(self.shapes))]
            moved += rng.uniform(0, 1) * (other - xyz[:, :2])
        if chance(rng, 0.2):
            moved += blink(xyz[:, :2], rng.uniform(-0.3, 0.9, 2))
        if chance(rng, 0.35):
            moved += move_mouth(xyz[:, :2], float(rng.uniform(-1, 1)))
        nodes = -(self.nodes_from_points @ moved[:468])  # [49 * 49, 2]
        field = nodes.reshape(NODES, NODES, 2)
        if chance(rng, 0.7):
            cells = int(rng.integers(4, 10))
            noise = np.stack([smooth_field(rng, NODES, NODES, cells) for _ in range(2)], axis=2)
            field = field + noise * float(rng.uniform(0, 10 / cells))
        return np.asarray(field * strength, np.float32)


def make_warper(mean: FloatArray, aligned: FloatArray, smoothing: float = 2.0) -> Warper:
    """Thin-plate splines on the mean shape, held still at the frame, as one matrix."""
    axis = LOW + STEP * np.arange(NODES)
    nodes = np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)
    edge = np.linspace(LOW, LOW + STEP * (NODES - 1), 13)
    frame = np.unique(
        np.concatenate(
            [
                np.stack(np.meshgrid(edge, edge[[0, -1]]), 2).reshape(-1, 2),
                np.stack(np.meshgrid(edge[[0, -1]], edge), 2).reshape(-1, 2),
            ]
        ),
        axis=0,
    )
    known = np.concatenate([mean[:468], frame])
    spline = RBFInterpolator(known, np.eye(len(known)), smoothing=smoothing, kernel="thin_plate_spline")
    matrix = spline(nodes)[:, :468].astype(np.float32)
    return Warper(mean, np.ascontiguousarray(matrix), aligned[..., :2].astype(np.float32))


def turn_head(xyz: FloatArray, yaw: float, pitch: float) -> FloatArray:
    """How far points move [478, 2] when the head turns by degrees, seen from afar; iris as deep as eye."""
    solid = xyz.astype(np.float64)
    for iris, corners in ((range(468, 473), (33, 133)), (range(473, 478), (362, 263))):
        solid[list(iris), 2] = solid[list(corners), 2].mean() - 1.0
    centre = solid[:468].mean(0)
    a, b = np.radians(yaw), np.radians(pitch)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turned = (solid - centre) @ (about_x @ about_y).T + centre
    return np.asarray(turned[:, :2] - xyz[:, :2], np.float32)


def blink(points: FloatArray, amounts: np.ndarray) -> FloatArray:
    """Upper lids lowered by a part [2] of the opening (negative: opened wider)."""
    moved = np.zeros_like(points)
    for upper, lower, amount in zip(UPPER_LIDS, LOWER_LIDS, amounts, strict=True):
        moved[list(upper)] = (points[list(lower)] - points[list(upper)]) * amount
    return moved


def move_mouth(points: FloatArray, amount: float) -> FloatArray:
    """Mouth opened (amount in 0..1, up to 14 px at its middle) or closed (-1..0, by a part of the gap)."""
    moved = np.zeros_like(points)
    if amount < 0:
        gap = points[list(UPPER_INNER_LIP)] - points[list(LOWER_INNER_LIP)]
        moved[list(LOWER_INNER_LIP)] = -amount * gap
        return moved
    bow = np.sin(np.linspace(0.15, 0.85, 9) * np.pi)[:, None] * np.array([[0, 14 * amount]])
    moved[list(LOWER_INNER_LIP)] = bow
    moved[list(LOWER_OUTER_LIP)] = bow
    moved[list(CHIN)] = [0, 10 * amount]
    return moved


def sample_field(field: FloatArray, points: FloatArray) -> FloatArray:
    """The field at points [N, 2], float32 [N, 2]."""
    at = ((points - LOW) / STEP).astype(np.float32)
    seen = cv2.remap(field, at[:, None, 0], at[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.float32)[:, 0]


def follow_field(field: FloatArray, points: FloatArray) -> tuple[FloatArray, float]:
    """New places of points [N, 2] and the largest error left in px (large where the field folds)."""
    new = points.astype(np.float32)
    for _ in range(12):
        new = 0.4 * new + 0.6 * (points - sample_field(field, new)).astype(np.float32)
    error = np.abs(new + sample_field(field, new) - points).max()
    return new, float(error)


def field_in_crop(field: FloatArray, crop_from_frame: Matrix, crop_px: int) -> FloatArray:
    """The field seen from a crop's pixels, float32 [crop, crop, 2], still in px of the frame."""
    frame_from_node = np.array([[STEP, 0, LOW], [0, STEP, LOW]])
    linear = crop_from_frame[:, :2] @ frame_from_node[:, :2]
    shift = crop_from_frame[:, :2] @ frame_from_node[:, 2] + crop_from_frame[:, 2]
    matrix = np.concatenate([linear, shift[:, None]], axis=1)
    return np.asarray(
        cv2.warpAffine(
            field, matrix, (crop_px, crop_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    )
