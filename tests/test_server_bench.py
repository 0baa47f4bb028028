"""The bench of the server: its parts fit together, what is missing is said aloud, and answers are counted honestly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2 as httpx
import pytest

from server import bench_cases
from server.bench_cases import merge, read_rows
from server.bench_home import BenchHome
from server.bench_server import Tally, check_rows, row
from server.cli import build_app, spread


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        build_app()(args=spread([str(each) for each in arguments]))
    return int(ended.value.code or 0)


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cases that take no time, and which of them were run."""
    done: list[str] = []

    def fake(name: str) -> None:
        def case(made: BenchHome, plan: bench_cases.Plan, earlier: object) -> list[dict[str, object]]:
            done.append(name)
            return [row("kill_9" if name == "kill" else name, "kills", plan.kills, "kills", plan.kills)]

        monkeypatch.setitem(bench_cases.CASES, name, case)  # type: ignore[arg-type]

    for name in ("one", "memory", "kill"):
        fake(name)
    monkeypatch.setattr("server.bench_home.make_home", lambda folder: None)
    return done


def test_a_bench_in_parts_keeps_what_other_parts_measured(tmp_path: Path, cases: list[str]) -> None:
    assert run("bench", "server", "--case", "one", "--out", tmp_path) == 0
    assert run("bench", "server", "--case", "kill", "--kills", "10", "--out", tmp_path) == 0
    for _ in range(2):
        assert run("bench", "server", "--case", "kill", "--kills", "20", "--add", "--out", tmp_path) == 0
    assert cases == ["one", "kill", "kill", "kill"]
    rows = {each["case"]: each for each in read_rows(tmp_path)}
    assert (rows["kill_9"]["value"], rows["kill_9"]["n"]) == (50, 50)
    assert "one" in rows
    assert "| kill_9 | kills | 50 |" in (tmp_path / "bench.md").read_text()
    assert run("bench", "server", "--case", "kill", "--kills", "3", "--out", tmp_path) == 0
    assert {each["case"]: each["value"] for each in read_rows(tmp_path)}["kill_9"] == 3


def test_each_case_is_written_before_the_next_begins(
    tmp_path: Path, cases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        assert [each["case"] for each in read_rows(tmp_path)] == ["one"]
        raise RuntimeError("the machine was taken away")

    monkeypatch.setitem(bench_cases.CASES, "memory", crash)  # type: ignore[arg-type]
    assert run("bench", "server", "--case", "one", "memory", "--out", tmp_path) == 4
    assert [each["case"] for each in read_rows(tmp_path)] == ["one"]


def test_an_unknown_case_is_refused_and_a_missing_peer_is_named(
    tmp_path: Path, cases: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", "server", "--case", "two", "--out", tmp_path) == 2
    assert "bench.case" in capsys.readouterr().err
    monkeypatch.setattr(bench_cases, "has_litserve", lambda: False)
    assert run("bench", "server", "--case", "litserve", "--json", "--out", tmp_path) == 0
    told = capsys.readouterr()
    assert "LitServe is not installed" in told.err
    assert json.loads(told.out)["rows"] == []


def test_a_broken_ledger_in_one_part_is_not_outvoted() -> None:
    sound, broken = (row("kill_9", "ledger_sound", value, "1 = yes", 9) for value in (1.0, 0.0))
    assert merge([broken], [sound], add_kills=True)[0]["value"] == 0.0


def test_what_is_neither_service_nor_come_back_later_is_an_error() -> None:
    tally = Tally()

    async def ask(status: int, **headers: str) -> None:
        async def send() -> httpx.Response:
            return httpx.Response(status, headers=headers)

        await tally.ask(send)

    async def fail() -> None:
        async def send() -> httpx.Response:
            raise httpx.ConnectError("gone")

        await tally.ask(send)

    async def all_of_them() -> None:
        for status in (201, 201, 201):
            await ask(status)
        await ask(503, **{"retry-after": "1"})
        await ask(503)  # does not say when to come back
        await ask(500)
        await fail()

    asyncio.run(all_of_them())
    assert (tally.served, tally.errors) == (3, 3)
    rows = {each["metric"]: each for each in check_rows("x", tally, 2.0, 3.0)}
    assert (rows["rps"]["value"], rows["cpu_s_per_check"]["value"], rows["refused"]["value"]) == (1.5, 1.0, 2)
    json.dumps(check_rows("x", Tally(), 1.0, 0.0), allow_nan=False)
