"""How the mark's budget is dealt: by what binds in a picture, between pilot and bits, and within the quality asked."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from provenance import watermark
from provenance.codec import CODED_BITS
from provenance.mark_attacks import ATTACKS
from provenance.mark_bench import drawn_picture, psnr_db, ssim
from provenance.mark_pattern import TILE, pattern_for
from provenance.mark_signal import (
    FloatArray,
    UInt8Array,
    fold,
    luma_of,
    normalised_band,
    resize,
    working_size,
)

KEY = bytes(range(32))
ID = bytes.fromhex("0123456789abcdef")
PATTERN = pattern_for(KEY)


def busy_picture(seed: int, contrast: float = 30.0) -> UInt8Array:
    """481 x 321: texture at all sizes, its amplitude falling as the frequency grows, as foliage has it."""
    rng = np.random.default_rng(seed)
    height, width = 321, 481
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 2e-3
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / radius**1.0
    plane = np.fft.irfft2(spectrum, (height, width))
    plane = 128 + contrast * plane / plane.std()
    return np.repeat(np.clip(np.rint(plane), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def busy() -> tuple[UInt8Array, UInt8Array]:
    plain = busy_picture(2)
    return plain, watermark.embed(plain, ID, KEY)


def amplitude(room_rms: float, radius: float) -> float:
    """What a carrier of a radius gets where the budget leaves so many grey levels."""
    tilted = watermark._tilted(PATTERN, np.full((8, 8), room_rms, np.float32))
    return float(tilted[np.abs(PATTERN.radius - radius).argmin()])


def test_a_textured_picture_gets_shorter_waves_and_a_smooth_one_longer() -> None:
    assert amplitude(2.0, 30) / amplitude(2.0, 15) == pytest.approx(2**0.3, rel=0.01)  # 42.1 dB
    assert amplitude(255 / 10 ** (44.5 / 20), 30) == pytest.approx(1.0, abs=1e-3)
    assert amplitude(0.9, 30) / amplitude(0.9, 15) == pytest.approx(2**-0.45, rel=0.01)  # 49 dB
    assert amplitude(0.9, 4.5) == amplitude(0.9, 6.0)  # no end of the ring runs away


def test_the_pilot_reaches_its_aim_by_the_waves_that_gain_most() -> None:
    count = np.bincount(PATTERN.group)[CODED_BITS:]
    host, gain = np.array([0.1, -0.05], np.float32), np.array([0.5, 0.7], np.float32)
    level = watermark._pilot_levels(PATTERN, host, gain)
    assert level[1] / level[0] == pytest.approx(1.4, rel=1e-3)
    score = float((count * (host + gain * level)).sum()) * np.sqrt(2 / count.sum())
    assert score == pytest.approx(20.0, rel=1e-3)
    drowned = watermark._pilot_levels(PATTERN, host, np.array([0.01, 0.4], np.float32))
    assert drowned.tolist() == pytest.approx([0.8, 2.0])
    assert watermark._pilot_levels(PATTERN, np.full(2, 5.0, np.float32), gain).tolist() == pytest.approx(
        [0.8, 0.8]
    )


@pytest.mark.parametrize("seed", range(3))
def test_drawn_pictures_stay_within_the_quality_asked_and_near_it(seed: int) -> None:
    plain = drawn_picture(seed, 320, 400)
    marked = watermark.embed(plain, ID, KEY)
    assert psnr_db(plain, marked) >= 42
    assert 0.99 <= ssim(plain, marked) < 0.996


def test_a_busy_picture_is_marked_up_to_the_noise_allowed(busy: tuple[UInt8Array, UInt8Array]) -> None:
    plain, marked = busy
    assert 42 <= psnr_db(plain, marked) < 42.5
    assert ssim(plain, marked) > 0.99


@pytest.mark.parametrize("case", ["webp_q60", "blur_2", "social", "screenshot", "crop_10", "crop_10_back"])
def test_a_small_busy_picture_keeps_its_id(busy: tuple[UInt8Array, UInt8Array], case: str) -> None:
    reading = watermark.extract(ATTACKS[case](busy[1], np.random.default_rng(5)), KEY)
    assert reading.asset_id == ID.hex()


def short_over_long(luma: FloatArray) -> float:
    """Power of the band's carriers beyond 25 cycles a tile, over that of the nearer ones."""
    power = np.abs(np.fft.rfft2(fold(normalised_band(luma)))) ** 2
    own, short = power[PATTERN.ky % TILE, PATTERN.kx], PATTERN.radius > 25
    return float(own[short].mean() / own[~short].mean())


def test_a_blur_leaves_short_waves_a_band_of_their_own() -> None:
    """One band over one local power left them an eighth of their share."""
    luma = luma_of(busy_picture(2))
    size = working_size(luma.shape[1], luma.shape[0])
    blurred = np.asarray(cv2.GaussianBlur(luma, (0, 0), 2), np.float32)
    kept = short_over_long(resize(blurred, size)) / short_over_long(resize(luma, size))
    assert 0.15 < kept < 1
