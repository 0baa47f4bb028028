"""`detector pairs`, `probes`, `calibrate` and `bench detector`: the detector measured; nothing here judges a file."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from provenance.errors import UsageError
from server.bench_tables import as_markdown, store_suite, write_suite
from server.console import Json, complain, emit, report_errors, say, table

if TYPE_CHECKING:
    from detector.pairs import Person
    from detector.probes import Gate, Witnesses
    from detector.score import Scorer
    from fusion.face import UInt8Array

Data = Annotated[
    Path | None, typer.Option(help="Labelled portraits; default: people drawn by the portrait model.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Twelve drawn people or portraits.")]
Device = Annotated[str, typer.Option(help="Where the network runs: cpu, cuda.")]
QUICK_PEOPLE, FULL_PEOPLE = 12, 160


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True, help="The detector's leaks and thresholds.", rich_markup_mode=None
    )
    group.command("probes")(probes)
    group.command("calibrate")(calibrate)
    group.command("pairs")(pairs)
    app.add_typer(group, name="detector")


@report_errors
def probes(
    data: Data = None,
    people: Annotated[int, typer.Option(min=10, help="How many people at most.")] = FULL_PEOPLE,
    seed: Annotated[int, typer.Option(help="Seed of pairs and settings.")] = 0,
    quick: Quick = False,
    device: Device = "cpu",
    json_output: Json = False,
) -> None:
    """Run the six leak gates of the shipped detector; exit code 3 when one fails."""
    from detector.pairs import taught_engines
    from detector.probes import run_gates
    from detector.score import load_scorer

    scorer = load_scorer(device)
    shown = _people(data, "test", QUICK_PEOPLE if quick else people, seed)
    gates = run_gates(shown, taught_engines(), scorer, load_witnesses(device), seed)
    _show(gates, len(shown), scorer, json_output)
    if not all(gate.held for gate in gates):
        raise typer.Exit(3)


@report_errors
def calibrate(
    data: Annotated[Path, typer.Option(help="Labelled portraits; the split val is used.")],
    weights: Annotated[Path, typer.Option(help="Trained detector, as `facsimile train detector` wrote it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The same weights with their calibration record.")],
    seed: Annotated[int, typer.Option(help="Seed of pairs and settings.")] = 5,
    people: Annotated[int, typer.Option(min=60, help="How many people at most.")] = 1000,
    views: Annotated[
        list[str] | None,
        typer.Option(help="plain, coded, shifted: ways of looking whose mean is the score; default plain."),
    ] = None,
    device: Device = "cpu",
    json_output: Json = False,
) -> None:
    """Learn temperature, thresholds and gates on held-out people and write them into the weights' header."""
    from dataclasses import replace

    from detector.bench import calibration_samples
    from detector.calibrate import calibrate as learn
    from detector.cases import make_cases
    from detector.held_out import held_out_of
    from detector.pairs import taught_engines
    from detector.score import VIEWS, Calibration, Scorer
    from detector.weights import DETECTOR, load_network, read_note, write_calibrated
    from fusion.weights import file_sha256

    spec = replace(DETECTOR, file=weights.name, sha256=file_sha256(weights))
    net = load_network(spec, weights.parent)
    unseen = held_out_of(read_note(spec, weights.parent))
    looking = tuple(views or ("plain",))
    if wrong := [each for each in looking if each not in VIEWS]:
        raise UsageError("calibrate.views", f"There is no view {wrong[0]!r}.", f"Use: {', '.join(VIEWS)}.")
    start = Calibration(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, views=looking)
    scorer = Scorer(net, start, device, held_out=unseen)
    shown = _people(data, "val", people, seed)
    cases = make_cases(shown, taught_engines(), seed, ("real", "identity", "own", "sbi"))
    record = replace(learn(list(calibration_samples(cases, scorer)), held_out=unseen), views=looking)
    sha256 = write_calibrated(spec, weights.parent, out, asdict(record))
    payload = {"weights": str(out), "sha256": sha256, "people": len(shown), "calibration": asdict(record)}
    if json_output:
        emit(payload)
    else:
        table(("what", "value"), [*asdict(record).items(), ("people", len(shown)), ("sha256", sha256)])


@report_errors
def pairs(
    data: Annotated[Path, typer.Option(help="Labelled portraits.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of shards; those there are kept.")],
    count: Annotated[int, typer.Option(min=64, help="Pairs in all, in shards of 64.")] = 10240,
    split: Annotated[str, typer.Option(help="Whose portraits: train or val.")] = "train",
    seed: Annotated[
        int, typer.Option(help="Seed of people and settings; of one folder always the same.")
    ] = 1,
    engine: Annotated[
        list[str] | None, typer.Option(help="Made by these; default: every trained one and `paste`.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Begin no shard after so many.")] = 1e6,
    json_output: Json = False,
) -> None:
    """Make training pairs of the detector, shard by shard; run again, it goes on where it stopped."""
    from detector.train import make_pairs

    done = make_pairs(
        data, out, split, count, seed, complain, fresh_mark(), engines=engine or (), minutes=minutes
    )
    if json_output:
        emit({"folder": str(out), "pairs": done})
    else:
        say(f"{out}: {done} of {count} pairs.")


@report_errors
def bench_detector(
    data: Data = None,
    out: Annotated[
        Path, typer.Option(help="Folder for bench.json, bench.md, samples.jsonl and the sweeps.")
    ] = Path("bench/detector"),
    foreign: Annotated[
        Path | None, typer.Option(help="Index of a foreign set in DeepfakeBench's JSON layout.")
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="own, leave, clips, drawn, photos; default: own. Others keep their rows."),
    ] = None,
    people: Annotated[int, typer.Option(min=10, help="How many people at most.")] = FULL_PEOPLE,
    split: Annotated[str, typer.Option(help="Whose portraits: test, or val to try things out.")] = "test",
    photos: Annotated[
        Path | None, typer.Option(help="Folder of untouched photographs, for `photos`.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the foreign set's frames.")] = None,
    compression: Annotated[str | None, typer.Option(help="Its compression level, where it has some.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of pairs and settings.")] = 7,
    quick: Quick = False,
    device: Device = "cpu",
    json_output: Json = False,
) -> None:
    """Measure the detector: foreign sets, or own swaps, false alarms, calibration, leaks, clips, photographs."""
    from detector.bench import draw_people, read_groups
    from detector.score import load_scorer
    from fusion.files import make_folder
    from server import bench_detector as bench_detector_cases
    from server.bench_cases import merge, read_rows

    if unknown := [each for each in case or () if each not in bench_detector_cases.CASES]:
        known = ", ".join(bench_detector_cases.CASES)
        raise UsageError("bench.case", f"{unknown[0]} is no case of this bench.", f"Use: {known}.")
    if "photos" in (case or ()) and photos is None:
        raise UsageError("bench.photos", "No folder of photographs is named.", "Name one with --photos.")
    scorer = load_scorer(device)
    make_folder(out)
    if foreign is not None:
        rows, extra = _foreign(foreign, root or foreign.parent, compression, scorer, out), ""
    else:
        count = QUICK_PEOPLE if quick else people
        plan = bench_detector_cases.Plan(
            people=_people(data, split, count, seed),
            drawn=lambda: draw_people(count, seed),
            groups=read_groups(data) if data else None,
            photos=photos,
            scorer=scorer,
            seed=seed,
            out=out,
            witnesses=lambda: load_witnesses(device),
        )
        rows, extra = read_rows(out, "detector") if case else [], ""
        for name in case or ["own"]:
            found, told = bench_detector_cases.CASES[name](plan)
            rows, extra = merge(rows, found), extra + told
            store_suite("detector", rows, as_markdown(rows) + extra, out, device)
    write_suite("detector", rows, as_markdown(rows) + extra, out, json_output, device)


def _foreign(
    index: Path, root: Path, compression: str | None, scorer: Scorer, out: Path
) -> list[dict[str, Any]]:
    import json

    from detector.deepfakebench import read_index
    from detector.foreign import foreign_rows, score_videos
    from fusion.files import write_file_atomically
    from fusion.media import LIMITS, read_file, read_picture
    from fusion.swap import load_perception

    videos = read_index(index, root, compression=compression)
    find = load_perception(scorer.device).find
    frames = list(
        score_videos(videos, scorer, lambda p: read_picture(read_file(p, LIMITS.max_bytes)).rgb, find)
    )
    lines = "".join(json.dumps(asdict(frame)) + "\n" for frame in frames)
    write_file_atomically(out / "samples.jsonl", lines.encode())
    return [asdict(row) for row in foreign_rows(frames, scorer.calibration.strong)]


def fresh_mark() -> Callable[[UInt8Array], UInt8Array]:
    """Puts the mark into a picture, under a key made for this run and a new id each time."""
    from provenance.watermark import embed

    key = secrets.token_bytes(32)
    return lambda rgb: embed(rgb, secrets.token_bytes(8), key)


def load_witnesses(device: str) -> Witnesses:
    """The mark under a fresh key, and the suite's own face finder and recogniser."""
    from detector.probes import Witnesses
    from fusion.align import five_points
    from fusion.face import Face
    from fusion.swap import load_perception

    perception = load_perception(device)

    def identity(person: Person) -> Any:
        points = person.landmarks_px
        face = Face(person.box_xyxy, five_points(points), 1.0, landmarks_px=points)
        return perception.embed(person.rgb, [face])[0]

    return Witnesses(
        mark=fresh_mark(),
        find=perception.find,
        embed=identity,
    )


def _people(data: Path | None, split: str, count: int, seed: int) -> list[Person]:
    from detector.bench import draw_people, read_people

    if data is None:
        return draw_people(min(count, QUICK_PEOPLE), seed)
    return read_people(data, split)[:count]


def _show(gates: Sequence[Gate], people: int, scorer: Scorer, json_output: bool) -> None:
    if json_output:
        emit({"people": people, "detector": scorer.sha256, "gates": [asdict(gate) for gate in gates]})
        return
    rows = []
    for gate in gates:
        interval = "" if gate.ci95 is None else f"{gate.ci95[0]:.3f} to {gate.ci95[1]:.3f}"
        held = "held" if gate.held else "FAILED"
        rows.append((gate.leak, gate.figure, f"{gate.value:.3f}", interval, gate.limit, gate.n, held))
    table(("leak", "figure", "value", "95 %", "limit", "n", "gate"), rows, f"Leak gates on {people} people")
