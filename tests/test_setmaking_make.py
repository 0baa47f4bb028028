"""Sets are made whole, go on after a kill, refuse what is not theirs, and show every tampering."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from conftest import ROOT
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from facesets.card import make_card
from facesets.formats import SetView, write_format
from facesets.overlay import draw_labels
from facesets.record import SampleRecord, flaws_of, read_lines
from facesets.rle import decode_runs
from facesets.spec import SetSpec
from fusion.media import encode_picture
from fusion.pipeline import rework
from fusion.seal import Release
from provenance.consent import references_of
from provenance.errors import FacsimileError, InputError, RefusedError, UsageError
from provenance.grants import issue, revoke
from provenance.hashes import content_sha256, sha256_hex
from provenance.home import Home
from provenance.records import AdultVerified, Embedder, GrantTerms, Profile, PublicFigure
from provenance.subjects import enrol
from server.cli import build_app
from setmaking.filter import Rules, filter_set, left_out
from setmaking.make import Made, locked, make_set
from setmaking.plan import load_plan
from setmaking.verify import verify_set

FIELDS = {
    "name": "tiny", "purpose": "research", "licence": "CC-BY-4.0", "identities": 4, "pictures": 1, "fused": 1,
    "self_blended": 1, "splits": {"train": 0.5, "test": 0.5}, "seed": 3,
}  # fmt: skip
KILLED = """
import functools, json, os, signal, sys
from pathlib import Path
from facesets.spec import SetSpec
from provenance.home import Home
from setmaking.make import make_set

def report(stage, done, of):
    if (stage, done) == ("pictures", 3):
        os.kill(os.getpid(), signal.SIGKILL)

home, folder, fields = sys.argv[1:]
make_set(SetSpec.of(json.loads(fields)), Path(folder), functools.partial(Home.open, Path(home)), report)
"""


def quiet(stage: str, done: int, of: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class Tiny:
    """A home and a finished set of six pictures in two shards."""

    home: Path
    made: Made

    @property
    def open_home(self) -> Callable[[], Home]:
        return functools.partial(Home.open, self.home)

    def records(self, folder: Path | None = None) -> list[SampleRecord]:
        return read_lines(((folder or self.made.folder) / "records.jsonl").read_bytes(), "records.jsonl")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("sets")
    Home.create(folder / "home", "Tests").close()
    open_home = functools.partial(Home.open, folder / "home")
    return Tiny(folder / "home", make_set(SetSpec.of(FIELDS), folder / "set", open_home, quiet))


def files_below(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_set_holds_what_its_spec_asks_for(tiny: Tiny) -> None:
    records = tiny.records()
    assert (tiny.made.num_samples, tiny.made.num_made, tiny.made.num_left_out) == (6, 6, 0)
    assert sorted(record.kind for record in records) == ["fused", *["sampled"] * 4, "self_blended"]
    assert [flaws_of(record) for record in records] == [[]] * 6
    people = {
        split: {who for record in records if record.split == split for who in record.identities}
        for split in ("train", "test")
    }
    assert [len(people["train"]), len(people["test"])] == [2, 2]
    assert not people["train"] & people["test"]
    for record in records:
        x, y = np.mean(record.points_px[:2], axis=0)
        face = decode_runs(record.masks["face"], record.height, record.width)
        assert face[int(y), int(x)]
        assert not face[0].any()
        if record.mask_file is not None:
            shown = cv2.imread(str(tiny.made.folder / record.mask_file), cv2.IMREAD_GRAYSCALE)
            blend = decode_runs(record.masks["blend"], record.height, record.width)
            np.testing.assert_array_equal(shown == 255, blend)
            assert (blend & face).sum() > 0.3 * blend.sum()


def test_a_second_run_touches_nothing(tiny: Tiny) -> None:
    before = files_below(tiny.made.folder)
    again = make_set(SetSpec.of(FIELDS), tiny.made.folder, tiny.open_home, quiet)
    assert (again.num_made, again.num_skipped, again.num_samples) == (0, 2, 6)
    assert files_below(tiny.made.folder) == before


def test_a_killed_run_goes_on_to_the_same_set(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    command = [sys.executable, "-c", KILLED, str(tiny.home), str(folder), json.dumps(FIELDS)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}", "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [path.name for path in (folder / "shards").iterdir()] == [".00000.part"]
    make_set(SetSpec.of(FIELDS), folder, tiny.open_home, quiet, workers=2)
    assert (folder / "plan.json").read_bytes() == (tiny.made.folder / "plan.json").read_bytes()

    def told(record: SampleRecord) -> tuple[object, ...]:
        labels = (record.points_px, record.pose) if record.labelled_by == "generator" else ()
        return (record.sample_id, record.kind, record.split, record.identities, record.parameters, labels)

    assert [told(one) for one in tiny.records(folder)] == [told(one) for one in tiny.records()]
    assert sorted(path.name for path in (folder / "shards").iterdir()) == ["00000", "00001"]
    with tiny.open_home() as home:
        assert verify_set(folder, home, lambda done, of: None).flaws == ()


def test_a_folder_that_holds_something_else_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").write_text("dear")
    other = SetSpec.of({**FIELDS, "seed": 4})
    for folder, code in ((tiny.made.folder, "set.other_spec"), (tmp_path / "used", "set.folder_in_use")):
        with pytest.raises(UsageError) as caught:
            make_set(other, folder, tiny.open_home, quiet)
        assert caught.value.code == code
    with tiny.open_home() as home, pytest.raises(UsageError) as caught:
        verify_set(tmp_path, home, lambda done, of: None)
    assert caught.value.code == "set.not_a_set"


def test_two_processes_do_not_work_on_one_set(tiny: Tiny) -> None:
    with locked(tiny.made.folder), pytest.raises(UsageError) as caught:
        make_set(SetSpec.of(FIELDS), tiny.made.folder, tiny.open_home, quiet)
    assert caught.value.code == "set.busy"


def test_fused_pictures_need_two_people_of_a_shard(tiny: Tiny, tmp_path: Path) -> None:
    spec = SetSpec.of({**FIELDS, "identities": 1, "self_blended": 0})
    with pytest.raises(FacsimileError) as caught:
        make_set(spec, tmp_path / "set", tiny.open_home, quiet)
    assert caught.value.code == "set.nobody_to_fuse"


def test_a_plan_that_is_none_is_said_so() -> None:
    with pytest.raises(InputError) as caught:
        load_plan(b'{"shards": 3}')
    assert caught.value.code == "set.plan"


def test_verify_names_every_file_that_was_changed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACSIMILE_HOME", str(tiny.home))
    whole = CliRunner().invoke(build_app(), ["faceset", "verify", str(tiny.made.folder), "--json"])
    assert (whole.exit_code, json.loads(whole.stdout)["holds"]) == (0, True)

    folder = tmp_path / "set"
    shutil.copytree(tiny.made.folder, folder)
    picture = tiny.records()[0].file
    mask = next(record.mask_file for record in tiny.records() if record.mask_file)
    changed = {picture, mask, "coco/train.json", "README.md"}
    for name in changed:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
    (folder / "shards" / "00001" / "stray.png").write_bytes(b"")
    ran = CliRunner().invoke(build_app(), ["faceset", "verify", str(folder), "--json"])
    assert ran.exit_code == 3
    found = json.loads(ran.stdout)
    assert {flaw["file"] for flaw in found["flaws"]} == changed | {"shards/00001/stray.png"}


def test_verify_sees_through_hashes_that_were_changed_along(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(tiny.made.folder, folder)
    shard = folder / "shards" / "00001"
    first, second = [record for record in tiny.records() if record.shard == "00001"]
    data = (folder / second.file).read_bytes()
    (folder / first.file).write_bytes(data)
    text = (shard / "records.jsonl").read_text()
    text = text.replace(first.file_sha256, sha256_hex(data)).replace(
        first.content_sha256, content_sha256(data)
    )
    text = text.replace(second.identity, first.identity)
    (shard / "records.jsonl").write_text(text)
    index = json.loads((shard / "shard.json").read_bytes())
    for name in (Path(first.file).name, "records.jsonl"):
        index["files"][name] = sha256_hex((shard / name).read_bytes())
    (shard / "shard.json").write_text(json.dumps(index))
    with tiny.open_home() as home:
        flaws = {(flaw.file, flaw.what) for flaw in verify_set(folder, home, lambda done, of: None).flaws}
    assert (first.file, "its mark is not that of its record") in flaws
    assert (first.file, "the ledger's entry is that of another picture") in flaws
    assert (second.file, "its record is not what the plan says") in flaws
    assert any(file == "shards/00001/shard.json" for file, _ in flaws)


def test_parquet_holds_the_sealed_bytes_and_the_labels(tiny: Tiny) -> None:
    rows = {
        row["sample_id"]: row
        for path in sorted((tiny.made.folder / "parquet").iterdir())
        for row in pyarrow.parquet.read_table(path).to_pylist()
    }
    assert len(rows) == 6
    for record in tiny.records():
        row = rows[record.sample_id]
        assert row["image"]["bytes"] == (tiny.made.folder / record.file).read_bytes()
        assert (row["kind"], row["split"], row["identity"]) == (record.kind, record.split, record.identity)
        np.testing.assert_allclose(row["landmarks_px"], record.landmarks_px, atol=1e-3)
        assert row["masks"]["face"] == list(record.masks["face"])
        assert dict(row["generator"]["models"]) == record.generator.models


def test_coco_counts_the_masks_as_they_are(tiny: Tiny) -> None:
    records = {record.sample_id: record for record in tiny.records()}
    seen = 0
    for split in ("train", "test"):
        content = json.loads((tiny.made.folder / "coco" / f"{split}.json").read_bytes())
        images = {image["id"]: records[image["sample_id"]] for image in content["images"]}
        assert {record.split for record in images.values()} == {split}
        for annotation in content["annotations"]:
            record = images[annotation["image_id"]]
            name = "face" if annotation["category_id"] == 1 else "blend"
            mask = decode_runs(record.masks[name], record.height, record.width)
            coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            assert annotation["segmentation"]["counts"] == coded["counts"].decode()
            assert annotation["area"] == int(mask.sum())
            seen += 1
    assert seen == 8


def test_deepfakebench_lists_every_picture_once(tiny: Tiny) -> None:
    content = json.loads((tiny.made.folder / "deepfakebench" / "tiny.json").read_bytes())["tiny"]
    assert set(content) == {"tiny_original", "tiny_fused", "tiny_self_blended"}
    listed = {}
    for label, splits in content.items():
        for split, videos in splits.items():
            for video in videos.values():
                assert video["label"] == label
                listed |= dict.fromkeys(video["frames"], (label, split, tuple(video["masks"])))
    for record in tiny.records():
        label = "tiny_original" if record.kind == "sampled" else f"tiny_{record.kind}"
        masks = () if record.mask_file is None else (record.mask_file,)
        assert listed.pop(record.file) == (label, record.split, masks)
    assert listed == {}


def test_a_picture_not_shown_to_be_of_nobodies_is_not_reworked(tiny: Tiny, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with tiny.open_home() as home:
        before = home.ledger.tree_head().size
        with pytest.raises(RefusedError) as caught:
            rework(
                encode_picture(rgb, "png"), lambda one: 255 - one, home, Release(tmp_path / "out.png"), "test"
            )
        assert home.ledger.tree_head().size == before
    assert caught.value.code == "rework.not_nobody"
    assert list(tmp_path.iterdir()) == []


def test_a_filtered_set_is_a_set_and_the_old_one_stays(tiny: Tiny, tmp_path: Path) -> None:
    before, out = files_below(tiny.made.folder), tmp_path / "less"
    fused = next(record for record in tiny.records() if record.kind == "fused")
    assert fused.source is not None
    rules = Rules(without=(fused.source.identity,))
    with tiny.open_home() as home:
        found = filter_set(tiny.made.folder, out, rules, home, quiet)
        again = filter_set(tiny.made.folder, out, rules, home, quiet)
        assert verify_set(out, home, lambda done, of: None).flaws == ()
    assert again == found
    left = tiny.records(out)
    gone = {record.sample_id for record in tiny.records()} - {record.sample_id for record in left}
    assert fused.sample_id in gone
    assert not any(fused.source.identity in record.identities for record in left)
    assert found.num_samples == len(left) == 6 - sum(found.left_out.values())
    assert found.left_out["filter.identity"] >= 2
    for record in left:
        assert (out / record.file).read_bytes() == (tiny.made.folder / record.file).read_bytes()
    assert not any((out / "shards").rglob(f"{fused.sample_id}*"))
    assert files_below(tiny.made.folder) == before


def test_what_was_made_of_a_sample_goes_with_it(tiny: Tiny, tmp_path: Path) -> None:
    with tiny.open_home() as home:
        small = filter_set(
            tiny.made.folder, tmp_path / "a", Rules(kinds=("fused", "self_blended")), home, quiet
        )
        assert small.left_out == {"filter.kind": 4, "filter.parent": 2}
        widths = [record.box_xyxy[3] - record.box_xyxy[1] for record in tiny.records()]
        large = filter_set(tiny.made.folder, tmp_path / "b", Rules(min_face_px=max(widths) + 50), home, quiet)
        assert large.left_out == {"filter.quality": 6}
        with pytest.raises(UsageError) as same:
            filter_set(tiny.made.folder, tiny.made.folder, Rules(), home, quiet)
        with pytest.raises(ValueError, match="withdrawn"):
            filter_set(tiny.made.folder, tmp_path / "c", Rules(), None, quiet)
    assert same.value.code == "set.same_folder"


def test_a_sample_on_a_revoked_grant_is_left_out_and_so_is_what_was_made_of_it(tiny: Tiny) -> None:
    base, *others = (record for record in tiny.records() if record.kind == "sampled")
    made_of_it = next(record for record in tiny.records() if base.sample_id in record.parents)
    with tiny.open_home() as home:
        kept, withdrawn = (grant_in(home) for _ in range(2))
        entries = [
            home.ledger.append(
                {"kind": "output_recorded", "grants": list(references_of([grant], record.asset_id, home))}
            ).index
            for grant, record in ((withdrawn, base), (kept, others[0]), (withdrawn, others[1]))
        ]
        told = [
            dataclasses.replace(base, ledger_index=entries[0]),
            dataclasses.replace(others[0], ledger_index=entries[1]),
            dataclasses.replace(
                others[1], ledger_index=entries[0]
            ),  # the same grant, named for another picture
            made_of_it,
        ]
        assert list(left_out(told, Rules(), home)) == []
        revoke(home, withdrawn, "changed their mind")
        gone = dict(left_out(told, Rules(), home))
        assert gone == {base.sample_id: "filter.consent", made_of_it.sample_id: "filter.parent"}
        assert list(left_out(told, Rules(withdrawn=False), home)) == []


def grant_in(home: Home) -> str:
    """A person and a grant of theirs."""
    vector = np.random.default_rng(1).normal(size=512).astype(np.float32)
    embedder = Embedder(sha256="e1" * 32, threshold=0.35)
    profile = Profile.make(
        name="Ada Quillfeather",
        adult_verified=AdultVerified(method="passport", date=datetime(2026, 1, 5, tzinfo=UTC).date()),
        public_figure=PublicFigure(is_public_figure=False, evidence=None),
    )
    person = enrol(home, profile, [vector / np.linalg.norm(vector)], embedder).subject_id
    terms = GrantTerms.make(
        subject_id=person, grantee="Tests", purposes=("research",), scope_roles=("source",), scope_media=("still",),
        uses=("dataset",), not_before=home.ledger.clock() - timedelta(hours=1),
        expires=home.ledger.clock() + timedelta(days=9), jurisdictions=("EU",), embedder=embedder,
        consent_text_sha256="c0" * 32, consent_text_language="en", evidence="paper form 17",
    )  # fmt: skip
    return issue(home, terms).id


def test_others_verify_without_the_home_and_are_told_what_they_did_not_see(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny.made.folder, tmp_path / "set")
    found = verify_set(folder, None, lambda done, of: None)
    assert (found.flaws, found.num_opened) == ((), 6)
    assert found.not_checked == ("mark", "ledger", "signer")
    part = verify_set(folder, None, lambda done, of: None, share=0.0)
    assert (part.flaws, part.num_opened, part.not_checked[-1]) == ((), 0, "6 pictures")
    record = tiny.records()[0]
    data = bytearray((folder / record.file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / record.file).write_bytes(data)
    assert record.file in {flaw.file for flaw in verify_set(folder, None, lambda done, of: None).flaws}
    assert verify_set(folder, None, lambda done, of: None, share=0.0).flaws == ()
    (folder / "shards" / record.shard / "records.jsonl").write_bytes(b"")
    assert verify_set(folder, None, lambda done, of: None, share=0.0).flaws


def view_of(tiny: Tiny) -> SetView:
    records = tuple(tiny.records())
    card = make_card(SetSpec.of(FIELDS).model_dump(mode="json"), records, "0")
    return SetView(card, records, lambda file: (tiny.made.folder / file).read_bytes())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_s_own_reader_finds_every_sample(tiny: Tiny, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    seen = {}
    for path, data in write_format("webdataset", view_of(tiny)):
        file = tmp_path / Path(path).name
        file.write_bytes(data)
        assert dict(write_format("webdataset", view_of(tiny)))[path] == data
        for sample in webdataset.WebDataset(str(file), shardshuffle=False):
            seen[sample["__key__"]] = sample
    for record in tiny.records():
        sample = seen.pop(record.sample_id)
        assert sample["png"] == (tiny.made.folder / record.file).read_bytes()
        assert json.loads(sample["json"])["asset_id"] == record.asset_id
        assert ("mask.png" in sample) == (record.mask_file is not None)
    assert not seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_croissant_s_own_reader_finds_every_record(tiny: Tiny, tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant")
    ((name, data),) = write_format("croissant", view_of(tiny))
    (tmp_path / name).write_bytes(data)
    shutil.copy(tiny.made.folder / "records.jsonl", tmp_path / "records.jsonl")
    read = croissant.Dataset(jsonld=str(tmp_path / name))
    assert not read.metadata.issues.errors
    rows = list(read.records("samples"))
    told = {row["samples/sample_id"].decode(): row for row in rows}
    for record in tiny.records():
        row = told.pop(record.sample_id)
        assert row["samples/file"].decode() == record.file
        assert row["samples/ledger_index"] == record.ledger_index
        assert row["samples/width"] == record.width
    assert not told


def test_labels_are_drawn_where_they_are(tiny: Tiny) -> None:
    record = next(record for record in tiny.records() if record.kind == "self_blended")
    grey = np.full((record.height, record.width, 3), 90, np.uint8)
    drawn = draw_labels(grey, record)
    times = drawn.shape[0] // record.height
    assert drawn.shape == (record.height * times, record.width * times, 3)
    left, top, right, _ = (round(value * times) for value in record.box_xyxy)
    rim = drawn[top - 3 : top + 4, left + 20 : right - 20].astype(int)
    assert ((rim[..., 0] > 200) & (rim[..., 2] < 120)).any(0).mean() > 0.9
    x, y = (round(value * times) for value in record.landmarks_px[1])
    assert drawn[y - 2 : y + 3, x - 2 : x + 3].max() > 200
    corner = drawn[: 10 * times, : 10 * times]
    assert (corner == 90).all()


def test_the_preview_shows_labels_and_the_filter_its_reasons(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACSIMILE_HOME", str(tiny.home))
    sheets = []
    for name, more in (("plain.png", ["--most", "3", "--labels"]), ("one.png", ["--most", "1", "--labels"])):
        ran = CliRunner().invoke(
            build_app(), ["faceset", "preview", str(tiny.made.folder), "-o", str(tmp_path / name), *more]
        )
        assert ran.exit_code == 0, ran.output
        sheets.append(cv2.imread(str(tmp_path / name)))
    assert sheets[0].shape[1] >= sheets[1].shape[1]
    ran = CliRunner().invoke(build_app(), ["faceset", "preview", str(tmp_path), "-o", "x.png", "--labels"])
    assert ran.exit_code == 2
    assert "preview.no_records" in ran.stderr
    out = tmp_path / "less"
    command = ["faceset", "filter", str(tiny.made.folder), "-o", str(out), "--kind", "sampled", "--json"]
    told = json.loads(CliRunner().invoke(build_app(), command).stdout)
    assert (told["samples"], told["left_out"]) == (4, {"filter.kind": 2})
    ran = CliRunner().invoke(build_app(), [*command[:5], "--kind", "swapped"])
    assert (ran.exit_code, "filter.word" in ran.stderr) == (2, True)


def test_the_command_makes_a_set_and_refuses_a_wrong_spec(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACSIMILE_HOME", str(tiny.home))
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(FIELDS))
    ran = CliRunner().invoke(
        build_app(), ["faceset", "make", str(spec), "-o", str(tiny.made.folder), "--json"]
    )
    assert (ran.exit_code, json.loads(ran.stdout)["shards_skipped"]) == (0, 2)
    spec.write_text(json.dumps({**FIELDS, "identites": 4}))
    ran = CliRunner().invoke(build_app(), ["faceset", "make", str(spec), "-o", str(tmp_path / "s"), "--json"])
    assert (ran.exit_code, json.loads(ran.stdout)["error"]["code"]) == (2, "faceset.spec")
    assert not (tmp_path / "s").exists()
