"""The adversarial section of the bench attacks what it says, and the rivals are measured where they are installed."""

from __future__ import annotations

import numpy as np
import pytest

from provenance import watermark
from provenance.mark_adversaries import common_residual, copied, measure_adversaries, residual_of, without
from provenance.mark_bench import drawn_picture, psnr_db
from provenance.mark_rivals import installed, measure_rivals

KEY = bytes(range(32))


def test_what_all_outputs_share_stands_out_of_their_mean_and_can_be_taken_off() -> None:
    rng = np.random.default_rng(0)
    plain = [drawn_picture(seed, 256, 256) for seed in range(8)]
    marked = [watermark.embed(rgb, rng.bytes(8), KEY) for rgb in plain]
    common = common_residual(marked)
    shared = [
        float((residual_of(m) * common).mean() - (residual_of(p) * common).mean())
        for m, p in zip(marked, plain, strict=True)
    ]
    assert np.mean(shared) > 0
    assert psnr_db(without(marked[0], common), marked[0]) > 25


def test_a_copied_mark_is_another_picture() -> None:
    marked = watermark.embed(drawn_picture(1), b"\7" * 8, KEY)
    forged = copied(marked, drawn_picture(2))
    assert psnr_db(forged, drawn_picture(2)) > 20
    assert psnr_db(forged, marked) < 20


def test_the_section_has_its_rows() -> None:
    rows = measure_adversaries([drawn_picture(seed, 256, 256) for seed in range(3)], KEY, victims=1)
    assert {(row.case, row.metric) for row in rows} == {
        ("adversary_average", "id_recovered"),
        ("adversary_average_crop", "id_recovered"),
        ("adversary_copy", "id_recovered"),
        ("adversary_copy", "transplant_told"),
    }
    assert all(row.n == 1 and 0 <= row.value <= 1 for row in rows)


def test_rivals_are_left_out_or_measured() -> None:
    rows = measure_rivals([drawn_picture(1, 256, 320)], cases=("clean", "jpeg_q50"), methods=("dwtDct",))
    if installed() is None:
        assert rows == []
        pytest.skip("invisible-watermark is not installed")
    assert {(row.case, row.metric) for row in rows} >= {
        ("dwtDct:clean", "bit_accuracy"),
        ("dwtDct:clean", "psnr_db"),
    }
