"""The cases of `bench server`, each by itself, so that a long bench can be made in parts; measures nothing itself.

What a case measured replaces that case's earlier rows in bench.json; kills may be added to those of earlier parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from server.bench_home import BenchHome
from server.bench_peer import LOADS, measure_pair
from server.bench_process import running, start, start_peer
from server.bench_server import Row, measure_flood, measure_kills, measure_load, measure_memory

TWENTY: Final = "check_1080p_20_clients"


@dataclass(frozen=True)
class Plan:
    """How long and how often: seconds of each load, rounds beside the peer, requests of the memory run, kills, seed.

    log: where the servers' own lines go
    """

    seconds: float
    rounds: int
    requests: int
    kills: int
    seed: int
    log: Path


def one(made: BenchHome, plan: Plan, earlier: Sequence[Row]) -> list[Row]:
    """One client asks for one check after the other."""
    with running(start(made.home, made.key, workers=0, log=plan.log)) as server:
        return measure_load(server, made.picture_1080p, "check_1080p_1_client", 1, plan.seconds)


def twenty(made: BenchHome, plan: Plan, earlier: Sequence[Row]) -> list[Row]:
    """Twenty clients do."""
    with running(start(made.home, made.key, workers=0, log=plan.log)) as server:
        return measure_load(server, made.picture_1080p, TWENTY, 20, plan.seconds)


def overload(made: BenchHome, plan: Plan, earlier: Sequence[Row]) -> list[Row]:
    """Four times the rate that twenty clients got, as it was measured, or is found out now."""
    known = [float(row["value"]) for row in earlier if (row["case"], row["metric"]) == (TWENTY, "rps")]
    with running(start(made.home, made.key, workers=0, log=plan.log)) as server:
        if not known:
            found = measure_load(server, made.picture_1080p, TWENTY, 20, min(plan.seconds, 10.0))
            known = [float(row["value"]) for row in found if row["metric"] == "rps"]
        rate = max(4 * known[0], 2.0)
        return measure_flood(server, made.picture_1080p, "check_1080p_overload_4x", rate, plan.seconds)


def memory(made: BenchHome, plan: Plan, earlier: Sequence[Row]) -> list[Row]:
    """Resident memory over many requests, hostile ones among them."""
    with running(start(made.home, made.key, workers=0, log=plan.log)) as server:
        return measure_memory(server, made.small_picture, plan.requests)


def kill(made: BenchHome, plan: Plan, earlier: Sequence[Row]) -> list[Row]:
    """kill -9 of server and worker in mid-job."""
    return measure_kills(made.home, made.key, made.people, plan.kills, plan.log, plan.seed)


def litserve(made: BenchHome, plan: Plan, earlier: Sequence[Row]) -> list[Row]:
    """The same checks behind the server and behind LitServe, in turn; no rows where LitServe is not installed."""
    if not has_litserve():
        return []
    each_s = plan.seconds / plan.rounds
    with (
        running(start(made.home, made.key, workers=0, log=plan.log)) as own,
        running(start_peer(made.home, made.key, log=plan.log)) as peer,
    ):
        return [
            found
            for num_clients in LOADS
            for found in measure_pair(own, peer, made.picture_1080p, num_clients, plan.rounds, each_s)
        ]


CASES: Final[Mapping[str, Callable[[BenchHome, Plan, Sequence[Row]], list[Row]]]] = {
    "one": one,
    "twenty": twenty,
    "overload": overload,
    "memory": memory,
    "kill": kill,
    "litserve": litserve,
}


def has_litserve() -> bool:
    """Whether the peer can run here."""
    return find_spec("litserve") is not None


def read_rows(out: Path, suite: str = "server") -> list[Row]:
    """The rows of an earlier part of a suite; none where there was none."""
    try:
        found = json.loads((out / "bench.json").read_bytes())
    except FileNotFoundError:
        return []
    return list(found["rows"]) if found.get("suite") == suite else []


def merge(earlier: Sequence[Row], new: Sequence[Row], *, add_kills: bool = False) -> list[Row]:
    """New rows in place of those of the same cases; kills are added up where that is asked for."""
    if add_kills:
        new = [_added(row, earlier) for row in new]
    cases = {row["case"] for row in new}
    return [row for row in earlier if row["case"] not in cases] + list(new)


def _added(row: Row, earlier: Sequence[Row]) -> Row:
    same = [each for each in earlier if (each["case"], each["metric"]) == (row["case"], row["metric"])]
    if row["case"] != "kill_9" or not same:
        return row
    before = same[0]
    value = (
        min(before["value"], row["value"])
        if row["metric"] == "ledger_sound"
        else before["value"] + row["value"]
    )
    return {**row, "value": value, "n": before["n"] + row["n"]}
