"""The bench of the mark: attacks do what they are called, figures are right, rows have the documented shape."""

from __future__ import annotations

import numpy as np
import pytest

from provenance import mark_bench
from provenance.mark_attacks import ATTACKS
from provenance.mark_bench import SpreadSpectrum

KEY = bytes(range(32))
PICTURE = mark_bench.drawn_picture(1, 200, 240)


def test_attacks_have_the_documented_names() -> None:
    named = (
        "clean jpeg_q30 jpeg_q50 jpeg_q75 webp_q60 crop_10 crop_10_back crop_50 resize_0.5 screenshot social"
    )
    named += " brightness_up brightness_down contrast_up blur_2 mirror rotate_5"
    assert set(named.split()) <= set(ATTACKS)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_attacks_change_size_only_where_they_say(name: str) -> None:
    attacked = ATTACKS[name](PICTURE, np.random.default_rng(0))
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
    cases = {case: ATTACKS[case] for case in ("clean", "jpeg_q50", "crop_10")}
    found = [
        mark_bench.measure_picture(SpreadSpectrum(KEY), mark_bench.drawn_picture(i, 300, 300), (0, i), cases)
        for i in range(2)
    ]
    rows = mark_bench.rows_of(found)
    table = {(r.case, r.metric): r for r in rows}
    assert table["quality", "least_psnr_db"].value >= 42
    assert table["quality", "ssim"].value >= 0.99
    assert table["quality", "embed_cpu_ms"].value > 1
    for case in cases:
        recovered = table[case, "id_recovered"]
        assert (recovered.value, recovered.n) == (1.0, 2)
        assert recovered.ci95 == pytest.approx((0.342, 1.0), abs=1e-3)  # Wilson, two of two
        assert table[case, "p_false"].value < 1e-6
    first = mark_bench.rows_as_json(rows)[0]
    assert set(first) == {"case", "metric", "value", "unit", "n", "ci95"}
    assert mark_bench.rows_as_markdown(rows).count("\n") == 2 + 4


def test_a_picture_depends_on_its_seed_alone_and_its_attacks_not_on_each_other() -> None:
    scheme = SpreadSpectrum(KEY)
    both = mark_bench.measure_picture(scheme, PICTURE, (1, 2), {c: ATTACKS[c] for c in ("clean", "crop_10")})
    again = mark_bench.measure_picture(scheme, PICTURE, (1, 2), {c: ATTACKS[c] for c in ("clean", "crop_10")})
    assert both["crop_10"]["p_false"] == again["crop_10"]["p_false"]
    other = mark_bench.measure_picture(scheme, PICTURE, (1, 3), {"clean": ATTACKS["clean"]})
    assert other["clean"]["p_false"] != both["clean"]["p_false"]


def test_unmarked_crops_read_as_unmarked() -> None:
    found = mark_bench.measure_unmarked([PICTURE], 40, (0,))
    rows = {r.metric: r for r in mark_bench.rows_of(found)}
    assert (rows["present"].value, rows["present"].n) == (0.0, 40)
    assert rows["least_p"].value == min(each["unmarked"]["least_p"] for each in found) > 1e-4
