"""The only writer: order of the steps, what is recorded, what a kill or a full disk between two steps leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Studio
from killing import Victim, victim

from detector.check import Checker
from detector.verdict import Verdict
from fusion.media import encode_picture, read_picture
from fusion.pipeline import fuse
from fusion.request import FuseRequest
from fusion.swap import load_perception
from fusion.weights import OCCLUSION
from provenance import fsck, signing, watermark, xmp
from provenance.consent import NOBODIES_FIELD
from provenance.errors import ConsentError, FaceError, InputError, StoreError, UsageError
from provenance.home import Home

STEPS = [
    "consent.accept",
    "watermark.embed",
    "encode_picture",
    "xmp.embed_xmp",
    "signing.sign",
    "_record",
    "write_file_atomically",
]

KILLER = """
import os, signal
from pathlib import Path
from fusion import pipeline, seal
from fusion.request import FuseRequest
from fusion.swap import load_perception
from provenance.home import Home

perception = load_perception("cpu")

def attempt(home_path, source, target, output, step, when):
    owner = seal
    *modules, name = step.split(".")
    for module in modules:
        owner = getattr(owner, module)
    original = getattr(owner, name)

    def killer(*args, **kwargs):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    with Home.open(Path(home_path)) as home:
        setattr(owner, name, killer)
        request = FuseRequest((Path(source).read_bytes(),), Path(target).read_bytes(), "test")
        pipeline.fuse(request, home, perception, Path(output))
"""


def request_of(studio: Studio, **changes: object) -> FuseRequest:
    request = FuseRequest(
        sources=(studio.people[0].path.read_bytes(),),
        target=studio.people[1].path.read_bytes(),
        purpose="test",
    )
    return replace(request, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def home(studio: Studio) -> Iterator[Home]:
    with Home.open(studio.home_path) as opened:
        yield opened


def test_a_fusion_is_marked_signed_recorded_and_then_released(
    studio: Studio, home: Home, tmp_path: Path
) -> None:
    sealed = fuse(request_of(studio), home, studio.perception, tmp_path / "out.jpg")
    data = sealed.path.read_bytes()
    reading = signing.read_manifest(data, "image/jpeg", home.keys.trust)
    mark = watermark.extract(read_picture(data).rgb, home.keys.mark_key)
    entry = home.ledger.entry(sealed.receipt.index)
    assert (reading.state, reading.ours, reading.asset_id) == ("valid", True, sealed.asset_id)
    assert (mark.present, mark.asset_id) == (True, sealed.asset_id)
    assert mark.p_false < 1e-6
    assert entry.body["content_sha256"] == sealed.content_sha256
    assert entry.body[NOBODIES_FIELD] is True
    assert entry.body["models"]["occlusion"] == OCCLUSION.sha256
    assert xmp.read_declaration(data).digital_source_type is not None
    assert reading.num_ingredients == 2
    assert fsck.verify(home).ok


def test_the_order_is_consent_swap_mark_encode_sign_record_release(
    studio: Studio, home: Home, tmp_path: Path
) -> None:
    sealed = fuse(request_of(studio), home, studio.perception, tmp_path / "out.png")
    assert list(sealed.details["timings_ms"]) == [
        "read", "perceive", "consent", "swap", "mark", "encode", "sign", "record", "release",
    ]  # fmt: skip


def test_an_output_made_of_nobodies_may_be_used_again(studio: Studio, home: Home, tmp_path: Path) -> None:
    first = fuse(request_of(studio), home, studio.perception, tmp_path / "first.png")
    second = fuse(
        request_of(studio, target=first.path.read_bytes()), home, studio.perception, tmp_path / "second.jpg"
    )
    assert Checker(home).check(second.path.read_bytes(), "second").verdict is Verdict.DECLARED_SYNTHETIC


def test_a_face_without_ground_is_refused_logged_and_nothing_is_written(
    studio: Studio, home: Home, tmp_path: Path
) -> None:
    stranger = encode_picture(read_picture(studio.people[2].path.read_bytes()).rgb, "png")
    before = home.ledger.tree_head().size
    with pytest.raises(ConsentError) as refusal:
        fuse(request_of(studio, target=stranger), home, studio.perception, tmp_path / "out.jpg")
    assert "face.accounted" in refusal.value.rules
    assert list(tmp_path.iterdir()) == []
    entry = home.ledger.entry(before)
    assert entry.kind == "decision_denied"
    assert "face.accounted" in str(entry.body)


@pytest.fixture(scope="module")
def fuser() -> Iterator[Victim]:
    with victim(KILLER) as ready:
        yield ready


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_any_two_steps_leaves_no_unlogged_output(
    studio: Studio, fuser: Victim, tmp_path: Path, step: str, when: str
) -> None:
    if when == "after" and step == "consent.accept":
        pytest.skip("consent.accept is a context manager: its end is the start of the next step")
    output = tmp_path / "out.jpg"
    source, target = (str(person.path) for person in studio.people[:2])
    fuser.run(str(studio.home_path), source, target, str(output), step, when)
    with Home.open(studio.home_path) as home:
        assert fsck.verify(home).ok
        if output.exists():
            report = Checker(home).check(output.read_bytes(), "out")
            assert report.verdict is Verdict.DECLARED_SYNTHETIC
            assert report.ledger.found
            assert report.ledger.inclusion_verified
        assert output.exists() == (step == "write_file_atomically" and when == "after")


def test_a_full_disk_leaves_nothing_half_written(
    studio: Studio, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / "out.jpg"
    monkeypatch.setattr("fusion.files.os.fsync", full)
    with pytest.raises(StoreError):
        fuse(request_of(studio), home, studio.perception, output)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert fsck.verify(home).ok


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"engine": "nonsense"}, UsageError, "swap.unknown_engine"),
        ({"face": "3"}, UsageError, "fuse.map_unreadable"),
        ({"mapping": ("0=7",)}, UsageError, "fuse.map_unreadable"),
        ({"purpose": "Not A Token"}, InputError, "consent.record"),
        ({"use": "everything"}, InputError, "consent.record"),
    ],
)
def test_wrong_requests_name_what_is_wrong(
    studio: Studio, home: Home, tmp_path: Path, changes: dict[str, object], error: type[Exception], code: str
) -> None:
    with pytest.raises(error) as raised:
        fuse(request_of(studio, **changes), home, studio.perception, tmp_path / "out.jpg")
    assert raised.value.code == code  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_a_picture_without_a_face_is_refused(studio: Studio, home: Home, tmp_path: Path) -> None:
    flat = encode_picture(np.full((300, 300, 3), 128, np.uint8), "png")
    for changes, code in (({"target": flat}, "target.no_face"), ({"sources": (flat,)}, "source.no_face")):
        with pytest.raises(FaceError) as raised:
            fuse(request_of(studio, **changes), home, studio.perception, tmp_path / "out.jpg")
        assert raised.value.code == code


def test_two_faces_take_two_sources_by_the_map(studio: Studio, home: Home, tmp_path: Path) -> None:
    rgb = [read_picture(person.path.read_bytes()).rgb for person in studio.people]
    both = encode_picture(np.hstack([rgb[1], rgb[2]]), "png")
    folder = tmp_path / "declared"
    folder.mkdir()
    studio.declare(home, both)
    request = FuseRequest(
        sources=(studio.people[0].path.read_bytes(), studio.people[1].path.read_bytes()),
        target=both,
        purpose="test",
        mapping=("0=1", "1=0"),
    )
    sealed = fuse(request, home, studio.perception, tmp_path / "out.png")
    faces = sorted(
        studio.perception.analyse(read_picture(sealed.path.read_bytes()).rgb), key=lambda f: f.box_xyxy[0]
    )
    sources = [studio.perception.analyse(picture)[0].embedding for picture in rgb]
    likeness = np.array([[float(face.embedding @ source) for source in sources] for face in faces])
    assert likeness[0].argmax() == 1
    assert likeness[1].argmax() == 0


def test_load_perception_names_every_model_by_its_hash() -> None:
    models = load_perception("cpu").models
    assert {"detect", "landmark", "identity"} <= set(models)
    assert all(len(sha256) == 64 for sha256 in models.values())
