"""A check's report as a file and its signature beside it: the same bytes for the command line, the API and the page.

Equal reports, language, organisation, version and time give equal bytes: a signature can be made apart from its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from provenance import __version__
from provenance.attestation import sign_detached
from server.language import Translator
from server.report import Issue, render_document, render_html

if TYPE_CHECKING:
    from detector.check import Report
    from provenance.errors import FacsimileError
    from provenance.home import Home

Kind = Literal["json", "html", "pdf"]
KINDS: Final[Mapping[Kind, str]] = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}
"""Kind → its MIME type."""
REPORT_KIND: Final = "facsimile-report+jws"
"""`typ` of a report's signature."""


def issue_as(name: str, home: Home, t: Translator, at: datetime, version: str = __version__) -> Issue:
    """Who issues a report whose file is called `name`, and where its signature lies."""
    signed = t("report.signature", name=f"{name}.jws", command=f"facsimile check --verify-report {name}")
    return Issue(home.organisation, version, at, signed)


def write_report(
    kind: Kind,
    reports: Sequence[Report],
    t: Translator,
    issue: Issue,
    missed: Sequence[tuple[str, FacsimileError]] = (),
) -> bytes:
    """The report's file."""
    if kind == "json":
        return write_document([report.as_dict() for report in reports], issue, missed)
    if kind == "html":
        return render_html(reports, t, missed, issue).encode()
    from server.report_pdf import render_pdf

    return render_pdf(reports, t, missed, issue)


def write_document(
    files: Sequence[Mapping[str, Any]], issue: Issue, missed: Sequence[tuple[str, FacsimileError]] = ()
) -> bytes:
    """The report's file as JSON, of reports that were kept as such."""
    return render_document(files, missed, issue).encode()


def sign_report(data: bytes, home: Home, at: datetime) -> bytes:
    """The detached signature of a report's file, as the file beside it."""
    return sign_detached(data, REPORT_KIND, home.keys, at).encode() + b"\n"
