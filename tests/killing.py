"""Runs code that must kill its own process (-9), time after time; knows nothing of what it interrupts.

One process makes ready once and gives birth to a child for each attempt: what a child loads or opens dies with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from conftest import ROOT

_ATTEMPTS = """

import json, os, sys, traceback
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            attempt(*json.loads(line))
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass
class Victim:
    """A process that is ready to be killed in its children."""

    orders: IO[str]
    endings: IO[str]
    told: IO[str]

    def run(self, *arguments: str) -> None:
        """Attempt it in a child; fails with what was printed unless SIGKILL ended the child."""
        self.orders.write(json.dumps(arguments) + "\n")
        self.orders.flush()
        ending = self.endings.readline().strip()
        self.told.seek(0)
        assert ending == str(-signal.SIGKILL), self.told.read()


@contextmanager
def victim(script: str) -> Iterator[Victim]:
    """A process that has run Python code which defines `attempt(*arguments)`, while the block runs."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}", "OMP_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(
            [sys.executable, "-c", script + _ATTEMPTS],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        yield Victim(process.stdin, process.stdout, told)
