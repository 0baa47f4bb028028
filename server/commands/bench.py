"""`bench`: the suite measured, as JSON and Markdown tables of the same rows; measures nothing itself."""

from __future__ import annotations

import csv
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from provenance.errors import UsageError
from server.commands.detector import bench_detector
from server.console import Json, complain, emit, report_errors, say
from server.deps import open_home

if TYPE_CHECKING:
    from fusion.evaluate import Embed, Locate, Pair, Portrait
    from fusion.face import Face, FloatArray, UInt8Array
    from fusion.swap import Engine
    from fusion.train.teacher import MobileFaceNet

Out = Annotated[Path, typer.Option(help="Folder for bench.json and bench.md.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few pictures, under a minute on two cores.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Measure the suite.", rich_markup_mode=None)
    group.command("fusion")(bench_fusion)
    group.command("mark")(bench_mark)
    group.command("ledger")(bench_ledger)
    group.command("server")(bench_server)
    group.command("detector")(bench_detector)
    app.add_typer(group, name="bench")


@report_errors
def bench_mark(
    images: Annotated[Path | None, typer.Option(help="Folder of pictures; default: drawn ones.")] = None,
    out: Out = Path("bench/mark"),
    seed: Annotated[int, typer.Option(help="Seed of ids, keys and attacks.")] = 0,
    quick: Quick = False,
    json_output: Json = False,
) -> None:
    """Measure the mark against every attack, its false alarms and its cost at 1080p."""
    from provenance import mark_bench
    from provenance.mark_adversaries import measure_adversaries
    from provenance.mark_rivals import measure_rivals

    key = secrets.token_bytes(32)
    if quick:
        rows = mark_bench.quick(key, seed=seed)
    else:
        pictures = (
            [mark_bench.drawn_picture(seed + i) for i in range(40)]
            if images is None
            else list(_pictures(images))
        )
        rows = [
            *mark_bench.measure(pictures, key, seed),
            *mark_bench.measure_1080p(pictures[:10], key, seed),
            *mark_bench.measure_false_alarms(pictures, 2000, seed),
            *measure_adversaries(pictures, key, victims=min(20, len(pictures) // 2), seed=seed),
            *measure_rivals(pictures[:20], seed),
        ]
    write_suite("mark", mark_bench.rows_as_json(rows), mark_bench.rows_as_markdown(rows), out, json_output)


@report_errors
def bench_ledger(
    out: Out = Path("bench/ledger"),
    quick: Quick = False,
    json_output: Json = False,
) -> None:
    """Measure appends and proofs of a ledger on SQLite, in a folder beside the tables."""
    import tempfile

    from fusion.files import make_folder
    from provenance import ledger_bench
    from provenance.mark_bench import rows_as_json

    make_folder(out)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        rows = ledger_bench.measure(Path(folder), ledger_bench.QUICK if quick else ledger_bench.Counts())
    found = rows_as_json(rows)
    write_suite("ledger", found, as_markdown(found), out, json_output)


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
    teacher: Annotated[
        Path | None,
        typer.Option(help="A second recogniser (MobileFaceNet); default: the one beside the data."),
    ] = None,
    out: Out = Path("bench/fusion"),
    seed: Annotated[int, typer.Option(help="Seed of the pairs.")] = 20260,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, help="Pairs on a sealed contact sheet; the portraits must be declared synthetic."
        ),
    ] = 0,
    quick: Quick = False,
    json_output: Json = False,
) -> None:
    """Measure the engines on fixed pairs of the test split, in memory; only tables and sealed sheets are written."""
    from fusion import evaluate

    portraits = {portrait.name: portrait for portrait in _portraits(data, "test", 40 if quick else None)}
    landmarks = {name: portrait.landmarks_px for name, portrait in portraits.items()}
    chosen = evaluate.choose_pairs(landmarks, min(10, pairs) if quick else pairs, similar=False, seed=seed)
    ways = _ways()
    if unknown := set(engine or ()) - set(ways):
        known = ", ".join(ways)
        raise UsageError("bench.engine", f"nothing is called {sorted(unknown)[0]!r}", f"Use one of: {known}.")
    names = engine or (["default", "paste"] if quick else list(ways))
    recognisers = _recognisers(teacher or data.parent / "teachers" / "mobilefacenet_128d.safetensors")
    bench = evaluate.Bench(portraits, recognisers, _landmark_finder(), _features())
    everyone = portraits.values() if quick or gallery == "test" else _portraits(data, None)
    people = evaluate.Gallery.of(everyone, recognisers)
    engines = {name: ways[name] for name in names}
    rows = [
        asdict(row)
        for row in evaluate.bench_engines(bench, engines, chosen, people, _groups(data), broken_down=names[0])
    ]
    extra = {
        "pairs": [[pair.source, pair.target] for pair in chosen],
        "gallery": len(people.names),
        "in_training_loss": {name: sorted(evaluate.IN_LOSS.get(name, ())) for name in names},
    }
    write_suite("fusion", rows, as_markdown(rows), out, json_output, extra=extra)
    if pictures:
        _draw_sheet(data, chosen[:pictures], names, out)


def _ways() -> dict[str, Engine]:
    """The shipped preset, it without its branches, every trained engine without its finish, and the baseline."""
    from fusion.evaluate import paste_face, preset_engine
    from fusion.swap import ENGINES, UNTRAINED

    ways: dict[str, Engine] = {
        "default": preset_engine(),
        "mobile": preset_engine("mobile"),
        "no_detail": preset_engine(detail=False),
        "with_eyes": preset_engine(eyes=True),
    }
    return {**ways, **{name: ENGINES[name] for name in ENGINES if name not in UNTRAINED}, "paste": paste_face}


def _draw_sheet(data: Path, pairs: Sequence[Pair], names: Sequence[str], out: Path) -> None:
    """Source, target and each engine's picture in a row, sealed as an output of this home."""
    from fusion.media import LIMITS, read_file
    from fusion.pipeline import bench_sheet

    folder, most = data / "portraits", LIMITS.max_bytes
    files = [(read_file(folder / pair.source, most), read_file(folder / pair.target, most)) for pair in pairs]
    points = {portrait.name: portrait.landmarks_px for portrait in _portraits(data, "test")}
    landmarks = [(points[pair.source], points[pair.target]) for pair in pairs]
    ways = _ways()
    with open_home() as home:
        sealed = bench_sheet(files, landmarks, {name: ways[name] for name in names}, home, out / "sheet.png")
    say(f"{sealed.path}: mark {sealed.asset_id}, leaf {sealed.receipt.index}")


def _groups(data: Path) -> dict[str, str]:
    """The group label of each portrait, '' where the table has none."""
    with (data / "portraits.csv").open(newline="") as file:
        return {row["file"]: row.get("group_label", "") or "" for row in csv.DictReader(file)}


@report_errors
def bench_server(
    out: Out = Path("bench/server"),
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="one, twenty, overload, memory, kill, litserve; default: all. Others keep their rows."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of each load.")] = 60.0,
    kills: Annotated[int, typer.Option(min=1, help="How often server or worker is killed.")] = 50,
    add: Annotated[bool, typer.Option("--add", help="Add the kills to those of earlier parts.")] = False,
    requests: Annotated[int, typer.Option(min=20, help="Of the memory run.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the kills.")] = 0,
    quick: Quick = False,
    json_output: Json = False,
) -> None:
    """Measure the server: checks per second at 1080p, overload, memory, kill -9 of server and worker."""
    import tempfile

    from server import bench_cases
    from server.bench_home import make_home

    wanted = case or list(bench_cases.CASES)
    if unknown := [each for each in wanted if each not in bench_cases.CASES]:
        raise UsageError(
            "bench.case", f"{unknown[0]} is no case of this bench.", f"Use: {', '.join(bench_cases.CASES)}."
        )
    if "litserve" in wanted and not bench_cases.has_litserve():
        complain("LitServe is not installed here: the peer is left out. `pip install litserve` brings it.")
    if quick:
        seconds, kills, requests = 5.0, 2, 40
    out.mkdir(parents=True, exist_ok=True)
    plan = bench_cases.Plan(seconds, requests, kills, seed, out / "server.log")
    rows = bench_cases.read_rows(out) if case else []
    with tempfile.TemporaryDirectory() as folder:
        made = make_home(Path(folder))
        for name in wanted:
            found = bench_cases.CASES[name](made, plan, rows)
            rows = bench_cases.merge(rows, found, add_kills=add)
            store_suite("server", rows, as_markdown(rows), out)
    write_suite("server", rows, as_markdown(rows), out, json_output)


def _pictures(folder: Path) -> Iterator[UInt8Array]:
    from fusion.media import LIMITS, PICTURE_SUFFIXES, read_file, read_picture

    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURE_SUFFIXES:
            yield read_picture(read_file(path, LIMITS.max_bytes)).rgb


def _portraits(data: Path, split: str | None, limit: int | None = None) -> Iterator[Portrait]:
    """Portraits of a split (None: all), the first `limit` by the table's order."""
    import numpy as np

    from fusion.evaluate import Portrait
    from fusion.media import LIMITS, read_file, read_picture
    from provenance.errors import InputError

    try:
        with (data / "portraits.csv").open(newline="") as file:
            names = [row["file"] for row in csv.DictReader(file) if split in (None, row["split"])]
        with np.load(data / "portraits_landmarks478.npz") as archive:
            points: dict[str, FloatArray] = dict(
                zip(
                    (str(name) for name in archive["name"]),
                    archive["points"][..., :2].astype(np.float32),
                    strict=True,
                )
            )
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            "bench.data", f"{data} holds no labelled portraits: {error}.", "See docs/cli.md for its form."
        ) from error
    for name in names[:limit]:
        picture = read_picture(read_file(data / "portraits" / name, LIMITS.max_bytes))
        yield Portrait(name, picture.rgb, points[name])


def _recognisers(teacher_file: Path) -> dict[str, Embed]:
    """Our own network, and a published one where its file is."""
    from fusion.evaluate import five_point_embed
    from fusion.identity import embed_face, load_identity
    from fusion.train.teacher import load_teacher

    ours = load_identity("cpu")
    found = {"ours": five_point_embed(lambda rgb, points_px: embed_face(rgb, _face_at(points_px), ours))}
    if teacher_file.exists():
        teacher = load_teacher(teacher_file)
        found["teacher"] = five_point_embed(lambda rgb, points_px: _embed_by(teacher, rgb, points_px))
    return found


def _features() -> Embed:
    """What `kid` compares: the deepest maps of our identity network, averaged over the face."""
    import torch

    from fusion.evaluate import five_point_embed
    from fusion.identity import SIDE_PX, crop_face, load_identity

    net = load_identity("cpu")

    def describe(rgb: UInt8Array, points_px: FloatArray) -> FloatArray:
        crop = torch.from_numpy(crop_face(rgb, _face_at(points_px)))[None, :, SIDE_PX:-SIDE_PX]
        with torch.inference_mode():
            found: FloatArray = net.maps(crop.permute(0, 3, 1, 2).float() / 255)[-1].mean((2, 3))[0].numpy()
        return found

    return five_point_embed(describe)


def _embed_by(teacher: MobileFaceNet, rgb: UInt8Array, points_px: FloatArray) -> FloatArray:
    import numpy as np

    from fusion.align import similarity_from_points, warp_crop
    from fusion.train.teacher import TEACHER_POINTS_112X96, embed_teacher

    crop_from_image = similarity_from_points(points_px, TEACHER_POINTS_112X96)
    crop = warp_crop(rgb, crop_from_image, (96, 112), border="replicate")
    return np.asarray(embed_teacher(teacher, crop[None])[0], np.float32)


def _landmark_finder() -> Locate:
    from fusion.align import five_points
    from fusion.landmark import find_landmarks, load_landmarker

    net = load_landmarker("cpu")
    return lambda rgb, near: find_landmarks(rgb, _face_at(five_points(near)), net)


def _face_at(points_px: FloatArray) -> Face:
    import numpy as np

    from fusion.face import Face

    box_xyxy = np.concatenate([points_px.min(axis=0), points_px.max(axis=0)])
    return Face(box_xyxy.astype(np.float32), points_px, 1.0)


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One line a row: case, metric, value with its interval, unit, n."""
    lines = ["| case | metric | value | 95 % | unit | n |", "|---|---|---|---|---|---|"]
    for row in rows:
        interval = "" if row["ci95"] is None else f"{row['ci95'][0]:.3g} to {row['ci95'][1]:.3g}"
        lines.append(
            f"| {row['case']} | {row['metric']} | {row['value']:.4g} | {interval} | {row['unit']} | {row['n']} |"
        )
    return "\n".join(lines) + "\n"


def write_suite(
    suite: str,
    rows: Sequence[dict[str, Any]],
    markdown: str,
    out: Path,
    json_output: bool,
    device: str = "cpu",
    extra: dict[str, Any] | None = None,
) -> None:
    """bench.json and bench.md of one suite in `out`; the same rows on stdout."""
    payload = store_suite(suite, rows, markdown, out, device, extra)
    if json_output:
        emit(payload)
    else:
        say(markdown.rstrip())


def store_suite(
    suite: str,
    rows: Sequence[dict[str, Any]],
    markdown: str,
    out: Path,
    device: str = "cpu",
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The same without a word: for what was measured so far."""
    from detector.weights import DETECTOR
    from fusion.files import make_folder, write_file_atomically
    from fusion.weights import REGISTRY
    from provenance import __version__

    payload = {
        "suite": suite,
        "version": __version__,
        "device": device,
        "rows": list(rows),
        "models": {spec.name: spec.sha256 for spec in (*REGISTRY.values(), DETECTOR)},
        **(extra or {}),
    }
    make_folder(out)
    write_file_atomically(out / "bench.json", json.dumps(payload, indent=2).encode())
    write_file_atomically(out / "bench.md", markdown.encode())
    return payload
