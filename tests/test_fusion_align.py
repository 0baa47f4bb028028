"""The geometry of crops: exact on points, faithful on pixels."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.align import (
    ARCFACE_112,
    FIVE_OF_478,
    apply_matrix,
    arcface_crop_from_image,
    compose,
    five_points,
    invert_matrix,
    landmarks_box,
    roll_degrees,
    scale_of,
    scale_template,
    similarity_from_points,
    warp_crop,
)


def make_similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


@pytest.mark.parametrize("angle", [-170.0, -45.0, 0.0, 30.0, 90.0])
def test_similarity_is_recovered_from_points(angle: float) -> None:
    points = np.random.default_rng(1).normal(50, 20, (7, 2))
    truth = make_similarity(angle, 1.7, (12.0, -5.0))
    assert similarity_from_points(points, apply_matrix(truth, points)) == pytest.approx(truth, abs=1e-4)


def test_similarity_never_mirrors() -> None:
    points = np.random.default_rng(2).normal(0, 1, (6, 2))
    assert np.linalg.det(similarity_from_points(points, points * [-1, 1])[:, :2]) >= 0


def test_weights_pull_the_fit() -> None:
    src = np.array([[0, 0], [1, 0], [0, 1.0]])
    dst = np.array([[0, 0], [1, 0], [9, 9.0]])
    fit = similarity_from_points(src, dst, np.array([1, 1, 0.0]))
    assert fit == pytest.approx(np.array([[1, 0, 0], [0, 1, 0.0]]), abs=1e-9)


@pytest.mark.parametrize("shape", [(1, 2), (4, 3), (4,)])
def test_bad_point_sets_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="point sets"):
        similarity_from_points(np.zeros(shape), np.zeros(shape))


def test_inverse_and_composition() -> None:
    a, b = make_similarity(20, 0.5, (3, 4)), make_similarity(-70, 3.0, (-8, 1))
    points = np.random.default_rng(3).normal(0, 10, (5, 2))
    assert compose(invert_matrix(a), a) == pytest.approx(np.eye(2, 3), abs=1e-9)
    assert apply_matrix(compose(b, a), points) == pytest.approx(
        apply_matrix(b, apply_matrix(a, points)), abs=1e-3
    )
    assert scale_of(compose(b, a)) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="inverse"):
        invert_matrix(np.zeros((2, 3)))


def test_arcface_crop_puts_points_on_the_template() -> None:
    image_from_crop = make_similarity(33, 2.5, (100, 80))
    points = apply_matrix(image_from_crop, ARCFACE_112)
    assert apply_matrix(arcface_crop_from_image(points), points) == pytest.approx(ARCFACE_112, abs=1e-3)
    doubled = apply_matrix(arcface_crop_from_image(points, 224), points)
    assert doubled == pytest.approx(scale_template(ARCFACE_112, 112, 224), abs=1e-3)
    assert roll_degrees(points) == pytest.approx(33, abs=0.5)


def test_five_points_and_box_of_landmarks() -> None:
    landmarks = np.random.default_rng(4).uniform(10, 90, (478, 2)).astype(np.float32)
    landmarks[470] = (500, 500)  # iris rows do not widen the box
    assert (five_points(landmarks) == landmarks[list(FIVE_OF_478)]).all()
    assert landmarks_box(landmarks)[2:].max() <= 90


def test_warp_crop_moves_pixels_exactly() -> None:
    picture = np.random.default_rng(5).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    shifted = warp_crop(picture, np.array([[1, 0, -7], [0, 1, -3.0]]), (20, 10))
    assert (shifted == picture[3:13, 7:27]).all()
    outside = warp_crop(picture, np.array([[1, 0, 5], [0, 1, 5.0]]), 20)
    assert (outside[:5] == 0).all()
    assert (
        warp_crop(picture, np.array([[1, 0, 5], [0, 1, 5.0]]), 20, "replicate")[0, 5:] == picture[0, :15]
    ).all()


@pytest.mark.parametrize("angle", [0.0, 40.0])
def test_strong_reduction_does_not_alias_or_drift(angle: float) -> None:
    yy, xx = np.mgrid[:800, :900]
    grey = (
        np.where((xx + yy) % 2, 255, 0) // 2 + (np.hypot(xx - 400, yy - 300) < 120) * 100
    )  # checks and a disc
    picture = np.repeat(grey[..., None].clip(0, 255).astype(np.uint8), 3, axis=2)
    matrix = make_similarity(angle, 0.1, (20, 20))
    crop = warp_crop(picture, matrix, 120).astype(float)[..., 0]
    centre = apply_matrix(matrix, np.array([[400.0, 300.0]]))[0]
    seen_y, seen_x = np.nonzero(crop > 130)
    assert [seen_x.mean(), seen_y.mean()] == pytest.approx(centre.tolist(), abs=0.15)
    inner = crop[int(centre[1]) - 4 : int(centre[1]) + 4, int(centre[0]) - 4 : int(centre[0]) + 4]
    assert inner.std() < 3


def test_crop_wholly_outside_and_tiny_pictures() -> None:
    picture = np.full((1, 1, 3), 9, np.uint8)
    assert warp_crop(picture, make_similarity(0, 0.01, (5, 5)), 8).shape == (8, 8, 3)
    far = warp_crop(np.full((600, 600, 3), 9, np.uint8), make_similarity(0, 0.1, (5000, 0)), 8)
    assert (far == 0).all()
