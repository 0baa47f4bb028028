"""Shared fixtures: the training material when it is there, and one studio of people who don't exist."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusion.pipeline import sample
from fusion.request import SampleRequest
from fusion.seal import Sealed
from fusion.swap import Perception, load_perception
from provenance.declarations import declare_synthetic
from provenance.hashes import content_sha256
from provenance.home import Home

ROOT = Path(__file__).resolve().parent.parent
ORGANISATION = "Facsimile tests"
INITDB, POSTGRES = shutil.which("initdb"), shutil.which("pg_ctl")


@dataclass(frozen=True)
class Studio:
    """A home, three sealed portraits of nobodies in it, and the networks that look at pictures."""

    home_path: Path
    people: list[Sealed]
    perception: Perception

    @staticmethod
    def declare(home: Home, *files: bytes) -> str:
        """Declare pictures made of nobodies synthetic; returns the declaration's id."""
        return declare_synthetic(home, [content_sha256(data) for data in files], "drawn by the tests").id


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The material beside the checkout (FACSIMILE_SHARED overrides where); skips aloud without it."""
    folder = Path(os.environ.get("FACSIMILE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "portraits.csv").exists():
        pytest.skip(f"training material is not there: {folder}")
    return folder


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Made once for all tests; nobody's pictures, sealed like every output."""
    folder = tmp_path_factory.mktemp("studio")
    with Home.create(folder / "home", ORGANISATION) as home:
        people = sample(SampleRequest(count=3, seed=11, size_px=512), home, folder)
    return Studio(folder / "home", people, load_perception("cpu"))


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A throw-away server on a Unix socket; PostgreSQL refuses to run as root, so root lends it a user."""
    pytest.importorskip("psycopg", reason="the PostgreSQL driver psycopg is not installed")
    if INITDB is None or POSTGRES is None:
        pytest.skip("no PostgreSQL server is installed")
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="facsimile-pg-"))
    try:
        if user:
            shutil.chown(folder, user)
        data, log = folder / "data", folder / "log"
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c shared_buffers=16MB"
        commands = [
            [INITDB, "-D", str(data), "-U", "facsimile", "-A", "trust", "-E", "UTF8"],
            [POSTGRES, "-D", str(data), "-l", str(log), "-w", "-o", options, "start"],
        ]
        for command in commands:
            done = subprocess.run(
                command, user=user, env=environment, cwd=folder, stdout=subprocess.DEVNULL, check=False
            )
            if done.returncode:
                pytest.skip(f"{Path(command[0]).name} failed")
        yield f"postgresql://facsimile@/postgres?host={folder}"
        subprocess.run([POSTGRES, "-D", str(data), "-m", "immediate", "stop"], user=user, cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
