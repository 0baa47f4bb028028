"""`faceset`: statements about folders of pictures; makes no picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.console import Json, emit, report_errors, say
from server.deps import open_home


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Folders of labelled pictures.", rich_markup_mode=None)
    group.command("declare")(declare)
    group.command("preview")(preview)
    app.add_typer(group, name="faceset")


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
