"""What a client may do to the wire: bodies, heads, pieces, connections, streams, over raw sockets."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from conftest import Studio
from serving import FAST, Served, head, raw, serve

from provenance.home import Home
from server import limits
from server.service import MAX_BODIES_EACH, MAX_STREAMS_EACH


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        yield running


def test_who_is_refused_is_told_before_the_body_is_read(served: Served) -> None:
    began = time.perf_counter()
    assert raw(served, head(served, "auditor", 5_000_000), 3.0).startswith(b"HTTP/1.1 403")
    assert raw(served, head(served, "verifier", 500_000_000), 3.0).startswith(b"HTTP/1.1 413")
    assert time.perf_counter() - began < 20


UPLOADS = [
    ("/v1/checks", "verifier"), ("/v1/checks/by-url", "verifier"), ("/v1/fusions", "generator"),
    ("/v1/subjects", "consent_officer"), ("/v1/grants", "consent_officer"), ("/v1/grants/drafts", "consent_officer"),
    ("/v1/resolution/matches/byContent", "verifier"), ("/v1/resolution/matches/byBinding", "verifier"),
    ("/check", "verifier"), (f"/consent/people/subject-{'0' * 16}/text", "consent_officer"), ("/make", "generator"),
    ("/consent/enrol", "consent_officer"),
]  # fmt: skip


def test_every_route_that_takes_a_body_holds_to_the_limit(studio: Studio) -> None:
    """Announced too large: refused though no byte came. Announced not at all: cut off where it grows too large."""
    small = replace(FAST, max_upload_bytes=100_000)
    with Home.open(studio.home_path) as home, serve(home, small) as running:
        for path, role in UPLOADS:
            form = (
                "application/json"
                if path.startswith("/v1/grants") or path.endswith(("url", "Binding"))
                else None
            )
            kind = form or "multipart/form-data; boundary=x"
            start = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {running.keys[role]}\r\n"
            )
            start += f"Content-Type: {kind}\r\n"
            began = time.perf_counter()
            announced = raw(running, f"{start}Content-Length: 100001\r\n\r\n".encode(), 8.0)
            assert announced.startswith(b"HTTP/1.1 413"), path
            assert b"request.too_large" in announced, path
            assert time.perf_counter() - began < 6, path
            begin = (
                b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"
                if form is None
                else b'"'
            )
            piece = b"%x\r\n%s\r\n" % (60_000, b"a" * 60_000)
            first = b"%x\r\n%s\r\n" % (len(begin), begin)
            chunked = f"{start}Transfer-Encoding: chunked\r\n\r\n".encode() + first + piece * 2
            assert raw(running, chunked, 8.0).startswith(b"HTTP/1.1 413"), path


def test_more_connections_than_allowed_are_told_when_to_come_back(studio: Studio) -> None:
    with (
        Home.open(studio.home_path) as home,
        serve(home, replace(FAST, max_connections=3)) as running,
    ):
        host, port = running.url.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port))) for _ in range(3)]
        time.sleep(0.2)
        full = raw(running, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert full.startswith(b"HTTP/1.1 503")
        assert b"\r\nretry-after: 5\r\n" in full.lower()
        assert b'"request.busy"' in full
        for each in held:
            each.close()
        time.sleep(0.2)
        with running.client() as fine:
            assert fine.get("/healthz").status_code == 200


def test_one_client_s_uploads_leave_room_on_the_disk_for_others(served: Served) -> None:
    """Bodies that have begun to come in lie on the disk: nobody may have many of them, and places come back."""
    host, port = served.url.removeprefix("http://").split(":")
    begun = []
    try:
        for _ in range(MAX_BODIES_EACH):
            each = socket.create_connection((host, int(port)))
            each.sendall(head(served, "verifier", 5_000_000) + b"--x\r\n")
            begun.append(each)
        time.sleep(0.5)
        full = raw(served, head(served, "verifier", 5_000_000), 1.0)
        assert full.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in full.lower()
        with served.client("generator") as other:
            assert other.post("/v1/checks", files={"file": ("p", b"GIF89a")}).status_code == 415
    finally:
        for each in begun:
            each.close()
    time.sleep(0.5)
    with served.client("verifier") as fine:
        assert fine.post("/v1/checks", files={"file": ("p", b"GIF89a")}).status_code == 415


def test_streams_of_events_are_few_and_come_back(served: Served, studio: Studio) -> None:
    person = studio.people[0].path.read_bytes()
    with served.client("generator") as client:
        files = [("source", ("s", person)), ("target", ("t", person))]
        job = client.post("/v1/fusions", files=files, data={"purpose": "research"}).headers["location"]
        lines = [
            f"GET {job}/events HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {served.keys['generator']}",
        ]
        ask = "\r\n".join(lines).encode() + b"\r\n\r\n"
        host, port = served.url.removeprefix("http://").split(":")
        open_ones = []
        for _ in range(MAX_STREAMS_EACH):
            each = socket.create_connection((host, int(port)))
            each.sendall(ask)
            assert each.recv(100).startswith(b"HTTP/1.1 200")
            open_ones.append(each)
        assert raw(served, ask, 1.0).startswith(b"HTTP/1.1 503")
        for each in open_ones:
            each.close()
        time.sleep(1.0)
        assert raw(served, ask, 1.0).startswith(b"HTTP/1.1 200")
        client.post(f"{job}/cancellation")


def test_headers_without_end_and_headers_without_measure(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEADERS_WITHIN_S", 0.5)
    began = time.perf_counter()
    raw(served, b"GET /healthz HTTP/1.1\r\nX-Slow: ", 10.0)
    assert time.perf_counter() - began < 8
    endless = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Fill: " + b"a" * 80_000
    assert raw(served, endless).startswith((b"HTTP/1.1 431", b"<reset>"))
    at_once = b"GET /healthz?" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert raw(served, at_once).startswith((b"HTTP/1.1 431", b"<reset>"))
    large_but_allowed = (
        b"GET /healthz?" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )
    assert raw(served, large_but_allowed).startswith(b"HTTP/1.1 200")
    assert raw(served, b"\0\x01\x02 nonsense\r\n\r\n").startswith((b"HTTP/1.1 400", b"<reset>"))
    with served.client() as fine:
        assert fine.get("/healthz").status_code == 200


def test_what_comes_after_the_answer_has_an_end(served: Served) -> None:
    """A refused client may send on a little; trailers without end are neither kept nor waited for."""
    host, port = served.url.removeprefix("http://").split(":")
    start = b"POST /v1/checks HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for begin, piece in (
        (b"0\r\n", b"X-Fill: " + b"y" * 1000 + b"\r\n"),
        (b"", b"400\r\n" + b"z" * 1024 + b"\r\n"),
    ):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(start + begin)
            assert connection.recv(20).startswith(b"HTTP/1.1 401")
            with pytest.raises(OSError, match=r"reset|pipe"):
                connection.sendall(piece * 40_000)
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_head_that_comes_in_two_pieces_is_measured_right(served: Served, cut: int) -> None:
    """The body that follows in the second piece is no part of it."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + b"a" * 60_000
        + b"\r\n--x--\r\n"
    )
    whole = head(served, "verifier", len(body), "Connection: close") + body
    at = whole.index(b"\r\n\r\n") + 6 - cut
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(whole[:at])
        time.sleep(0.05)
        connection.sendall(whole[at:])
        assert connection.recv(20).startswith(b"HTTP/1.1 415")


def test_a_body_that_trickles_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_GRACE_S", 0.5)
    answer = raw(served, head(served, "verifier", 1000) + b"--x", 8.0)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request.too_slow" in answer


def test_two_hundred_slow_clients_do_not_keep_others_out(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(200)]
    try:
        for each in slow:
            each.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        with served.client() as fine:
            assert fine.get("/healthz").status_code == 200
    finally:
        for each in slow:
            each.close()
