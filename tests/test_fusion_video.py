"""Videos: right frames at right times, upright, within limits; broken ones as far as they go, with a word on it."""

from __future__ import annotations

import resource
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
from clips import box, clip, corners, with_duration, with_size

from fusion.files import nameless_files
from fusion.video import VIDEO_LIMITS, Frame, VideoInfo, VideoLimits, is_video, open_video, sample_times
from fusion.video_codec import VideoWriter, check_sound
from provenance.errors import MediaError, StoreError

FRAMES = [corners(number) for number in range(30)]


def read(
    path: Path, wanted: list[float] | None = None, limits: VideoLimits = VIDEO_LIMITS
) -> tuple[VideoInfo, list[Frame], list[str]]:
    with open_video(path, limits) as video:
        frames = list(video.frames(wanted))
        return video.info, frames, video.notes


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("clips") / "plain.mp4", FRAMES)


def test_every_frame_comes_once_in_order_with_its_time_and_its_pixels(plain: Path) -> None:
    info, frames, notes = read(plain)
    assert (info.width, info.height, info.codec, info.num_frames) == (160, 96, "H.264", 30)
    assert info.duration_s == pytest.approx(1.2)
    assert info.frame_rate == pytest.approx(25)
    assert (info.has_sound, info.variable_rate, notes) == (False, False, [])
    assert [frame.time_s for frame in frames] == pytest.approx([number / 25 for number in range(30)])
    for number, frame in enumerate(frames):
        difference = np.abs(frame.rgb.astype(int) - FRAMES[number].astype(int))[4:40, 4:70]
        assert np.median(difference) <= 4, number


def test_wanted_times_give_the_frames_shown_then_by_seeking_or_not(plain: Path) -> None:
    _, every, _ = read(plain)
    _, some, _ = read(plain, [0.0, 0.05, 0.5, 1.17])
    assert [frame.time_s for frame in some] == pytest.approx([0.0, 0.04, 0.48, 1.16])
    for frame in some:
        assert (frame.rgb == every[round(frame.time_s * 25)].rgb).all()


def test_a_video_can_be_read_twice(plain: Path) -> None:
    with open_video(plain) as video:
        first, second = ([frame.rgb for frame in video.frames()] for _ in range(2))
    assert len(first) == len(second) == 30
    assert all((one == two).all() for one, two in zip(first, second, strict=True))


def test_sample_times_prefer_frames_that_stand_by_themselves(plain: Path) -> None:
    with open_video(plain) as video:
        times = sample_times(video.info, most=5, least_step_s=0.4)
        taken = list(video.frames(times))
    assert len(times) == 4
    assert times[0] == 0.0
    assert [frame.is_key for frame in taken].count(True) == 3


@pytest.mark.parametrize(
    ("rotation", "red"), [(90, "bottom left"), (-90, "top right"), (180, "bottom right")]
)
def test_turned_videos_come_upright(tmp_path: Path, rotation: int, red: str) -> None:
    """The display matrix says by how much to turn counter-clockwise (14496-12, 8.3.2; FFmpeg's display.h)."""
    _, frames, notes = read(clip(tmp_path / "turned.mp4", FRAMES[:3], rotation=rotation))
    rgb = frames[0].rgb
    assert rgb.shape == ((160, 96, 3) if rotation % 180 else (96, 160, 3))
    corner = {"top": 8, "bottom": -8}[red.split(maxsplit=1)[0]], {"left": 8, "right": -8}[red.split()[1]]
    assert rgb[corner][0] > 200
    assert rgb[corner][2] < 60
    assert "turned upright" in notes[0]


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = np.cumsum(np.linspace(0.02, 0.1, 12)) - 0.02
    info, frames, _ = read(clip(tmp_path / "varies.mp4", FRAMES[:12], list(times)))
    assert info.variable_rate
    assert [frame.time_s for frame in frames] == pytest.approx(list(times), abs=1e-3)


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    info, frames, _ = read(clip(tmp_path / "one.mp4", FRAMES[:1]))
    assert (info.num_frames, len(frames), info.variable_rate) == (1, 1, False)
    assert sample_times(info, most=24) == [0.0]


def test_sound_is_noticed(tmp_path: Path) -> None:
    assert read(clip(tmp_path / "sound.mp4", FRAMES[:5], sound=True))[0].has_sound


def test_a_broken_tail_gives_the_frames_before_it_and_says_so(tmp_path: Path) -> None:
    noise = [np.random.default_rng(seed).integers(0, 256, (96, 160, 3), np.uint8) for seed in range(20)]
    path = clip(tmp_path / "cut.mp4", noise, options={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    info, frames, notes = read(path)
    assert info.missing_bytes == len(data) - len(data) * 6 // 10
    assert 5 < len(frames) < 16
    assert any("too early" in note for note in notes)


def test_fragmented_videos_are_read(tmp_path: Path) -> None:
    path = clip(tmp_path / "parts.mp4", FRAMES, options={"movflags": "+frag_keyframe+empty_moov"})
    info, frames, _ = read(path)
    assert (info.num_frames, len(frames)) == (30, 30)


def _without_index(data: bytes) -> bytes:
    return data.replace(b"moov", b"free")


def _index_of_another_codec(data: bytes) -> bytes:
    return data.replace(b"avc1", b"SVQ3")


def _pixels_of_zeros(data: bytes) -> bytes:
    start = data.index(b"mdat") + 4
    length = struct_length(data, start - 8) - 8
    return data[:start] + bytes(length) + data[start + length :]


def struct_length(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


BROKEN = {
    "no_index": (_without_index, "media.truncated"),
    "cut_in_the_index": (lambda data: data[:-200], "media.truncated"),
    "size_of_a_city": (lambda data: with_size(data, 60_000, 60_000), "media.too_many_pixels"),
    "size_zero": (lambda data: with_size(data, 0, 96), "media.damaged"),
    "lasts_for_weeks": (lambda data: with_duration(data, 0x7FFFFFFF), "media.too_long"),
    "old_codec": (_index_of_another_codec, "media.unsupported"),
    "box_shorter_than_its_header": (lambda data: data[:32] + struct_box(3), "media.damaged"),
    "index_of_2_gigabytes": (lambda data: data[:32] + b"\x7f\xff\xff\xffmoov" + bytes(99), "media.damaged"),
    "no_track": (lambda data: data[:32] + box(b"moov", box(b"udta", b"")), "media.no_video"),
    "nothing_but_a_brand": (lambda data: data[:32], "media.truncated"),
    "pixels_of_zeros": (_pixels_of_zeros, "media.damaged"),
}


def struct_box(size: int) -> bytes:
    return size.to_bytes(4, "big") + b"moov" + bytes(40)


@pytest.mark.parametrize("flaw", sorted(BROKEN))
def test_broken_videos_give_their_code(plain: Path, tmp_path: Path, flaw: str) -> None:
    breaks, code = BROKEN[flaw]
    path = tmp_path / "broken.mp4"
    path.write_bytes(breaks(plain.read_bytes()))  # type: ignore[no-untyped-call]
    with pytest.raises(MediaError) as raised:
        read(path)
    assert raised.value.code == code


def test_flipped_bytes_never_hang_or_crash_the_reader(plain: Path, tmp_path: Path) -> None:
    random, data = np.random.default_rng(5), plain.read_bytes()
    for number in range(6):
        broken = bytearray(data)
        for at in random.integers(32, len(data), 25):
            broken[at] = random.integers(0, 256)
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(broken)
        start = time.process_time()
        with suppress(MediaError):
            assert len(read(path)[1]) <= 40
        assert time.process_time() - start < 5


def test_the_child_is_held_to_its_memory_and_its_time(plain: Path) -> None:
    with pytest.raises(MediaError) as starved:
        read(plain, limits=replace(VIDEO_LIMITS, child_bytes=60 << 20))
    assert starved.value.code in ("media.too_costly", "media.damaged")
    with pytest.raises(MediaError) as waited:
        read(plain, limits=replace(VIDEO_LIMITS, frame_wait_s=0.001))
    assert waited.value.code == "media.too_costly"


def test_a_reader_that_stops_early_leaves_no_process(plain: Path) -> None:
    with open_video(plain) as video:
        next(iter(video.frames()))
        child = video._talk._child
    assert child.poll() is not None


@pytest.mark.parametrize(
    ("head", "yes"),
    [
        (b"\0\0\0\x20ftypisom" + bytes(20), True),
        (b"\0\0\0\x14ftypqt  " + bytes(8), True),
        (b"\0\0\0\x18ftypheic" + bytes(8), False),
        (b"\0\0\0\x1cftypavif" + bytes(8), False),
        (b"\xff\xd8\xff\xe0" + bytes(20), False),
        (b"", False),
    ],
)
def test_videos_are_told_by_their_first_bytes(head: bytes, yes: bool) -> None:
    assert is_video(head) is yes


def test_the_writer_keeps_times_colours_and_the_very_sound(tmp_path: Path) -> None:
    spoken = clip(tmp_path / "spoken.mp4", FRAMES, sound=True)
    times = [0.0, 0.04, 0.1, 0.2, 0.5, 0.9]
    out = tmp_path / "written.mp4"
    with VideoWriter(out, 160, 96, sound_from=spoken) as writer:
        for number, time_s in enumerate(times):
            writer.write(FRAMES[number], time_s)
    info, frames, _ = read(out)
    assert info.has_sound
    assert info.variable_rate
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=1e-4)
    assert np.abs(frames[3].rgb[20, 20].astype(int) - (255, 0, 0)).max() <= 4
    assert np.abs(frames[3].rgb[-20, -20].astype(int) - (0, 0, 255)).max() <= 4
    assert sound_of(out) == sound_of(spoken)


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as source:
        return [bytes(packet) for packet in source.demux(audio=0) if packet.size]


def test_what_leaves_is_vp9_with_its_index_first_and_its_keys(tmp_path: Path) -> None:
    out = tmp_path / "vp9.mp4"
    told = {"AIGC": "{}"}
    with (
        out.open("w+b") as file,
        VideoWriter(file, 160, 96, codec="vp9", metadata=told, room_for=6) as writer,
    ):
        for number in range(6):
            writer.write(FRAMES[number], number / 25)
    info, frames, _ = read(out)
    assert (info.codec, len(frames)) == ("VP9", 6)
    assert info.duration_s == pytest.approx(6 / 25, abs=1e-3)
    assert np.abs(frames[3].rgb[20, 20].astype(int) - (255, 0, 0)).max() <= 6
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(out)) as opened:
        assert opened.metadata["AIGC"] == "{}"


def write_noise(file: BinaryIO) -> None:
    with VideoWriter(file, 160, 96, codec="vp9", crf=4, room_for=24) as writer:
        for number in range(24):
            noise = np.random.default_rng(number).integers(0, 256, (96, 160, 3), np.uint8)
            writer.write(noise, number / 25)


def test_a_full_disk_is_told_by_the_writer(tmp_path: Path) -> None:
    """The system lets no file grow beyond 70 kB: the writer hears of it as of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with nameless_files(tmp_path, 1) as (file,):
        resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
        try:
            with pytest.raises(StoreError) as raised:
                write_noise(file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.code == "store.disk_full"
    assert list(tmp_path.iterdir()) == []


def test_sound_that_an_mp4_cannot_carry_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pcm.mov"
    with av.open(str(path), "w", format="mov") as out:
        voice = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        beep = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        beep.sample_rate, beep.pts = 8000, 0
        out.mux([*voice.encode(beep), *voice.encode(None)])
    with path.open("rb") as file, pytest.raises(MediaError) as raised:
        check_sound(file)
    assert raised.value.code == "media.sound"
