"""`recover`: a stripped file gets its manifest back through the mark and the ledger; decides nothing itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from server.console import Json, emit, report_errors, say, table
from server.deps import open_home


def add_to(app: typer.Typer) -> None:
    app.command("recover")(recover)


@report_errors
def recover(
    file: Annotated[Path, typer.Argument(help="A copy, picture or video, that lost its manifest.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write: .c2pa (the store) or .json.")],
    json_output: Json = False,
) -> None:
    """Find a stripped file's manifest through its mark and the ledger, and validate it anew."""
    from fusion.files import check_writable, write_file_atomically
    from provenance.errors import UsageError
    from provenance.resolution import Resolver
    from provenance.resolution import recover as recover_manifest
    from server.copies import open_copy

    if out.suffix not in {".c2pa", ".json"}:
        raise UsageError(
            "recover.format", f"{out.name} is neither .c2pa nor .json.", "Name the output *.c2pa or *.json."
        )
    check_writable(out, [file])
    with open_home() as home, open_copy(file, home.keys.mark_key) as copy:
        found = recover_manifest(Resolver(home), copy, home.keys.trust)
    payload = {"file": str(file), "output": str(out), **found.as_dict()}
    report = {**payload, "tree": found.reading.tree}
    content = found.store if out.suffix == ".c2pa" else json.dumps(report, indent=2).encode()
    write_file_atomically(out, content)
    if json_output:
        emit(payload)
    else:
        rows = [(key, value) for key, value in payload.items() if key != "manifest"]
        proof = found.reading
        rows += [("manifest", proof.state), ("signer", proof.signer), ("declares", proof.source_type)]
        table(("what", "found"), rows)
        say(_told(found.same_picture, "video" if copy.mime.startswith("video/") else "picture"))
    if found.same_picture is False or found.reading.state != "valid":
        raise typer.Exit(3)


def _told(same: bool | None, kind: str) -> str:
    if same is None:
        return "The manifest belongs to the mark; a crop, a turn or a changed copy was not compared with the record."
    if same:
        return f"The manifest belongs to this {kind}: the perceptual hashes agree."
    return f"The mark is known, the {kind} is not what it was given to: a transplanted mark is suspected."
