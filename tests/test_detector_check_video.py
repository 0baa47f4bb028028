"""The check of videos: marks summed over frames, cuts found, faces followed, broken and odd videos told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import clip, corners
from conftest import Studio

from detector.check import Checker
from detector.verdict import Verdict
from fusion.face import UInt8Array
from fusion.media import read_picture
from fusion.video_codec import VideoWriter
from provenance.hashes import video_content_sha256
from provenance.home import Home


@pytest.fixture(scope="module")
def checker(studio: Studio):  # type: ignore[no-untyped-def]
    with Home.open(studio.home_path) as home:
        yield Checker(home)


@pytest.fixture(scope="module")
def person(studio: Studio) -> UInt8Array:
    """A sealed nobody, marked with the id of its leaf."""
    return read_picture(studio.people[0].path.read_bytes()).rgb


def test_a_mark_too_weak_in_single_frames_is_read_from_the_whole_video(
    checker: Checker, person: UInt8Array, studio: Studio, tmp_path: Path
) -> None:
    """H.264 at CRF 28 after noise of another seed on each frame, cropped: only the sum over frames reads."""
    small = cv2.resize(person, (256, 256), interpolation=cv2.INTER_AREA)
    frames = []
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(0, 20, small.shape)
        frames.append((small + noise).clip(0, 255).astype(np.uint8))
    path = tmp_path / "noisy.mp4"
    with VideoWriter(path, 256, 256, crf=28) as out:
        for number, rgb in enumerate(frames):
            out.write(rgb, number * 0.5)
    report = checker.check_file(path)
    assert report.video is not None
    assert not all(frame.marked for frame in report.video.frames)
    assert report.mark.asset_id == studio.people[0].asset_id
    assert report.mark.p_false < 1e-6


def test_a_marked_video_leads_to_its_leaf_and_cut_and_face_are_found(
    checker: Checker, person: UInt8Array, studio: Studio, tmp_path: Path
) -> None:
    hills = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 90, (512, 512, 3), np.uint8), (0, 0), 40)
    frames = [person] * 6 + [hills] * 6
    report = checker.check_file(
        clip(tmp_path / "cut.mp4", frames, [number * 0.5 for number in range(12)], key_every=1)
    )
    assert report.verdict is Verdict.SYNTHETIC_BY_MARK
    assert report.mark.asset_id == studio.people[0].asset_id
    assert report.ledger.index == studio.people[0].receipt.index
    video = report.video
    assert video is not None
    assert [shot.num_frames for shot in video.shots] == [6, 6]
    assert [track.num_frames for track in video.tracks] == [6]
    assert [frame.marked for frame in video.frames] == [True] * 6 + [False] * 6
    assert report.detector.faces[0].crop is not None


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of each oddity, none with a face."""
    folder = tmp_path_factory.mktemp("odd")
    frames = [corners(number) for number in range(14)]
    clip(folder / "no_face.mp4", frames)
    clip(folder / "one_frame.mp4", frames[:1])
    clip(folder / "variable.mp4", frames, list(np.cumsum(np.linspace(0.01, 0.3, 14))))
    clip(folder / "sound.mp4", frames, sound=True)
    noise = [np.random.default_rng(seed).integers(0, 256, (96, 160, 3), np.uint8) for seed in range(14)]
    whole = clip(folder / "tail.mp4", noise, options={"movflags": "+faststart"}).read_bytes()
    (folder / "tail.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    return folder


@pytest.mark.parametrize("name", ["no_face", "one_frame", "variable", "sound", "tail"])
def test_odd_videos_are_checked_with_a_reason(checker: Checker, odd: Path, name: str) -> None:
    report = checker.check_file(odd / f"{name}.mp4")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.detector.reason is not None
    assert report.detector.reason.code == "gate.no_face"
    video = report.video
    assert video is not None
    assert video.variable_rate is (name == "variable")
    assert video.has_sound is (name == "sound")
    assert (len(video.frames) == 1) is (name == "one_frame")
    assert any("too early" in note for note in report.medium.notes) is (name == "tail")


def test_the_bytes_of_a_video_give_the_same_report(checker: Checker, odd: Path) -> None:
    by_path = checker.check_file(odd / "one_frame.mp4", "v.mp4").as_dict()
    assert checker.check((odd / "one_frame.mp4").read_bytes(), "v.mp4").as_dict() == by_path


def content(path: Path) -> str:
    with path.open("rb") as file:
        return video_content_sha256(file)


def test_the_content_hash_survives_metadata_and_sees_every_sample(tmp_path: Path) -> None:
    frames = [corners(number) for number in range(8)]
    plain = clip(tmp_path / "plain.mp4", frames)
    data = plain.read_bytes()
    first = tmp_path / "moved.mp4"
    index_first = clip(tmp_path / "first.mp4", frames, options={"movflags": "+faststart"})
    assert content(index_first) == content(plain), "the index moved, the samples are the same"
    first.write_bytes(data + b"\0\0\0\x10free12345678")
    assert content(first) == content(plain)
    changed = bytearray(data)
    changed[data.index(b"mdat") + 400] ^= 1
    first.write_bytes(changed)
    assert content(first) != content(plain)
    retimed = clip(tmp_path / "retimed.mp4", frames, [number / 12.5 for number in range(8)])
    assert content(retimed) != content(plain)
    offsets = bytearray(data)
    offsets[data.index(b"stco") + 15] ^= 4
    first.write_bytes(offsets)
    assert content(first) != content(plain), "other bytes would be shown"
