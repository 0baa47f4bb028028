"""Recipe of the statistical head: mean, identity, expression, mirror and triangles of the mesh; knows no pixels.

Input: 478-point labels with depth, and the directions of ICT Face Model Light. Everything is deterministic.
Frames: x right, y up, z to the viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import RBFInterpolator
from scipy.optimize import linear_sum_assignment
from scipy.spatial import Delaunay, cKDTree

from fusion import mesh
from fusion.weights import write_weights

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NUM_IDENTITY: Final = 40
NUM_EXPRESSION: Final = 20
EXPRESSION_SPREAD: Final = 0.25  # standard deviation assumed for each of ICT's 0-1 expression weights
LABEL_NOISE: Final = 0.010  # inter-ocular distances
FACE_VERTICES: Final = 9409  # ICT vertices 0-9408 are the face
# Mesh points that stand for the 68 customary landmarks (jaw, brows, nose, eyes, outer and inner lips).
MESH_OF_68: Final[tuple[int, ...]] = (
    *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)
_MIRROR_SEEDS: Final = (
    *((33, 263), (133, 362), (61, 291), (234, 454), (127, 356), (93, 323), (58, 288), (172, 397)),
)
_CONTOURS: Final = (mesh.OVAL, mesh.INNER_LIPS, mesh.OUTER_LIPS, mesh.LEFT_EYE, mesh.RIGHT_EYE)


@dataclass(frozen=True, eq=False)
class IctHead:
    """ICT's head bent onto the mesh: directions [K, 468, 3] in model units, expression names in order."""

    expression: Array
    identity: Array
    names: tuple[str, ...]


def train_head_shape(
    labels: Array, ict: dict[str, npt.NDArray[np.generic]], path: Path, note: dict[str, str] | None = None
) -> str:
    """Labels [N, >=468, 3] in pixels (y down) and the arrays of ict_facekit_light.npz → file; its sha256."""
    heads = np.asarray(labels, np.float64)[:, : mesh.NUM_MESH] * [1, -1, -1]
    mean, mirror = mean_head(heads)
    ict_head = bend_ict(mean, ict)
    aligned = align_all(heads, mean)
    identity, expression = split_directions(aligned - mean, ict_head, mean)
    triangles = triangulate(open_mouth(mean, ict_head))
    tensors = {
        "mean": torch.tensor(mean),
        "identity": torch.tensor(identity),
        "expression": torch.tensor(expression),
        "triangles": torch.tensor(triangles, dtype=torch.int16),
        "mirror": torch.tensor(mirror, dtype=torch.int16),
    }
    return write_weights(path, tensors, note)


def align_all(heads: Array, model: Array) -> Array:
    """Each head [N, P, 3] by its best similarity on `model` [P, 3] (Umeyama 1991)."""
    centre, model_centre = heads.mean(1, keepdims=True), model.mean(0)
    away, model_away = heads - centre, model - model_centre
    left, strength, right = np.linalg.svd(np.einsum("npi,pj->nij", away, model_away))
    sign = np.sign(np.linalg.det(left @ right))
    left[:, :, 2] *= sign[:, None]
    strength[:, 2] *= sign
    scale = strength.sum(1) / (away**2).sum((1, 2))
    return np.asarray(scale[:, None, None] * (away @ (left @ right)) + model_centre)


def mean_head(heads: Array) -> tuple[Array, IntArray]:
    """Generalised Procrustes mean, mirror-symmetric, facing as the portraits do on average; and the mirror."""
    mean = heads[0] - heads[0].mean(0)
    for _ in range(8):
        mean = mean / np.sqrt((mean**2).sum(1).mean())
        mean = align_all(heads, mean).mean(0)
        mean -= mean.mean(0)
    for _ in range(3):
        across = sum((mean[b] - mean[a] for a, b in _MIRROR_SEEDS), np.zeros(3))
        mean = mean @ _turn_onto(across / np.linalg.norm(across), np.array([1.0, 0, 0])).T
        mean[:, 0] -= np.mean([mean[a, 0] + mean[b, 0] for a, b in _MIRROR_SEEDS]) / 2
    flipped = mean * [-1, 1, 1]
    distance = np.linalg.norm(mean[:, None] - flipped[None], axis=-1)
    mirror = np.asarray(linear_sum_assignment(distance**2)[1], np.int64)
    mean = (mean + flipped[mirror]) / 2
    mean = mean @ _mean_pitch(heads, mean).T
    eyes = np.linalg.norm(mean[[33, 133]].mean(0) - mean[[362, 263]].mean(0))
    return (mean - mean.mean(0)) / eyes, mirror


def _turn_onto(from_axis: Array, to_axis: Array) -> Array:
    """Smallest rotation that takes one unit vector to another."""
    x, y, z = np.cross(from_axis, to_axis)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / (1 + from_axis @ to_axis))


def _mean_pitch(heads: Array, mean: Array) -> Array:
    """Rotation about x that makes the median nod of the heads zero."""
    away, model = heads - heads.mean(1, keepdims=True), mean - mean.mean(0)
    left, _, right = np.linalg.svd(np.einsum("npi,pj->nij", away, model))
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    nod = float(np.median(np.arcsin(np.clip((left @ right)[:, 1, 2], -1, 1))))
    c, s = np.cos(nod), np.sin(nod)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def bend_ict(mean: Array, ict: dict[str, npt.NDArray[np.generic]]) -> IctHead:
    """ICT's head fitted to the mean over 68 points, bent onto it, its directions read at the mesh points.

    Fitting the expression as well opens ICT's mouth as far as the mean's, so that no lip point of the mesh
    falls on the wrong lip.
    """
    all_names = [str(name) for name in ict["expression_names"]]
    kept = [k for k, name in enumerate(all_names) if not name.startswith(("Pupil", "eyeLook"))]
    neutral, identity = np.asarray(ict["neutral"], np.float64), np.asarray(ict["identity"], np.float64)
    expression = np.asarray(ict["expression"], np.float64)[kept]
    corners = np.asarray(ict["landmark68_vertex"], np.int64)
    seen = mean[list(MESH_OF_68)]
    weight = np.where(np.arange(68) < 17, 0.2, 1.0)
    basis = np.concatenate([EXPRESSION_SPREAD * expression, identity])
    flat = basis[:, corners].reshape(len(basis), -1).T * np.sqrt(np.repeat(weight, 3))[:, None]
    coefficients = np.zeros(len(basis))
    for _ in range(20):
        shape = neutral[corners] + np.tensordot(coefficients, basis[:, corners], 1)
        scale, turn, shift = _similarity(shape, seen, weight)
        rest = ((seen - shift) / scale @ turn.T - neutral[corners]).reshape(-1) * np.sqrt(
            np.repeat(weight, 3)
        )
        coefficients = np.linalg.solve(flat.T @ flat + 0.05 * np.eye(len(basis)), flat.T @ rest)
    placed = scale * (neutral + np.tensordot(coefficients, basis, 1)) @ turn + shift
    bend = RBFInterpolator(placed[corners], seen, kernel="thin_plate_spline", smoothing=1e-3)
    nearest = cKDTree(bend(placed[:FACE_VERTICES])).query(mean)[1]
    names = tuple(all_names[k] for k in kept)
    return IctHead(scale * expression[:, nearest] @ turn, scale * identity[:, nearest] @ turn, names)


def _similarity(points: Array, seen: Array, weight: Array) -> tuple[float, Array, Array]:
    """(scale, rotation, shift): seen ~ scale * points @ rotation + shift, weighted."""
    w = (weight / weight.sum())[:, None]
    centre, seen_centre = (w * points).sum(0), (w * seen).sum(0)
    away = points - centre
    left, strength, right = np.linalg.svd((w * away).T @ (seen - seen_centre))
    sign = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    turn = (left * sign) @ right
    scale = float((strength * sign).sum() / (w * away * away).sum())
    return scale, turn, seen_centre - scale * centre @ turn


def split_directions(rests: Array, ict: IctHead, mean: Array) -> tuple[Array, Array]:
    """Identity [40, 468, 3] and expression [20, 468, 3], each direction one standard deviation long.

    `rests` [N, 468, 3]: aligned heads less the mean. Expression lives in the span of ICT's directions; identity
    is the principal part of what they leave, and serves as prior for the next round.
    """
    data = rests.reshape(len(rests), -1)
    spanned = without_similarity(ict.expression, mean).reshape(len(ict.expression), -1)
    _, strength, axes = np.linalg.svd(EXPRESSION_SPREAD * spanned, full_matrices=False)
    strength, axes = strength[:NUM_EXPRESSION], axes[:NUM_EXPRESSION]
    identity = without_similarity(ict.identity, mean).reshape(len(ict.identity), -1)
    for _ in range(6):
        basis = np.concatenate([axes * strength[:, None], identity])
        normal = basis @ basis.T / LABEL_NOISE**2 + np.eye(len(basis))
        coefficients = np.linalg.solve(normal, basis @ data.T / LABEL_NOISE**2)
        smile = coefficients[:NUM_EXPRESSION] * strength[:, None]
        still = data - smile.T @ axes
        _, spread, own = np.linalg.svd(still - still.mean(0), full_matrices=False)
        identity = own[: NUM_IDENTITY + 20] * (spread[: NUM_IDENTITY + 20, None] / np.sqrt(len(data)))
    strength = np.sqrt((strength**2 + (smile**2).mean(1)) / 2)
    shape = (-1, mesh.NUM_MESH, 3)
    return identity[:NUM_IDENTITY].reshape(shape), (axes * strength[:, None]).reshape(shape)


def without_similarity(directions: Array, mean: Array) -> Array:
    """Directions [K, P, 3] less whatever moves, turns or scales the whole head."""
    shifts = [np.broadcast_to(axis, mean.shape) for axis in np.eye(3)]
    turns = [np.cross(axis, mean) for axis in np.eye(3)]
    rigid, _ = np.linalg.qr(np.stack([*shifts, *turns, mean]).reshape(7, -1).T)
    flat = directions.reshape(len(directions), -1)
    return np.asarray((flat - (flat @ rigid) @ rigid.T).reshape(directions.shape))


def open_mouth(mean: Array, ict: IctHead) -> Array:
    """The mean with lips apart, so that upper and lower lip are not neighbours."""
    move = {name: ict.expression[k] for k, name in enumerate(ict.names)}
    return np.asarray(mean + 0.35 * move["jawOpen"] + 0.8 * (move["mouthUpperUp_L"] + move["mouthUpperUp_R"]))


def triangulate(head: Array) -> IntArray:
    """Delaunay in the head unrolled about a vertical axis behind it, contours forced in, [898, 3]."""
    axis_z = head[:, 2].min() - 0.3
    flat = np.stack([1.2 * np.arctan2(head[:, 0], head[:, 2] - axis_z), -head[:, 1]], 1)
    outline = flat[list(mesh.OVAL)]
    found = [tuple(map(int, t)) for t in Delaunay(flat).simplices]
    triangles = [t for t in found if _inside(flat[list(t)].mean(0), outline)]
    for contour in _CONTOURS:
        for a, b in zip(contour, (*contour[1:], contour[0]), strict=True):
            _force_edge(triangles, flat, a, b)
    turned = [t if _orientation(flat, *t) > 0 else (t[0], t[2], t[1]) for t in triangles]
    return np.array(turned, np.int64)


def _inside(point: Array, outline: Array) -> bool:
    """Even-odd rule."""
    a, b = outline, np.roll(outline, -1, axis=0)
    crosses = (a[:, 1] > point[1]) != (b[:, 1] > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at_x = a[:, 0] + (point[1] - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
    return bool((crosses & (at_x > point[0])).sum() % 2)


def _orientation(p: Array, a: int, b: int, c: int) -> float:
    return float((p[b, 0] - p[a, 0]) * (p[c, 1] - p[a, 1]) - (p[b, 1] - p[a, 1]) * (p[c, 0] - p[a, 0]))


def _cross(p: Array, a: int, b: int, c: int, d: int) -> bool:
    """True where segments ab and cd cross in their insides."""
    apart = _orientation(p, a, b, c) * _orientation(p, a, b, d) < 0
    return apart and _orientation(p, c, d, a) * _orientation(p, c, d, b) < 0


def _force_edge(triangles: list[tuple[int, ...]], p: Array, a: int, b: int) -> None:
    """Flip diagonals that cross ab until ab is an edge; ValueError where no flip is left."""
    for _ in range(50):
        owners: dict[tuple[int, int], list[int]] = {}
        for k, t in enumerate(triangles):
            for edge in _edges(t):
                owners.setdefault(edge, []).append(k)
        if (min(a, b), max(a, b)) in owners:
            return
        if not _flip_one(triangles, owners, p, (a, b)):
            break
    raise ValueError(f"edge {a}-{b} cannot be forced into the triangles")


def _edges(t: Sequence[int]) -> list[tuple[int, int]]:
    return [(min(t[i], t[i - 2]), max(t[i], t[i - 2])) for i in range(3)]


def _flip_one(
    triangles: list[tuple[int, ...]],
    owners: dict[tuple[int, int], list[int]],
    p: Array,
    edge: tuple[int, int],
) -> bool:
    """Replace one diagonal that crosses `edge`; False when none can be."""
    a, b = edge
    for (c, d), pair in owners.items():
        if len(pair) != 2 or len({a, b, c, d}) < 4 or not _cross(p, a, b, c, d):
            continue
        one, other = (next(v for v in triangles[k] if v not in (c, d)) for k in pair)
        if _cross(p, one, other, c, d):
            triangles[pair[0]], triangles[pair[1]] = (one, other, c), (one, other, d)
            return True
    return False
