"""A real server on a real port for tests: uvicorn in a thread, keys for every role; knows no test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx2 as httpx
import structlog
import uvicorn
from fastapi import FastAPI
from structlog.testing import CapturingLoggerFactory

from fusion.swap import Perception
from provenance.home import Home
from server import auth
from server.app import create_app
from server.commands.serve import uvicorn_config
from server.service import Service
from server.settings import ServeSettings
from server.worker import Worker

FAST = ServeSettings(requests_per_minute=100_000, logins_per_minute=1000, num_workers=0)


@dataclass
class Served:
    """A server that runs: its address, its application and service, a key for each role, what it logs."""

    url: str
    app: FastAPI
    service: Service
    keys: dict[str, str]
    logger: CapturingLoggerFactory

    @property
    def logged(self) -> list[str]:
        """The lines of its log so far."""
        return [call.args[0] for call in self.logger.logger.calls]

    def client(self, *roles: str, timeout_s: float = 120.0) -> httpx.Client:
        """A client with the key of these roles; none: nobody."""
        headers = {"Authorization": f"Bearer {self.keys[' '.join(roles)]}"} if roles else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def key(self, *roles: str) -> str:
        """A new key with these roles."""
        return auth.make_key(self.service.home.database, roles, "test")[0]


@contextmanager
def serve(home: Home, settings: ServeSettings = FAST) -> Iterator[Served]:
    """A server over an open home while the block runs.

    Its log is kept, not written: a request's line follows its answer, and so may fall between two tests, when pytest
    has let go of stderr.
    """
    before, logger = structlog.get_config(), CapturingLoggerFactory()
    app = create_app(home, replace(settings, allowed_hosts=("127.0.0.1", "localhost")))
    structlog.configure(logger_factory=logger)
    server = uvicorn.Server(uvicorn_config(app, "127.0.0.1", 0, settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    keys = {role: auth.make_key(home.database, [role], "test")[0] for role in auth.ROLES}
    try:
        yield Served(f"http://127.0.0.1:{port}", app, app.state.service, keys, logger)
    finally:
        server.should_exit = True
        thread.join(120)
        structlog.configure(**before)


def worker_of(service: Service, perception: Callable[[], Perception], name: str = "test") -> Worker:
    """A worker in this process over a server's home."""
    home = service.home
    return Worker(
        name=name,
        home=home,
        queue=service.queue,
        objects=service.objects,
        sets=service.sets,
        open_home=lambda: Home.open(home.path),
        perception=perception,
        stopping=threading.Event(),
    )


def raw(served: Served, data: bytes, wait_s: float = 5.0) -> bytes:
    """What comes back for these bytes, until the server closes or time is up."""
    host, port = served.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(data)
        try:
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
        except ConnectionResetError:
            answer += b"<reset>"
    return answer


def head(served: Served, role: str, length: int, *extra: str) -> bytes:
    """The head of a check's request whose body does not follow."""
    lines = [
        "POST /v1/checks HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {served.keys[role]}",
        "Content-Type: multipart/form-data; boundary=x", f"Content-Length: {length}", *extra,
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
