"""Re-reads a set: hashes, seals, marks, ledger and records must agree, nobody may be in two splits; changes nothing.

What it cannot see: whether a label is right, and whether a picture that was left out should have been there. Without
the home that made the set, whose mark is in the pixels and whose signature it is stay unknown: it says so.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from facesets.errors import FacesetError
from facesets.record import SampleRecord, flaws_of, read_lines
from fusion.files import read_file
from fusion.media import LIMITS, read_picture
from provenance import signing, watermark
from provenance.errors import FacsimileError
from provenance.hashes import content_sha256, sha256_hex
from provenance.home import Home
from provenance.keys import Trust
from setmaking.compile import ALL_RECORDS, SET_FILE
from setmaking.make import MAX_PLAN_BYTES, read_plan
from setmaking.plan import Plan, Shard
from setmaking.shards import RECORDS, SHARD_FILE, SHARDS, is_finished

_DRAW: Final = random.SystemRandom()
"""Which share is looked at must not be known beforehand."""
Report = Callable[[int, int], None]
"""Called with (pictures done, of)."""


@dataclass(frozen=True)
class Flaw:
    """Something of a set that does not hold: the file below its folder, and what is wrong in plain words."""

    file: str
    what: str


@dataclass(frozen=True)
class Verified:
    """What was looked at, and every flaw that was found. `not_checked` names what nobody could or would look at."""

    num_samples: int
    num_shards: int
    flaws: tuple[Flaw, ...]
    num_opened: int
    not_checked: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `facsimile faceset verify`."""
        flaws = [vars(flaw) for flaw in self.flaws]
        return {
            "holds": not flaws,
            "samples": self.num_samples,
            "shards": self.num_shards,
            "opened": self.num_opened,
            "not_checked": list(self.not_checked),
            "flaws": flaws,
        }


def verify_set(folder: Path, home: Home | None, report: Report, share: float = 1.0) -> Verified:
    """Look at every record of a set and at a random `share` of its files, every one by default.

    `home` is the one that made it; without it marks, ledger and the signer's name are left out. UsageError
    `set.not_a_set` where there is no plan, InputError `set.plan`.
    """
    plan = read_plan(folder)
    flaws: list[Flaw] = []
    records: list[SampleRecord] = []
    for shard in plan.shards:
        if is_finished(folder, shard):
            found, wrong = _shard(folder, shard, share)
            records += found
            flaws += wrong
        else:
            flaws.append(Flaw(f"{SHARDS}/{shard.name}", "the shard was not made"))
    flaws += _strays(folder, plan)
    opened = [record for record in records if share >= 1 or _DRAW.random() < share]
    for done, record in enumerate(opened, 1):
        flaws += [Flaw(record.file, what) for what in _picture(folder, record, home)]
        report(done, len(opened))
    flaws += [*_splits(records), *_whole(folder)]
    left = ("mark", "ledger", "signer") if home is None else ()
    if len(opened) < len(records):
        left = (*left, f"{len(records) - len(opened)} pictures")
    return Verified(len(records), len(plan.shards), tuple(flaws), len(opened), left)


def _shard(folder: Path, shard: Shard, share: float) -> tuple[list[SampleRecord], list[Flaw]]:
    """Records of a shard that name a file of it, and what is wrong with its files, records and tasks."""
    place = folder / SHARDS / shard.name
    name = f"{SHARDS}/{shard.name}"
    try:
        index = json.loads(read_file(place / SHARD_FILE, MAX_PLAN_BYTES))
        listed, left_out = dict(index["files"]), {str(one["sample_id"]) for one in index["left_out"]}
        data = read_file(place / RECORDS, MAX_PLAN_BYTES)
        records = read_lines(data, f"{name}/{RECORDS}")
    except (FacesetError, FacsimileError) as error:
        return [], [Flaw(name, error.cause)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], [Flaw(f"{name}/{SHARD_FILE}", "it cannot be read")]
    flaws = [*_files(place, name, listed, share), *_tasks(shard, records, left_out, name)]
    known = {f"{name}/{file}" for file in listed if (place / file).is_file()}
    for record in records:
        flaws += [Flaw(record.file, f"its record lacks {what}") for what in flaws_of(record)]
        needed = [file for file in (record.file, record.mask_file) if file is not None]
        flaws += [Flaw(file, "a record names it, the shard does not") for file in needed if file not in known]
    return [record for record in records if record.file in known], flaws


def _files(place: Path, name: str, listed: dict[str, Any], share: float) -> Iterator[Flaw]:
    """Files of a shard's folder against its index: the names of all, the content of a share and of the records."""
    there = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} - {SHARD_FILE}
    for file in sorted(listed.keys() - there):
        yield Flaw(f"{name}/{file}", "it is missing")
    for file in sorted(there - listed.keys()):
        yield Flaw(f"{name}/{file}", "it does not belong to the set")
    for file in sorted(there & listed.keys()):
        wanted = file == RECORDS or share >= 1 or _DRAW.random() < share
        if wanted and _sha256(place / file) != listed[file]:
            yield Flaw(f"{name}/{file}", "it was changed")


def _sha256(path: Path) -> str:
    """Of a file of any size, without holding it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tasks(shard: Shard, records: Sequence[SampleRecord], left_out: set[str], name: str) -> Iterator[Flaw]:
    """Records of a shard against its plan."""
    made = [record.sample_id for record in records]
    planned = {task.sample_id: task for task in shard.tasks}
    if sorted([*made, *left_out]) != sorted(planned):
        yield Flaw(f"{name}/{RECORDS}", "its samples are not those of the plan")
    for record in records:
        task = planned.get(record.sample_id)
        parents = frozenset((task.source, task.target)) - {None} if task else frozenset[str | None]()
        told = (record.kind, record.identity, record.split, record.shard)
        if task is not None and (
            told != (task.kind, task.identity, shard.split, shard.name) or record.parents != parents
        ):
            yield Flaw(record.file, "its record is not what the plan says")


def _picture(folder: Path, record: SampleRecord, home: Home | None) -> Iterator[str]:
    """What is wrong with one picture: hash, pixels, seal; with the home that made it mark and ledger, too."""
    try:
        data = read_file(folder / record.file, LIMITS.max_bytes)
        if (sha256_hex(data), content_sha256(data)) != (record.file_sha256, record.content_sha256):
            yield "its hashes are not those of its record"
        picture = read_picture(data)
        reading = signing.read_manifest(data, picture.format.mime, home.keys.trust if home else Trust())
        whole = reading.state == "valid" and reading.ours if home else reading.state in ("valid", "untrusted")
        if not whole or reading.asset_id != record.asset_id:
            yield f"its seal does not hold: {reading.state}"
        if picture.rgb.shape[:2] != (record.height, record.width):
            yield "its size is not that of its record"
        if home is None:
            return
        found = watermark.extract(picture.rgb, home.keys.mark_key, search="fast").asset_id
        if found != record.asset_id:
            yield "its mark is not that of its record"
        yield from _ledger(record, home)
    except FacsimileError as error:
        yield error.cause


def _ledger(record: SampleRecord, home: Home) -> Iterator[str]:
    """The entry that the record names, and that it is under the ledger's root."""
    entry = home.ledger.entry(record.ledger_index)
    told = [entry.body.get(name) for name in ("asset_id", "content_sha256", "manifest_sha256")]
    if told != [record.asset_id, record.content_sha256, record.manifest_sha256]:
        yield "the ledger's entry is that of another picture"
    head = home.ledger.tree_head()
    home.ledger.inclusion_proof(entry.index).verify_inclusion(entry.leaf_sha256, head.root.hex())


def _splits(records: Sequence[SampleRecord]) -> Iterator[Flaw]:
    splits: dict[str, set[str]] = {}
    for record in records:
        for identity in record.identities:
            splits.setdefault(identity, set()).add(record.split)
    for identity, names in sorted(splits.items()):
        if len(names) > 1:
            yield Flaw(ALL_RECORDS, f"{identity} is in the splits {', '.join(sorted(names))}")


def _strays(folder: Path, plan: Plan) -> Iterator[Flaw]:
    planned = {shard.name for shard in plan.shards}
    for path in sorted((folder / SHARDS).glob("*")):
        if path.name not in planned and not path.name.endswith(".part"):
            yield Flaw(f"{SHARDS}/{path.name}", "it does not belong to the set")


def _whole(folder: Path) -> Iterator[Flaw]:
    """The files that were brought together of all shards, against set.json, and that against the shards."""
    try:
        index = json.loads(read_file(folder / SET_FILE, MAX_PLAN_BYTES))
        made_of, files = dict(index["made_of"]), dict(index["files"])
    except FacsimileError as error:
        yield Flaw(SET_FILE, error.cause)
        return
    except (ValueError, KeyError, TypeError):
        yield Flaw(SET_FILE, "it cannot be read")
        return
    for name, wanted in sorted(made_of.items()):
        path = folder / SHARDS / name / SHARD_FILE
        if not path.is_file() or sha256_hex(path.read_bytes()) != wanted:
            yield Flaw(f"{SHARDS}/{name}/{SHARD_FILE}", "it is not what the set was brought together of")
    for name, wanted in sorted(files.items()):
        path = folder / name
        if not path.is_file() or _sha256(path) != wanted:
            yield Flaw(name, "it was changed or is missing")
