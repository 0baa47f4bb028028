"""`audit`: the ledger read and proven; nothing here writes an entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.console import Json, emit, report_errors, say, table
from server.deps import open_home

if TYPE_CHECKING:
    pass

Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Read and prove the ledger.", rich_markup_mode=None)
    group.command("verify")(verify)
    group.command("checkpoint")(checkpoint)
    group.command("entries")(entries)
    group.command("proof")(proof)
    group.command("consistency")(consistency)
    group.command("key")(key)
    group.command("export")(export)
    group.command("report")(report)
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


@report_errors
def consistency(
    older: Annotated[int, typer.Argument(help="Number of leaves of an earlier checkpoint.")],
    json_output: Json = False,
) -> None:
    """Show the proof that the ledger only grew since it had OLDER leaves (RFC 6962)."""

    with open_home() as home:
        found = home.ledger.consistency_proof(older)
    payload = {
        "older": older,
        "newer": found.size,
        "hashes": list(found.hashes),
        "checkpoint": found.checkpoint,
    }
    if json_output:
        emit(payload)
        return
    table(("field", "value"), [(key, value) for key, value in payload.items() if key != "checkpoint"])
    say(found.checkpoint.rstrip("\n"))


@report_errors
def key(json_output: Json = False) -> None:
    """Print the ledger's public key, which verifiers need; give it out by another way than exports."""

    with open_home() as home:
        text = home.ledger.signer.verifier.text
    if json_output:
        emit({"key": text})
    else:
        say(text)


@report_errors
def export(out: Out, json_output: Json = False) -> None:
    """Write the whole ledger as C2SP tiles in a zip, with the script that verifies it offline."""
    from fusion.files import check_writable, write_file_atomically
    from provenance.errors import UsageError
    from provenance.tiles import export_ledger

    if out.suffix != ".zip":
        raise UsageError("audit.export_format", f"{out.name} is no .zip.", "Name the output *.zip.")
    check_writable(out)
    with open_home() as home:
        data, head = export_ledger(home.ledger), home.ledger.tree_head()
        text = home.ledger.signer.verifier.text
    write_file_atomically(out, data)
    if json_output:
        emit({"output": str(out), "size": head.size, "root": head.root.hex(), "key": text})
    else:
        say(f"{out}: {head.size} entries. Unpack it, then: python verify_export.py . '{text}'")


@report_errors
def report(
    out: Out,
    standard: Annotated[str, typer.Option(help="eu, cn, ca or all.")] = "all",
    files: Annotated[list[Path] | None, typer.Option(help="Released files to look at in full.")] = None,
    json_output: Json = False,
) -> None:
    """Judge this home against what laws and standards ask: pass, fail, or needs a person."""
    from fusion.files import check_writable, write_file_atomically
    from provenance.compliance import judge
    from provenance.errors import UsageError
    from provenance.requirements import STANDARDS
    from server import report_compliance as render
    from server.copies import released_files

    chosen = STANDARDS if standard == "all" else tuple(each for each in STANDARDS if each == standard)
    if not chosen:
        raise UsageError(
            "audit.standard", f"{standard} is no standard known here.", "Give eu, cn, ca or all."
        )
    kind = next((each for each in render.KINDS if out.suffix == f".{each}"), None)
    if kind is None:
        raise UsageError(
            "audit.report_format", f"{out.name} is none of .html, .pdf, .csv.", "Name the output so."
        )
    check_writable(out, files or ())
    with open_home() as home:
        judged = judge(home, chosen, released_files(files or (), home))
        write_file_atomically(out, render.render(kind, judged, home.organisation))
    rows = render.rows_of(judged)
    if json_output:
        emit({"output": str(out), "rows": rows})
    else:
        table(("id", "state", "seen"), [(row["id"], row["state"], row["seen"]) for row in rows])
