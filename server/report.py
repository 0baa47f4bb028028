"""A check's report as JSON or as one self-contained HTML page without scripts; computes no evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from server import report_text as text
from server.language import Translator, translator
from server.report_style import POLICY, STYLE

if TYPE_CHECKING:
    from detector.check import Report
    from provenance.errors import FacsimileError

LIMITS = (
    "This report says what can be proven about these bytes. A missing manifest and a missing mark prove nothing. "
    "No line of it says that a picture is authentic."
)
PLOT = (640, 96)
_UNBROKEN = re.compile(r"facsimile check --verify-report")


@dataclass(frozen=True)
class Issue:
    """Who issued a report, with what, when, and how it is signed; part of every report for people."""

    organisation: str
    version: str
    at: datetime
    signature: str | None = None


def render_document(
    files: Sequence[Mapping[str, Any]], failures: Sequence[tuple[str, FacsimileError]], issue: Issue
) -> str:
    """Reports as one JSON document, with who issued it."""
    missed = [
        {"file": name, "error": {"code": error.code, "message": error.cause, "next": error.next_step}}
        for name, error in failures
    ]
    made = {
        "organisation": issue.organisation,
        "version": issue.version,
        "at": issue.at.isoformat(timespec="seconds"),
    }
    told = {"issued": made, "files": files, "not_checked": missed, "limits": text.limits(translator("en"))}
    return json.dumps(told, ensure_ascii=False, indent=2)


def render_html(
    reports: Sequence[Report],
    t: Translator | None = None,
    failures: Sequence[tuple[str, FacsimileError]] = (),
    issue: Issue | None = None,
) -> str:
    """All reports as one page without scripts and without outside addresses."""
    t = t or translator("en")
    parts = [_head(len(reports), t, issue)]
    if len(reports) + len(failures) > 1:
        parts.append(_overview(reports, t))
    parts += [_article(number, report, t) for number, report in enumerate(reports, 1)]
    if failures:
        rows = "".join(
            _row(name, _p(t("report.not_applicable", cause=error.cause))) for name, error in failures
        )
        parts.append(f"<section><h2>{escape(t('report.not_checked'))}</h2><table>{rows}</table></section>")
    parts.append(_foot(t, issue))
    return page(t("report.title"), "\n".join(parts), t.tag)


def page(title: str, body: str, lang: str = "en") -> str:
    """Wrap a body in the one page frame that all of the suite's pages share."""
    return (
        f'<!doctype html>\n<html lang="{lang}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def evidence_table(report: Report, t: Translator | None = None) -> str:
    """The evidence of one file as an HTML table, a row per witness."""
    t = t or translator("en")
    rows = [(t("report.verdict"), [_title(report, t)]), *text.witnesses(report, t)]
    body = "".join(_row(name, "".join(_p(line) for line in lines)) for name, lines in rows)
    return f"<table>{body}</table>"


def _head(count: int, t: Translator, issue: Issue | None) -> str:
    lines = [t("report.files", count=count)]
    if issue is not None:
        made = t("report.made", time=t.date(issue.at), version=issue.version, organisation=issue.organisation)
        lines.insert(0, made)
    return f'<p class="quiet">{escape(" ".join(lines))}</p>'


def _overview(reports: Sequence[Report], t: Translator) -> str:
    rows = "".join(
        f'<tr><td><a href="#file-{number}">{escape(text.short_name(report))}</a></td>'
        f"<td>{_badge(report, t)}</td></tr>"
        for number, report in enumerate(reports, 1)
    )
    heads = "".join(f'<th scope="col">{escape(t(key))}</th>' for key in ("report.file", "report.verdict"))
    table = f'<table class="plain"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f"<section><h2>{escape(t('report.overview'))}</h2>{table}</section>"


def _badge(report: Report, t: Translator) -> str:
    tone = text.TONES[report.verdict.value]
    return f'<span class="badge {tone}"><b aria-hidden="true">{text.SIGNS[tone]}</b> {escape(_title(report, t))}</span>'


def _title(report: Report, t: Translator) -> str:
    return t(f"verdict.{report.verdict.value}.title")


def _article(number: int, report: Report, t: Translator) -> str:
    name = report.verdict.value
    tone = text.TONES[name]
    said = [("report.means", "meaning"), ("report.not_means", "not"), ("report.next", "next")]
    words = "".join(
        f"<dt>{escape(t(key))}</dt><dd>{escape(t(f'verdict.{name}.{part}'))}</dd>" for key, part in said
    )
    return (
        f'<article id="file-{number}" aria-labelledby="name-{number}">\n'
        f'<header class="{tone}"><div><h2 id="name-{number}">{escape(text.short_name(report))}</h2>'
        f'<p class="verdict"><b aria-hidden="true">{text.SIGNS[tone]}</b> {escape(_title(report, t))}</p>'
        f"<dl>{words}</dl></div>{_preview(report, t)}</header>\n"
        f"{_list(t('report.conflicts'), text.conflicts(report, t), 'conflicts')}"
        f"<section><h3>{escape(t('report.witnesses'))}</h3>{_witnesses(report, t)}</section>\n"
        f"{_video(report, t)}{_faces(report, t)}"
        f"{_list(t('report.notes'), text.notes(report.medium.notes, t), 'quiet')}{_details(report, t)}</article>\n"
    )


def _witnesses(report: Report, t: Translator) -> str:
    rows = "".join(
        _row(name, "".join(_p(line) for line in lines)) for name, lines in text.witnesses(report, t)
    )
    return f"<table>{rows}</table>"


def _preview(report: Report, t: Translator) -> str:
    from server.report_picture import data_uri, preview_picture

    picture = preview_picture(report)
    if picture is None:
        return ""
    alt = t("report.preview.alt" if report.video is None else "report.preview.frame")
    return f'<img src="{data_uri(picture)}" alt="{escape(alt)}">'


def _faces(report: Report, t: Translator) -> str:
    from server.report_picture import data_uri, face_picture

    cards = []
    for number, face in enumerate(report.detector.faces[: text.MAX_FACES], 1):
        picture = face_picture(face)
        alt = escape(t("report.face.alt", number=number))
        image = f'<img src="{data_uri(picture)}" alt="{alt}">' if picture is not None else ""
        lines = "".join(_p(line) for line in text.face_lines(face, t))
        cards.append(f"<li>{image}<div><h4>{escape(t('report.face', number=number))}</h4>{lines}</div></li>")
    if not cards:
        return ""
    more = len(report.detector.faces) - len(cards)
    rest = _p(t("report.face.more", count=more)) if more > 0 else ""
    return f'<section><h3>{escape(t("report.faces"))}</h3><ul class="cards">{"".join(cards)}</ul>{rest}</section>\n'


def _video(report: Report, t: Translator) -> str:
    video = report.video
    if video is None:
        return ""
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in text.shot_columns(t))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in text.shot_rows(video, t)
    )
    return (
        f"<section><h3>{escape(t('report.video'))}</h3>{''.join(_p(line) for line in text.video_lines(video, t))}"
        f'{_timeline(text.timeline(video, t))}<table class="plain"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></section>\n"
    )


def _timeline(shown: text.Timeline) -> str:
    """Shots as fields, sampled frames as dots; their height is the calibrated score where there is one."""
    width, height = PLOT
    fields = "".join(
        f'<rect x="{left * width:.1f}" y="0" width="{max(share * width, 1):.1f}" height="{height}" '
        f'class="{"odd" if number % 2 else "even"}"/>'
        for number, (left, share) in enumerate(shown.shots)
    )
    dots = "".join(
        f'<circle cx="{min(max(dot.x * width, 6), width - 6):.1f}" cy="{dot.y * height:.1f}" '
        f'r="{4 if dot.judged else 2.5}" class="{"marked" if dot.marked else "bare"}"/>'
        for dot in shown.dots
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(shown.alt)}">{fields}{dots}</svg>'
        f"<figcaption>{escape(shown.legend)}</figcaption></figure>"
    )


def _details(report: Report, t: Translator) -> str:
    tree = text.chain(report, t)
    chain = f'<ul class="tree">{_node(tree)}</ul>' if tree else _p(t("report.tree.none"))
    facts = [
        (t("report.bits"), text.bits_line(report, t)),
        (t("report.receipt"), text.receipt_line(report, t)),
    ]
    hashes = text.identity_rows(report, t)
    return (
        f"<details open><summary>{escape(t('report.tree'))}</summary>{chain}</details>\n"
        f"<details open><summary>{escape(t('report.hashes'))}</summary>{_table([*hashes, *facts], 'exact')}</details>\n"
        f"<details><summary>{escape(t('report.versions'))}</summary>{_p(t('report.versions.why'))}"
        f"{_table(text.version_rows(report), 'exact')}</details>\n"
    )


def _node(node: text.Node) -> str:
    lines = "".join(f"<span>{escape(line)}</span>" for line in node.lines)
    parts = f"<ul>{''.join(_node(part) for part in node.parts)}</ul>" if node.parts else ""
    return f"<li><strong>{escape(node.title)}</strong>{lines}{parts}</li>"


def _table(rows: Sequence[tuple[str, str]], kind: str) -> str:
    return f'<table class="{kind}">{"".join(_row(name, _p(value)) for name, value in rows)}</table>'


def _row(name: str, content: str) -> str:
    return f'<tr><th scope="row">{escape(name)}</th><td>{content}</td></tr>'


def _p(line: str) -> str:
    return f"<p>{escape(line)}</p>"


def _list(title: str, lines: Sequence[str], kind: str) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="{kind}"><h3>{escape(title)}</h3><ul>{items}</ul></section>\n'


def _foot(t: Translator, issue: Issue | None) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in text.limits(t))
    told = issue.signature if issue is not None and issue.signature else ""
    signed = _UNBROKEN.sub(r'<span class="unbroken">\g<0></span>', _p(told)) if told else ""
    return f"<footer><h2>{escape(t('report.limits'))}</h2><ul>{lines}</ul>{signed}</footer>"


def now() -> datetime:
    """The time that a report bears: UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
