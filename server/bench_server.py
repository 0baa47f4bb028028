"""Measures a real server process over real sockets with a client of its own; judges nothing.

The client shares the machine's cores with the server, so rates are what both leave each other; CPU seconds of the
server, its workers and its decoding children stand beside them.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import numpy as np

from provenance.fsck import verify
from provenance.home import Home
from server.bench_process import Running, start, stop

ENDED: Final = frozenset({"done", "failed", "refused", "cancelled", "dead"})
Row = dict[str, Any]


@dataclass
class Tally:
    """Answers of one measurement: statuses and seconds of those that were served."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    without_retry: int = 0

    async def ask(self, send: Callable[[], Awaitable[httpx.Response]]) -> None:
        """One request, counted."""
        began = time.perf_counter()
        try:
            answer = await send()
        except httpx.HTTPError:
            self.lost += 1
            return
        self.statuses[answer.status_code] += 1
        if answer.status_code < 400:
            self.seconds.append(time.perf_counter() - began)
        elif answer.status_code in (429, 503) and "retry-after" not in answer.headers:
            self.without_retry += 1

    @property
    def served(self) -> int:
        """How many were served."""
        return len(self.seconds)

    @property
    def errors(self) -> int:
        """Answers that are neither service nor a stated "come back later"; requests without an answer, too."""
        refused = sum(self.statuses[status] for status in (429, 503))
        return sum(self.statuses.values()) - self.served - refused + self.lost + self.without_retry

    def quantile_ms(self, share: float) -> float:
        """Time within which this share of the served was answered."""
        return float(np.quantile(self.seconds, share) * 1e3)


def row(case: str, metric: str, value: float, unit: str, n: int, ci95: Sequence[float] | None = None) -> Row:
    """One row of bench.json."""
    interval = None if ci95 is None else [round(float(each), 4) for each in ci95]
    return {
        "case": case,
        "metric": metric,
        "value": round(float(value), 4),
        "unit": unit,
        "n": n,
        "ci95": interval,
    }


async def measure_clients(server: Running, picture: bytes, num_clients: int, seconds: float) -> Tally:
    """So many clients, each asking for one check after the other, for so long."""
    tally = Tally()
    async with server.client() as client:
        until = time.perf_counter() + seconds

        async def one() -> None:
            while time.perf_counter() < until:
                await tally.ask(lambda: client.post("/v1/checks", files={"file": ("p.jpg", picture)}))
                if tally.statuses[503]:
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(one() for _ in range(num_clients)))
    return tally


async def measure_overload(server: Running, picture: bytes, rate: float, seconds: float) -> Tally:
    """Requests at a fixed rate, whether or not earlier ones were answered (an open loop)."""
    tally, tasks = Tally(), []
    async with server.client() as client:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            send = lambda: client.post("/v1/checks", files={"file": ("p.jpg", picture)})  # noqa: E731
            tasks.append(asyncio.create_task(tally.ask(send)))
        await asyncio.gather(*tasks)
    return tally


def check_rows(case: str, tally: Tally, wall_s: float, cpu_s: float) -> list[Row]:
    """Rate, quantiles, errors and CPU of one measurement; the interval of the rate is Poisson's."""
    n, answered = tally.served, sum(tally.statuses.values())
    refused = tally.statuses[429] + tally.statuses[503]
    spread = 1.96 * n**0.5
    shares = (("p50_ms", 0.5), ("p99_ms", 0.99)) if n else ()
    return [
        row(case, "rps", n / wall_s, "1/s", n, ((n - spread) / wall_s, (n + spread) / wall_s)),
        *(row(case, name, tally.quantile_ms(share), "ms", n) for name, share in shares),
        row(case, "cpu_s_per_check", cpu_s / max(n, 1), "s", n),
        row(case, "refused", refused, "requests", answered),
        row(case, "errors", tally.errors, "requests", answered + tally.lost),
    ]


def measure_load(server: Running, picture: bytes, case: str, num_clients: int, seconds: float) -> list[Row]:
    """So many clients for so long, warm."""
    asyncio.run(measure_clients(server, picture, 2, 0.1))
    began, cpu = time.perf_counter(), server.cpu_s()
    tally = asyncio.run(measure_clients(server, picture, num_clients, seconds))
    return check_rows(case, tally, time.perf_counter() - began, server.cpu_s() - cpu)


def measure_flood(server: Running, picture: bytes, case: str, rate: float, seconds: float) -> list[Row]:
    """So many requests a second for so long, whether or not they are answered, warm."""
    asyncio.run(measure_clients(server, picture, 2, 0.1))
    began, cpu = time.perf_counter(), server.cpu_s()
    tally = asyncio.run(measure_overload(server, picture, rate, seconds))
    return check_rows(case, tally, time.perf_counter() - began, server.cpu_s() - cpu)


async def _send_mixed(server: Running, picture: bytes, count: int, marks: list[tuple[int, float]]) -> Tally:
    tally = Tally()
    async with server.client() as client:
        for number in range(count):
            kind = number % 10
            if kind == 0:
                await tally.ask(lambda: client.post("/v1/checks", files={"file": ("p.jpg", picture)}))
            elif kind < 4:
                await tally.ask(
                    lambda: client.post("/v1/checks", files={"file": ("p", b"GIF89a" + bytes(200_000))})
                )
            elif kind < 7:
                await tally.ask(lambda: client.get("/v1/checks", params={"limit": 20}))
            else:
                await tally.ask(lambda: client.get("/v1/me"))
            if number % max(count // 20, 1) == 0:
                marks.append((number, server.rss_mb()))
    return tally


def measure_memory(server: Running, picture: bytes, count: int) -> list[Row]:
    """Resident memory over a mix: a tenth checks, three tenths hostile uploads, the rest reads.

    `growth_mb` is the straight line through the second half, per 1000 requests.
    """
    marks: list[tuple[int, float]] = []
    tally = asyncio.run(_send_mixed(server, picture, count, marks))
    second = np.array(marks[len(marks) // 2 :])
    slope = float(np.polyfit(second[:, 0], second[:, 1], 1)[0]) * 1000 if len(second) > 1 else float("nan")
    faults = tally.lost + sum(number for status, number in tally.statuses.items() if status >= 500)
    return [
        row("memory", "rss_mb_start", marks[0][1], "MB", count),
        row("memory", "rss_mb_end", server.rss_mb(), "MB", count),
        row("memory", "growth_mb", slope, "MB/1000 requests", count),
        row("memory", "errors", faults, "requests", count),
    ]


def measure_kills(
    home: Path, key: str, people: Sequence[bytes], count: int, log: Path, seed: int
) -> list[Row]:
    """Jobs are asked for; at a random moment the server or its worker is killed (-9), `count` times.

    Afterwards every accepted job must have ended, and the ledger must hold exactly one end for each acceptance.
    """
    rng = random.Random(seed)
    accepted: list[str] = []
    server = start(home, key, workers=1, log=log)
    try:
        for number in range(count):
            accepted += _ask_jobs(server, people, rng)
            time.sleep(rng.uniform(0.0, 6.0))
            victims = server.workers() if number % 2 else [server.process.pid]
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if number % 2 == 0:
                server.process.wait()
                server = start(home, key, workers=1, log=log)
        states = _wait_for_ends(server, accepted)
    finally:
        stop(server)
    return _kill_rows(home, accepted, states, count)


def _ask_jobs(server: Running, people: Sequence[bytes], rng: random.Random) -> list[str]:
    source, target = rng.sample(list(people), 2)
    headers = {"Authorization": f"Bearer {server.key}"}
    files = [("source", ("s.png", source)), ("target", ("t.png", target))]
    with suppress(httpx.HTTPError):
        answer = httpx.post(
            f"{server.url}/v1/fusions", files=files, data={"purpose": "bench"}, headers=headers, timeout=120
        )
        return [answer.json()["id"]] if answer.status_code == 202 else []
    return []


def _wait_for_ends(server: Running, accepted: Sequence[str], patience_s: float = 900.0) -> dict[str, str]:
    headers, until = {"Authorization": f"Bearer {server.key}"}, time.monotonic() + patience_s
    states: dict[str, str] = {}
    while time.monotonic() < until:
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            states = {each: client.get(f"/v1/fusions/{each}").json()["state"] for each in accepted}
        if set(states.values()) <= ENDED:
            break
        time.sleep(1.0)
    return states


def _kill_rows(home: Path, accepted: Sequence[str], states: dict[str, str], count: int) -> list[Row]:
    with Home.open(home) as opened:
        entries = opened.ledger.entries()
        sound = verify(opened).ok
    acceptances = [entry.index for entry in entries if entry.kind == "job_accepted"]
    ends = Counter(
        entry.body.get("accepted_index")
        for entry in entries
        if entry.kind in ("output_recorded", "job_failed")
    )
    ended_once = sum(ends[index] == 1 for index in acceptances)
    n = len(accepted)
    return [
        row("kill_9", "kills", count, "kills", count),
        row("kill_9", "accepted", n, "jobs", n),
        row("kill_9", "done", sum(state == "done" for state in states.values()), "jobs", n),
        row("kill_9", "not_ended", sum(state not in ENDED for state in states.values()), "jobs", n),
        row("kill_9", "acceptances_with_one_end", ended_once, "of all", len(acceptances)),
        row("kill_9", "ledger_sound", float(sound), "1 = yes", len(entries)),
    ]
