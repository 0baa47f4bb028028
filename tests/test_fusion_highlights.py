"""The finder of highlights on drawn eyes: what lids and limbus touch is found, and what is no highlight is not."""

import dataclasses

import numpy as np
import pytest

from fusion.cornea import Cornea, find_corneas
from fusion.highlights import find_highlights
from fusion.pose import fit_head, load_shape_model
from fusion.rendered_eyes import DrawnEyes, EyeScene, draw_eyes, random_scene

# The lamp's image lies at the upper lid, right of the middle, and where the iris meets the white of the eye.
AT_A_LID = EyeScene(lamp=(3.0, -33.0), opening=0.9, iris_rgb=(0.35, 0.30, 0.25), seed=2)
AT_THE_LIMBUS = EyeScene(lamp=(45.0, -8.0), gaze=(-12.0, 0.0), opening=1.2, seed=3)


def corneas_of(drawn: DrawnEyes) -> list[Cornea]:
    head = fit_head(drawn.landmarks_px, load_shape_model())
    return [one for one in find_corneas(drawn.rgb, drawn.landmarks_px, head) if one is not None]


@pytest.mark.parametrize("scene", [EyeScene(seed=1), AT_A_LID, AT_THE_LIMBUS, EyeScene(width_px=160, seed=5)])
def test_the_lamps_image_is_found_within_a_pixel_wherever_it_lies(scene: EyeScene) -> None:
    drawn = draw_eyes(scene)
    judged = 0
    for cornea, place, seen in zip(corneas_of(drawn), drawn.highlights_px, drawn.seen, strict=True):
        if not seen or place is None:
            continue
        found = find_highlights(drawn.rgb, cornea)
        assert found
        assert np.linalg.norm(found[0].place_px - place) < max(1.0, scene.width_px / 64)
        assert found[0].spot.any()
        judged += 1
    assert judged


def test_the_scenes_put_it_at_the_lid_and_at_the_limbus() -> None:
    lid, limbus = draw_eyes(AT_A_LID), draw_eyes(AT_THE_LIMBUS)
    gaps = []
    for cornea, place in zip(corneas_of(lid), lid.highlights_px, strict=True):
        assert place is not None
        gaps.append(np.abs(np.linalg.norm(cornea.lids_px - place, axis=1)).min() / cornea.radius_px)
    assert min(gaps) < 0.35
    away = [
        np.linalg.norm((place - one.centre_px) / one.radius_px)
        for one, place in zip(corneas_of(limbus), limbus.highlights_px, strict=True)
        if place is not None
    ]
    assert max(away) > 0.6


def test_eyes_without_a_lamp_have_none() -> None:
    rng = np.random.default_rng(11)
    false = 0
    for _ in range(20):
        drawn = draw_eyes(dataclasses.replace(random_scene(rng), lamp=None))
        noisy = (drawn.landmarks_px + rng.normal(0, 0.64, drawn.landmarks_px.shape)).astype(np.float32)
        for cornea in find_corneas(drawn.rgb, noisy, fit_head(noisy, load_shape_model())):
            assert cornea is not None
            false += bool(find_highlights(drawn.rgb, cornea))
    assert false <= 1


def test_a_wide_window_is_one_highlight() -> None:
    drawn = draw_eyes(EyeScene(lamp_degrees=22.0, opening=1.4, seed=6))
    for cornea, place in zip(corneas_of(drawn), drawn.highlights_px, strict=True):
        assert place is not None
        found = find_highlights(drawn.rgb, cornea)
        assert len(found) == 1
        assert np.linalg.norm(found[0].place_px - place) < 1.5
