"""Head pose, identity and expression of a face from its flat landmarks; knows no pixels.

A statistical head (fusion/train/shape.py) lifts the landmarks: mean + identity + expression, seen by a scaled
orthographic camera. Camera: x right, y up, z to the viewer; landmarks: pixels, y down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from fusion.face import FloatArray
from fusion.mesh import NUM_MESH, IntArray
from fusion.weights import FACE_SHAPE, load_tensors

Float64Array = npt.NDArray[np.float64]

# Standard deviation of a landmark about the model, in inter-ocular distances: weight of the priors in the fit.
LANDMARK_NOISE: Final = 0.012
FIT_ROUNDS: Final = 6


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """Mean head and two bases of standard-normal coefficients; unit: mean distance between the eyes' centres.

    mean [468, 3], identity [Ki, 468, 3], expression [Ke, 468, 3] float64; triangles int32 [898, 3]; mirror
    int32 [468], the same place on the other half
    """

    mean: Float64Array
    identity: Float64Array
    expression: Float64Array
    triangles: IntArray
    mirror: IntArray

    @cached_property
    def basis(self) -> Float64Array:
        """Identity then expression, [Ki + Ke, 468, 3]."""
        return np.concatenate([self.identity, self.expression])

    @cached_property
    def gram(self) -> Float64Array:
        """Inner products of the basis per pair of axes, [3, 3, K, K]: a fit needs no product over points."""
        return np.asarray(np.einsum("kpi,lpj->ijkl", self.basis, self.basis, optimize=True))


@dataclass(frozen=True, eq=False)
class HeadFit:
    """A head seen: pixels = scale * (rotation @ shape)[:2] + shift, y flipped.

    rotation [3, 3], camera from head; scale in pixels per model unit; shift [2]; identity [Ki]; expression [Ke]
    """

    rotation: Float64Array
    scale: float
    shift: Float64Array
    identity: Float64Array
    expression: Float64Array


@cache
def load_shape_model() -> ShapeModel:
    """The shipped head, verified and read once a process."""
    tensors = {name: tensor.numpy() for name, tensor in load_tensors(FACE_SHAPE).items()}
    mean, identity, expression = (tensors[k].astype(np.float64) for k in ("mean", "identity", "expression"))
    triangles, mirror = (tensors[k].astype(np.int32) for k in ("triangles", "mirror"))
    return ShapeModel(mean, identity, expression, triangles, mirror)


def fit_head(landmarks_px: FloatArray, model: ShapeModel) -> HeadFit:
    """Pose and coefficients of landmarks [>=468, 2]: Gauss-Newton on all of them, ridge on the coefficients."""
    seen = np.asarray(landmarks_px, np.float64)[:NUM_MESH, :2] * [1, -1]
    num_identity, num_all = len(model.identity), len(model.basis)
    coefficients, shape = np.zeros(num_all), model.mean
    rotation, scale, shift = _solve_camera(shape, seen)
    for _ in range(FIT_ROUNDS):
        turned = shape @ rotation.T
        rest = (seen - shift) / scale - turned[:, :2]  # [468, 2]
        step = _newton_step(model, rotation, turned, rest, coefficients)
        coefficients = coefficients + step[:num_all]
        rotation = _small_turn(step[num_all : num_all + 3]) @ rotation
        shape = model.mean + np.tensordot(coefficients, model.basis, 1)
        scale, shift = _place(shape @ rotation[:2].T, seen)
    return HeadFit(rotation, scale, shift, coefficients[:num_identity], coefficients[num_identity:])


def _newton_step(
    model: ShapeModel,
    rotation: Float64Array,
    turned: Float64Array,
    rest: Float64Array,
    coefficients: Float64Array,
) -> Float64Array:
    """Change of coefficients [K], of rotation (vector of Rodrigues), log scale and shift, in one least squares."""
    two, num_all = rotation[:2], len(coefficients)
    camera = _camera_columns(turned)  # [468, 2, 6]
    flat = model.basis.reshape(num_all, -1)  # [K, 468 * 3]
    corner = flat @ np.einsum("prc,ri->pic", camera, two).reshape(-1, 6)
    block = np.tensordot(two.T @ two, model.gram, 2)
    normal = np.zeros((num_all + 6, num_all + 6))
    normal[:num_all, :num_all] = block + LANDMARK_NOISE**2 * np.eye(num_all)
    normal[:num_all, num_all:], normal[num_all:, :num_all] = corner, corner.T
    normal[num_all:, num_all:] = np.einsum("prc,prd->cd", camera, camera)
    want = np.empty(num_all + 6)
    want[:num_all] = flat @ (rest @ two).reshape(-1)
    want[:num_all] -= LANDMARK_NOISE**2 * coefficients
    want[num_all:] = np.einsum("prc,pr->c", camera, rest)
    return np.asarray(np.linalg.solve(normal, want))


def _camera_columns(turned: Float64Array) -> Float64Array:
    """Derivative of flat points by turn (3), log scale and shift (2): [468, 2, 6]."""
    x, y, z = turned.T
    none, one = np.zeros_like(x), np.ones_like(x)
    across = np.stack([none, z, -y, x, one, none], 1)
    upwards = np.stack([-z, none, x, y, none, one], 1)
    return np.stack([across, upwards], 1)


def _small_turn(vector: Float64Array) -> Float64Array:
    """Rotation matrix of a rotation vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / max(angle, 1e-12)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew)


def _place(flat: Float64Array, seen: Float64Array) -> tuple[float, Float64Array]:
    """Scale and shift that lay flat points [N, 2] on the seen ones."""
    centre, seen_centre = flat.mean(0), seen.mean(0)
    away = flat - centre
    scale = float((away * (seen - seen_centre)).sum() / (away * away).sum())
    return scale, seen_centre - scale * centre


def _solve_camera(shape: Float64Array, seen: Float64Array) -> tuple[Float64Array, float, Float64Array]:
    """Scaled orthographic camera: affine least squares, then the nearest rotation (SVD)."""
    centre, seen_centre = shape.mean(0), seen.mean(0)
    away = shape - centre
    affine = np.linalg.solve(away.T @ away, away.T @ (seen - seen_centre))  # [3, 2]
    rows, strength, columns = np.linalg.svd(affine.T, full_matrices=False)
    two = rows @ columns
    rotation = np.stack([two[0], two[1], np.cross(two[0], two[1])])
    scale = float(strength.mean())
    return rotation, scale, seen_centre - scale * two @ centre


def blend_identity(
    landmarks_px: FloatArray, target: HeadFit, source: HeadFit, model: ShapeModel, amount: float
) -> FloatArray:
    """Target's mesh points [468, 2] with `amount` (0-1) of the way to the source's identity.

    Pose, expression and whatever the model does not explain stay the target's, as only the difference of the
    identity coefficients moves the points.
    """
    step = np.tensordot(amount * (source.identity - target.identity), model.identity, 1)  # [468, 3]
    moved = target.scale * step @ target.rotation[:2].T * [1, -1]
    return (np.asarray(landmarks_px, np.float64)[:NUM_MESH, :2] + moved).astype(np.float32)


def project_points(fit: HeadFit, model: ShapeModel, indices: Sequence[int]) -> Float64Array:
    """Where the fitted head has these mesh points, [len(indices), 2] px: the landmarks without their noise."""
    chosen = list(indices)
    coefficients = np.concatenate([fit.identity, fit.expression])
    shape = model.mean[chosen] + np.tensordot(coefficients, model.basis[:, chosen], 1)
    return np.asarray((fit.scale * shape @ fit.rotation[:2].T + fit.shift) * [1, -1])


def mesh_depth(fit: HeadFit, model: ShapeModel) -> FloatArray:
    """Nearness [468] of the mesh points to the viewer, in model units."""
    shape = model.mean + np.tensordot(fit.identity, model.identity, 1)
    return np.asarray(shape @ fit.rotation[2], np.float32)


def mesh_normals(fit: HeadFit, model: ShapeModel) -> Float64Array:
    """Unit normals [468, 3] of the skin in camera axes (x right, y up, z to the viewer)."""
    shape = model.mean + np.tensordot(fit.identity, model.identity, 1)
    seen = (shape @ fit.rotation.T) * [
        1,
        -1,
        -1,
    ]  # y down, z away: the triangles' order makes normals face away
    a, b, c = (seen[model.triangles[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)  # [T, 3], length twice the area
    sums = np.zeros_like(seen)
    for i in range(3):
        np.add.at(sums, model.triangles[:, i], normals)
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return np.asarray(sums * [-1, 1, 1])


def mesh_facing(fit: HeadFit, model: ShapeModel) -> FloatArray:
    """Cosine [468] between the skin's normal and the direction to the viewer; below 0: turned away."""
    return np.asarray(mesh_normals(fit, model)[:, 2], np.float32)


def head_angles_degrees(fit: HeadFit) -> tuple[float, float, float]:
    """(yaw, pitch, roll) of a fit; 0 = facing the viewer; yaw > 0: turned to the picture's right, pitch > 0: up."""
    turn = fit.rotation
    yaw = np.degrees(np.arctan2(turn[0, 2], turn[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(turn[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(-turn[1, 0], turn[1, 1]))
    return float(yaw), float(pitch), float(roll)


def pose_difference_degrees(one: HeadFit, other: HeadFit) -> float:
    """Angle of the rotation that takes one head's pose to the other's."""
    cosine = (np.trace(one.rotation @ other.rotation.T) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
