"""Makes one shard of a plan: every picture through the sealing writer, its record beside it; knows no other shard.

A shard is a folder that is built under another name and renamed when everything in it is synced: it is there whole or
not at all. What was sealed for a shard that never came about is in the ledger and was never released.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from detector.blend import self_blend
from facesets.portraits import PortraitModel
from facesets.record import Generator, Origin, SampleRecord, write_lines
from facesets.spec import SetSpec
from fusion.face import FloatArray, UInt8Array
from fusion.files import make_folder, sync_folder, write_file_atomically
from fusion.media import read_picture
from fusion.pipeline import fuse, portray, rework
from fusion.request import FuseRequest, Look, only_face
from fusion.seal import Release, Sealed
from fusion.stopwatch import Stopwatch
from fusion.strangers import Stranger, Strangers
from fusion.swap import Perception, find_preset, load_perception, models_of
from provenance import __version__
from provenance.errors import FaceError, StoreError
from provenance.hashes import sha256_hex
from provenance.home import Home
from setmaking.labels import label_face, mask_picture
from setmaking.plan import Person, Shard, Task

SHARD_SCHEMA: Final = "facsimile-faceset-shard/1"
RECORDS, SHARD_FILE, SHARDS = "records.jsonl", "shard.json", "shards"
_SUFFIX: Final = {"png": ".png", "jpg": ".jpg", "webp": ".webp"}
_CODEC: Final = {"png": "png", "jpg": "jpeg, quality 95, 4:4:4", "webp": "webp, quality 95"}


@dataclass
class Maker:
    """What making takes, loaded when first needed and used for many shards."""

    spec: SetSpec
    home: Home

    @cached_property
    def strangers(self) -> Strangers:
        """Who draws people."""
        return Strangers(PortraitModel.load())

    @cached_property
    def perception(self) -> Perception:
        """The networks that find and embed faces."""
        return load_perception("cpu")

    @cached_property
    def models(self) -> dict[str, str]:
        """sha256 of every network that can decide what a set of this spec shows."""
        return {**self.strangers.models, **self.perception.models, **models_of(self.engine)}

    @property
    def engine(self) -> str:
        """The engine that fuses."""
        return self.spec.engine or find_preset(self.spec.preset).engine


@dataclass
class _Making:
    """One shard in the making: what is done of it so far."""

    maker: Maker
    shard: Shard
    folder: Path
    records: dict[str, SampleRecord] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)
    strangers: dict[str, Stranger] = field(default_factory=dict)

    def make(self, task: Task) -> None:
        """One sample; without a face that can be found it is left out, and so is what needs it."""
        needed = {name for name in (task.source, task.target) if name is not None}
        if not needed <= self.records.keys():
            self.left_out.append({"sample_id": task.sample_id, "code": "set.base_left_out"})
            return
        path = self.folder / f"{task.sample_id}{_SUFFIX[self.maker.spec.picture_format]}"
        try:
            self.records[task.sample_id] = _MAKERS[task.kind](self, task, path)
        except FaceError as error:
            path.unlink(missing_ok=True)
            self.left_out.append({"sample_id": task.sample_id, "code": error.code})

    def sampled(self, task: Task, path: Path) -> SampleRecord:
        maker, person = self.maker, self.person(task.identity)
        if person.id not in self.strangers:
            self.strangers[person.id] = maker.strangers.choose(maker.spec.seed, person.number)
        expression, light, yaw = task.look or ("own", "own", None)
        look = Look(expression, light, yaw, maker.spec.size_px)
        stranger = self.strangers[person.id]
        sealed = portray(maker.strangers, stranger, look, maker.home, Release(path), Stopwatch())
        told = {"number": person.number, "expression": expression, "light": light, "yaw_deg": yaw}
        made_by = Generator("portraits", __version__, dict(maker.strangers.models))
        basis = "portrait model: nobody"
        points = sealed.landmarks_px
        return self.record(task, path, sealed, points, made_by, told, basis, labelled_by="generator")

    def fused(self, task: Task, path: Path) -> SampleRecord:
        maker, target = self.maker, self.records[str(task.target)]
        source = self.records[str(task.source)]
        request = FuseRequest(
            sources=(self.read(source),),
            target=self.read(target),
            purpose=maker.spec.purpose,
            use="dataset",
            preset=maker.spec.preset,
            engine=maker.spec.engine,
        )
        sealed = fuse(request, maker.home, maker.perception, path)
        told = {"engine": maker.engine, "preset": maker.spec.preset}
        made_by = Generator(maker.engine, __version__, dict(sealed.details["models"]))
        origin = Origin(source.identity, source.sample_id, source.content_sha256)
        return self.record(task, path, sealed, None, made_by, told, "manifests: nobody", origin)

    def self_blended(self, task: Task, path: Path) -> SampleRecord:
        maker, target = self.maker, self.records[str(task.target)]
        landmarks = np.asarray(target.landmarks_px, np.float32)
        family = str(task.family)

        def change(rgb: UInt8Array) -> UInt8Array:
            return self_blend(rgb, landmarks, np.random.default_rng(task.seed), family)[0]

        release = Release(path)
        sealed = rework(self.read(target), change, maker.home, release, maker.spec.purpose)
        made_by = Generator("self_blend", __version__, {})
        told, by = {"family": family}, target.labelled_by
        return self.record(task, path, sealed, landmarks, made_by, told, target.basis, labelled_by=by)

    def record(
        self,
        task: Task,
        path: Path,
        sealed: Sealed,
        landmarks: FloatArray | None,
        made_by: Generator,
        parameters: dict[str, Any],
        basis: str,
        source: Origin | None = None,
        labelled_by: Literal["generator", "network"] = "network",
    ) -> SampleRecord:
        """The record of a released file; without landmarks they are found in it."""
        data = path.read_bytes()
        rgb = read_picture(data).rgb
        points = self.find(rgb) if landmarks is None else landmarks
        altered = sealed.altered if task.target is not None else None
        labels = label_face(rgb, points, altered)
        if altered is not None:
            mask = self.folder / "masks" / f"{task.sample_id}.png"
            make_folder(mask.parent)
            write_file_atomically(mask, mask_picture(altered))
        body = self.maker.home.ledger.entry(sealed.receipt.index).body
        of = None if task.target is None else self.records[task.target]
        target = None if of is None else Origin(of.identity, of.sample_id, of.content_sha256)
        before = () if of is None else of.compression
        return SampleRecord(
            sample_id=task.sample_id,
            kind=task.kind,
            split=self.shard.split,
            shard=self.shard.name,
            file=f"{SHARDS}/{self.shard.name}/{path.name}",
            file_sha256=sha256_hex(data),
            content_sha256=sealed.content_sha256,
            width=rgb.shape[1],
            height=rgb.shape[0],
            identity=task.identity,
            source=source,
            target=target,
            labelled_by=labelled_by,
            generator=made_by,
            seed=task.seed,
            parameters=parameters,
            compression=(*before, _CODEC[self.maker.spec.picture_format]),
            asset_id=sealed.asset_id,
            manifest_sha256=str(body["manifest_sha256"]),
            ledger_index=sealed.receipt.index,
            basis=basis,
            licence=self.maker.spec.licence,
            **vars(labels),
        )

    def find(self, rgb: UInt8Array) -> FloatArray:
        """Landmarks [478, 2] of the one face of a picture; FaceError."""
        face = only_face(self.maker.perception.analyse(rgb))
        if face.landmarks_px is None:
            raise FaceError("swap.no_landmarks", "a face has no landmarks", "Find landmarks before swapping.")
        return face.landmarks_px

    def read(self, record: SampleRecord) -> bytes:
        return (self.folder / Path(record.file).name).read_bytes()

    def person(self, identity: str) -> Person:
        return next(person for person in self.shard.people if person.id == identity)


_MAKERS: Final[dict[str, Callable[[_Making, Task, Path], SampleRecord]]] = {
    "sampled": _Making.sampled,
    "fused": _Making.fused,
    "self_blended": _Making.self_blended,
}


def is_finished(folder: Path, shard: Shard) -> bool:
    """Whether the shard is there."""
    return (folder / SHARDS / shard.name / SHARD_FILE).is_file()


def make_shard(maker: Maker, shard: Shard, folder: Path, report: Callable[[], None]) -> None:
    """Make a shard below the set's folder; `report` is called after each sample. Errors of the pipeline."""
    part = folder / SHARDS / f".{shard.name}.part"
    clear(part)
    make_folder(part)
    making = _Making(maker, shard, part)
    for task in shard.tasks:
        making.make(task)
        report()
    _put(making, part)


def _put(making: _Making, part: Path) -> None:
    """Write the index of a shard whose pictures lie in `part`, then give the folder its name."""
    shard, records = making.shard, list(making.records.values())
    write_file_atomically(part / RECORDS, write_lines(records))
    files = sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file())
    index = {
        "schema": SHARD_SCHEMA,
        "name": shard.name,
        "split": shard.split,
        "samples": len(records),
        "files": {file: sha256_hex((part / file).read_bytes()) for file in files},
        "left_out": making.left_out,
    }
    write_file_atomically(part / SHARD_FILE, (json.dumps(index, indent=1) + "\n").encode())
    final = part.parent / shard.name
    try:
        os.rename(part, final)
        sync_folder(final.parent)
    except OSError as error:
        raise StoreError(
            "set.cannot_finish",
            f"{final} cannot be put in place: {error.strerror}.",
            "Check the disk; remove a shard's folder that has no shard.json; run it again.",
        ) from error


def recover(folder: Path) -> None:
    """Remove the shards whose making was interrupted."""
    for part in (folder / SHARDS).glob(".*.part"):
        clear(part)


def clear(folder: Path) -> None:
    """Remove what an interrupted try left."""
    if folder.exists():
        shutil.rmtree(folder)
