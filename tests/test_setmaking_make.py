"""Sets are made whole, go on after a kill, refuse what is not theirs, and show every tampering."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from conftest import ROOT
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from facesets.record import SampleRecord, flaws_of, read_lines
from facesets.rle import decode_runs
from facesets.spec import SetSpec
from fusion.media import encode_picture
from fusion.pipeline import rework
from fusion.seal import Release
from provenance.errors import FacsimileError, InputError, RefusedError, UsageError
from provenance.hashes import content_sha256, sha256_hex
from provenance.home import Home
from server.cli import build_app
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
