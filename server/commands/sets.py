"""`faceset`: labelled sets made and verified, folders declared and shown; what is made passes the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.console import Json, complain, emit, report_errors, say
from server.deps import open_home

if TYPE_CHECKING:
    from fusion.face import UInt8Array


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Folders of labelled pictures.", rich_markup_mode=None)
    group.command("make")(make)
    group.command("verify")(verify)
    group.command("filter")(filter_samples)
    group.command("declare")(declare)
    group.command("preview")(preview)
    app.add_typer(group, name="faceset")


@report_errors
def make(
    spec: Annotated[Path, typer.Argument(help="What to make: .yaml, .toml or .json, see docs/facesets.md.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the set; a begun one is gone on with.")],
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that make shards.")] = 1,
    json_output: Json = False,
) -> None:
    """Make a labelled set of people who don't exist; run again, it goes on where it stopped."""
    from facesets.spec import MAX_SPEC_BYTES, read_spec
    from fusion.media import read_file
    from setmaking.make import make_set

    wanted = read_spec(read_file(spec, MAX_SPEC_BYTES), spec.name)
    with _progress() as report:
        made = make_set(wanted, out, open_home, report, workers)
    if json_output:
        emit(made.as_dict())
        return
    say(
        f"{made.folder}: {made.num_samples} sample(s) in {made.num_shards} shard(s), {made.num_left_out} left out."
    )
    if made.images_per_s is not None:
        say(
            f"Made {made.num_made} now, {made.images_per_s:.2f} a second; "
            f"{made.cpu_s_per_1000:.0f} processor seconds per thousand."
        )


@report_errors
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder that `faceset make` made.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the files to open, at random.")] = 1.0,
    without_home: Annotated[
        bool, typer.Option("--without-home", help="As somebody else: marks, ledger and signer are left out.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Re-read a set: hashes, seals, marks, ledger, records, splits; exit code 3 where something is wrong."""
    from setmaking.verify import verify_set

    with nullcontext() if without_home else open_home() as home, _progress() as report:
        found = verify_set(folder, home, lambda done, of: report("pictures", done, of), share)
    if json_output:
        emit(found.as_dict())
    else:
        for flaw in found.flaws:
            complain(f"{flaw.file}: {flaw.what}")
        verdict = f"{len(found.flaws)} flaw(s)" if found.flaws else "everything holds"
        say(f"{folder}: {found.num_samples} sample(s) in {found.num_shards} shard(s), {verdict}.")
        if found.not_checked:
            say(f"Not looked at: {', '.join(found.not_checked)}.")
    if found.flaws:
        raise typer.Exit(3)


@report_errors
def filter_samples(
    folder: Annotated[Path, typer.Argument(help="Folder that `faceset make` made.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the new set; a begun one is gone on with.")
    ],
    without: Annotated[
        list[str] | None, typer.Option(help="Identities that nothing may show or be made of.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="sampled, fused, self_blended; these alone.")] = None,
    min_face: Annotated[
        float, typer.Option(min=0, help="Longer side of a face's box in px, at least.")
    ] = 0.0,
    max_yaw: Annotated[float, typer.Option(min=0, max=180, help="Degrees of turn either way.")] = 180.0,
    labelled_by: Annotated[str, typer.Option(help="generator or network, alone.")] = "",
    json_output: Json = False,
) -> None:
    """Write a set anew without what rests on revoked grants, names somebody, or is of another kind or quality."""
    from facesets.record import KINDS
    from provenance.errors import UsageError
    from setmaking.filter import Rules, filter_set

    known = {"--kind": (kind or (), KINDS), "--labelled-by": ([labelled_by], ("", "generator", "network"))}
    for option, (given, words) in known.items():
        if unknown := [each for each in given if each not in words]:
            allowed = ", ".join(word for word in words if word)
            raise UsageError("filter.word", f"{option} knows no {unknown[0]!r}.", f"Use: {allowed}.")
    rules = Rules(True, tuple(without or ()), tuple(kind or ()), min_face, max_yaw, labelled_by)
    with open_home() as home, _progress() as report:
        found = filter_set(folder, out, rules, home, report)
    if json_output:
        emit(found.as_dict())
    else:
        reasons = ", ".join(f"{count} by {code}" for code, count in sorted(found.left_out.items()))
        say(f"{out}: {found.num_samples} sample(s); left out: {reasons or 'none'}.")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a stage on stderr, drawn where that is a terminal; call it with (stage, done, of)."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bars:
        tasks = {}

        def report(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=of)

        yield report


@report_errors
def declare(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures.")],
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Yes: every face in it belongs to nobody.")],
    evidence: Annotated[str, typer.Option(help="How you know.")],
    json_output: Json = False,
) -> None:
    """Record, under your name, that every picture and video in a folder shows only people who don't exist."""
    from fusion.files import open_file
    from fusion.media import LIMITS, PICTURE_SUFFIXES, read_file
    from fusion.video import VIDEO_LIMITS
    from provenance.declarations import declare_synthetic
    from provenance.errors import UsageError
    from provenance.hashes import content_sha256, video_content_sha256

    if not synthetic:
        raise UsageError(
            "declare.synthetic", "Only full synthesis can be declared.", "Say --synthetic if it is so."
        )
    if not folder.is_dir():
        raise UsageError("declare.folder", f"{folder} is no folder.", "Name a folder of pictures.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    hashes = [content_sha256(read_file(path, LIMITS.max_bytes)) for path in files]
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".mp4", ".mov")):
        with open_file(path, VIDEO_LIMITS.max_bytes) as file:
            hashes.append(video_content_sha256(file))
    with open_home() as home:
        declared = declare_synthetic(home, hashes, evidence)
    if json_output:
        emit(
            {
                "declaration": declared.id,
                "files": declared.num_files,
                "ledger": {"index": declared.receipt.index},
            }
        )
    else:
        say(f"Declared {declared.num_files} file(s) synthetic: {declared.id}, leaf {declared.receipt.index}.")


@report_errors
def preview(
    folder: Annotated[Path, typer.Argument(help="Folder of sealed pictures of nobodies.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write.")],
    columns: Annotated[int, typer.Option(min=1, help="Pictures in a row.")] = 6,
    tile: Annotated[int, typer.Option(min=32, help="Side of each in pixels.")] = 256,
    labels: Annotated[
        bool, typer.Option("--labels", help="Of a labelled set: draw each picture's labels over it.")
    ] = False,
    most: Annotated[
        int, typer.Option(min=1, help="With --labels: how many pictures, spread over the set.")
    ] = 24,
    json_output: Json = False,
) -> None:
    """Draw a contact sheet of a folder, by name, sealed like every output."""
    from fusion.media import LIMITS, PICTURE_SUFFIXES, read_file
    from fusion.pipeline import sheet

    paint = None
    if labels:
        files, paint = _labelled(folder, most)
    else:
        files = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    with open_home() as home:
        pictures = [read_file(path, LIMITS.max_bytes) for path in files]
        sealed = sheet(pictures, home, out, columns=columns, tile_px=tile, paint=paint)
    if json_output:
        emit(sealed.as_dict())
    else:
        say(f"{sealed.path}: {len(files)} picture(s), mark {sealed.asset_id}, leaf {sealed.receipt.index}.")


def _labelled(folder: Path, most: int) -> tuple[list[Path], Callable[[int, UInt8Array], UInt8Array]]:
    """Files of a labelled set, of every kind in turn, and what draws their labels; UsageError `preview.no_records`."""
    from facesets.overlay import draw_labels
    from facesets.record import KINDS, read_lines
    from fusion.media import read_file
    from provenance.errors import UsageError
    from setmaking.compile import ALL_RECORDS
    from setmaking.make import MAX_PLAN_BYTES

    if not (folder / ALL_RECORDS).is_file():
        raise UsageError(
            "preview.no_records",
            f"{folder} holds no {ALL_RECORDS}.",
            "Name a set that `faceset make` finished.",
        )
    records = read_lines(read_file(folder / ALL_RECORDS, MAX_PLAN_BYTES), ALL_RECORDS)
    kinds = [[record for record in records if record.kind == kind] for kind in KINDS]
    share = -(-most // sum(bool(kind) for kind in kinds)) if records else 0
    spread = [kind[:: max(1, len(kind) // share)][:share] for kind in kinds if kind]
    shown = [record for kind in spread for record in kind][:most]
    return [folder / record.file for record in shown], lambda number, rgb: draw_labels(rgb, shown[number])
