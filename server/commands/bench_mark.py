"""`bench mark`: the mark against attacks, adversaries, a codec and rivals, resumable; measures nothing itself."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provenance.errors import UsageError
from server.bench_journal import Notes
from server.bench_tables import store_suite, write_suite
from server.console import Json, report_errors

if TYPE_CHECKING:
    from provenance.mark_bench import Row
    from server.bench_mark_parts import Gallery

TABLES_EVERY_S: Final = 60.0  # a run that is cut off leaves tables no older than this


@report_errors
def bench_mark(
    images: Annotated[
        list[Path] | None, typer.Option(help="Folders of pictures; a folder's name is its group.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled portraits; those of the test split are taken.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="At most so many of each folder, evenly.")] = 60,
    drawn: Annotated[int, typer.Option(min=0, help="Drawn pictures.")] = 40,
    nobodies: Annotated[int, typer.Option(min=0, help="Portraits drawn by our own model.")] = 40,
    part: Annotated[
        list[str] | None,
        typer.Option(help="pictures, large, video, unmarked, adversaries, rivals, learned; default: all."),
    ] = None,
    unmarked: Annotated[
        int, typer.Option(min=0, help="Crops read for false alarms; a hundredth fully.")
    ] = 20_000,
    rivals: Annotated[
        int, typer.Option(min=0, help="Pictures that the rivals and the learned mark are measured on.")
    ] = 12,
    learned: Annotated[
        Path | None, typer.Option(help="Folder of a `train mark`, to measure what it learnt.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Stop then; the same command goes on.")] = math.inf,
    out: Annotated[
        Path, typer.Option(help="Folder for bench.json, bench.md and measured.jsonl; a run goes on there.")
    ] = Path("bench/mark"),
    seed: Annotated[int, typer.Option(help="Seed of the key, ids, attacks and drawn pictures.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few pictures, under a minute on two cores.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Measure the mark against every attack, its false alarms and its cost at 1080p, with rivals beside it.

    Every picture's figures are kept at once: the same command goes on where it was cut off.
    """
    from fusion.files import make_folder
    from provenance.mark_bench import quick as quick_rows
    from provenance.mark_bench import rows_as_json, rows_as_markdown
    from server.bench_mark_parts import PARTS, Gallery, bench_key
    from server.bench_pictures import listed

    if quick:
        rows = quick_rows(bench_key(seed), seed=seed)
        write_suite("mark", rows_as_json(rows), rows_as_markdown(rows), out, json_output)
        return
    wanted = part or list(PARTS)
    if unknown := [each for each in wanted if each not in PARTS]:
        raise UsageError(
            "bench.part", f"nothing is called {unknown[0]!r}", f"Use one of: {', '.join(PARTS)}."
        )
    make_folder(out)
    shown = Gallery(
        listed(images or [], data, pictures, drawn, nobodies, seed), seed, unmarked, rivals, learned
    )
    notes, told = Notes(out / "measured.jsonl", _run(seed)), time.monotonic()
    end = told + 60 * minutes
    for name in wanted:
        for item, work in PARTS[name](shown):
            if (name, item) in notes.found or time.monotonic() > end:
                continue
            notes.add(name, item, work())
            if time.monotonic() - told > TABLES_EVERY_S:
                rows = _rows(notes)
                store_suite("mark", rows_as_json(rows), rows_as_markdown(rows), out)
                told = time.monotonic()
    rows = _rows(notes)
    extra = {"missing": {name: missing(name, shown, notes) for name in PARTS}}
    write_suite("mark", rows_as_json(rows), rows_as_markdown(rows), out, json_output, extra=extra)


# ---------------------------------------------------------------- tables


def _rows(notes: Notes) -> list[Row]:
    """Every part's rows; of the pictures also those of each group, as GROUP/CASE."""
    from provenance.mark_bench import rows_of
    from server.bench_mark_parts import PARTS

    found = {key: each for key, each in notes.found.items() if key[0] in PARTS}
    rows = rows_of(each for several in found.values() for each in several)
    groups = dict.fromkeys(item.split("/")[0] for part, item in found if part == "pictures")
    for group in groups if len(groups) > 1 else ():
        own = [
            f
            for (part, item), each in found.items()
            if (part, item.split("/")[0]) == ("pictures", group)
            for f in each
        ]
        rows += [replace(row, case=f"{group}/{row.case}") for row in rows_of(own)]
    return rows


def missing(part: str, shown: Gallery, notes: Notes) -> int:
    """Items of a part that no run has measured yet."""
    from server.bench_mark_parts import PARTS

    return sum((part, item) not in notes.found for item, _ in PARTS[part](shown))


def _run(seed: int) -> dict[str, Any]:
    """What measurements of one run have in common: the seed and the code of mark and bench."""
    import provenance

    code = hashlib.sha256()
    folder = Path(provenance.__path__[0])
    for path in sorted([*folder.glob("mark_*.py"), folder / "watermark.py", folder / "codec.py"]):
        code.update(path.read_bytes())
    return {"seed": seed, "code": code.hexdigest()}
