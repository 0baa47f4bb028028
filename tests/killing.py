"""Runs a script in a process of its own that must kill itself (-9); knows nothing of what it interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from conftest import ROOT


def run_killed(script: str, *arguments: str) -> None:
    """Run Python code with `arguments`; fails with what it printed unless SIGKILL ended it."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
