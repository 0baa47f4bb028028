"""One mark from many frames: a real H.264 encode, a crop, and frames that carry none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import corners

from fusion.video import open_video
from fusion.video_codec import VideoWriter
from provenance import watermark
from provenance.mark_bench import drawn_picture
from provenance.mark_clips import Clip
from provenance.mark_frames import FrameMarker, FrameReader, Motion
from provenance.mark_signal import UInt8Array, working_band, working_size

KEY, ID = bytes(range(32)), b"\1\2\3\4\5\6\7\x08"
PAN = [
    np.ascontiguousarray(rgb) for rgb in Clip("512", "pan", drawn_picture(0)).frames(9)[::2]
]  # the scene moves left by four pixels a frame


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


def test_the_scene_is_followed_until_a_cut() -> None:
    motion = Motion()
    found = [motion.follow(working_band(rgb)) for rgb in PAN]
    scale = working_size(512, 512)[0] / 512
    assert found[0] == (0.0, 0.0)
    assert found[4] == pytest.approx((-16 * scale, 0), abs=0.3)
    assert motion.follow(working_band(drawn_picture(77, 512, 512))) == (0.0, 0.0)
    still = Motion()
    assert [still.follow(working_band(PAN[0])) for _ in range(2)] == [(0.0, 0.0)] * 2


def test_a_panning_clip_at_crf_28_is_read_because_its_mark_moves_with_the_scene(tmp_path: Path) -> None:
    marker, reader, path = FrameMarker(KEY), FrameReader(KEY), tmp_path / "pan.mp4"
    with VideoWriter(path, 512, 512, crf=28) as out:
        for number, rgb in enumerate(PAN):
            out.write(marker.embed(rgb, ID), number / 25)
    with open_video(path) as video:
        for frame in video.frames():
            reader.look(frame.rgb)
    together = reader.reading()
    assert together is not None
    assert together.asset_id == ID.hex()
    assert together.p_false < 1e-30


def test_a_moved_mark_is_found_by_a_search_of_one_frame() -> None:
    moved = watermark.embed(PAN[0], ID, KEY, shift_px=(-11.3, 4.2))
    assert watermark.extract(moved, KEY, search="fast").asset_id is None
    found = watermark.extract(moved, KEY)
    assert found.asset_id == ID.hex()
    assert found.pose.shift_px[0] % 128 == pytest.approx(-11.3 % 128, abs=0.5)
