"""`check`: what can be proven about files; decides nothing itself (detector.check does)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.console import Json, emit, error_payload, report_errors, say
from server.deps import open_home

if TYPE_CHECKING:
    from detector.check import Checker, Report
    from provenance.errors import FacsimileError
    from provenance.home import Home
    from server.language import Translator

FAILED_VERDICTS = frozenset({"tampered", "conflict", "mark_transplant"})
"""Verdicts for which `check` exits with 3."""
REPORT_SUFFIXES = (".html", ".pdf", ".json")
NOT_MEDIA = frozenset({"media.format", "media.empty", "file.empty", "media.no_video"})
"""What a file in a folder may be without the folder's check failing: no picture and no video."""
MOST_PICTURES = 200
"""Files up to which a report keeps pictures; beyond, their words only."""


@dataclass
class _Found:
    """What gathers while files are checked."""

    reports: list[Report] = field(default_factory=list)
    failures: list[tuple[Path, FacsimileError]] = field(default_factory=list)
    skipped: int = 0


def add_to(app: typer.Typer) -> None:
    app.command("check")(check)


@report_errors
def check(
    files: Annotated[list[Path] | None, typer.Argument(help="Pictures, videos, or folders of them.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a signed report here (.html, .pdf or .json); its signature beside it."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one line per file here.")] = None,
    lang: Annotated[str, typer.Option(help="Language of table and report: en or zh.")] = "en",
    bundle: Annotated[
        Path | None,
        typer.Option(help="Write what was seen of one file here (.zip), to report a wrong verdict."),
    ] = None,
    include_original: Annotated[
        bool,
        typer.Option("--include-original", help="Put the file itself into the bundle: you may hand it over."),
    ] = False,
    remark: Annotated[str, typer.Option(help="What is wrong with the verdict, for the bundle.")] = "",
    verify_report: Annotated[
        Path | None, typer.Option(help="Verify the signature of a report of this home instead.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Say for each file what its manifest, its mark, the ledger and the detector prove."""
    t = _translator(lang)
    if verify_report is not None:
        _verify(verify_report, as_json=json_output)
        return
    paths = _expand(files or [])
    outputs = [path for path in (report, csv, bundle) if path is not None]
    _check_usage(files or [], paths, outputs, report, bundle, include_original)
    with open_home() as home:
        found = _check_all(_checker(home), paths, quiet=json_output)
        if not found.reports and not found.failures:
            raise _nothing(files or [])
        if report is not None:
            _write_report(report, found, home, t)
    if csv is not None:
        _write(csv, _csv(found).encode("utf-8-sig"))
    if bundle is not None:
        _write_bundle(bundle, found, paths[0][0], include_original, remark)
    if json_output:
        emit(_payload(found))
    else:
        _show(found, t, outputs)
    raise typer.Exit(_exit_code(found))


def _translator(lang: str) -> Translator:
    from provenance.errors import UsageError
    from server.language import LANGUAGES, translator

    if lang not in LANGUAGES:
        raise UsageError(
            "check.language", f"{lang!r} is no language of the reports.", "Use --lang en or --lang zh."
        )
    return translator(lang)


def _check_usage(
    files: list[Path],
    paths: list[tuple[Path, bool]],
    outputs: list[Path],
    report: Path | None,
    bundle: Path | None,
    include_original: bool,
) -> None:
    """Everything that can be refused before the work begins."""
    from fusion.files import check_writable
    from provenance.errors import UsageError

    if not files:
        raise UsageError("check.no_file", "No file was named.", "Name pictures, videos or folders.")
    if report is not None and report.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(
            "check.report_format", f"{report.name} is none of .html, .pdf and .json.", "Name the report so."
        )
    if bundle is not None and (bundle.suffix.lower() != ".zip" or len(paths) != 1):
        raise UsageError(
            "check.bundle", "A bundle is a .zip and holds one file.", "Name one file, and the bundle *.zip."
        )
    if include_original and bundle is None:
        raise UsageError(
            "check.bundle", "--include-original goes with --bundle.", "Name the bundle with --bundle."
        )
    for path in outputs:
        check_writable(path, inputs=[each for each, _ in paths])


def _checker(home: Home) -> Checker:
    from detector.check import Checker, shipped_scorer

    return Checker(home, shipped_scorer())


def _check_all(checker: Checker, paths: list[tuple[Path, bool]], *, quiet: bool) -> _Found:
    """Every file in turn; one that fails does not stop the others."""
    from provenance.errors import FacsimileError
    from server.check_console import progress

    found = _Found()
    for path, named in progress(paths, quiet=quiet):
        try:
            report = checker.check_file(path)
            found.reports.append(report if len(paths) <= MOST_PICTURES else report.without_pictures())
        except FacsimileError as error:
            if named or error.code not in NOT_MEDIA:
                found.failures.append((path, error))
            else:
                found.skipped += 1
    return found


def _expand(files: list[Path]) -> list[tuple[Path, bool]]:
    """Every file once, folders walked in the order of names; whether it was named itself. Hidden files stay out."""
    paths: dict[Path, bool] = {}
    for path in files:
        for each, named in _walk(path):
            paths[each] = paths.get(each, False) or named
    return list(paths.items())


def _walk(path: Path) -> Iterator[tuple[Path, bool]]:
    if not path.is_dir():
        yield path, True
        return
    for child in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in child.relative_to(path).parts)
        if child.is_file() and not hidden:
            yield child, False


def _nothing(files: list[Path]) -> FacsimileError:
    from provenance.errors import InputError

    names = ", ".join(str(path) for path in files)
    return InputError(
        "check.nothing", f"{names} holds no picture and no video.", "Name a folder that holds some."
    )


def _write_report(path: Path, found: _Found, home: Home, t: Translator) -> None:
    """The report and, beside it, its detached signature."""
    from server.report import now
    from server.report_files import KINDS, issue_as, sign_report, write_report

    issue = issue_as(path.name, home, t, now())
    missed = [(each.name, error) for each, error in found.failures]
    kind = next(each for each in KINDS if path.suffix.lower() == f".{each}")
    data = write_report(kind, found.reports, t, issue, missed)
    _write(path, data)
    _write(path.with_name(path.name + ".jws"), sign_report(data, home, issue.at))


def _verify(path: Path, *, as_json: bool) -> None:
    """Whether this home signed exactly this report; SignatureError when not."""
    from fusion.files import read_file
    from provenance.attestation import verify_detached
    from server.report_files import REPORT_KIND

    data = read_file(path, 1 << 30)
    signature = read_file(path.with_name(path.name + ".jws"), 1 << 20)
    with open_home() as home:
        found = verify_detached(data, signature.decode("ascii", "replace"), REPORT_KIND, home.keys.trust)
    if as_json:
        emit({"report": str(path), "valid": True, **vars(found)})
    else:
        key = f"key {found.fingerprint[:16]}…"
        say(f"{path.name}: signed by {found.signer} at {found.signed_at}, unchanged since ({key}).")


def _write_bundle(path: Path, found: _Found, original: Path, include: bool, remark: str) -> None:
    from fusion.files import read_file
    from server.bundle import MAX_BYTES, write_bundle

    if not found.reports:
        raise found.failures[0][1]
    data = read_file(original, MAX_BYTES) if include else None
    _write(path, write_bundle(found.reports[0], data, remark))


def _write(path: Path, data: bytes) -> None:
    from fusion.files import write_file_atomically

    write_file_atomically(path, data)


def _csv(found: _Found) -> str:
    """One line per file; a value that a spreadsheet would take for a formula is quoted with an apostrophe."""
    from server.check_console import csv_text

    return csv_text(found.reports, found.failures)


def _payload(found: _Found) -> dict[str, Any]:
    items = [report.as_dict() for report in found.reports]
    items += [{"file": str(path), **error_payload(error)} for path, error in found.failures]
    return items[0] if len(items) == 1 else {"files": items, "skipped": found.skipped}


def _show(found: _Found, t: Translator, outputs: list[Path]) -> None:
    from server.check_console import draw

    draw(found.reports, found.failures, found.skipped, t)
    for path in outputs:
        say(f"→ {path}")


def _exit_code(found: _Found) -> int:
    if any(report.verdict.value in FAILED_VERDICTS for report in found.reports):
        return 3
    return found.failures[0][1].exit_code if found.failures else 0
