"""The adversarial section of the bench attacks what it says, and the rivals are measured where they are installed."""

from __future__ import annotations

import numpy as np
import pytest

from provenance import watermark
from provenance.mark_adversaries import (
    Regenerator,
    common_residual,
    copied,
    measure_copies,
    residual_of,
    without,
)
from provenance.mark_attacks import ATTACKS
from provenance.mark_bench import SpreadSpectrum, drawn_picture, psnr_db
from provenance.mark_rivals import installed, measure_rival

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


def test_the_section_has_its_figures() -> None:
    pictures = [drawn_picture(seed, 256, 256) for seed in range(3)]
    common = common_residual([watermark.embed(rgb, b"\1" * 8, KEY) for rgb in pictures[1:]])
    found = measure_copies(
        SpreadSpectrum(KEY), pictures[0], pictures[1], common, Regenerator.learn(pictures), (0, 1)
    )
    assert set(found) == {
        "adversary_average",
        "adversary_average_crop",
        "adversary_copy",
        "adversary_regenerate",
    }
    assert found["adversary_copy"]["transplant_told"] == 1.0  # two drawings look nothing alike
    assert 20 < found["adversary_average"]["psnr_db"] < 60
    assert found["adversary_average"]["id_wrong"] == 0.0


def test_an_autoencoder_draws_a_picture_from_fewer_numbers() -> None:
    pictures = [drawn_picture(seed, 256, 256) for seed in range(3)]
    all_parts, few = Regenerator.learn(pictures, 8, 63), Regenerator.learn(pictures, 8, 6)
    assert few.parts.shape == (6, 64)
    np.testing.assert_allclose(few.parts @ few.parts.T, np.eye(6), atol=1e-4)
    odd = pictures[0][:250, :203]
    assert psnr_db(odd, all_parts.draw(odd)) > 55  # 63 parts and the mean are all of a patch
    assert 20 < psnr_db(odd, few.draw(odd)) < 45


def test_rivals_are_left_out_or_measured() -> None:
    if installed() is None:
        pytest.skip("invisible-watermark is not installed")
    found = measure_rival("dwtDct", drawn_picture(1, 256, 320), (0,), {"clean": ATTACKS["clean"]})
    assert 0.5 < found["dwtDct:clean"]["bit_accuracy"] <= 1
    assert 30 < found["dwtDct:quality"]["psnr_db"] < 60
