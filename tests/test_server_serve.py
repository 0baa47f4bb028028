"""`facsimile serve` as a process: its port, its link, its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from conftest import ROOT, Studio
from tls import certificate

from provenance.errors import UsageError
from server.commands.serve import _require_tls


def start(studio: Studio, *options: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "FACSIMILE_HOME": str(studio.home_path),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}",
    }
    command = [sys.executable, "-P", "-c", "from server.cli import main; main()", "serve", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def running(studio: Studio) -> Iterator[subprocess.Popen[str]]:
    process = start(studio, "--port", "0", "--workers", "0")
    yield process
    process.kill()
    process.communicate()


def test_the_link_holds_the_port_works_once_and_waits_until_the_server_is_ready(
    running: subprocess.Popen[str], studio: Studio
) -> None:
    assert running.stdout is not None
    running.stdout.readline()
    link = running.stdout.readline().strip()
    found = re.fullmatch(r"(http://127\.0\.0\.1:(\d+))/enter\?code=\S+", link)
    assert found is not None, link
    port = int(found[2])
    assert port != 0
    with httpx.Client(base_url=found[1], timeout=120) as client:
        shown = client.get(link)  # the port is listened on already, though the networks are still being read
        assert shown.status_code == 200
        code = link.split("=", 1)[1]
        assert client.post("/login", data={"code": code}).status_code == 303
        assert client.get("/v1/me").status_code == 200
        assert client.post("/login", data={"code": code}).status_code != 303
    taken = start(studio, "--port", str(port))
    out, err = taken.communicate(timeout=120)
    assert (taken.returncode, out) == (2, "")
    assert "serve.address" in err
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) in (0, -signal.SIGTERM)  # uvicorn raises it anew when all is done
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


@pytest.mark.parametrize("given", [("--tls-cert",), ("--tls-key",), ("--tls-cert", "--tls-key")])
def test_a_certificate_that_is_not_there_is_named_before_anything_else(
    studio: Studio, given: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=r"serve\.tls"):
        _require_tls(*("/nowhere.pem" if name in given else None for name in ("--tls-cert", "--tls-key")))


def test_a_certificate_with_its_key_is_taken_and_with_another_s_is_not(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    pairs = []
    for folder in folders:
        folder.mkdir()
        pairs.append(certificate(folder, "localhost"))
    _require_tls(str(pairs[0][0]), str(pairs[0][1]))
    with pytest.raises(UsageError, match=r"serve\.tls"):
        _require_tls(str(pairs[0][0]), str(pairs[1][1]))
