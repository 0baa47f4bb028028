"""Copies of a sealed video: its look is recorded, `recover`, `check` and the audit's report tell it from another."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detector.check import Checker
from detector.verdict import Verdict
from fusion.face import UInt8Array
from fusion.media import Format, encode_picture
from fusion.seal import Job, Sealed
from fusion.seal_video import Shape, VideoRelease, seal_video
from fusion.stopwatch import Stopwatch
from fusion.video import open_video
from fusion.video_codec import VideoWriter
from provenance import fsck, mp4
from provenance.hashes import PERCEPTUAL_SAME
from provenance.home import Home
from provenance.looks import FIELD, RADIUS, VIDEO_OTHER
from provenance.mark_clips import Clip
from provenance.mark_frames import FrameMarker
from provenance.tiles import export_ledger
from provenance.verify_export import verify
from server.cli import build_app, spread

FRAMES = 6


def drawn(seed: int) -> UInt8Array:
    """Soft shapes of 512 px, other ones for each seed."""
    noise = np.random.default_rng(seed).normal(0, 1, (512, 512, 3))
    shapes = [cv2.GaussianBlur(noise, (0, 0), scale) * weight for scale, weight in ((40, 80), (8, 8), (2, 1))]
    return np.asarray((128 + 60 * np.sum(shapes, 0)).clip(0, 255), np.uint8)


def frames_of(seed: int) -> list[UInt8Array]:
    """A pan over it, with the noise of a sensor."""
    return Clip("360p", "pan", drawn(seed)).frames(FRAMES)


@dataclass(frozen=True)
class Film:
    """A sealed video, what is on its frames, and its home."""

    home: Home
    sealed: Sealed
    frames: list[UInt8Array]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Film]:
    folder = tmp_path_factory.mktemp("copies")
    with Home.create(folder / "home", "Facsimile tests") as home:
        timed = [(rgb, number / 5) for number, rgb in enumerate(frames_of(1))]
        job = Job("sample", "drawn", {"drawn": "0" * 64})
        shape, release = Shape(640, 360, FRAMES, None), VideoRelease(folder / "film.mp4")
        sealed = seal_video(timed, shape, job, home, release, Stopwatch(), dict)
        with open_video(sealed.path) as video:
            yield Film(home, sealed, [frame.rgb for frame in video.frames()])


def coded(path: Path, frames: Sequence[UInt8Array], crf: int = 16) -> Path:
    with VideoWriter(path, 640, 360, codec="h264", crf=crf) as out:
        for number, rgb in enumerate(frames):
            out.write(rgb, number / 5)
    return path


@pytest.fixture(scope="module")
def copy(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames coded anew, without the first two: nothing but pixels is left."""
    return coded(tmp_path_factory.mktemp("copy") / "copy.mp4", film.frames[2:])


@pytest.fixture(scope="module")
def transplant(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another clip under the film's mark."""
    marker = FrameMarker(film.home.keys.mark_key)
    marked = [marker.embed(rgb, bytes.fromhex(film.sealed.asset_id)) for rgb in frames_of(2)]
    return coded(tmp_path_factory.mktemp("transplant") / "other.mp4", marked)


def run(film: Film, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setenv("FACSIMILE_HOME", str(film.home.path))
    with pytest.raises(SystemExit) as ended:
        build_app()(args=spread([str(argument) for argument in arguments]))
    return int(ended.value.code or 0)


def test_the_ledger_keeps_hashes_that_stand_for_every_frame(film: Film) -> None:
    body = film.home.ledger.entry(film.sealed.receipt.index).body
    assert body["media"] == "video"
    assert "perceptual_hash" not in body
    assert body[FIELD]["radius"] == RADIUS
    assert 1 <= len(body[FIELD]["frames"]) <= FRAMES
    assert all(len(bytes.fromhex(each)) == 32 for each in body[FIELD]["frames"])
    assert fsck.verify(film.home).ok


def test_a_true_copy_is_told_from_another_clip_under_the_same_mark(
    film: Film, copy: Path, transplant: Path
) -> None:
    checker = Checker(film.home)
    true, false = checker.check_file(copy), checker.check_file(transplant)
    for report in (true, false):
        assert report.mark.asset_id == film.sealed.asset_id
        assert (report.ledger.found_by, report.ledger.other_from) == ("mark", VIDEO_OTHER)
    assert true.verdict is Verdict.SYNTHETIC_BY_MARK
    assert (true.ledger.perceptual_distance or 0) <= PERCEPTUAL_SAME
    assert false.verdict is Verdict.MARK_TRANSPLANT
    assert (false.ledger.perceptual_distance or 0) >= VIDEO_OTHER


def test_a_still_of_a_video_and_another_picture_under_its_mark(film: Film) -> None:
    checker, key = Checker(film.home), film.home.keys.mark_key
    still = checker.check(encode_picture(film.frames[3], Format.JPEG), "still.jpg")
    assert still.verdict is Verdict.SYNTHETIC_BY_MARK
    assert (still.ledger.perceptual_distance or 0) <= PERCEPTUAL_SAME
    other = FrameMarker(key).embed(drawn(3), bytes.fromhex(film.sealed.asset_id))
    assert checker.check(encode_picture(other, Format.PNG), "other.png").verdict is Verdict.MARK_TRANSPLANT


def test_recover_gives_a_stripped_video_its_manifest_back(
    film: Film,
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(film, monkeypatch, "recover", copy, "-o", tmp_path / "m.c2pa", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["asset_id"], told["found_by"]) == (film.sealed.asset_id, "mark")
    assert (told["same_picture"], told["fits"], told["manifest"]["state"]) == (True, False, "valid")
    with film.sealed.path.open("rb") as file:
        assert (tmp_path / "m.c2pa").read_bytes() == mp4.c2pa_store(file)


def test_recover_finds_a_video_by_its_content_and_tells_whether_it_fits(
    film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = film.sealed.path.read_bytes()
    bare = tmp_path / "bare.mp4"
    bare.write_bytes(without_boxes(data, b"uuid"))
    assert run(film, monkeypatch, "recover", bare, "-o", tmp_path / "m.json", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["found_by"], told["same_picture"], told["fits"]) == ("content", True, False)
    assert run(film, monkeypatch, "recover", film.sealed.path, "-o", tmp_path / "n.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True


def without_boxes(data: bytes, kind: bytes) -> bytes:
    """The MP4 with its boxes of one kind made `free`: what a tool that drops metadata in place leaves."""
    file, kept = io.BytesIO(data), bytearray(data)
    at = 0
    while at < len(data):
        found, _, end = mp4.read_box_header(file, at, len(data))
        if found == kind:
            kept[at + 4 : end] = b"free" + bytes(end - at - 8)
        at = end
    return bytes(kept)


def test_recover_reports_a_transplant_and_what_was_never_ours(
    film: Film,
    transplant: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(film, monkeypatch, "recover", transplant, "-o", tmp_path / "m.json") == 3
    assert "the video is not what it was given to" in capsys.readouterr().out.replace("\n", " ")
    foreign = coded(tmp_path / "foreign.mp4", frames_of(4))
    assert run(film, monkeypatch, "recover", foreign, "-o", tmp_path / "f.json") == 2
    assert "recover.no_mark" in capsys.readouterr().err
    assert not (tmp_path / "f.json").exists()


def test_an_entry_of_before_is_compared_with_nothing_and_still_found(
    film: Film, copy: Path, tmp_path: Path
) -> None:
    """Videos recorded before their hashes were: a home of then, its ledger as it stands."""
    home = film.home
    body: dict[str, Any] = dict(home.ledger.entry(film.sealed.receipt.index).body)
    old = {key: value for key, value in body.items() if key not in (FIELD, "manifest_id", "manifest_sha256")}
    receipt = home.ledger.append({**old, "kind": "output_recorded"})
    report = Checker(home).check_file(copy)
    assert report.ledger.index == receipt.index
    assert (report.ledger.perceptual_distance, report.verdict) == (None, Verdict.SYNTHETIC_BY_MARK)
    assert fsck.verify(home).ok
    zipped = tmp_path / "export.zip"
    zipped.write_bytes(export_ledger(home.ledger))
    told = verify(zipped, home.ledger.signer.verifier.text, [])
    assert told["entries"] == receipt.index + 1


def test_the_report_on_compliance_looks_at_videos(
    film: Film,
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def states(*files: Path) -> dict[str, str]:
        out = tmp_path / "report.csv"
        assert run(film, monkeypatch, "audit", "report", "-o", out, "--json", "--files", *files) == 0
        return {row["id"]: row["state"] for row in json.loads(capsys.readouterr().out)["rows"]}

    whole = states(film.sealed.path)
    for name in ("eu.mark", "cn.implicit_label", "ca.hard_to_remove", "ca.standards"):
        assert whole[name] == "pass", name
    unnamed = tmp_path / "unnamed.mp4"
    unnamed.write_bytes(film.sealed.path.read_bytes().replace(b"mdtaAIGC", b"mdtaAIGX"))
    assert states(unnamed)["cn.implicit_label"] == "fail", "XMP alone is not where a video has its label"
    stripped = states(film.sealed.path, copy)
    assert stripped["cn.implicit_label"] == "fail"
    assert stripped["ca.hard_to_remove"] == "pass"
