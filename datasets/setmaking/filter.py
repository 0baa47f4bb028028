"""A set without some of its samples, as a set of its own: by consent, people, kind and quality; changes no picture.

Pictures are copied byte for byte, with their seals; the plan stays, and what was left out is listed in shard.json with
its reason. Whatever was made of a sample that is left out is left out too. The set it is made of is not touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from facesets.record import SampleRecord, read_lines, write_lines
from facesets.spec import SetSpec
from fusion.files import make_folder, read_file, write_file_atomically
from provenance.consent import references_of
from provenance.errors import UsageError
from provenance.grants import list_grants
from provenance.hashes import sha256_hex
from provenance.home import Home
from setmaking.compile import compile_set
from setmaking.make import LOCK, MAX_PLAN_BYTES, PLAN, locked, read_plan
from setmaking.plan import Plan, Shard
from setmaking.shards import RECORDS, SHARD_FILE, SHARDS, clear, is_finished, recover

Report = Callable[[str, int, int], None]
"""Called with (stage, done, of); stages are "pictures", "formats"."""

CONSENT, IDENTITY, KIND, QUALITY, PARENT = (
    f"filter.{name}" for name in ("consent", "identity", "kind", "quality", "parent")
)
"""Why a sample was left out, as shard.json says it."""
RULES: Final = "filter"


@dataclass(frozen=True)
class Rules:
    """Which samples stay.

    withdrawn      leave out what rests on a grant that was revoked since
    without        identities that nothing may show or be made of
    kinds          those alone; empty: all
    min_face_px    longer side of the landmarks' box
    max_yaw_deg    either way
    labelled_by    `generator` or `network` alone; empty: both
    """

    withdrawn: bool = True
    without: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    min_face_px: float = 0.0
    max_yaw_deg: float = 180.0
    labelled_by: str = ""

    def reason(self, record: SampleRecord) -> str | None:
        """Why a sample is left out by its record alone; None where it may stay."""
        left, top, right, bottom = record.box_xyxy
        unfit = max(right - left, bottom - top) < self.min_face_px or abs(record.pose.yaw) > self.max_yaw_deg
        if record.identities & set(self.without):
            return IDENTITY
        if self.kinds and record.kind not in self.kinds:
            return KIND
        if unfit or self.labelled_by not in ("", record.labelled_by):
            return QUALITY
        return None


@dataclass(frozen=True)
class Filtered:
    """What came of filtering: samples of the new set, and how many were left out, by reason."""

    folder: Path
    num_samples: int
    left_out: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `facsimile faceset filter`."""
        return {"folder": str(self.folder), "samples": self.num_samples, "left_out": self.left_out}


def filter_set(folder: Path, out: Path, rules: Rules, home: Home | None, report: Report) -> Filtered:
    """Write the samples of a finished set that `rules` keep into the new folder `out`; run again, it goes on.

    `home` made the set and knows its grants; it may be None where `rules.withdrawn` is False. UsageError `set.*`,
    InputError `set.plan`, FacesetError `faceset.record`.
    """
    plan = read_plan(folder)
    _require(folder, out, plan, rules, home)
    with locked(out):
        _begin(folder, out)
        recover(out)
        counts: dict[str, int] = {}
        for done, shard in enumerate(plan.shards, 1):
            if not is_finished(out, shard):
                _shard(folder, out, shard, rules, home)
            for entry in _index(out, shard)["left_out"]:
                if str(entry["code"]).startswith("filter."):
                    counts[entry["code"]] = counts.get(entry["code"], 0) + 1
            report("pictures", done, len(plan.shards))
        compiled = compile_set(out, SetSpec.of(plan.spec), lambda done, of: report("formats", done, of))
    return Filtered(out, len(compiled.records), counts)


def _require(folder: Path, out: Path, plan: Plan, rules: Rules, home: Home | None) -> None:
    if missing := [shard.name for shard in plan.shards if not is_finished(folder, shard)]:
        raise UsageError(
            "set.unfinished",
            f"{folder} lacks {len(missing)} shard(s).",
            "Finish it with `faceset make` first.",
        )
    if out.resolve() == folder.resolve():
        raise UsageError("set.same_folder", "A set is not filtered in place.", "Name another folder with -o.")
    if rules.withdrawn and home is None:
        raise ValueError("without a home nobody knows which grants were withdrawn")


def _begin(folder: Path, out: Path) -> None:
    """The plan of the set into the new folder; UsageError where that holds something else."""
    plan = read_file(folder / PLAN, MAX_PLAN_BYTES)
    if (out / PLAN).exists():
        if read_file(out / PLAN, MAX_PLAN_BYTES) != plan:
            raise UsageError("set.other_spec", f"{out} holds another set.", "Name another folder with -o.")
        return
    if any(each.name != LOCK for each in out.iterdir()):
        raise UsageError("set.folder_in_use", f"{out} holds files that are no set.", "Name a new folder.")
    write_file_atomically(out / PLAN, plan)


def _shard(folder: Path, out: Path, shard: Shard, rules: Rules, home: Home | None) -> None:
    """One shard of the new set, whole or not at all."""
    source, part = folder / SHARDS / shard.name, out / SHARDS / f".{shard.name}.part"
    clear(part)
    make_folder(part)
    index = _index(folder, shard)
    data = read_file(source / RECORDS, MAX_PLAN_BYTES)
    records = read_lines(data, f"{SHARDS}/{shard.name}/{RECORDS}")
    left = dict(left_out(records, rules, home))
    kept = [record for record in records if record.sample_id not in left]
    write_file_atomically(part / RECORDS, write_lines(kept))
    files = {RECORDS: sha256_hex(write_lines(kept))}
    for record in kept:
        for name in (record.file, record.mask_file):
            if name is not None:
                place = Path(name).relative_to(SHARDS, shard.name)
                make_folder((part / place).parent)
                shutil.copyfile(source / place, part / place)
                files[str(place)] = index["files"][str(place)]
    told = [{"sample_id": name, "code": code} for name, code in left.items()]
    index |= {"samples": len(kept), "files": dict(sorted(files.items())), RULES: asdict(rules)}
    index["left_out"] = [*index["left_out"], *told]
    write_file_atomically(part / SHARD_FILE, (json.dumps(index, indent=1) + "\n").encode())
    part.rename(out / SHARDS / shard.name)


def left_out(records: Sequence[SampleRecord], rules: Rules, home: Home | None) -> Iterator[tuple[str, str]]:
    """(sample, reason) of each record of a shard that goes; bases come before what was made of them."""
    gone: set[str] = set()
    withdrawn = _withdrawn_ids(rules, home)
    for record in records:
        reason = rules.reason(record)
        if _rests_on(withdrawn, record, home):
            reason = CONSENT
        elif reason is None and record.parents & gone:
            reason = PARENT
        if reason is not None:
            gone.add(record.sample_id)
            yield record.sample_id, reason


def _withdrawn_ids(rules: Rules, home: Home | None) -> tuple[str, ...]:
    """Grants that were revoked, where anybody asks."""
    if home is None or not rules.withdrawn:
        return ()
    return tuple(grant.id for grant in list_grants(home) if grant.revoked_at is not None)


def _rests_on(withdrawn: Sequence[str], record: SampleRecord, home: Home | None) -> bool:
    """Whether the ledger's entry of a sample names one of these grants."""
    if home is None or not withdrawn:
        return False
    named = set(home.ledger.entry(record.ledger_index).body.get("grants", ()))
    return bool(named and named & set(references_of(withdrawn, record.asset_id, home)))


def _index(folder: Path, shard: Shard) -> dict[str, Any]:
    index: dict[str, Any] = json.loads(read_file(folder / SHARDS / shard.name / SHARD_FILE, MAX_PLAN_BYTES))
    return index
