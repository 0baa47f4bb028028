"""Skin is told from hair, hands and glasses by colour, features are spared, feathers stay inside."""

import cv2
import numpy as np
import pytest
from test_fusion_warp import PALE, landmarks, picture

from fusion import mask, mesh

SIZE = (280, 280)


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(picture in [0, 1], points, hull, width)."""
    points = landmarks(4, (140, 140), 70)
    rgb = picture(points, SIZE, PALE, 4).astype(np.float32) / 255
    return rgb, points, mask.fill_contour(points, mesh.OVAL, SIZE), mesh.face_width(points)


def test_a_feather_lies_inside_and_grows_inwards(
    face: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    hull = face[2]
    soft = mask.feather_inside(hull, 15)
    assert (soft[hull < 0.5] == 0).all()
    assert soft.max() == 1
    assert ((soft > 0) & (soft < 1)).sum() > 1000


def test_bare_skin_is_likely_and_features_are_not_asked(
    face: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    rgb, points, hull, width = face
    skin = mask.skin_likelihood(rgb, points, hull, width)
    plain = (hull > 0.9) & (mask.feature_mask(points, SIZE, width) < 0.1)
    assert skin[plain].mean() > 0.95
    assert skin[hull == 0].max() == 0
    well_inside = mask.feather_inside(hull, 0.1 * width) > 0.9
    assert mask.occluder_mask(skin, points, hull, width)[well_inside].max() < 0.3


def test_hair_across_the_forehead_lies_on_top(face: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    rgb, points, hull, width = face
    hairy = rgb.copy()
    bottom = int(points[9, 1]) - 8
    hairy[: bottom - 4, : int(points[10, 0])] = (0.15, 0.1, 0.08)
    found = mask.occluder_mask(mask.skin_likelihood(hairy, points, hull, width), points, hull, width)
    covered = np.zeros(SIZE, bool)
    covered[: bottom - 8, : int(points[10, 0]) - 4] = True
    covered &= hull > 0.9
    assert covered.sum() > 200
    assert found[covered].mean() > 0.9
    assert found[int(points[205, 1]), int(points[205, 0])] < 0.1


def test_skin_under_a_slanting_light_stays_skin(
    face: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    rgb, points, hull, width = face
    slant = np.linspace(0.6, 1.1, SIZE[1], dtype=np.float32)[None, :, None]
    skin = mask.skin_likelihood(np.clip(rgb * slant, 0, 1), points, hull, width)
    plain = (hull > 0.9) & (mask.feature_mask(points, SIZE, width) < 0.1)
    assert skin[plain].mean() > 0.85


def test_a_fringe_is_taken_whole_with_what_lies_below_its_ends() -> None:
    points = landmarks(7, (160, 160), 90)[: mesh.NUM_MESH]
    width, size = mesh.face_width(points), (320, 320)
    hull = mask.fill_contour(points, mesh.OVAL, size)
    bare = hull.copy()
    assert mask.fringe_mask(bare, points, hull, width).max() == 0
    top, between = points[10], points[9]
    down = (between - top) / np.linalg.norm(between - top)
    ends = []
    for aside in (-0.06, -0.02, 0.02, 0.06):
        start = top + np.array([aside, 0]) * width - 0.05 * width * down
        end = top + np.array([aside, 0]) * width + 0.12 * width * down
        cv2.line(bare, np.rint(start).astype(int).tolist(), np.rint(end).astype(int).tolist(), 0, 2)
        ends.append(end)
    fringe = mask.fringe_mask(bare, points, hull, width)
    middle = np.rint(np.mean(ends, 0) - 0.05 * width * down).astype(int)
    below = np.rint(np.mean(ends, 0) + 0.015 * width * down).astype(int)
    assert fringe[middle[1], middle[0]] > 0.9
    assert fringe[below[1], below[0]] > 0.4
    chin = np.rint(points[152]).astype(int)
    assert fringe[chin[1] - 60 :, :].max() == 0
    assert fringe.sum() < 0.25 * hull.sum()


def test_a_colour_of_no_face_on_the_chin_is_foreign_and_a_beard_is_not() -> None:
    points = landmarks(8, (160, 160), 90)[: mesh.NUM_MESH]
    width, size = mesh.face_width(points), (320, 320)
    hull = mask.fill_contour(points, mesh.OVAL, size)
    tone = np.array([0.85, 0.66, 0.56], np.float32)
    face = np.broadcast_to(tone, (*size, 3)).copy()
    chin = np.hypot(*(np.mgrid[:320, :320] - points[152][::-1, None, None])) < 0.2 * width
    likely = np.where(chin, 0, hull).astype(np.float32)
    for colour, is_foreign in (((0.2, 0.3, 0.5), True), ((0.16, 0.12, 0.10), False)):
        covered = np.where(chin[..., None], np.array(colour, np.float32), face).astype(np.float32)
        found = mask.foreign_mask(covered, likely, points, hull, width)
        inside = chin & (mask.feather_inside(hull, 1) > 0.9)
        assert (found[inside].mean() > 0.8) == is_foreign
        assert found[inside].mean() > 0.8 or found.max() == 0
