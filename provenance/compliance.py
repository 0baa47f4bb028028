"""Judges a home against `requirements`: pass, fail, or needs a person, each with what was seen; decides no law.

Facts come from the ledger, from the newest kept manifests, and from released files where some are handed in. A check
that lacks its facts says so: it never passes by default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from provenance import fsck
from provenance.claim import SAMPLE_SOURCE_TYPE, SYNTHETIC_SOURCE_TYPES
from provenance.errors import InputError, LedgerError
from provenance.home import Home
from provenance.ledger import Entry
from provenance.manifests import find_manifest
from provenance.mp4 import read_keys, read_packets
from provenance.requirements import REQUIREMENTS, Requirement, Standard
from provenance.signing import ManifestReading, read_manifest, read_store
from provenance.xmp import XmpDeclaration, declaration_of, parse_aigc, read_declaration

State = Literal["pass", "fail", "needs a person"]
Finding = tuple[State, str]

MOST_MANIFESTS = 200
_PRIVATE = re.compile(
    rb"(?:/home/|/Users/|[A-Z]:\\\\)[\w.-]+|[\w.+-]{2,}@[\w-]+\.[a-z]{2,}\b|GPSL(?:at|ong)itude"
)
_AIGC_FIELDS = {
    "Label",
    "ContentProducer",
    "ProduceID",
    "ReservedCode1",
    "ContentPropagator",
    "PropagateID",
    "ReservedCode2",
}


@dataclass(frozen=True, eq=False)
class Released:
    """A released file to look at in full: whole, or open where it is a video, and what its pixels carry.

    mark_id     id that was read from them, or None
    recoded_id  the same of a copy coded anew
    """

    name: str
    data: bytes | BinaryIO
    mime: str
    mark_id: str | None
    recoded_id: str | None


@dataclass(frozen=True)
class Judged:
    """One row of the report."""

    requirement: Requirement
    state: State
    seen: str


@dataclass(frozen=True, eq=False)
class _Output:
    entry: Entry
    store: bytes
    reading: ManifestReading


@dataclass(frozen=True, eq=False)
class _File:
    reading: ManifestReading
    declaration: XmpDeclaration
    label: dict[str, str] | None  # AIGC, where the file's kind has it: XMP of a picture, a key of a video
    mark_id: str | None
    recoded_id: str | None


@dataclass(frozen=True, eq=False)
class _Facts:
    home: Home
    recorded: list[Entry]
    outputs: list[_Output]
    lost: int
    files: list[_File]
    sound: bool
    problems: int
    accepted: dict[int, Entry] = field(default_factory=dict)


def judge(home: Home, standards: Sequence[Standard], released: Iterable[Released] = ()) -> list[Judged]:
    """Every requirement of these standards, in the table's order; released files are taken one by one."""
    facts = _gather(home, released)
    return [_judge_one(each, facts) for each in REQUIREMENTS if each.standard in standards]


def _judge_one(requirement: Requirement, facts: _Facts) -> Judged:
    if requirement.check is None:
        return Judged(requirement, "needs a person", requirement.for_a_person)
    state, seen = CHECKS[requirement.check](facts)
    if state == "pass" and requirement.for_a_person:
        return Judged(requirement, "needs a person", f"{seen} {requirement.for_a_person}")
    return Judged(requirement, state, seen)


def _gather(home: Home, released: Iterable[Released]) -> _Facts:
    entries = home.ledger.entries()
    recorded = [each for each in entries if each.kind == "output_recorded"]
    outputs, lost = [], 0
    for entry in recorded[-MOST_MANIFESTS:]:
        try:
            store = find_manifest(home.ledger, str(entry.body.get("manifest_id")))[1]
            outputs.append(_Output(entry, store, read_store(store, home.keys.trust)))
        except (InputError, LedgerError):
            lost += 1
    report = fsck.verify(home)
    accepted = {each.index: each for each in entries if each.kind == "job_accepted"}
    files = [_look_at(each, home) for each in released]
    return _Facts(home, recorded, outputs, lost, files, report.ok, len(report.problems), accepted)


def _look_at(file: Released, home: Home) -> _File:
    reading, data = read_manifest(file.data, file.mime, home.keys.trust), file.data
    if isinstance(data, bytes):
        told = read_declaration(data)
        return _File(reading, told, told.aigc, file.mark_id, file.recoded_id)
    told, label = declaration_of(read_packets(data)), parse_aigc(read_keys(data).get("AIGC", ""))
    return _File(reading, told, label, file.mark_id, file.recoded_id)


# ---------------------------------------------------------------- checks


def _of_outputs(facts: _Facts, holds: Callable[[_Output], bool], what: str) -> Finding:
    """Pass where it holds for each of the newest outputs; a person where nothing was made yet."""
    if not facts.outputs and not facts.lost:
        return "needs a person", "Nothing was made yet."
    failed = [each.entry.index for each in facts.outputs if not holds(each)]
    seen = f"{what}: {len(facts.outputs) - len(failed)} of {len(facts.outputs) + facts.lost} newest outputs."
    if failed or facts.lost:
        return "fail", seen + (f" First without: leaf {failed[0]}." if failed else "")
    return "pass", seen


def _of_files(facts: _Facts, holds: Callable[[_File], bool], what: str) -> Finding:
    if not facts.files:
        return "needs a person", f"{what}: no released file was handed in (--files)."
    count = sum(holds(each) for each in facts.files)
    return ("pass" if count == len(facts.files) else "fail"), f"{what}: {count} of {len(facts.files)} files."


def _manifest_trusted(facts: _Facts) -> Finding:
    return _of_outputs(
        facts, lambda o: o.reading.state == "valid" and o.reading.ours, "Signed by our pinned key"
    )


def _timestamped(facts: _Facts) -> Finding:
    return _of_outputs(facts, lambda o: o.reading.timestamp_trusted, "Time stamp by a trusted authority")


def _mark_decodes(facts: _Facts) -> Finding:
    def holds(file: _File) -> bool:
        return file.mark_id is not None and file.mark_id == file.reading.asset_id

    if facts.files:
        return _of_files(facts, holds, "Mark read from the pixels, its id that of the manifest")
    return _of_outputs(
        facts,
        lambda o: o.reading.asset_id is not None,
        "Mark bound by the manifest (read back before release)",
    )


def _source_type(facts: _Facts) -> Finding:
    def holds(output: _Output) -> bool:
        wholly = output.entry.body.get("what") == "sample"
        kind = output.reading.source_type
        return kind in SYNTHETIC_SOURCE_TYPES and (kind == SAMPLE_SOURCE_TYPE) == wholly

    return _of_outputs(facts, holds, "Declared generated or composite, as it was made")


def _ids_agree(facts: _Facts) -> Finding:
    return _of_outputs(
        facts,
        lambda o: o.reading.asset_id == o.entry.body.get("asset_id"),
        "Manifest, mark and ledger state one id",
    )


def _no_private_data(facts: _Facts) -> Finding:
    return _of_outputs(
        facts, lambda o: not _PRIVATE.search(o.store), "No path, address or place in the manifest"
    )


def _inputs_kept(facts: _Facts) -> Finding:
    def holds(output: _Output) -> bool:
        return output.reading.num_ingredients >= len(output.entry.body.get("inputs", ()))

    return _of_outputs(facts, holds, "Every input kept as an ingredient with its own manifest")


def _recoverable(facts: _Facts) -> Finding:
    return _of_outputs(facts, lambda o: True, "Manifest kept and found again by the mark's id")


def _visible_label(facts: _Facts) -> Finding:
    labelled = sum(bool(each.body.get("label")) for each in facts.recorded)
    seen = f"{labelled} of {len(facts.recorded)} outputs were made with a visible label."
    return ("pass" if facts.recorded and labelled == len(facts.recorded) else "needs a person"), seen


def _ledger_sound(facts: _Facts) -> Finding:
    if facts.sound:
        return "pass", f"The ledger re-derives; {len(facts.recorded)} outputs are recorded."
    return "fail", f"`audit verify` finds {facts.problems} problem(s)."


def _consented(facts: _Facts) -> Finding:
    made = [each for each in facts.recorded if each.body.get("what") == "fusion"]
    if not made:
        return "needs a person", "No fusion was made yet."
    missing = [each.index for each in made if each.body.get("accepted_index") not in facts.accepted]
    if missing:
        return "fail", f"{len(missing)} fusion(s) without a recorded decision; first: leaf {missing[0]}."
    return "pass", f"A recorded decision stands before each of {len(made)} fusion(s)."


def _xmp_aigc(facts: _Facts) -> Finding:
    def holds(file: _File) -> bool:
        aigc = file.label or {}
        return (
            set(aigc) == _AIGC_FIELDS
            and aigc["Label"] in {"1", "2", "3"}
            and bool(aigc["ContentProducer"])
            and bool(aigc["ProduceID"])
            and file.declaration.num_packets == 1
            and file.declaration.aigc == aigc
        )

    return _of_files(facts, holds, "One TC260:AIGC label with every field")


def _latent_fields(facts: _Facts) -> Finding:
    def holds(output: _Output) -> bool:
        reading = output.reading
        return all((reading.signer, reading.generator, reading.asset_id, output.entry.time))

    return _of_outputs(facts, holds, "Provider, system and version, time, and id are stated")


def _survives_recoding(facts: _Facts) -> Finding:
    def holds(file: _File) -> bool:
        found = file.recoded_id
        return found is not None and bool(facts.home.ledger.find_by_asset_id(found))

    return _of_files(facts, holds, "A copy without metadata, encoded anew, still leads to its leaf")


def _iptc_agrees(facts: _Facts) -> Finding:
    def holds(file: _File) -> bool:
        return file.declaration.digital_source_type == file.reading.source_type is not None

    return _of_files(facts, holds, "IPTC DigitalSourceType equals the manifest's")


CHECKS: dict[str, Callable[[_Facts], Finding]] = {
    "manifest_trusted": _manifest_trusted,
    "timestamped": _timestamped,
    "mark_decodes": _mark_decodes,
    "source_type": _source_type,
    "ids_agree": _ids_agree,
    "no_private_data": _no_private_data,
    "inputs_kept": _inputs_kept,
    "recoverable": _recoverable,
    "visible_label": _visible_label,
    "ledger_sound": _ledger_sound,
    "consented": _consented,
    "xmp_aigc": _xmp_aigc,
    "latent_fields": _latent_fields,
    "survives_recoding": _survives_recoding,
    "iptc_agrees": _iptc_agrees,
}
