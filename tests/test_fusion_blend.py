"""Relighting moves skin to the wanted colour and keeps detail; the band blend is exact where the mask is 0 or 1."""

import numpy as np
import pytest
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion import blend


def flat(colour: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.02, (96, 96, 3))
    return np.clip(colour + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 9.0, 30.0])
def test_a_blur_keeps_the_mean_and_a_constant(sigma: float) -> None:
    assert blend.blur(np.full((64, 80, 3), 0.4, np.float32), sigma) == pytest.approx(0.4, abs=1e-4)
    noisy = flat(0.5, 0)
    assert blend.blur(noisy, sigma).mean() == pytest.approx(noisy.mean(), abs=0.01)


def test_a_masked_blur_ignores_what_is_outside() -> None:
    image = np.full((64, 64, 3), 0.2, np.float32)
    image[:, 32:] = 0.9
    weight = np.zeros((64, 64), np.float32)
    weight[:, :32] = 1
    assert np.abs(blend.masked_blur(image, weight, 6.0) - 0.2).max() < 0.01


def test_relit_skin_has_the_targets_colour_and_its_own_detail() -> None:
    moved, target, skin = flat(0.35, 1), flat(0.7, 2), np.ones((96, 96), np.float32)
    moved[40:44, 40:60] = 0.05  # a brow
    skin[36:48, 36:64] = 0
    lit = blend.relight(moved, blend.match_light(moved, target, skin, skin, 12.0, 2.5))
    assert lit[:30].mean() == pytest.approx(0.7, abs=0.02)
    assert lit[41:43, 45:55].mean() < 0.25
    here, there = (p[:30] - p[:30].mean() for p in (moved, lit))
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.9


def test_a_region_takes_its_own_colour() -> None:
    moved, target, skin = flat(0.4, 1), flat(0.6, 2), np.ones((96, 96), np.float32)
    moved[60:80, 30:60], target[60:80, 30:60] = (0.5, 0.1, 0.4), (0.7, 0.3, 0.3)
    lips = np.zeros((96, 96), np.float32)
    lips[60:80, 30:60] = 1
    light = blend.match_light(moved, target, skin - lips, skin - lips, 12.0, 2.5)
    full = blend.relight(moved, blend.match_region(light, moved, target, lips, 1.0, 2.5))
    assert np.abs(full[62:78, 32:58].mean((0, 1)) - [0.7, 0.3, 0.3]).max() < 0.03
    assert blend.match_region(light, moved, target, lips, 0.0, 2.5) is light


def test_bands_are_exact_away_from_the_seam_and_smooth_on_it() -> None:
    over, under = np.full((128, 128, 3), 0.8, np.float32), np.full((128, 128, 3), 0.2, np.float32)
    mask = np.zeros((128, 128), np.float32)
    mask[:, 64:] = 1
    out = blend.blend_bands(over, under, mask, 4)
    assert np.abs(out[:, :24] - 0.2).max() < 1e-3
    assert np.abs(out[:, -24:] - 0.8).max() < 1e-3
    assert np.abs(np.diff(out[64, :, 0])).max() < 0.15


def test_irises_take_the_sources_colour() -> None:
    points, other = landmarks(5, (256, 256), 130), landmarks(6, (256, 256), 130)
    target, source = picture(points, (512, 512), PALE, 5), picture(other, (512, 512), BROWN, 6)
    x, y = np.rint(other[468]).astype(int)
    blue = (np.abs(source.astype(int) - (110, 70, 40)).max(-1) < 12)[..., None]
    source = np.where(blue, (60, 90, 150), source).astype(np.uint8)
    painted = blend.match_iris_colour(target, points, source, other, 1.0)
    x, y = np.rint(points[468] + [0.06 * 130, 0]).astype(int)
    assert int(painted[y, x, 2]) > int(painted[y, x, 0]) + 20
    assert int(target[y, x, 0]) > int(target[y, x, 2])
    away = np.hypot(*(np.indices((512, 512))[::-1] - points[468][:, None, None])) > 60
    away &= np.hypot(*(np.indices((512, 512))[::-1] - points[473][:, None, None])) > 60
    assert (painted == target).all(-1)[away].all()
    tiny = (points - 256) * 0.1 + 256
    assert blend.match_iris_colour(target, tiny, source, tiny, 1.0) is target


def test_brows_keep_their_colour_where_dark_skin_becomes_light() -> None:
    """Per-channel factors of skin would paint a near-neutral brow blue."""
    dark_skin, light_skin, brow = (
        np.array(c, np.float32) for c in ((0.55, 0.3, 0.15), (0.75, 0.58, 0.48), (0.12, 0.09, 0.08))
    )
    moved = np.broadcast_to(dark_skin, (40, 40, 3)).copy()
    moved[18:22, 10:30] = brow
    target = np.broadcast_to(light_skin, (40, 40, 3)).copy()
    skin = np.ones((40, 40), np.float32)
    skin[17:23, 9:31] = 0
    lit = blend.relight(moved, blend.match_light(moved, target, skin, skin, 12.0, 2.5))
    np.testing.assert_allclose(lit[2, 2], light_skin, atol=0.02)
    red, green, blue = lit[20, 20]
    assert red > green > blue
    assert lit[20, 20].mean() > brow.mean()
