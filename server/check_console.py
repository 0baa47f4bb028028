"""What people see of a check in a terminal, and its lines for a spreadsheet; decides nothing."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from server import report_text as text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from detector.check import Report
    from provenance.errors import FacsimileError
    from server.language import Translator

T = TypeVar("T")
COLOURS = {"told": "blue", "proven": "green", "alarm": "red", "open": "yellow"}
COLUMNS = (
    "file", "verdict", "manifest", "signer", "mark", "p_false", "ledger_index", "band", "faces", "conflicts",
    "content_sha256", "file_sha256", "error",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def progress(items: Sequence[T], *, quiet: bool) -> Iterable[T]:
    """The items, with a bar on stderr where somebody sits before it and there are several."""
    if quiet or len(items) < 2 or not sys.stderr.isatty():
        return items
    return _with_bar(items)


def _with_bar(items: Sequence[T]) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description="checking", console=Console(stderr=True), transient=True)


def draw(
    reports: Sequence[Report], failures: Sequence[tuple[Path, FacsimileError]], skipped: int, t: Translator
) -> None:
    """One file as a card, several as a table with a line of counts."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if len(reports) == 1 and not failures:
        console.print(_card(reports[0], t))
        return
    shorten = _shortener([report.file for report in reports] + [str(path) for path, _ in failures])
    if reports:
        console.print(_list(reports, shorten, t))
    for report in reports:
        for line in text.conflicts(report, t):
            console.print(Text(f"! {shorten(report.file)}: {line}", style="red"))
    if failures:
        console.print(_missed(failures, shorten, t))
    console.print(Text(_counts(reports, failures, skipped, t), style="bold"))


def _shortener(names: Sequence[str]) -> Callable[[str], str]:
    """Names without the folder that all of them share; whole where some are absolute and some are not."""
    mixed = len({os.path.isabs(name) for name in names}) > 1
    if len(names) < 2 or mixed:
        return str
    folder = os.path.commonpath([os.path.dirname(name) or "." for name in names])
    return lambda name: os.path.relpath(name, folder) if folder else name


def _card(report: Report, t: Translator) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    name, colour = report.verdict.value, _colour(report)
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for label, lines in text.witnesses(report, t):
        rows.add_row(label, Text(" ".join(lines)))
    if report.video is not None:
        rows.add_row(t("report.file"), Text(text.video_lines(report.video, t)[0]))
    parts: list[RenderableType] = [
        Text(t(f"verdict.{name}.meaning")),
        Text(f"{t('report.not_means')}: {t(f'verdict.{name}.not')}", style="dim"),
        Text(),
        rows,
    ]
    lines = text.conflicts(report, t)
    parts += [Text(), *(Text(f"! {line}", style="red") for line in lines)] if lines else []
    parts += [Text(f"· {line}", style="dim") for line in text.notes(report.medium.notes, t)]
    parts += [Text(), Text(f"→ {t(f'verdict.{name}.next')}", style=colour)]
    sign = text.SIGNS[text.TONES[name]]
    title = Text.assemble((f" {sign} {t(f'verdict.{name}.title')} ", f"bold {colour}"))
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        subtitle=Text(text.short_name(report), style="dim"),
        subtitle_align="right",
        border_style=colour,
        padding=(1, 2),
    )


def _list(reports: Sequence[Report], shorten: Callable[[str], str], t: Translator) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for key in ("report.file", "report.verdict", "witness.manifest", "witness.mark", "witness.detector"):
        drawn.add_column(t(key), overflow="fold", no_wrap=key == "witness.mark")
    for report in reports:
        tone = text.TONES[report.verdict.value]
        title = f"{text.SIGNS[tone]} {t(f'verdict.{report.verdict.value}.title')}"
        drawn.add_row(
            Text(shorten(report.file)),
            Text(title, style=f"bold {COLOURS[tone]}"),
            Text(report.manifest.signer or "–"),
            Text(report.mark.asset_id or "–"),
            Text(text.band_name(report.detector.band, t)),
        )
    return drawn


def _missed(
    failures: Sequence[tuple[Path, FacsimileError]], shorten: Callable[[str], str], t: Translator
) -> Table:
    """Files that could not be checked, each with its cause and what to do."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    drawn.add_column(t("report.not_checked"), overflow="fold")
    drawn.add_column("", overflow="fold")
    for path, error in failures:
        why = Text.assemble(error.cause, (f" {error.next_step}", "dim"), (f" [{error.code}]", "dim"))
        drawn.add_row(Text(shorten(str(path))), why)
    return drawn


def _counts(
    reports: Sequence[Report], failures: Sequence[tuple[Path, FacsimileError]], skipped: int, t: Translator
) -> str:
    parts = [f"{count} {t(f'verdict.{name}.title')}" for name, count in text.counted(reports).items()]
    parts += [f"{len(failures)} {t('report.not_checked')}"] if failures else []
    parts += [t("report.skipped", count=skipped)] if skipped else []
    return " · ".join(parts)


def _colour(report: Report) -> str:
    return COLOURS[text.TONES[report.verdict.value]]


def csv_text(reports: Sequence[Report], failures: Sequence[tuple[Path, FacsimileError]]) -> str:
    """RFC 4180 lines; a value that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for report in reports:
        writer.writerow([_harmless(value) for value in _line(report)])
    for path, error in failures:
        writer.writerow([_harmless(str(path)), *[""] * (len(COLUMNS) - 2), error.code])
    return out.getvalue()


def _line(report: Report) -> list[str]:
    found = [
        report.file,
        report.verdict.value,
        report.manifest.state,
        report.manifest.signer,
        report.mark.asset_id,
        f"{report.mark.p_false:.3g}",
        report.ledger.index,
        report.detector.band,
        len(report.detector.faces),
        "; ".join(report.conflicts),
        report.content_sha256,
        report.file_sha256,
        "",
    ]
    return ["" if value is None else str(value) for value in found]


def _harmless(value: str) -> str:
    return f"'{value}" if value.startswith(_FORMULA) else value
