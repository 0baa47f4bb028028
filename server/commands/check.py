"""`check`: what can be proven about files; decides nothing itself (detector.check does)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.console import Json, emit, error_payload, report_errors, say, table
from server.deps import open_home

if TYPE_CHECKING:
    from detector.check import Report

FAILED_VERDICTS = frozenset({"tampered", "conflict", "mark_transplant"})
"""Verdicts for which `check` exits with 3."""


def add_to(app: typer.Typer) -> None:
    app.command("check")(check)


@report_errors
def check(
    files: Annotated[list[Path], typer.Argument(help="Pictures, videos, or folders of them.")],
    report: Annotated[Path | None, typer.Option(help="Also write the report here (.json or .html).")] = None,
    json_output: Json = False,
) -> None:
    """Say for each file what its manifest, its mark and the ledger prove."""
    from detector.check import Checker
    from fusion.media import write_file_atomically
    from provenance.errors import FacsimileError, UsageError
    from server.report import render_html, render_json

    if report is not None and report.suffix not in {".json", ".html"}:
        raise UsageError(
            "check.report_format",
            f"{report.name} is neither .json nor .html.",
            "Name the report *.json or *.html.",
        )
    reports: list[Report] = []
    failures: list[tuple[Path, FacsimileError]] = []
    with open_home() as home:
        checker = Checker(home)
        for path in _expand(files):
            try:
                reports.append(checker.check_file(path))
            except FacsimileError as error:
                failures.append((path, error))
    if report is not None:
        text = render_json(reports) if report.suffix == ".json" else render_html(reports)
        write_file_atomically(report, text.encode())
    if json_output:
        emit(_payload(reports, failures))
    else:
        _show(reports, failures)
    raise typer.Exit(_exit_code(reports, failures))


def _expand(files: list[Path]) -> list[Path]:
    paths: list[Path] = []
    for path in files:
        if path.is_dir():
            paths += sorted(child for child in path.rglob("*") if child.is_file())
        else:
            paths.append(path)
    return paths


def _payload(reports: list[Report], failures: list[tuple[Path, Any]]) -> dict[str, Any]:
    items = [report.as_dict() for report in reports]
    items += [{"file": str(path), **error_payload(error)} for path, error in failures]
    return items[0] if len(items) == 1 else {"files": items}


def _show(reports: list[Report], failures: list[tuple[Path, Any]]) -> None:
    if reports:
        table(
            ("file", "verdict", "why"),
            [(report.file, report.verdict.value, report.summary) for report in reports],
        )
    for report in reports:
        for line in report.conflicts:
            say(f"{report.file}: {line}")
    for path, error in failures:
        say(f"{path}: not checked, {error.code}: {error.cause} {error.next_step}")


def _exit_code(reports: list[Report], failures: list[tuple[Path, Any]]) -> int:
    if any(report.verdict.value in FAILED_VERDICTS for report in reports):
        return 3
    return failures[0][1].exit_code if failures else 0
