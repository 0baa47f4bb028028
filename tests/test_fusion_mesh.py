"""The mesh covers what it should, each pixel once, and interpolation is exact for linear functions."""

import numpy as np
import pytest

from fusion import mesh
from fusion.pose import load_shape_model


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """The mean head, frontal, 200 px wide."""
    mean = load_shape_model().mean[:, :2] * [1, -1]
    return (mean * 90 + [160, 160]).astype(np.float32)


def test_every_mesh_point_is_used_and_every_triangle_is_proper() -> None:
    triangles = load_shape_model().triangles
    assert triangles.shape == (898, 3)
    assert set(triangles.ravel()) == set(range(mesh.NUM_MESH))
    assert all(len(set(t)) == 3 for t in triangles.tolist())


def test_contours_are_edges_of_the_mesh() -> None:
    triangles = load_shape_model().triangles.tolist()
    edges = {tuple(sorted((t[i], t[(i + 1) % 3]))) for t in triangles for i in range(3)}
    for contour in (mesh.OVAL, mesh.INNER_LIPS, mesh.OUTER_LIPS, mesh.LEFT_EYE, mesh.RIGHT_EYE):
        closed = zip(contour, (*contour[1:], contour[0]), strict=True)
        assert all(tuple(sorted(edge)) in edges for edge in closed)


def test_linear_functions_are_interpolated_exactly(points: np.ndarray) -> None:
    triangles = load_shape_model().triangles
    raster = mesh.rasterise(points, triangles, (320, 320))
    y, x = np.mgrid[:320, :320].astype(np.float32)
    got = mesh.interpolate(raster, triangles, points)
    assert raster.covered.mean() > 0.2
    assert np.abs(got - np.stack([x, y], -1))[raster.covered].max() < 1e-2
    assert (got[~raster.covered] == 0).all()
    assert np.abs(raster.weights[raster.covered].sum(-1) - 1).max() < 1e-5


def test_the_raster_has_no_holes_inside_the_oval(points: np.ndarray) -> None:
    from fusion.mask import fill_contour

    raster = mesh.rasterise(points, load_shape_model().triangles, (320, 320))
    inside = fill_contour(points, mesh.OVAL, (320, 320)) > 0.99
    assert (inside & ~raster.covered).sum() < 0.002 * inside.sum()


def test_the_nearer_triangle_wins() -> None:
    corners = np.array([[2, 2], [20, 2], [2, 20], [2, 2], [20, 2], [2, 20]], np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    for near in (0, 1):
        depth = np.array([near == 0] * 3 + [near == 1] * 3, np.float32)
        raster = mesh.rasterise(corners, triangles, (24, 24), depth)
        assert set(raster.triangle[raster.covered].tolist()) == {near}


def test_triangles_turned_away_and_outside_are_left_out() -> None:
    corners = np.array([[2, 2], [2, 20], [20, 2], [-50, -50], [-40, -50], [-50, -40]], np.float32)
    raster = mesh.rasterise(corners, np.array([[0, 1, 2], [3, 4, 5]], np.int32), (24, 24))
    assert not raster.covered.any()


def test_the_ring_surrounds_the_oval(points: np.ndarray) -> None:
    ring = mesh.ring_around(points, 1.3)
    triangles = mesh.triangles_with_ring(load_shape_model().triangles)
    both = np.concatenate([points, ring])
    raster = mesh.rasterise(both, triangles, (320, 320))
    alone = mesh.rasterise(points, load_shape_model().triangles, (320, 320))
    assert (raster.covered | ~alone.covered).all()
    assert raster.covered.sum() > 1.4 * alone.covered.sum()
    assert (mesh.signed_areas(both, triangles[-72:]) > 0).all()
