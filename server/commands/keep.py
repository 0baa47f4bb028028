"""`backup` and `restore`: the home in one file, and back; verified when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.console import Json, emit, report_errors, say
from server.deps import open_home
from server.settings import read_settings


def add_to(app: typer.Typer) -> None:
    app.command("backup")(backup)
    app.command("restore")(restore)


@report_errors
def backup(
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, .tar; it holds every key.")],
    json_output: Json = False,
) -> None:
    """Write keys, ledger, people and store to one file, while a server may run."""
    from server.backup import write_backup

    with open_home() as home:
        count = write_backup(home, out)
    if json_output:
        emit({"backup": str(out), "files": count})
    else:
        say(
            f"{out}: {count} files, every private key among them. Keep it as safe as the home, and off this machine."
        )


@report_errors
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    json_output: Json = False,
) -> None:
    """Make the home (FACSIMILE_HOME) from a backup, and verify its ledger."""
    from server.backup import restore_backup

    where = read_settings().home
    report = restore_backup(file, where)
    report.require()
    if json_output:
        emit({"home": str(where), "size": report.size, "root": report.root})
    else:
        say(f"Restored {where}: {report.size} leaves, root {report.root}, sound.")
