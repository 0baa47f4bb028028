"""A check's report as one JSON or one self-contained HTML page; computes no evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.check import Report

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
border-bottom: 1px solid #8884; overflow-wrap: anywhere; } th { width: 13rem; font-weight: 600; }
.verdict { font-weight: 700; } .conflict { border-left: 4px solid #b33; padding-left: .8rem; }
figure { margin: 0; } img { max-width: 100%; height: auto; border-radius: 4px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.5rem; }
"""

LIMITS = (
    "This report says what can be proven about these bytes. A missing manifest and a missing mark prove nothing. "
    "No line of it says that a picture is authentic."
)


def render_json(reports: Sequence[Report]) -> str:
    """All reports as one JSON document."""
    return json.dumps([report.as_dict() for report in reports], ensure_ascii=False, indent=2)


def render_html(reports: Sequence[Report], title: str = "What can be proven") -> str:
    """All reports as one page without scripts and without outside addresses."""
    return page(title, "".join(_section(report) for report in reports) + f"<p>{escape(LIMITS)}</p>")


def page(title: str, body: str) -> str:
    """Wrap a body in the one page frame that all of the suite's pages share."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def evidence_table(report: Report) -> str:
    """The evidence of one file as an HTML table, a row per witness."""
    rows = [
        ("Verdict", f'<span class="verdict">{escape(report.verdict.value)}</span>'),
        ("Why", escape(report.summary)),
        ("Manifest", escape(_manifest_line(report))),
        ("Mark", escape(_mark_line(report))),
        ("Ledger", escape(_ledger_line(report))),
        ("Detector", escape(": ".join(filter(None, (report.detector.band, report.detector.reason))))),
        ("Content hash", f"<code>{escape(report.content_sha256)}</code>"),
    ]
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return f"<table>{body}</table>"


def _section(report: Report) -> str:
    conflicts = "".join(f'<p class="conflict">{escape(line)}</p>' for line in report.conflicts)
    return f"<section><h2>{escape(report.file)}</h2>{evidence_table(report)}{conflicts}</section>"


def _manifest_line(report: Report) -> str:
    reading = report.manifest
    parts: list[str] = [reading.state]
    if reading.signer:
        parts.append(f"signed by {reading.signer}")
    if reading.source_type:
        parts.append(f"declares {reading.source_type}")
    if reading.state == "tampered":
        parts.append(", ".join(reading.codes))
    return "; ".join(parts)


def _mark_line(report: Report) -> str:
    mark = report.mark
    if not mark.present or mark.bit_accuracy is None:
        return "not found"
    return f"{mark.asset_id}, {mark.bit_accuracy:.1%} of its bits right, false-alarm probability {mark.p_false:.1e}"


def _ledger_line(report: Report) -> str:
    ledger = report.ledger
    if not ledger.found:
        return "not known"
    proof = "inclusion proven" if ledger.inclusion_verified else "inclusion NOT proven"
    line = f"leaf {ledger.index}, found by {ledger.found_by}, {proof}"
    if ledger.perceptual_distance is None:
        return f"{line}; a crop or turn, so the pictures were not compared"
    return f"{line}, {ledger.perceptual_distance} of 64 perceptual bits differ"
