"""The search's spectrum against plain sums: the same carriers at every pose, and the same ring in every size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from provenance.mark_pattern import TILE, Pattern, pattern_for
from provenance.mark_search import Pose, carriers_at, view_of, whitened
from provenance.mark_spectrum import looked_up, loudness_at, spectrum_of

Array = npt.NDArray[Any]
PATTERN = pattern_for(bytes(range(32)))
SOME = np.random.default_rng(1).choice(len(PATTERN.kx), 60, replace=False)


def noise(height: int, width: int) -> Array:
    return np.random.default_rng(height).normal(size=(height, width)).astype(np.float32)


def plain_sum(band: Array, pose: Pose) -> Array:
    """The carriers' coefficients of what was marked, by their definition, pixel by pixel."""
    seen = band[:, ::-1] if pose.mirrored else band
    height, width = band.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    turn = math.radians(pose.turn_deg)
    dx, dy = x - width // 2, y - height // 2
    marked_x = pose.scale * (math.cos(turn) * dx - math.sin(turn) * dy)
    marked_y = pose.scale * (math.sin(turn) * dx + math.cos(turn) * dy)
    waves = [(int(PATTERN.kx[i]), int(PATTERN.ky[i])) for i in SOME]
    return np.array(
        [(seen * np.exp(-2j * np.pi / TILE * (kx * marked_x + ky * marked_y))).sum() for kx, ky in waves]
    )


def apart(found: Array, true: Array) -> float:
    return float(np.sqrt((np.abs(found - true) ** 2).mean() / (np.abs(true) ** 2).mean()))


@pytest.mark.parametrize("size", [(256, 256), (192, 341), (209, 314), (128, 480)])
@pytest.mark.parametrize(
    "pose",
    [Pose(0.71), Pose(0.9, 3.0), Pose(1.0, -7.5), Pose(1.15, 5.0, mirrored=True), Pose(0.5, mirrored=True)],
)
def test_a_carrier_is_found_within_three_hundredths(size: tuple[int, int], pose: Pose) -> None:
    band = noise(*size)
    one = np.array([[pose.scale, pose.turn_deg, pose.mirrored]], np.float32)
    found = looked_up(spectrum_of(band), PATTERN.kx, PATTERN.ky, one)[0]
    assert apart(found[SOME], plain_sum(band, pose)) < 0.03


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(209, 314), (210, 313)])
def test_an_uncropped_copy_is_read_exactly(size: tuple[int, int], mirrored: bool) -> None:
    band, pose = noise(*size), Pose(mirrored=mirrored)
    white = carriers_at(PATTERN, view_of(band), pose)[SOME]
    assert np.abs(np.angle(white / plain_sum(band, pose))).max() < 1e-3


def test_loudness_is_the_rms_about_the_carrier_in_every_size() -> None:
    band = noise(256, 256)
    spectrum = spectrum_of(band)
    for scale in (0.6, 1.0):
        one = np.array([[scale, 0.0, 0.0]], np.float32)
        size = np.abs(looked_up(spectrum, PATTERN.kx, PATTERN.ky, one)[0])
        told = loudness_at(spectrum, PATTERN.radius, one[:, 0])[0]
        assert 0.9 < float(np.sqrt((size**2).mean())) / float(np.sqrt((told**2).mean())) < 1.1


def test_whitening_leaves_directions_alone() -> None:
    real, imaginary = np.random.default_rng(3).normal(size=(2, 2, len(PATTERN.kx)))
    values = np.asarray(real + 1j * imaginary, np.complex64)
    white = whitened(PATTERN, values)
    assert np.abs(np.angle(white / values)).max() < 1e-3


def test_rounds_hold_every_bit_once_and_grow_outwards() -> None:
    rounds = PATTERN.rounds
    assert (PATTERN.owner[rounds] == np.arange(128)).all()
    assert (PATTERN.radius[rounds[1:]].min(1) >= PATTERN.radius[rounds[:-1]].max(1)).all()
    near: Pattern = PATTERN.payload_within(30.0)
    assert len(near.kx) % 128 == 0
    assert not near.pilot.any()
    assert near.radius.max() < 30
    assert np.array_equal(near.radius[near.rounds], PATTERN.radius[rounds[: len(near.rounds)]])
