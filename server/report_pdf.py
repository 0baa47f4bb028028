"""A check's report as PDF; alone draws PDF pages (ReportLab), computes no evidence.

Chinese is set in STSong-Light, a font that readers bring along: it is named in the file, not embedded. The same holds
for Helvetica. The same reports, language and issue give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Circle, Drawing, Rect
from reportlab.lib.colors import HexColor, white
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    Image,
    KeepTogether,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from fusion.face import UInt8Array
from fusion.media import encode_picture
from server import report_text as text
from server.language import Translator, translator
from server.report_picture import face_picture, preview_picture

if TYPE_CHECKING:
    from detector.check import Report
    from provenance.errors import FacsimileError
    from server.report import Issue

HAN = "STSong-Light"
WIDTH = A4[0] - 40 * mm - 12  # a frame keeps 6 points free at each side
INK, QUIET, LINE, CARD = HexColor("#1d2126"), HexColor("#5b646e"), HexColor("#dcdad5"), HexColor("#f6f5f2")
TONES = {"told": "#1f5fa8", "proven": "#1c7048", "alarm": "#a8321f", "open": "#7a5b00"}
_WIDE = re.compile(r"[^\x20-\x7e\xa0-\xff–—‘’“”•…]+")  # what Helvetica's encoding lacks


class _Pen:
    """Styles and words of one language."""

    def __init__(self, t: Translator) -> None:
        registerFont(UnicodeCIDFont(HAN))
        self.t = t
        han = t.lang == "zh"
        face, bold = (HAN, HAN) if han else ("Helvetica", "Helvetica-Bold")
        wrap = "CJK" if han else None
        base = {"fontName": face, "fontSize": 9.5, "leading": 13.5, "textColor": INK, "wordWrap": wrap}
        self.body = ParagraphStyle("body", **base)
        self.quiet = ParagraphStyle("quiet", **{**base, "textColor": QUIET, "fontSize": 8.5, "leading": 12})
        self.label = ParagraphStyle("label", **{**base, "fontName": bold})
        self.title = ParagraphStyle("title", **{**base, "fontName": bold, "fontSize": 20, "leading": 25})
        self.head = ParagraphStyle(
            "head", **{**base, "fontName": bold, "fontSize": 11, "leading": 15, "spaceBefore": 10}
        )
        self.hash = ParagraphStyle("hash", **{**base, "fontSize": 8, "wordWrap": "CJK"})

    def p(self, words: str, style: ParagraphStyle | None = None) -> Paragraph:
        """One paragraph; runs that Helvetica lacks are set in the Chinese font."""
        safe = escape(words)
        if self.t.lang != "zh":
            safe = _WIDE.sub(lambda run: f'<font name="{HAN}">{run.group()}</font>', safe)
        return Paragraph(safe, style or self.body)

    def verdict(self, tone: str) -> ParagraphStyle:
        return ParagraphStyle(
            tone, parent=self.title, fontSize=16, leading=21, textColor=HexColor(TONES[tone])
        )


def render_pdf(
    reports: Sequence[Report],
    t: Translator | None = None,
    failures: Sequence[tuple[str, FacsimileError]] = (),
    issue: Issue | None = None,
) -> bytes:
    """All reports as one PDF, A4."""
    pen = _Pen(t or translator("en"))
    story: list[Flowable] = _front(reports, pen, failures, issue)
    for number, report in enumerate(reports):
        if number or len(reports) + len(failures) > 1:
            story.append(PageBreak())
        story += _file(report, pen)
    story += _limits(pen, issue)
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=20 * mm,
        rightMargin=20 * mm,
        topMargin=18 * mm,
        bottomMargin=18 * mm,
        title=pen.t("report.title"),
        author=issue.organisation if issue else "facsimile",
        creator=f"facsimile {issue.version}" if issue else "facsimile",
        lang=pen.t.tag,
        invariant=1,
    )
    document.build(story, onFirstPage=_number_page, onLaterPages=_number_page)
    return out.getvalue()


def _number_page(canvas: Any, document: Any) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 8)
    canvas.setFillColor(QUIET)
    canvas.drawRightString(A4[0] - 20 * mm, 10 * mm, str(document.page))
    canvas.restoreState()


def _front(
    reports: Sequence[Report], pen: _Pen, failures: Sequence[tuple[str, FacsimileError]], issue: Issue | None
) -> list[Flowable]:
    t = pen.t
    story: list[Flowable] = [pen.p(t("report.title"), pen.title)]
    if issue is not None:
        made = t("report.made", time=t.date(issue.at), version=issue.version, organisation=issue.organisation)
        story.append(pen.p(made, pen.quiet))
    story += [pen.p(t("report.files", count=len(reports)), pen.quiet), Spacer(1, 6 * mm)]
    if len(reports) + len(failures) > 1:
        rows = [
            [pen.p(text.short_name(each)), pen.p(t(f"verdict.{each.verdict.value}.title"), pen.label)]
            for each in reports
        ]
        rows += [
            [pen.p(name), pen.p(t("report.not_applicable", cause=error.cause), pen.quiet)]
            for name, error in failures
        ]
        story += [pen.p(t("report.overview"), pen.head), _grid(rows, (WIDTH * 0.45, WIDTH * 0.55))]
    return story


def _file(report: Report, pen: _Pen) -> list[Flowable]:
    t = pen.t
    story: list[Flowable] = [_banner(report, pen)]
    if contradictions := text.conflicts(report, t):
        story += [pen.p(t("report.conflicts"), pen.head), *(pen.p(f"• {line}") for line in contradictions)]
    rows = [
        [pen.p(name, pen.label), [pen.p(line) for line in lines]] for name, lines in text.witnesses(report, t)
    ]
    story += [pen.p(t("report.witnesses"), pen.head), _grid(rows)]
    story += _video(report, pen) + _faces(report, pen)
    if remarks := text.notes(report.medium.notes, t):
        story += [pen.p(t("report.notes"), pen.head), *(pen.p(f"• {line}", pen.quiet) for line in remarks)]
    tree = text.chain(report, t)
    story.append(pen.p(t("report.tree"), pen.head))
    story += _chain(tree, pen, 0) if tree else [pen.p(t("report.tree.none"))]
    facts = [
        *text.identity_rows(report, t),
        (t("report.bits"), text.bits_line(report, t)),
        (t("report.receipt"), text.receipt_line(report, t)),
    ]
    story += [pen.p(t("report.hashes"), pen.head), _facts(facts, pen)]
    story += [
        CondPageBreak(40 * mm),
        pen.p(t("report.versions"), pen.head),
        pen.p(t("report.versions.why"), pen.quiet),
    ]
    return [*story, _facts(text.version_rows(report), pen)]


def _banner(report: Report, pen: _Pen) -> Flowable:
    t, name = pen.t, report.verdict.value
    tone = text.TONES[name]
    words: list[Flowable] = [pen.p(text.short_name(report), pen.quiet)]
    words.append(pen.p(t(f"verdict.{name}.title"), pen.verdict(tone)))
    for key, part in (("report.means", "meaning"), ("report.not_means", "not"), ("report.next", "next")):
        words += [Spacer(1, 3), pen.p(t(key), pen.quiet), pen.p(t(f"verdict.{name}.{part}"))]
    picture = preview_picture(report)
    side = 42 * mm
    cells = [words, _image(picture, side) if picture is not None else ""]
    style = [
        ("BACKGROUND", (0, 0), (-1, -1), CARD),
        ("LINEBEFORE", (0, 0), (0, -1), 4, HexColor(TONES[tone])),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (0, -1), 12),
        ("TOPPADDING", (0, 0), (-1, -1), 8),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 8),
    ]
    return Table([cells], colWidths=(WIDTH - side - 8 * mm, side + 8 * mm), style=style)


def _faces(report: Report, pen: _Pen) -> list[Flowable]:
    t, story = pen.t, list[Flowable]()
    for number, face in enumerate(report.detector.faces[: text.MAX_FACES], 1):
        picture = face_picture(face)
        words = [
            pen.p(t("report.face", number=number), pen.label),
            *(pen.p(line) for line in text.face_lines(face, t)),
        ]
        cells = [_image(picture, 32 * mm) if picture is not None else "", words]
        card = Table(
            [cells],
            colWidths=(38 * mm, WIDTH - 38 * mm),
            style=[("VALIGN", (0, 0), (-1, -1), "TOP"), ("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE)],
        )
        story.append(KeepTogether([pen.p(t("report.faces"), pen.head), card]) if number == 1 else card)
    if (more := len(report.detector.faces) - text.MAX_FACES) > 0:
        story.append(pen.p(t("report.face.more", count=more), pen.quiet))
    return story


def _video(report: Report, pen: _Pen) -> list[Flowable]:
    video, t = report.video, pen.t
    if video is None:
        return []
    shown = text.timeline(video, t)
    rows = [[pen.p(head, pen.label) for head in text.shot_columns(t)]]
    rows += [[pen.p(cell) for cell in row] for row in text.shot_rows(video, t)]
    return [
        pen.p(t("report.video"), pen.head),
        *(pen.p(line) for line in text.video_lines(video, t)),
        Spacer(1, 4),
        _timeline(shown),
        pen.p(shown.legend, pen.quiet),
        _grid(rows, (WIDTH / 5,) * 5),
    ]


def _timeline(shown: text.Timeline) -> Drawing:
    """Shots as fields, sampled frames as dots, as in the HTML report."""
    height = 22 * mm
    drawing = Drawing(WIDTH, height)
    for number, (left, share) in enumerate(shown.shots):
        colour = HexColor("#e4e2dd") if number % 2 else HexColor("#f0eeea")
        drawing.add(Rect(left * WIDTH, 0, max(share * WIDTH, 1), height, fillColor=colour, strokeColor=None))
    for dot in shown.dots:
        x, y = min(max(dot.x * WIDTH, 4), WIDTH - 4), (1 - dot.y) * height
        fill, radius = HexColor(TONES["told"]) if dot.marked else white, 2.6 if dot.judged else 1.6
        drawing.add(Circle(x, y, radius, fillColor=fill, strokeColor=INK, strokeWidth=0.7))
    return drawing


def _chain(node: text.Node, pen: _Pen, depth: int) -> list[Flowable]:
    indent = 12 * depth
    bold = ParagraphStyle("node", parent=pen.label, leftIndent=indent)
    plain = ParagraphStyle("leaf", parent=pen.quiet, leftIndent=indent)
    story: list[Flowable] = [pen.p(node.title, bold), *(pen.p(line, plain) for line in node.lines)]
    for part in node.parts:
        story += _chain(part, pen, depth + 1)
    return story


def _limits(pen: _Pen, issue: Issue | None) -> list[Flowable]:
    story: list[Flowable] = [pen.p(pen.t("report.limits"), pen.head)]
    story += [pen.p(f"• {line}") for line in text.limits(pen.t)]
    if issue is not None and issue.signature:
        story += [Spacer(1, 4 * mm), pen.p(issue.signature, pen.quiet)]
    return [CondPageBreak(50 * mm), *story]


def _facts(rows: Sequence[tuple[str, str]], pen: _Pen) -> Table:
    return _grid([[pen.p(name, pen.label), pen.p(value, pen.hash)] for name, value in rows])


def _grid(rows: Sequence[Sequence[Any]], widths: Sequence[float] = (WIDTH * 0.26, WIDTH * 0.74)) -> Table:
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 4),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
    ]
    return Table(
        [list(row) for row in rows], colWidths=list(widths), style=style, spaceBefore=3, hAlign="LEFT"
    )


def _image(rgb: UInt8Array, side: float) -> Image:
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    return Image(io.BytesIO(encode_picture(rgb, "jpeg", 88)), width * scale, height * scale)
