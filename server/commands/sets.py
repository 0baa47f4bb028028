"""`faceset`: labelled sets made and verified, folders declared and shown; what is made passes the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from server.console import Json, complain, emit, report_errors, say
from server.deps import open_home


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Folders of labelled pictures.", rich_markup_mode=None)
    group.command("make")(make)
    group.command("verify")(verify)
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
    json_output: Json = False,
) -> None:
    """Re-read a whole set: hashes, seals, marks, ledger, records, splits; exit code 3 where something is wrong."""
    from setmaking.verify import verify_set

    with open_home() as home, _progress() as report:
        found = verify_set(folder, home, lambda done, of: report("pictures", done, of))
    if json_output:
        emit(found.as_dict())
    else:
        for flaw in found.flaws:
            complain(f"{flaw.file}: {flaw.what}")
        verdict = f"{len(found.flaws)} flaw(s)" if found.flaws else "everything holds"
        say(f"{folder}: {found.num_samples} sample(s) in {found.num_shards} shard(s), {verdict}.")
    if found.flaws:
        raise typer.Exit(3)


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
    """Record, under your name, that every picture in a folder shows only people who don't exist."""
    from fusion.media import LIMITS, PICTURE_SUFFIXES, read_file
    from provenance.declarations import declare_synthetic
    from provenance.errors import UsageError
    from provenance.hashes import content_sha256

    if not synthetic:
        raise UsageError(
            "declare.synthetic", "Only full synthesis can be declared.", "Say --synthetic if it is so."
        )
    if not folder.is_dir():
        raise UsageError("declare.folder", f"{folder} is no folder.", "Name a folder of pictures.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    hashes = [content_sha256(read_file(path, LIMITS.max_bytes)) for path in files]
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
    json_output: Json = False,
) -> None:
    """Draw a contact sheet of a folder, by name, sealed like every output."""
    from fusion.media import LIMITS, PICTURE_SUFFIXES, read_file
    from fusion.pipeline import sheet

    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    with open_home() as home:
        pictures = [read_file(path, LIMITS.max_bytes) for path in files]
        sealed = sheet(pictures, home, out, columns=columns, tile_px=tile)
    if json_output:
        emit(sealed.as_dict())
    else:
        say(f"{sealed.path}: {len(files)} picture(s), mark {sealed.asset_id}, leaf {sealed.receipt.index}.")
