"""`bench fusion`: engines and presets on fixed pairs of a labelled set, resumable; measures nothing itself."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provenance.errors import InputError, UsageError
from server.bench_journal import Journal
from server.bench_tables import as_markdown, store_suite, write_suite
from server.console import Json, report_errors, say
from server.deps import open_home

if TYPE_CHECKING:
    from fusion.evaluate import Bench, Embed, Gallery, Locate, Pair, Portrait
    from fusion.face import Face, FloatArray, UInt8Array
    from fusion.swap import Engine
    from fusion.train.teacher import MobileFaceNet

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
    portraits = {portrait.name: portrait for portrait in _portraits(data, split, 40 if quick else None)}
    landmarks = {name: portrait.landmarks_px for name, portrait in portraits.items()}
    chosen = evaluate.choose_pairs(landmarks, min(10, pairs) if quick else pairs, similar=False, seed=seed)
    teacher_file = teacher or data.parent / "teachers" / "mobilefacenet_128d.safetensors"
    recognisers = _recognisers(teacher_file)
    bench = evaluate.Bench(portraits, recognisers, _landmark_finder(), _features())
    among = split if quick or gallery != "all" else None
    run = _run(data, teacher_file, seed, split, f"quick of {split}" if quick else str(among))
    journal = Journal(out / "pairs.jsonl", run)
    people = _gallery(out / "gallery.npz", data, run, portraits if quick else None, among, recognisers)
    in_loss = {name: sorted(evaluate.IN_LOSS.get(_engine_of(name), ())) for name in names}
    extra: dict[str, Any] = {
        "pairs": [[pair.source, pair.target] for pair in chosen],
        "gallery": len(people.names),
        "in_training_loss": in_loss,
    }
    judged = judges_table(in_loss, list(recognisers))
    ways, groups = _ways(), _groups(data)
    rows: list[dict[str, Any]] = []
    for rows in measured(bench, {name: ways[name] for name in names}, chosen, people, journal, groups):
        store_suite("fusion", rows, judged + as_markdown(rows), out, extra=extra)
    write_suite("fusion", rows, judged + as_markdown(rows), out, json_output, extra=extra)
    if pictures:
        _draw_sheet(data, split, chosen[:pictures], names, out)


def measured(
    bench: Bench,
    engines: Mapping[str, Engine],
    pairs: Sequence[Pair],
    people: Gallery,
    journal: Journal,
    groups: Mapping[str, str],
) -> Iterator[list[dict[str, Any]]]:
    """Measure pair by pair what the journal lacks; yields the table every minute, and the whole at the end."""
    from fusion.evaluate import Sample
    from fusion.tables import bench_rows

    samples: dict[str, dict[Pair, Sample]] = {name: {} for name in engines}
    first, told = next(iter(engines)), time.monotonic()
    for pair in pairs:
        for name, engine in engines.items():
            if (sample := journal.get(name, pair)) is None:
                sample = bench.measure_pair(engine, pair, people)
                journal.add(name, pair, sample)
            samples[name][pair] = sample
        if time.monotonic() - told > TABLES_EVERY_S:
            yield [asdict(row) for row in bench_rows(samples, bench, groups, first)]
            told = time.monotonic()
    yield [asdict(row) for row in bench_rows(samples, bench, groups, first)]


def judges_table(in_loss: Mapping[str, Sequence[str]], present: Sequence[str]) -> str:
    """Markdown: which way was trained against which recogniser, and which recogniser is not here."""
    from fusion.train.judge import JUDGE

    lines = ["| recogniser | in the training loss of |", "|---|---|"]
    for name in sorted({"ours", "teacher", JUDGE, *present}):
        trained = ", ".join(way for way, names in in_loss.items() if name in names) or "none"
        absent = "not here: `pip install facsimile[judge]`" if name == JUDGE else "not here: `--teacher`"
        lines.append(f"| {name} | {trained if name in present else absent} |")
    return "\n".join(lines) + "\n\n"


def chosen_ways(names: list[str] | None) -> list[str]:
    """What is measured: all ways, or those asked for; UsageError `bench.engine`."""
    ways = _ways()
    if unknown := set(names or ()) - set(ways):
        known = ", ".join(ways)
        raise UsageError("bench.engine", f"nothing is called {sorted(unknown)[0]!r}", f"Use one of: {known}.")
    return names or list(ways)


def _ways() -> dict[str, Engine]:
    """The shipped preset, it without its branches, every trained engine without its finish, and the baseline."""
    from fusion.evaluate import preset_engine
    from fusion.paste import paste_face
    from fusion.swap import ENGINES, UNTRAINED

    ways: dict[str, Engine] = {
        "default": preset_engine(),
        "mobile": preset_engine("mobile"),
        "no_detail": preset_engine(detail=False),
        "with_eyes": preset_engine(eyes=True),
    }
    return {**ways, **{name: ENGINES[name] for name in ENGINES if name not in UNTRAINED}, "paste": paste_face}


def _engine_of(way: str) -> str:
    """The engine that a way paints with."""
    from fusion.swap import DEFAULT_PRESET, ENGINES, PRESETS

    if way in ENGINES or way == "paste":
        return way
    return PRESETS[way if way in PRESETS else DEFAULT_PRESET].engine


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


def _gallery(
    path: Path,
    data: Path,
    run: Mapping[str, Any],
    portraits: Mapping[str, Portrait] | None,
    split: str | None,
    recognisers: Mapping[str, Embed],
) -> Gallery:
    """The people among whom sources are looked for: read from `path` if the same networks made it, else embedded."""
    import json

    import numpy as np

    from fusion.evaluate import Gallery
    from fusion.files import write_file_atomically

    made_of = {key: run[key] for key in ("portraits", "gallery", "teacher", "judge")}
    made_by = json.dumps({**made_of, "identity": run["models"]["identity"]}, sort_keys=True)
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            if str(archive["made_by"]) == made_by:
                names = tuple(str(name) for name in archive["names"])
                return Gallery(names, {name: archive[f"by_{name}"] for name in recognisers})
    found = Gallery.of(portraits.values() if portraits else _portraits(data, split), recognisers)
    packed = io.BytesIO()
    arrays = {f"by_{name}": vectors for name, vectors in found.embeddings.items()}
    np.savez(packed, made_by=np.array(made_by), names=np.array(found.names), **arrays)  # type: ignore[arg-type]
    write_file_atomically(path, packed.getvalue())
    return found


def _draw_sheet(data: Path, split: str, pairs: Sequence[Pair], names: Sequence[str], out: Path) -> None:
    """Source, target and each engine's picture in a row, sealed as an output of this home."""
    from fusion.media import LIMITS, read_file
    from fusion.pipeline import bench_sheet

    folder, most = data / "portraits", LIMITS.max_bytes
    files = [(read_file(folder / pair.source, most), read_file(folder / pair.target, most)) for pair in pairs]
    points = {portrait.name: portrait.landmarks_px for portrait in _portraits(data, split)}
    landmarks = [(points[pair.source], points[pair.target]) for pair in pairs]
    ways = _ways()
    with open_home() as home:
        sealed = bench_sheet(files, landmarks, {name: ways[name] for name in names}, home, out / "sheet.png")
    say(f"{sealed.path}: mark {sealed.asset_id}, leaf {sealed.receipt.index}")


def _groups(data: Path) -> dict[str, str]:
    """The group label of each portrait, '' where the table has none."""
    with (data / "portraits.csv").open(newline="") as file:
        return {row["file"]: row.get("group_label", "") or "" for row in csv.DictReader(file)}


def _portraits(data: Path, split: str | None, limit: int | None = None) -> Iterator[Portrait]:
    """Portraits of a split (None: all), the first `limit` by the table's order."""
    import numpy as np

    from fusion.evaluate import Portrait
    from fusion.media import LIMITS, read_file, read_picture

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
    """Our own network, a published one where its file is, and one outside every loss where it is installed."""
    from fusion.evaluate import five_point_embed
    from fusion.identity import embed_face, load_identity
    from fusion.train.judge import JUDGE, find_judge
    from fusion.train.teacher import load_teacher

    ours = load_identity("cpu")
    found = {"ours": five_point_embed(lambda rgb, points_px: embed_face(rgb, _face_at(points_px), ours))}
    if teacher_file.exists():
        teacher = load_teacher(teacher_file)
        found["teacher"] = five_point_embed(lambda rgb, points_px: _embed_by(teacher, rgb, points_px))
    if (judge := find_judge()) is not None:
        found[JUDGE] = judge.embed
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
