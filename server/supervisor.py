"""Keeps the worker processes of one server alive, and stops them with it; knows no job.

A worker that ends by itself is started again, later each time. The pipe to its stdin tells it when the server is gone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from provenance.home import Home
from server.logs import log
from server.service import Service
from server.settings import WORKER_GRACE_S, ServeSettings

LOOK_EVERY_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0


@contextmanager
def workers_of(service: Service) -> Iterator[None]:
    """The workers of a server while the block runs."""
    if service.settings.num_workers == 0:
        yield
        return
    keeper = Supervisor(service.home, service.settings)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


class Supervisor:
    """Starts, watches and stops worker processes."""

    def __init__(self, home: Home, settings: ServeSettings) -> None:
        self._home = home
        self._settings = settings
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_one, daemon=True) for _ in range(settings.num_workers)
        ]
        self._running: set[subprocess.Popen[bytes]] = set()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [process.pid for process in list(self._running)]

    def start(self) -> None:
        """Start every worker."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell every worker to stop, wait until it has finished its job or given its lease back."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(WORKER_GRACE_S + 10)

    def _keep_one(self) -> None:
        pause_s = 0.5
        while not self._stopping.is_set():
            started = time.monotonic()
            exit_code = self._run_one()
            if self._stopping.is_set():
                return
            log.warning("worker ended", exit=exit_code)
            pause_s = 0.5 if time.monotonic() - started > 60 else min(2 * pause_s, LONGEST_PAUSE_S)
            self._stopping.wait(pause_s)

    def _run_one(self) -> int:
        process = start_worker(self._home, self._settings)
        self._running.add(process)
        try:
            while process.poll() is None:
                if self._stopping.wait(LOOK_EVERY_S):
                    process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        return process.wait(WORKER_GRACE_S + 5)
                    process.kill()
            return process.wait()
        finally:
            self._running.discard(process)
            if process.stdin is not None:
                process.stdin.close()


def start_worker(home: Home, settings: ServeSettings) -> subprocess.Popen[bytes]:
    """One worker process on this home; it ends when the returned process' stdin is closed."""
    name = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
    root = Path(__file__).resolve().parent.parent
    environment = {
        **os.environ,
        "FACSIMILE_HOME": str(home.path),
        "PYTHONPATH": f"{root}:{root / 'datasets'}",
    }
    if home.database.sqlite_path is None:
        environment["FACSIMILE_DATABASE"] = home.database.url.render_as_string(hide_password=False)
    else:
        environment.pop("FACSIMILE_DATABASE", None)
    told = json.dumps(
        {key: value for key, value in asdict(settings).items() if isinstance(value, float | int)}
    )
    command = [sys.executable, "-P", "-m", "server.worker", name, told]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
