"""Clips move as they are called, and one is measured through a codec that the caller brings."""

from __future__ import annotations

import numpy as np
import pytest

from provenance.mark_bench import drawn_picture
from provenance.mark_clips import MOTIONS, SIZES, Clip, measure_clip

KEY = bytes(range(32))
PICTURE = drawn_picture(3, 300, 300)


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_has_its_size_and_moves_unless_it_is_still(motion: str) -> None:
    first, second = Clip("256", motion, PICTURE).frames(2)
    assert first.shape == second.shape == (*SIZES["256"][::-1], 3)
    apart = float(np.abs(first.astype(int) - second).mean())
    assert apart < 3 if motion == "still" else apart > 1.5  # 1.7 is the noise of two frames


def test_panning_moves_the_scene_by_two_pixels_a_frame() -> None:
    frames = Clip("256", "pan", PICTURE).frames(5)
    kept = np.abs(frames[0][:, 8:].astype(int) - frames[4][:, :-8]).mean()
    assert kept < 3 < np.abs(frames[0].astype(int) - frames[4]).mean()


def test_a_clip_that_no_codec_touched_is_read_from_its_sum() -> None:
    found = measure_clip(Clip("256", "still", PICTURE), lambda frames: frames[:3], KEY, (0,))
    assert set(found) == {"h264_crf28", "h264_crf28_still", "h264_crf28_256"}
    assert found["h264_crf28"]["id_recovered"] == 1.0
    assert found["h264_crf28"]["psnr_db"] > 42
