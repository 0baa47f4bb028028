"""A real server as a process of its own, for a bench: started, found well, looked at, stopped; measures nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2 as httpx

PATIENCE_S: Final = 600.0
"""How long a server may take to load its networks, on a machine that others use, too."""


@dataclass
class Running:
    """A server process: where it answers, its process, how to authenticate."""

    url: str
    process: subprocess.Popen[bytes]
    key: str

    def client(self, timeout_s: float = 120.0) -> httpx.AsyncClient:
        """An asynchronous client with the key."""
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s, limits=limits)

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        found = []
        for pid in _children(self.process.pid):
            with suppress(OSError):
                if b"server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def cpu_s(self) -> float:
        """CPU seconds of the server and of all its children, those that have ended (decoders) among them."""
        return sum(_cpu_ticks(pid) for pid in _tree(self.process.pid)) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Resident memory of the server."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in each.read_text().split()]
    return found


def _tree(pid: int) -> list[int]:
    return [pid, *(below for child in _children(pid) for below in _tree(child))]


def _cpu_ticks(pid: int) -> int:
    """Own time, and that of children that were waited for."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(each) for each in fields[11:15])
    return 0


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that what was started in it is stopped; exit code 143."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is the clearing up
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """SIGTERM takes effect at the end of the block: between a fork and its being known nobody could end the child."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def running(started: Running) -> Iterator[Running]:
    """Stops what was started at the end of the block."""
    try:
        yield started
    finally:
        stop(started)


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(home: Path, key: str, *, workers: int, log: Path) -> Running:
    """Start a server on a free port and wait until it is ready."""
    port = free_port()
    options = f"--port {port} --workers {workers} --lease 3 --requests-per-minute 1000000".split()
    command = ["-c", "from server.cli import main; main()", "serve", *options]
    return launch(command, f"http://127.0.0.1:{port}", "/healthz", home, key, log)


def start_peer(home: Path, key: str, *, log: Path) -> Running:
    """LitServe doing the same work, when it is installed (server/bench_litserve.py)."""
    port = free_port()
    command = ["-m", "server.bench_litserve", str(home), str(port)]
    return launch(command, f"http://127.0.0.1:{port}", "/health", home, key, log)


def launch(command: Sequence[str], url: str, health: str, home: Path, key: str, log: Path) -> Running:
    """A Python process that serves; returns when it says that it is well."""
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "FACSIMILE_HOME": str(home), "PYTHONPATH": f"{root}:{root / 'datasets'}"}
    environment.pop("FACSIMILE_DATABASE", None)
    launched: Running | None = None
    try:
        with log.open("ab") as sink, _sigterm_waits():
            process = subprocess.Popen(
                [sys.executable, "-P", *command], env=environment, stdout=sink, stderr=sink
            )
            launched = Running(url, process, key)
        _wait_until_well(launched, health, log)
    except BaseException:
        if launched is not None:
            stop(launched)
        raise
    return launched


def _wait_until_well(launched: Running, health: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    with httpx.Client(timeout=2) as client:
        while time.monotonic() < until:
            with suppress(httpx.HTTPError):
                if client.get(f"{launched.url}{health}").status_code == 200:
                    return
            if launched.process.poll() is not None:
                raise RuntimeError(f"the server ended with {launched.process.returncode}, see {log}")
            time.sleep(0.1)
    raise RuntimeError("the server does not answer")


def stop(started: Running) -> None:
    """End it as an operator would; what it leaves behind is killed."""
    below = _tree(started.process.pid)[1:]
    started.process.send_signal(signal.SIGTERM)
    try:
        started.process.wait(60)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
