"""The bench of the server: its parts fit together, what is missing is said aloud, and answers are counted honestly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import pytest
from conftest import ROOT

from server import bench_cases
from server.bench_cases import merge, read_rows
from server.bench_home import BenchHome
from server.bench_peer import Round, _ratios, median_interval
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


@pytest.mark.parametrize("suite", ["fuse", "video"])
def test_an_unknown_preset_is_refused_before_anything_is_measured(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", suite, "--preset", "mobile", "--preset", "nonsense", "--out", tmp_path) == 2
    assert "swap.unknown_preset" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


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


def start_bench(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """A Python process of its own, as an operator starts one."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}"}
    return subprocess.Popen([sys.executable, "-P", *map(str, arguments)], env=environment, cwd="/")


def below(pid: int) -> list[int]:
    """Every process under one."""
    listed = [Path(each).read_text() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for line in listed for child in line.split()]
    return [*children, *(each for child in children for each in below(child))]


def wait_until(holds: Callable[[], bool], patience_s: float = 900.0) -> None:
    until = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_there(pid: int) -> bool:
    """Whether a process still runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_sigterm_ends_a_bench_and_the_server_that_it_started(tmp_path: Path) -> None:
    """With a real server in full load: the bench, its server and that one's decoder."""
    log = tmp_path / "server.log"
    bench = start_bench(
        "-c", "from server.cli import main; main()", "bench", "server", "--case", "one",
        "--seconds", "900", "--out", tmp_path,
    )  # fmt: skip
    try:
        wait_until(lambda: log.is_file() and '"route": "/v1/checks"' in log.read_text())
        started = below(bench.pid)
        assert started
    finally:
        bench.send_signal(signal.SIGTERM)
    assert bench.wait(90) == 128 + signal.SIGTERM
    wait_until(lambda: not any(is_there(pid) for pid in started), 10)
    assert not (tmp_path / "bench.json").exists()


STARTING = """
import sys
from pathlib import Path
from server.bench_process import ended_by_sigterm, launch
with ended_by_sigterm():
    launch(["-c", "import time; time.sleep(900)"], "http://127.0.0.1:9", "/", Path("."), "", Path(sys.argv[1]))
"""


def test_sigterm_ends_a_server_that_is_still_starting(tmp_path: Path) -> None:
    bench = start_bench("-c", STARTING, tmp_path / "log")
    wait_until(lambda: len(below(bench.pid)) == 1)
    started = below(bench.pid)
    bench.send_signal(signal.SIGTERM)
    assert bench.wait(30) == 128 + signal.SIGTERM
    assert not is_there(started[0])


def test_medians_beside_the_peer_have_exact_intervals() -> None:
    assert median_interval([5.0, 1, 2, 3, 4]) is None
    assert median_interval([6.0, 5, 1, 2, 3, 4]) == (1, 6)  # 96.9 %
    assert median_interval([float(each) for each in range(8)]) == (0, 7)  # 99.2 %
    assert median_interval([float(each) for each in range(9)]) == (1, 7)  # 96.1 %
    assert median_interval([float(each) for each in range(30)]) == (9, 20)  # 95.7 %


def test_a_round_is_compared_with_its_own_pair() -> None:
    own = [Round(rate, 1.0, 0) for rate in (2.0, 1.0, 3.0)]
    peer = [Round(rate, 1.0, 0) for rate in (1.0, 2.0, 0.0)]
    assert _ratios({"own": own, "litserve": peer}) == [2.0, 0.5]
