"""The judge of the eye branch on drawn eyes: it sees what is right, what is shifted and what is missing."""

import dataclasses

import numpy as np

from fusion import eye_bench
from fusion.rendered_eyes import EyeScene

BRIGHT = EyeScene(lamp=(15.0, -20.0), iris_rgb=(0.25, 0.16, 0.10), noise=0.005, seed=4)


def test_a_highlight_in_its_place_is_judged_so_in_both_eyes() -> None:
    found = eye_bench.judge_scene(
        BRIGHT, dataclasses.replace(BRIGHT, gaze=(4.0, 1.0)), np.random.default_rng(1)
    )
    assert all(error is not None and error < 1 for error in found.errors_px)
    assert found.apart is not None
    assert found.apart < 0.1


def test_without_a_lamp_nothing_can_be_judged() -> None:
    dark = dataclasses.replace(BRIGHT, lamp=None)
    found = eye_bench.judge_scene(dark, dark, np.random.default_rng(1))
    assert found == eye_bench.Judged((None, None), None)


def test_a_highlight_that_is_not_painted_counts_as_lost() -> None:
    closed = dataclasses.replace(BRIGHT, opening=0.45)  # seen by the truth, too closed for the branch
    found = eye_bench.judge_scene(BRIGHT, closed, np.random.default_rng(1))
    assert all(error is None or error == eye_bench.LOST for error in found.errors_px)


def test_what_became_brighter_is_found() -> None:
    before = np.full((20, 20, 3), 50, np.uint8)
    after = before.copy()
    after[4:7, 10:13] = 200
    after[0, 0] = 255  # outside the cornea
    where = np.zeros((20, 20), np.float32)
    where[2:18, 2:18] = 1
    found = eye_bench.brightened_at(after, before, where)
    assert found is not None
    assert np.allclose(found, [11, 5])
    assert eye_bench.brightened_at(before, after, where) is None


def test_unusual_scenes_go_beyond_the_ordinary_ones() -> None:
    rng = np.random.default_rng(0)
    scenes = [eye_bench.unusual_scene(rng) for _ in range(200)]
    assert max(abs(scene.gaze[0]) for scene in scenes) > 20
    assert min(scene.opening for scene in scenes) < 0.9
    judged = list(eye_bench.judge_scenes("unusual", 8, seed=5))
    assert judged == list(eye_bench.judge_scenes("unusual", 8, seed=5))
    errors = [error for one in judged for error in one.errors_px if error is not None]
    assert len(errors) >= 6
    assert np.mean(np.array(errors) <= 1) >= 0.6
