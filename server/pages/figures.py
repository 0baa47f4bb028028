"""Figures of a home as plots of bars, with the numbers beside them; reads entries and checks, changes nothing.

A plot is a list of labelled counts; the template draws it from the geometry computed here, so that no script and no
inline style is needed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from unicodedata import east_asian_width

import sqlalchemy as sa

from provenance.database import ledger_entries
from provenance.home import Home
from server.language import Translator
from server.tables import checks

NUM_DAYS: Final = 14
MAX_ENTRIES: Final = 20_000
MAX_BARS: Final = 8
WIDTH, BAR_PX, GAP_PX, LABEL_PX = 348, 16, 24, 46
LABEL_CELLS: Final = 44


@dataclass(frozen=True)
class Bar:
    """One bar: what it counts, how many, where it lies in the drawing (px)."""

    label: str
    count: int
    x: float
    y: float
    width: float
    height: float

    @property
    def short(self) -> str:
        """As much of the label as the drawing has room for; Chinese signs are two cells wide."""
        cells = 0
        for place, sign in enumerate(self.label):
            cells += 2 if east_asian_width(sign) in "WF" else 1
            if cells > LABEL_CELLS:
                return f"{self.label[: place - 1].rstrip()}…"
        return self.label


@dataclass(frozen=True)
class Plot:
    """A plot of bars; `lying` bars grow to the right, others upwards. Width and height in px."""

    key: str
    bars: tuple[Bar, ...]
    width: int
    height: int
    lying: bool

    @property
    def total(self) -> int:
        """The sum of all bars."""
        return sum(bar.count for bar in self.bars)


def plots(home: Home, t: Translator) -> list[Plot]:
    """Pictures made per day, refusals by rule, checks by verdict."""
    with home.database.read() as conn:
        newest = sa.select(ledger_entries.c.kind, ledger_entries.c.entry)
        wanted = newest.where(ledger_entries.c.kind.in_(("output_recorded", "decision_denied")))
        rows = conn.execute(wanted.order_by(ledger_entries.c.leaf_index.desc()).limit(MAX_ENTRIES)).all()
        verdicts = conn.execute(sa.select(checks.c.verdict, sa.func.count()).group_by(checks.c.verdict)).all()
    entries = [(str(row.kind), json.loads(bytes(row.entry))) for row in rows]
    made = (leaf["time"] for kind, leaf in entries if kind == "output_recorded")
    refused = [leaf["body"] for kind, leaf in entries if kind == "decision_denied"]
    by_rule = {t.maybe(f"rule.{k}", k): n for k, n in count_rules(refused).most_common(MAX_BARS)}
    by_verdict = {t.maybe(f"verdict.{k}.title", str(k)): int(n) for k, n in verdicts}
    today = home.ledger.clock().date()
    return [
        standing("made", count_days(made, today)),
        lying("refused", by_rule),
        lying("checked", dict(sorted(by_verdict.items(), key=lambda item: -item[1]))),
    ]


def count_days(times: Iterable[str], today: date) -> dict[str, int]:
    """How many of these RFC 3339 times fall on each of the last NUM_DAYS days, oldest first."""
    days = [(today - timedelta(days=back)).isoformat() for back in reversed(range(NUM_DAYS))]
    counted = Counter(time[:10] for time in times)
    return {day: counted[day] for day in days}


def count_rules(bodies: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many refusals failed each rule; a rule counts once in a refusal."""
    counted: Counter[str] = Counter()
    for body in bodies:
        failed = [
            *body.get("failed", []),
            *(rule for face in body.get("faces", []) for rule in face["failed"]),
        ]
        counted.update(set(failed))
    return counted


def lying(key: str, counts: Mapping[str, int]) -> Plot:
    """Bars to the right, each below its label."""
    most = max([1, *counts.values()])
    bars = [
        Bar(label, count, 0, 20 + place * LABEL_PX, round((WIDTH - 60) * count / most, 1), BAR_PX)
        for place, (label, count) in enumerate(counts.items())
    ]
    return Plot(key, tuple(bars), WIDTH, max(1, len(bars)) * LABEL_PX, True)


def standing(key: str, counts: Mapping[str, int]) -> Plot:
    """Bars upwards, one per day."""
    most, height = max([1, *counts.values()]), 140
    bars = []
    for place, (label, count) in enumerate(counts.items()):
        tall = round((height - 40) * count / most, 1)
        bars.append(Bar(label, count, 6 + place * GAP_PX, round(height - 20 - tall, 1), GAP_PX - 10, tall))
    return Plot(key, tuple(bars), WIDTH, height, False)
