"""`bench fusion`: engines and presets on fixed pairs of a labelled set, resumable; measures nothing itself."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provenance.errors import InputError, UsageError
from server.bench_crew import embed_people, measure_all
from server.bench_journal import Journal
from server.bench_material import (
    Material,
    all_ways,
    engine_of,
    find_bench,
    find_groups,
    list_portraits,
    read_portraits,
)
from server.bench_tables import as_markdown, store_suite, write_suite
from server.console import Json, report_errors, say
from server.deps import open_home

if TYPE_CHECKING:
    from fusion.evaluate import Bench, Pair, Sample

TABLES_EVERY_S: Final = 60.0  # a run that is cut off leaves tables no older than this


@report_errors
def bench_fusion(
    data: Annotated[Path, typer.Option(help="Labelled portraits: portraits.csv, portraits/, landmarks.")],
    pairs: Annotated[int, typer.Option(min=4, help="Pairs of the test split.")] = 1000,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="What to measure; default: default, mobile, no_detail, with_eyes, engines, paste."),
    ] = None,
    gallery: Annotated[
        str,
        typer.Option(help="Among whom a source is looked for: all portraits, or those of the test split."),
    ] = "all",
    split: Annotated[
        str, typer.Option(help="Split that the pairs are of; settings are tried on val.")
    ] = "test",
    teacher: Annotated[
        Path | None,
        typer.Option(help="A second recogniser (MobileFaceNet); default: the one beside the data."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for bench.json, bench.md, pairs.jsonl and gallery.npz; a run goes on there."
        ),
    ] = Path("bench/fusion"),
    seed: Annotated[int, typer.Option(help="Seed of the pairs.")] = 20260,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, help="Pairs on a sealed contact sheet; the portraits must be declared synthetic."
        ),
    ] = 0,
    covers: Annotated[
        int,
        typer.Option(min=0, help="Pairs whose targets get glasses, hair, fingers, a microphone drawn on."),
    ] = 0,
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes that measure; with more than one, each has one thread.")
    ] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Ten pairs, under a minute on two cores.")] = False,
    json_output: Json = False,
) -> None:
    """Measure the engines on fixed pairs of the test split, in memory; only tables and sealed sheets are written.

    Every measured pair is kept at once: the same command goes on where it was cut off.
    """
    from fusion import evaluate
    from fusion.files import make_folder

    names = chosen_ways(engine or (["default", "paste"] if quick else None))
    make_folder(out)
    teacher_file = teacher or data.parent / "teachers" / "mobilefacenet_128d.safetensors"
    material = Material(data, split, teacher_file, quick)
    bench = find_bench(material)
    landmarks = {name: portrait.landmarks_px for name, portrait in bench.portraits.items()}
    chosen = evaluate.choose_pairs(landmarks, min(10, pairs) if quick else pairs, similar=False, seed=seed)
    among = split if quick or gallery != "all" else None
    run = _run(data, teacher_file, seed, split, f"quick of {split}" if quick else str(among))
    journal = Journal(out / "pairs.jsonl", run)
    people = material.names() if quick else list_portraits(data, among)
    keep_gallery(out / "gallery.npz", material, people, run, jobs)
    in_loss = {name: sorted(evaluate.IN_LOSS.get(engine_of(name), ())) for name in names}
    extra: dict[str, Any] = {
        "pairs": [[pair.source, pair.target] for pair in chosen],
        "gallery": len(people),
        "jobs": jobs,
        "in_training_loss": in_loss,
    }
    judged = judges_table(in_loss, list(bench.recognisers))
    rows: list[dict[str, Any]] = []

    def stream(tasks: list[tuple[str, Pair]]) -> Iterator[tuple[str, Pair, Sample]]:
        return measure_all(material, out / "gallery.npz", tasks, jobs)

    for rows in measured(bench, names, chosen, journal, find_groups(data), stream):
        store_suite("fusion", rows, judged + as_markdown(rows), out, extra=extra)
    if covers:
        rows = [*rows, *_cover_rows(bench, names[0], chosen[:covers])]
    write_suite("fusion", rows, judged + as_markdown(rows), out, json_output, extra=extra)
    if pictures:
        _draw_sheet(data, chosen[:pictures], names, out)


def measured(
    bench: Bench,
    names: Sequence[str],
    pairs: Sequence[Pair],
    journal: Journal,
    groups: Mapping[str, str],
    measure: Callable[[list[tuple[str, Pair]]], Iterator[tuple[str, Pair, Sample]]],
) -> Iterator[list[dict[str, Any]]]:
    """Measure what the journal lacks of these ways; yields the table every minute, and the whole at the end."""
    from fusion.tables import bench_rows

    def rows() -> list[dict[str, Any]]:
        samples = {
            name: {pair: sample for pair in pairs if (sample := journal.get(name, pair)) is not None}
            for name in names
        }
        return [asdict(row) for row in bench_rows(samples, bench, groups, names[0])]

    told = time.monotonic()
    for way, pair, sample in measure([(n, p) for p in pairs for n in names if journal.get(n, p) is None]):
        journal.add(way, pair, sample)
        if time.monotonic() - told > TABLES_EVERY_S:
            yield rows()
            told = time.monotonic()
    yield rows()


def judges_table(in_loss: Mapping[str, Sequence[str]], present: Sequence[str]) -> str:
    """Markdown: which way was trained against which recogniser, and which recogniser is not here."""
    from fusion.train.judge import JUDGE

    lines = ["| recogniser | in the training loss of |", "|---|---|"]
    for name in sorted({"ours", "teacher", JUDGE, *present}):
        trained = ", ".join(way for way, names in in_loss.items() if name in names) or "none"
        absent = "not here: `pip install facsimile[judge]`" if name == JUDGE else "not here: `--teacher`"
        lines.append(f"| {name} | {trained if name in present else absent} |")
    return "\n".join(lines) + "\n\n"


def _cover_rows(bench: Bench, way: str, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """What a way does to things drawn in front of the targets' faces."""
    from fusion.covers import measure_covers
    from fusion.tables import cover_rows

    engine, found = all_ways()[way], []
    for seed, pair in enumerate(pairs):
        source, target = bench.portraits[pair.source], bench.portraits[pair.target]
        found.append(
            measure_covers(engine, target.rgb, target.landmarks_px, source.rgb, source.landmarks_px, seed)
        )
    return [asdict(row) for row in cover_rows(found)]


def chosen_ways(names: list[str] | None) -> list[str]:
    """What is measured: all ways, or those asked for; UsageError `bench.engine`."""
    ways = all_ways()
    if unknown := set(names or ()) - set(ways):
        known = ", ".join(ways)
        raise UsageError("bench.engine", f"nothing is called {sorted(unknown)[0]!r}", f"Use one of: {known}.")
    return names or list(ways)


def _run(data: Path, teacher_file: Path, seed: int, split: str, gallery: str) -> dict[str, Any]:
    """What measurements of one run have in common, so that no others are mixed with them."""
    import hashlib

    import fusion
    from fusion.train.judge import JUDGE_SHA256, judge_file
    from fusion.weights import REGISTRY, file_sha256

    code = hashlib.sha256()
    for path in sorted(Path(fusion.__path__[0]).glob("*.py")):
        code.update(path.read_bytes())
    return {
        "portraits": _data_sha256(data),
        "seed": seed,
        "split": split,
        "gallery": gallery,
        "teacher": file_sha256(teacher_file) if teacher_file.exists() else None,
        "judge": JUDGE_SHA256 if judge_file() is not None else None,
        "models": {spec.name: spec.sha256 for spec in REGISTRY.values()},
        "code": code.hexdigest(),
    }


def _data_sha256(data: Path) -> str:
    from fusion.weights import file_sha256

    table = data / "portraits.csv"
    if not table.exists():
        raise InputError("bench.data", f"{data} holds no portraits.csv.", "See docs/cli.md for its form.")
    return file_sha256(table)


def keep_gallery(
    path: Path, material: Material, names: Sequence[str], run: Mapping[str, Any], jobs: int
) -> None:
    """Put the people among whom sources are looked for into `path`, unless the same networks made what is there."""
    import json

    import numpy as np

    from fusion.files import write_file_atomically

    made_of = {key: run[key] for key in ("portraits", "gallery", "teacher", "judge")}
    made_by = json.dumps({**made_of, "identity": run["models"]["identity"]}, sort_keys=True)
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            if str(archive["made_by"]) == made_by:
                return
    found = embed_people(material, names, jobs)
    packed = io.BytesIO()
    arrays = {f"by_{name}": vectors for name, vectors in found.embeddings.items()}
    np.savez(packed, made_by=np.array(made_by), names=np.array(found.names), **arrays)  # type: ignore[arg-type]
    write_file_atomically(path, packed.getvalue())


def _draw_sheet(data: Path, pairs: Sequence[Pair], names: Sequence[str], out: Path) -> None:
    """Source, target and each engine's picture in a row, sealed as an output of this home."""
    from fusion.media import LIMITS, read_file
    from fusion.pipeline import bench_sheet

    folder, most = data / "portraits", LIMITS.max_bytes
    files = [(read_file(folder / pair.source, most), read_file(folder / pair.target, most)) for pair in pairs]
    shown = sorted({name for pair in pairs for name in (pair.source, pair.target)})
    points = {portrait.name: portrait.landmarks_px for portrait in read_portraits(data, shown)}
    landmarks = [(points[pair.source], points[pair.target]) for pair in pairs]
    ways = all_ways()
    with open_home() as home:
        sealed = bench_sheet(files, landmarks, {name: ways[name] for name in names}, home, out / "sheet.png")
    say(f"{sealed.path}: mark {sealed.asset_id}, leaf {sealed.receipt.index}")
