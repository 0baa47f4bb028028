"""A learned mark is drawn and read on whole pictures of any size, and its place is found again after a crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.train.mark import Course, MarkRecipe, drawn, train_mark
from fusion.train.mark_judge import LearnedMark, folded, places, turned
from fusion.train.mark_nets import BITS, CELL, TILE
from server.learned_mark import LearnedScheme

KEY = bytes(range(32))


def test_the_place_of_a_repeated_tile_is_found_and_its_cells_read() -> None:
    rng = np.random.default_rng(0)
    bits = rng.choice([-1.0, 1.0], (2, 8, 8)).astype(np.float32)
    everywhere = rng.normal(0, 0.1, (2, 200, 220)).astype(np.float32)
    tiled = np.tile(bits, (1, 4, 4))
    everywhere[:, 3::CELL, 5::CELL] += tiled[:, : len(range(3, 200, CELL)), : len(range(5, 220, CELL))]
    standing_out, readings = places(folded(everywhere))
    assert standing_out > 10
    assert readings.shape == (64, BITS)
    assert any(np.array_equal(np.sign(each), bits.reshape(BITS)) for each in readings)


def test_turning_there_and_back_keeps_the_middle() -> None:
    plane = np.zeros((150, 130), np.float32)
    plane[60:90, 50:80] = 1
    back = turned(turned(plane, 0.9, 5), 1 / 0.9, -5)
    y, x = back.shape[0] // 2, back.shape[1] // 2
    assert np.abs(back[y - 20 : y + 20, x - 20 : x + 20] - plane[55:95, 45:85]).mean() < 0.12
    assert turned(plane, 0.1, 0).shape == (TILE + CELL, TILE + CELL)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps: enough to draw something."""
    torch.set_num_threads(1)
    folder, recipe = tmp_path_factory.mktemp("run"), MarkRecipe(steps=12, batch=4, side=64, threads=1)

    def pictures(count: int, rng: np.random.Generator) -> np.ndarray:
        return np.stack([drawn(128, rng) for _ in range(count)])

    made = train_mark(folder, folder, recipe, pictures=pictures, report=lambda line: None)
    assert isinstance(made, Course)
    return folder


def test_a_young_mark_is_drawn_within_the_budget_and_read(course: Path) -> None:
    scheme = LearnedScheme(KEY, LearnedMark.load(course))
    rgb = np.repeat(drawn(256, np.random.default_rng(5))[..., None], 3, axis=2)
    marked = scheme.embed(rgb, b"\1\2\3\4\5\6\7\x08")
    assert 0 < np.abs(marked.astype(int) - rgb).mean() < 3
    reading = scheme.extract(marked)
    assert reading.soft.shape == (BITS,)
    assert reading.asset_id in (None, "0102030405060708")
    assert scheme.extract(rgb).asset_id is None
