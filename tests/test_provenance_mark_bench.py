"""The bench of the mark: attacks do what they are called, figures are right, rows have the documented shape."""

from __future__ import annotations

import numpy as np
import pytest

from provenance import mark_bench

KEY = bytes(range(32))
PICTURE = mark_bench.drawn_picture(1, 200, 240)


def test_attacks_have_the_documented_names() -> None:
    named = (
        "clean jpeg_q30 jpeg_q50 jpeg_q75 webp_q60 crop_10 crop_10_back crop_50 resize_0.5 screenshot social"
    )
    named += " brightness_up brightness_down contrast_up blur_2 mirror rotate_5"
    assert set(named.split()) <= set(mark_bench.ATTACKS)


@pytest.mark.parametrize("name", list(mark_bench.ATTACKS))
def test_attacks_change_size_only_where_they_say(name: str) -> None:
    attacked = mark_bench.ATTACKS[name](PICTURE, np.random.default_rng(0))
    wanted = {
        "crop_10": (180, 216),
        "crop_50": (141, 170),
        "resize_0.5": (100, 120),
        "screenshot": (147, 176),
        "social": (120, 144),
    }
    assert attacked.dtype == np.uint8
    assert attacked.shape == (*wanted.get(name, (200, 240)), 3)
    assert np.array_equal(attacked, PICTURE) == (name == "clean")


def test_quality_figures_on_known_pictures() -> None:
    lifted = (PICTURE // 2 + 1).astype(np.uint8)
    assert mark_bench.psnr_db((PICTURE // 2).astype(np.uint8), lifted) == pytest.approx(48.13, abs=0.01)
    assert mark_bench.ssim(PICTURE, PICTURE) == pytest.approx(1.0)
    noisy = np.clip(PICTURE + np.random.default_rng(0).normal(0, 30, PICTURE.shape), 0, 255).astype(np.uint8)
    assert mark_bench.ssim(PICTURE, noisy) < 0.8


def test_rows_of_a_small_run() -> None:
    pictures = [mark_bench.drawn_picture(i, 300, 300) for i in range(2)]
    rows = mark_bench.measure(pictures, KEY, cases=("clean", "jpeg_q50", "crop_10"))
    table = {(r.case, r.metric): r for r in rows}
    assert table["clean", "psnr_db"].value >= 42
    assert table["clean", "ssim"].value >= 0.99
    for case in ("clean", "jpeg_q50", "crop_10"):
        recovered = table[case, "id_recovered"]
        assert (recovered.value, recovered.n) == (1.0, 2)
        assert recovered.ci95 == pytest.approx((0.342, 1.0), abs=1e-3)  # Wilson, two of two
        assert table[case, "p_false"].value < 1e-6
    first = mark_bench.rows_as_json(rows)[0]
    assert set(first) == {"case", "metric", "value", "unit", "n", "ci95"}
    assert mark_bench.rows_as_markdown(rows).count("\n") == 2 + 3


def test_unmarked_crops_read_as_unmarked() -> None:
    rows = mark_bench.measure_false_alarms([PICTURE], 40)
    assert [r.value for r in rows if r.metric == "present"] == [0.0]
    assert next(r.value for r in rows if r.metric == "p_false") > 1e-4
