"""The compliance report as HTML, PDF or CSV: the same rows thrice; judges nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from provenance.compliance import Judged

Kind = Literal["html", "pdf", "csv"]
KINDS: Final[Mapping[Kind, str]] = {
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "csv": "text/csv; charset=utf-8",
}
"""Kind → its MIME type."""
COLUMNS = ("id", "state", "source", "asks", "seen")
NOTE = (
    "Pass: the machine's check holds for what it looked at. Fail: it does not. Needs a person: no machine can tell, "
    "or the facts were not at hand. This table is an engineer's reading of the sources; a lawyer confirms it."
)
STYLE = """
:root { color-scheme: light dark; } body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
padding: 0 1rem; } table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top;
padding: .35rem .6rem; border-bottom: 1px solid #8884; } .pass { color: #17783b; }
.fail { color: #c22; font-weight: 700; }
@media (prefers-color-scheme: dark) { .pass { color: #6c9; } .fail { color: #f77; } }
"""


def render(kind: Kind, judged: Sequence[Judged], organisation: str) -> bytes:
    """The report as a file."""
    if kind == "csv":
        return render_csv(judged)
    heading = f"{organisation}: marking and labelling of synthetic pictures"
    return render_pdf(judged, heading) if kind == "pdf" else render_html(judged, heading)


def rows_of(judged: Sequence[Judged]) -> list[dict[str, str]]:
    """One dict a requirement."""
    return [
        {
            "standard": each.requirement.standard,
            "id": each.requirement.id,
            "state": each.state,
            "source": each.requirement.source,
            "asks": each.requirement.asks,
            "seen": each.seen,
        }
        for each in judged
    ]


def render_csv(judged: Sequence[Judged]) -> bytes:
    """UTF-8 with a byte order mark, as spreadsheets want it; no cell begins a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ("standard", *COLUMNS))
    writer.writeheader()
    for row in rows_of(judged):
        writer.writerow({name: f"'{cell}" if cell[:1] in "=+-@" else cell for name, cell in row.items()})
    return text.getvalue().encode("utf-8-sig")


def render_html(judged: Sequence[Judged], heading: str) -> bytes:
    """One page without scripts and without outside addresses."""
    from provenance.requirements import TITLES

    parts = [f"<h1>{escape(heading)}</h1><p>{escape(NOTE)}</p>"]
    for standard, rows in groupby(judged, key=lambda each: each.requirement.standard):
        head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
        body = "".join(_html_row(row) for row in rows_of(list(rows)))
        parts.append(f"<h2>{escape(TITLES[standard])}</h2><table><tr>{head}</tr>{body}</table>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    ).encode()


def _html_row(row: dict[str, str]) -> str:
    cells = "".join(f"<td>{escape(row[name])}</td>" for name in COLUMNS[2:])
    kind = row["state"].split()[0]
    return f'<tr><td>{escape(row["id"])}</td><td class="{kind}">{escape(row["state"])}</td>{cells}</tr>'


def render_pdf(judged: Sequence[Judged], heading: str) -> bytes:
    """A4 landscape; the standard Chinese font of PDF readers, so that no font file is needed."""
    from reportlab.lib.pagesizes import A4, landscape
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer

    from provenance.requirements import TITLES

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    plain = ParagraphStyle("plain", fontName="STSong-Light", fontSize=8, leading=10, wordWrap="CJK")
    title = ParagraphStyle("title", parent=plain, fontSize=14, leading=18)
    story: list[Any] = [Paragraph(escape(heading), title), Spacer(1, 6), Paragraph(escape(NOTE), plain)]
    for standard, rows in groupby(judged, key=lambda each: each.requirement.standard):
        story += [Spacer(1, 10), Paragraph(escape(TITLES[standard]), title), Spacer(1, 4)]
        story.append(_pdf_table(rows_of(list(rows)), plain))
    made = io.BytesIO()
    document = SimpleDocTemplate(made, pagesize=landscape(A4), title=heading, invariant=1, margin=36)
    document.build(story)
    return made.getvalue()


def _pdf_table(rows: Sequence[dict[str, str]], style: Any) -> Any:
    from reportlab.lib import colors
    from reportlab.platypus import Paragraph, Table, TableStyle

    colour = {"pass": "#17783b", "fail": "#cc2222", "needs a person": "#555555"}
    cells = [[Paragraph(escape(name), style) for name in COLUMNS]]
    for row in rows:
        state = f'<font color="{colour[row["state"]]}">{row["state"]}</font>'
        cells.append([Paragraph(state if name == "state" else escape(row[name]), style) for name in COLUMNS])
    table = Table(cells, colWidths=(95, 60, 150, 215, 220), repeatRows=1)
    line = ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.grey)
    table.setStyle(TableStyle([line, ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table
