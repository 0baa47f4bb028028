"""Brings the finished shards of a set together: records, cards, the formats that the spec names; makes no picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from facesets.card import data_card, datasheet, make_card
from facesets.formats import LIBRARIES, SetView, write_format
from facesets.record import SampleRecord, read_lines, write_lines
from facesets.spec import SetSpec
from fusion.files import make_folder, write_file_atomically
from provenance import __version__
from provenance.hashes import sha256_hex
from setmaking.shards import RECORDS, SHARD_FILE, SHARDS

SET_SCHEMA: Final = "facsimile-faceset/1"
SET_FILE, ALL_RECORDS = "set.json", "records.jsonl"


@dataclass(frozen=True)
class Compiled:
    """A set that was brought together."""

    records: tuple[SampleRecord, ...]
    num_left_out: int
    files: tuple[str, ...]


def compile_set(folder: Path, spec: SetSpec, report: Callable[[int, int], None]) -> Compiled:
    """Write everything of a set that follows from its shards; `set.json`, with their hashes, comes last.

    Nothing is written where set.json was made of these very shards by this version.
    """
    records, num_left_out, made_of = read_shards(folder)
    index = _read_index(folder)
    if index.get("made_of") == made_of and index.get("version") == __version__:
        report(1, 1)
        return Compiled(records, num_left_out, tuple(index["files"]))
    _clear(folder)
    card = make_card(spec.model_dump(mode="json"), records, __version__)
    view = SetView(card, records, lambda file: (folder / file).read_bytes())
    files: dict[str, str] = {}

    def put(name: str, data: bytes) -> None:
        make_folder((folder / name).parent)
        write_file_atomically(folder / name, data)
        files[name] = sha256_hex(data)

    put(ALL_RECORDS, write_lines(records))
    put("README.md", data_card(card).encode())
    put("DATASHEET.md", datasheet(card).encode())
    for done, name in enumerate(spec.formats, 1):
        for path, data in write_format(name, view):
            put(path, data)
        report(done, len(spec.formats))
    told = {"schema": SET_SCHEMA, "version": __version__, "name": spec.name, "samples": len(records)}
    content = {**told, "left_out": num_left_out, "made_of": made_of, "files": files}
    write_file_atomically(folder / SET_FILE, (json.dumps(content, indent=1) + "\n").encode())
    return Compiled(records, num_left_out, tuple(files))


def read_shards(folder: Path) -> tuple[tuple[SampleRecord, ...], int, dict[str, str]]:
    """Records of all finished shards in order, how many samples were left out, sha256 of each shard's index."""
    records: list[SampleRecord] = []
    left_out, indices = 0, {}
    for index in sorted((folder / SHARDS).glob(f"[0-9]*/{SHARD_FILE}")):
        data = index.read_bytes()
        left_out += len(json.loads(data)["left_out"])
        indices[index.parent.name] = sha256_hex(data)
        records += read_lines((index.parent / RECORDS).read_bytes(), f"{index.parent.name}/{RECORDS}")
    return tuple(records), left_out, indices


def _read_index(folder: Path) -> dict[str, Any]:
    """What an earlier compilation wrote last; nothing where it was interrupted or its files are gone."""
    try:
        index: dict[str, Any] = json.loads((folder / SET_FILE).read_bytes())
        return index if all((folder / name).is_file() for name in index["files"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _clear(folder: Path) -> None:
    for name in (SET_FILE, ALL_RECORDS, "README.md", "DATASHEET.md", "croissant.json"):
        (folder / name).unlink(missing_ok=True)
    for name in LIBRARIES:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
