"""`audit`: the ledger read and proven; nothing here writes an entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from server.console import Json, emit, report_errors, say, table
from server.deps import open_home


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Read and prove the ledger.", rich_markup_mode=None)
    group.command("verify")(verify)
    group.command("checkpoint")(checkpoint)
    group.command("entries")(entries)
    group.command("proof")(proof)
    app.add_typer(group, name="audit")


@report_errors
def verify(
    against: Annotated[
        list[Path] | None, typer.Option(help="Checkpoints seen earlier; they must still hold.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Re-derive every leaf, the root and the checkpoint's signature."""
    from fusion.media import read_file
    from provenance import fsck

    with open_home() as home:
        report = fsck.verify(home, [read_file(path, 1 << 16).decode() for path in against or ()])
    if not json_output:
        for problem in report.problems:
            say(f"{problem.code} at leaf {problem.index}: {problem.detail}")
    report.require()
    if json_output:
        emit({"ok": True, "size": report.size, "root": report.root, "notes": list(report.notes)})
    else:
        say(f"The ledger is sound: {report.size} leaves, root {report.root}.")


@report_errors
def checkpoint(json_output: Json = False) -> None:
    """Print the signed checkpoint, a C2SP note; give it to a witness."""

    with open_home() as home:
        note = home.ledger.checkpoint()
    if json_output:
        emit({"checkpoint": note})
    else:
        say(note.rstrip("\n"))


@report_errors
def entries(
    since: Annotated[int, typer.Option(help="First leaf index to show.")] = 0,
    json_output: Json = False,
) -> None:
    """List the entries of the ledger."""

    with open_home() as home:
        found = list(home.ledger.entries(since))
    if json_output:
        emit({"entries": [asdict(entry) for entry in found]})
        return
    table(
        ("index", "kind", "at", "about"),
        [(entry.index, entry.kind, entry.time, _about(entry.body)) for entry in found],
    )


def _about(body: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in body.items() if value)


@report_errors
def proof(
    index: Annotated[int, typer.Argument(help="Leaf index.")],
    json_output: Json = False,
) -> None:
    """Show the inclusion proof of one leaf (RFC 6962)."""

    with open_home() as home:
        entry = home.ledger.entry(index)
        found = home.ledger.inclusion_proof(index)
    payload = {"index": index, "leaf_sha256": entry.leaf_sha256, **asdict(found)}
    if json_output:
        emit(payload)
        return
    table(("field", "value"), [(key, value) for key, value in payload.items() if key != "checkpoint"])
    say(found.checkpoint.rstrip("\n"))
