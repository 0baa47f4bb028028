"""The server and LitServe side by side: both run the whole time and are loaded in turn; judges nothing.

Rounds alternate (own, peer, peer, own, …), so that what the machine does meanwhile falls on both alike. A round's
rate stands for itself; told are medians over rounds and of the ratio within a round's pair, with exact intervals
from order statistics.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from server.bench_process import Running
from server.bench_server import Row, measure_clients, row

LOADS: Final = (1, 4)
"""Clients at a time: one, and twice as many as either server works on at once."""


@dataclass(frozen=True)
class Round:
    """What one server did in one round."""

    rate: float
    cpu_s_per_check: float
    errors: int


def measure_pair(
    own: Running, peer: Running, picture: bytes, num_clients: int, rounds: int, seconds: float
) -> list[Row]:
    """So many rounds of so many seconds on each server, in turn."""
    for server in (own, peer):
        asyncio.run(measure_clients(server, picture, num_clients, 1.0))
    taken: dict[str, list[Round]] = {"own": [], "litserve": []}
    turn = [("own", own), ("litserve", peer)]
    for number in range(rounds):
        for name, server in turn if number % 2 == 0 else turn[::-1]:
            taken[name].append(_round(server, picture, num_clients, seconds))
    case = f"litserve_beside_1080p_{num_clients}_clients"
    return [each for name, found in taken.items() for each in _rows(case, name, found)] + [
        _median(case, "ratio_own_to_litserve", _ratios(taken), "of its rate")
    ]


def _round(server: Running, picture: bytes, num_clients: int, seconds: float) -> Round:
    began, cpu = time.perf_counter(), server.cpu_s()
    tally = asyncio.run(measure_clients(server, picture, num_clients, seconds))
    wall_s, cpu_s = time.perf_counter() - began, server.cpu_s() - cpu
    refused = tally.statuses[429] + tally.statuses[503]
    return Round(tally.served / wall_s, cpu_s / max(tally.served, 1), tally.errors + refused)


def _rows(case: str, name: str, found: Sequence[Round]) -> list[Row]:
    return [
        _median(case, f"{name}_rps", [each.rate for each in found], "1/s"),
        _median(case, f"{name}_cpu_s_per_check", [each.cpu_s_per_check for each in found], "s"),
        row(case, f"{name}_not_served", sum(each.errors for each in found), "requests", len(found)),
    ]


def _ratios(taken: dict[str, list[Round]]) -> list[float]:
    """Own rate over the peer's, round by round; rounds in which the peer served nothing are left out."""
    pairs = zip(taken["own"], taken["litserve"], strict=True)
    return [own.rate / peer.rate for own, peer in pairs if peer.rate > 0]


def _median(case: str, metric: str, values: Sequence[float], unit: str) -> Row:
    if not values:
        return row(case, metric, 0.0, unit, 0)
    return row(case, metric, median(values), unit, len(values), median_interval(values))


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The narrowest pair of order statistics that holds the median with 95 % or more; None for fewer than six values.

    Its coverage is that of a binomial of one half (Conover, Practical Nonparametric Statistics, 3.2).
    """
    n, ordered = len(values), sorted(values)
    tail, drop = 0.0, -1
    while drop + 1 < n / 2 and 2 * (tail + math.comb(n, drop + 1) / 2**n) <= 0.05:
        drop += 1
        tail += math.comb(n, drop) / 2**n
    return None if drop < 0 else (ordered[drop], ordered[n - 1 - drop])
