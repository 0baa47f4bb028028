"""The fit finds the pose and keeps identity apart from expression, on heads drawn from the model itself."""

import numpy as np
import pytest

from fusion import pose
from fusion.mesh import NUM_MESH


def turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation, camera from head: yaw after pitch after roll, degrees, as `head_angles_degrees` names them."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), np.sin(c), 0], [-np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x @ about_z)


def head(
    identity: np.ndarray, expression: np.ndarray, rotation: np.ndarray, scale: float = 100
) -> np.ndarray:
    """Landmarks float32 [468, 2] of a head of the model."""
    model = pose.load_shape_model()
    shape = (
        model.mean + np.tensordot(identity, model.identity, 1) + np.tensordot(expression, model.expression, 1)
    )
    seen = scale * shape @ rotation[:2].T + [256, -256]
    return np.asarray(seen * [1, -1], np.float32)


def draws(seed: int) -> tuple[np.ndarray, np.ndarray]:
    model, rng = pose.load_shape_model(), np.random.default_rng(seed)
    return 0.8 * rng.standard_normal(len(model.identity)), 0.5 * rng.standard_normal(len(model.expression))


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (20, 5, 0), (-15, -10, 30), (35, 0, -45)])
def test_the_pose_is_found(yaw: float, pitch: float, roll: float) -> None:
    model = pose.load_shape_model()
    truth = turn(yaw, pitch, roll)
    fit = pose.fit_head(head(*draws(1), truth), model)
    angle = np.degrees(np.arccos(np.clip((np.trace(fit.rotation @ truth.T) - 1) / 2, -1, 1)))
    assert angle < 3
    assert fit.scale == pytest.approx(100, rel=0.05)
    assert np.abs(np.subtract(pose.head_angles_degrees(fit), (yaw, pitch, roll))).max() < 4


def test_rotations_are_proper() -> None:
    fit = pose.fit_head(head(*draws(2), turn(10, 10, 10)), pose.load_shape_model())
    assert np.allclose(fit.rotation @ fit.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(fit.rotation) == pytest.approx(1)


def test_blending_nothing_changes_nothing_and_one_self_neither() -> None:
    model = pose.load_shape_model()
    one, other = head(*draws(3), turn(5, 0, 0)), head(*draws(4), turn(-5, 0, 0))
    fit, fit_other = pose.fit_head(one, model), pose.fit_head(other, model)
    assert np.abs(pose.blend_identity(one, fit, fit_other, model, 0.0) - one).max() < 1e-3
    assert np.abs(pose.blend_identity(one, fit, fit, model, 1.0) - one).max() < 1e-3


def test_the_blend_moves_to_the_other_identity_and_keeps_pose_and_expression() -> None:
    model = pose.load_shape_model()
    (mine, smile), (yours, frown) = draws(5), draws(6)
    here, there = turn(15, 5, 3), turn(-15, -5, -8)
    one, other = head(mine, smile, here), head(yours, frown, there)
    want = head(yours, smile, here)
    got = pose.blend_identity(one, pose.fit_head(one, model), pose.fit_head(other, model), model, 1.0)
    assert np.abs(got - want).mean() < 0.35 * np.abs(one - want).mean()
    assert pose.pose_difference_degrees(pose.fit_head(got, model), pose.fit_head(one, model)) < 1.5


def test_depth_puts_the_nose_before_the_ears() -> None:
    fit = pose.fit_head(head(*draws(7), turn(0, 0, 0)), pose.load_shape_model())
    depth = pose.mesh_depth(fit, pose.load_shape_model())
    assert depth.shape == (NUM_MESH,)
    assert depth[1] > depth[234]
    assert depth[1] > depth[454]
