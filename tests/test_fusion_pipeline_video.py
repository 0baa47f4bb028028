"""A fused video: marked in every frame, signed, recorded, then released; consent of every face of every frame."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import av
import numpy as np
import pytest
from clips import clip, corners, filmed, hills
from conftest import ORGANISATION, Studio
from killing import Victim, victim

from detector.check import Checker
from detector.verdict import Verdict
from fusion.face import UInt8Array
from fusion.identity import MATCH_THRESHOLD
from fusion.media import read_picture
from fusion.pipeline_video import fuse_video, prepare_video
from fusion.request import FuseRequest
from fusion.seal import Sealed
from fusion.stopwatch import Stopwatch
from fusion.video import VideoLimits, open_video
from provenance import fsck, grants, mp4, signing, subjects, watermark
from provenance.consent import NOBODIES_FIELD
from provenance.declarations import declare_synthetic
from provenance.errors import ConsentError, FaceError, InputError, MediaError, StoreError, UsageError
from provenance.hashes import video_content_sha256
from provenance.home import Home
from provenance.records import AdultVerified, Embedder, GrantTerms, Media, Profile, PublicFigure, Role

SHOWN, EMPTY = 7, 3  # frames with a face, then without


@dataclass(frozen=True)
class Film:
    """A declared clip of a nobody, cut to a landscape, with sound; and what became of it."""

    home: Home
    path: Path
    sealed: Sealed

    def frames(self, path: Path | None = None) -> list[UInt8Array]:
        with open_video(path or self.path) as video:
            return [frame.rgb for frame in video.frames()]


@pytest.fixture(scope="module")
def portraits(studio: Studio) -> list[UInt8Array]:
    return [read_picture(person.path.read_bytes()).rgb for person in studio.people]


@pytest.fixture(scope="module")
def home(studio: Studio) -> Iterator[Home]:
    with Home.open(studio.home_path) as opened:
        yield opened


def declare(home: Home, path: Path) -> Path:
    with path.open("rb") as file:
        declare_synthetic(home, [video_content_sha256(file)], "drawn by the tests")
    return path


def request_of(studio: Studio, **changes: object) -> FuseRequest:
    source = studio.people[0].path.read_bytes()
    fields: dict[str, object] = {"sources": (source,), "target": b"", "purpose": "test", "preset": "mobile"}
    return FuseRequest(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def film(
    studio: Studio, home: Home, portraits: list[UInt8Array], tmp_path_factory: pytest.TempPathFactory
) -> Film:
    folder = tmp_path_factory.mktemp("film")
    frames = [filmed(portraits[1], number) for number in range(SHOWN)]
    frames += [hills(number) for number in range(EMPTY)]
    path = declare(home, clip(folder / "in.mp4", frames, sound=True))
    sealed = fuse_video(request_of(studio), path, home, studio.perception, folder / "out.mp4")
    return Film(home, path, sealed)


def test_a_video_is_marked_signed_recorded_and_then_released(film: Film) -> None:
    home, sealed = film.home, film.sealed
    entry = home.ledger.entry(sealed.receipt.index)
    with sealed.path.open("rb") as file:
        reading = signing.read_manifest(file, "video/mp4", home.keys.trust)
        assert (reading.state, reading.ours, reading.asset_id) == ("valid", True, sealed.asset_id)
        assert reading.num_ingredients == 2
        assert video_content_sha256(file) == sealed.content_sha256 == entry.body["content_sha256"]
        packets = mp4.read_packets(file)
        assert len(packets) == 1
        assert sealed.asset_id.encode() in packets[0]
        assert reading.source_type is not None
        assert reading.source_type.encode() in packets[0]
    assert (entry.body["media"], entry.body[NOBODIES_FIELD]) == ("video", True)
    with av.open(str(sealed.path)) as opened:
        assert sealed.asset_id in opened.metadata["AIGC"]
    assert fsck.verify(home).ok
    assert Checker(home).check_file(sealed.path).verdict is Verdict.DECLARED_SYNTHETIC
    assert list(sealed.details["timings_ms"]) == [
        "read", "perceive", "decode", "consent", "swap", "mark", "encode", "read_back", "sign", "record", "release",
    ]  # fmt: skip


def test_every_frame_carries_the_one_mark_and_every_face_its_new_identity(
    film: Film, studio: Studio, portraits: list[UInt8Array]
) -> None:
    ids = set()
    source, target = (studio.perception.analyse(rgb)[0].embedding for rgb in portraits[:2])
    assert source is not None
    assert target is not None
    for number, rgb in enumerate(film.frames(film.sealed.path)):
        ids.add(watermark.extract(rgb, film.home.keys.mark_key, search="fast").asset_id)
        if number < SHOWN and number % 3 == 0:
            face = studio.perception.analyse(rgb)[0].embedding
            assert face is not None
            assert float(face @ source) > float(face @ target) + 0.1
    assert ids <= {film.sealed.asset_id, None}
    assert film.sealed.asset_id in ids


def test_frames_without_a_face_and_the_sound_pass_unchanged(film: Film) -> None:
    assert film.sealed.details["video"] == {
        "num_frames": SHOWN + EMPTY,
        "num_altered": SHOWN,
        "duration_s": pytest.approx(1.0, abs=0.1),
        "num_shots": 2,
        "num_people": 1,
        "has_sound": True,
    }
    before, after = film.frames(), film.frames(film.sealed.path)
    assert len(after) == len(before)
    for number in range(SHOWN, SHOWN + EMPTY):
        assert np.abs(before[number].astype(int) - after[number]).mean() < 3.0
    changed = np.abs(before[2].astype(int) - after[2]).mean(axis=2)
    assert changed[90:200, 120:200].mean() > 3 * changed[:, :60].mean()

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as opened:
            return [bytes(packet) for packet in opened.demux(audio=0) if packet.size]

    assert packets(film.sealed.path) == packets(film.path)


def test_a_copy_coded_anew_leads_back_through_its_mark(film: Film, tmp_path: Path) -> None:
    stripped = clip(tmp_path / "stripped.mp4", film.frames(film.sealed.path))
    report = Checker(film.home).check_file(stripped)
    assert report.manifest.state == "none"
    assert report.verdict is Verdict.SYNTHETIC_BY_MARK
    assert report.ledger.index == film.sealed.receipt.index


def test_a_byte_of_a_frame_breaks_the_signature(film: Film, tmp_path: Path) -> None:
    data = bytearray(film.sealed.path.read_bytes())
    data[data.rindex(b"mdat") + 400] ^= 1
    path = tmp_path / "changed.mp4"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert signing.read_manifest(file, "video/mp4", film.home.keys.trust).state == "tampered"


def granted(home: Home, studio: Studio, rgb: UInt8Array, role: Role, *media: Media) -> str:
    """A grant for the face of a portrait, as source or target, for these media."""
    embedder = Embedder.make(sha256=studio.perception.models["identity"], threshold=MATCH_THRESHOLD)
    now = home.ledger.clock()
    profile = Profile.make(
        name="Nobody",
        adult_verified=AdultVerified(method="in_person", date=date(2026, 1, 5)),
        public_figure=PublicFigure(is_public_figure=False, evidence=None),
    )
    enrolled = subjects.enrol(home, profile, [studio.perception.analyse(rgb)[0].embedding], embedder)
    terms = GrantTerms.make(
        subject_id=enrolled.subject_id,
        grantee=ORGANISATION,
        purposes=("test",),
        scope_roles=(role,),
        scope_media=media,
        uses=("internal",),
        not_before=now - timedelta(hours=1),
        expires=now + timedelta(days=1),
        jurisdictions=("WORLD",),
        embedder=embedder,
        consent_text_sha256="c0" * 32,
        consent_text_language="en",
        evidence="tests",
    )
    return grants.issue(home, terms).id


def test_a_grant_for_stills_covers_no_video_and_one_for_videos_does(
    studio: Studio, home: Home, portraits: list[UInt8Array], tmp_path: Path
) -> None:
    path = clip(tmp_path / "person.mp4", [filmed(portraits[1], number) for number in range(4)])
    out = tmp_path / "out.mp4"
    still = granted(home, studio, portraits[1], "target", "still")
    with pytest.raises(ConsentError) as refusal:
        fuse_video(request_of(studio, grant_ids=(still,)), path, home, studio.perception, out)
    assert refusal.value.rules == ("grant.scope_media",)
    assert not out.exists()
    covers = granted(home, studio, portraits[1], "target", "still", "video")
    sealed = fuse_video(request_of(studio, grant_ids=(covers,)), path, home, studio.perception, out)
    assert sealed.details["grants"] == [covers]
    assert home.ledger.entry(sealed.receipt.index).body[NOBODIES_FIELD] is False


def test_a_face_that_shows_up_late_without_ground_refuses_all_of_it(
    studio: Studio, home: Home, portraits: list[UInt8Array], tmp_path: Path
) -> None:
    frames = [filmed(portraits[1], number) for number in range(5)] + [filmed(portraits[2], 5)]
    path, before = clip(tmp_path / "late.mp4", frames), home.ledger.tree_head().size
    grant = granted(home, studio, portraits[1], "target", "video")
    with pytest.raises(ConsentError) as refusal:
        fuse_video(request_of(studio, grant_ids=(grant,)), path, home, studio.perception, tmp_path / "o.mp4")
    assert refusal.value.rules == ("face.match",)
    assert "person 1 (first seen at 0.20 s)" in refusal.value.cause
    assert "person 0" not in refusal.value.cause
    assert [each.name for each in tmp_path.iterdir()] == ["late.mp4"]
    entry = home.ledger.entry(home.ledger.tree_head().size - 1)
    assert entry.kind == "decision_denied"
    assert [face["failed"] for face in entry.body["faces"]] == [[], [], ["face.match"]]
    assert "output_recorded" not in {each.kind for each in home.ledger.entries(before)}


@pytest.fixture(scope="module")
def odd(home: Home, portraits: list[UInt8Array], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    shown = [filmed(portraits[1], number) for number in range(4)]
    declare(home, clip(folder / "nobody.mp4", [corners(number, 320, 256) for number in range(3)]))
    declare(home, clip(folder / "short.mp4", shown))
    declare(home, clip(folder / "uneven.mp4", shown, [0.0, 0.03, 0.2, 0.25]))
    noise = [np.random.default_rng(seed).integers(0, 256, (256, 320, 3), np.uint8) for seed in range(6)]
    whole = clip(folder / "tail.mp4", noise, options={"movflags": "+faststart"}).read_bytes()
    (folder / "tail.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    return folder


@pytest.mark.parametrize(
    ("name", "output", "kind", "code"),
    [
        ("short.mp4", "out.jpg", UsageError, "usage.output_format"),
        ("nobody.mp4", "out.mp4", FaceError, "target.no_face"),
        ("tail.mp4", "out.mp4", MediaError, "media.truncated"),
        ("missing.mp4", "out.mp4", InputError, "file.missing"),
    ],
)
def test_what_cannot_be_fused_says_why_and_leaves_nothing(
    studio: Studio,
    home: Home,
    odd: Path,
    tmp_path: Path,
    name: str,
    output: str,
    kind: type[Exception],
    code: str,
) -> None:
    with pytest.raises(kind) as raised:
        fuse_video(request_of(studio), odd / name, home, studio.perception, tmp_path / output)
    assert raised.value.code == code  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []
    assert [each for each in home.path.iterdir() if each.name.endswith(".part")] == []


def test_a_video_of_too_many_frames_is_not_looked_at_to_its_end(
    studio: Studio, home: Home, odd: Path
) -> None:
    watch = Stopwatch()
    with (
        pytest.raises(MediaError) as raised,
        prepare_video(
            request_of(studio), odd / "short.mp4", home, studio.perception, watch, VideoLimits(max_frames=2)
        ),
    ):
        pytest.fail("it was looked at")
    assert raised.value.code == "media.too_long"


def test_uneven_times_are_kept(studio: Studio, home: Home, odd: Path, tmp_path: Path) -> None:
    sealed = fuse_video(request_of(studio), odd / "uneven.mp4", home, studio.perception, tmp_path / "o.mp4")
    with open_video(sealed.path) as video:
        assert list(video.info.times_s) == pytest.approx([0.0, 0.03, 0.2, 0.25], abs=1e-3)
        assert not video.info.has_sound


KILLER = """
import os, signal
from pathlib import Path
from fusion import pipeline_video, seal_video
from fusion.request import FuseRequest
from fusion.swap import load_perception
from provenance.home import Home

perception = load_perception("cpu")

def attempt(home_path, source, target, output, step):
    module, name = step.rsplit(".", 1)
    owner = seal_video
    for part in module.split("."):
        owner = getattr(owner, part)
    original, left = getattr(owner, name), [2 if name == "write" else 1]

    def killer(*args, **kwargs):
        done = original(*args, **kwargs)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, name, killer)
    with Home.open(Path(home_path)) as home:
        request = FuseRequest((Path(source).read_bytes(),), b"", "test", preset="mobile")
        pipeline_video.fuse_video(request, Path(target), home, perception, Path(output))
"""


@pytest.fixture(scope="module")
def fuser() -> Iterator[Victim]:
    with victim(KILLER) as ready:
        yield ready


@pytest.mark.parametrize("step", ["VideoWriter.write", "signing.sign_stream", "VideoRelease.release"])
def test_a_kill_leaves_nothing_released_and_unlogged(
    studio: Studio, fuser: Victim, odd: Path, tmp_path: Path, step: str
) -> None:
    output = tmp_path / "out.mp4"
    source, target = studio.people[0].path, odd / "short.mp4"
    fuser.run(str(studio.home_path), str(source), str(target), str(output), step)
    with Home.open(studio.home_path) as home:
        assert fsck.verify(home).ok
        assert [each for each in home.path.iterdir() if each.name.endswith(".part")] == []
        assert output.exists() == (step == "VideoRelease.release")
        if output.exists():
            assert Checker(home).check_file(output).ledger.found


def test_a_full_disk_leaves_nothing_half_written(
    studio: Studio, home: Home, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fusion.files.os.fsync", full)
    with pytest.raises(StoreError):
        fuse_video(request_of(studio), odd / "short.mp4", home, studio.perception, tmp_path / "out.mp4")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert fsck.verify(home).ok


def test_memory_does_not_grow_with_length(
    studio: Studio, home: Home, portraits: list[UInt8Array], tmp_path: Path
) -> None:
    peaks = []
    for count in (12, 20):
        frames = [filmed(portraits[1], 0)] + [hills(number) for number in range(count - 1)]
        path = declare(home, clip(tmp_path / f"{count}.mp4", frames))
        tracemalloc.start()
        fuse_video(request_of(studio), path, home, studio.perception, tmp_path / f"{count}_out.mp4")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    frame_bytes = 320 * 256 * 3
    assert peaks[1] < peaks[0] + 6 * frame_bytes
