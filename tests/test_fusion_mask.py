"""Skin is told from hair, hands and glasses by colour, features are spared, feathers stay inside."""

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
