"""One mark from many frames: a real H.264 encode, a crop, and frames that carry none."""

from __future__ import annotations

import numpy as np
import pytest
from clips import corners

from fusion.video import open_video
from fusion.video_codec import VideoWriter
from provenance import watermark
from provenance.mark_bench import drawn_picture
from provenance.mark_frames import FrameReader
from provenance.mark_signal import UInt8Array

KEY, ID = bytes(range(32)), b"\1\2\3\4\5\6\7\x08"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[UInt8Array]:
    """A still drawing, each frame marked, coded with libx264 at CRF 28 and decoded again."""
    marked = watermark.embed(drawn_picture(11, 512, 512), ID, KEY)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, 512, 512, crf=28) as out:
        for number in range(5):
            out.write(marked, number / 25)
    with open_video(path) as video:
        return [frame.rgb for frame in video.frames()]


def test_a_video_at_crf_28_gives_its_id_by_the_sum_of_its_frames(frames: list[UInt8Array]) -> None:
    reader = FrameReader(KEY)
    for rgb in frames:
        reader.look(rgb)
    together = reader.reading()
    assert together is not None
    assert together.asset_id == ID.hex()
    assert together.p_false < 1e-30


def test_noisy_frames_add_up_where_single_ones_fail(frames: list[UInt8Array]) -> None:
    rng, reader = np.random.default_rng(3), FrameReader(KEY)
    alone = []
    for rgb in frames:
        alone.append(reader.look(np.clip(rgb + rng.normal(0, 40, rgb.shape), 0, 255).astype(np.uint8)))
    together = reader.reading()
    assert any(each.asset_id is None for each in alone)
    assert together is not None
    assert together.asset_id == ID.hex()


def test_a_cropped_video_is_read_where_a_searched_frame_points(frames: list[UInt8Array]) -> None:
    reader = FrameReader(KEY)
    for rgb in frames:
        reader.look(np.ascontiguousarray(rgb[10:-32, 20:-30]))
    together = reader.reading()
    assert together is not None
    assert together.asset_id == ID.hex()
    assert together.pose.scale < 0.98


def test_unmarked_frames_never_add_up_to_a_mark() -> None:
    reader = FrameReader(KEY)
    assert reader.reading() is None
    for number in range(8):
        reader.look(corners(number, 160, 160))
    together = reader.reading()
    assert together is not None
    assert (together.present, together.asset_id) == (False, None)
