"""`bench`: the suite measured, as JSON and Markdown tables of the same rows; measures nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provenance.errors import UsageError
from server.bench_tables import as_markdown, store_suite, write_suite
from server.commands.bench_fusion import bench_fusion
from server.commands.bench_mark import bench_mark
from server.commands.detector import bench_detector
from server.console import Json, complain, report_errors

Out = Annotated[Path, typer.Option(help="Folder for bench.json and bench.md.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few pictures, under a minute on two cores.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Measure the suite.", rich_markup_mode=None)
    group.command("fusion")(bench_fusion)
    group.command("fuse")(bench_fuse)
    group.command("video")(bench_video)
    group.command("mark")(bench_mark)
    group.command("ledger")(bench_ledger)
    group.command("server")(bench_server)
    group.command("detector")(bench_detector)
    app.add_typer(group, name="bench")


@report_errors
def bench_fuse(
    out: Out = Path("bench/fuse"),
    preset: Annotated[
        list[str] | None, typer.Option(help="Presets to measure; default: film, mobile.")
    ] = None,
    times: Annotated[int, typer.Option(min=1, help="Pictures by each preset.")] = 12,
    quick: Quick = False,
    json_output: Json = False,
) -> None:
    """Measure the whole path of a 1080p picture, from its bytes to its release, in a home of its own."""
    import tempfile

    from server.bench_path import measure_path

    presets = _known(preset or ["film", "mobile"])
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_path(Path(folder), presets, 2 if quick else times)
    write_suite("fuse", rows, as_markdown(rows), out, json_output)


@report_errors
def bench_video(
    out: Out = Path("bench/video"),
    preset: Annotated[
        list[str] | None, typer.Option(help="Presets to measure; default: mobile, film.")
    ] = None,
    frames: Annotated[int, typer.Option(min=4, help="Of the clip, 25 a second.")] = 50,
    quick: Quick = False,
    json_output: Json = False,
) -> None:
    """Measure the fusion of a drawn 720p clip of nobodies: frames a second, stages, memory, jitter, drift."""
    import tempfile

    from server.bench_video import measure_video

    presets = _known(preset or ["mobile", "film"])
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_video(Path(folder), presets, 8 if quick else frames)
    write_suite("video", rows, as_markdown(rows), out, json_output)


def _known(presets: list[str]) -> list[str]:
    """The same names; UsageError `swap.unknown_preset` before anything is measured."""
    from fusion.swap import find_preset

    for name in presets:
        find_preset(name)
    return presets


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
def bench_server(
    out: Out = Path("bench/server"),
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="one, twenty, overload, memory, kill, litserve; default: all. Others keep their rows."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of each load.")] = 60.0,
    rounds: Annotated[
        int, typer.Option(min=1, help="Into which the loads of server and LitServe are split, in turn.")
    ] = 8,
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
    from server.bench_process import ended_by_sigterm

    wanted = case or list(bench_cases.CASES)
    if unknown := [each for each in wanted if each not in bench_cases.CASES]:
        raise UsageError(
            "bench.case", f"{unknown[0]} is no case of this bench.", f"Use: {', '.join(bench_cases.CASES)}."
        )
    if "litserve" in wanted and not bench_cases.has_litserve():
        complain("LitServe is not installed here: the peer is left out. `pip install litserve` brings it.")
    if quick:
        seconds, rounds, kills, requests = 5.0, 1, 2, 40
    out.mkdir(parents=True, exist_ok=True)
    plan = bench_cases.Plan(seconds, rounds, requests, kills, seed, out / "server.log")
    rows = bench_cases.read_rows(out) if case else []
    with ended_by_sigterm(), tempfile.TemporaryDirectory() as folder:
        made = make_home(Path(folder))
        for name in wanted:
            found = bench_cases.CASES[name](made, plan, rows)
            rows = bench_cases.merge(rows, found, add_kills=add)
            store_suite("server", rows, as_markdown(rows), out)
    write_suite("server", rows, as_markdown(rows), out, json_output)
