"""Addresses that lead into the house are refused; a real TLS server plays the outside, nothing asks the network."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx2 as httpx
import pytest
from conftest import Studio
from serving import FAST, serve
from tls import contexts

from provenance.errors import InputError, RefusedError
from provenance.home import Home
from server import auth
from server.fetch import Door, FetchLimits, check_url, fetch, is_public, pick_address

INSIDE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:0808:0808::1", "2001:0:1::1", "2001:db8::1", "fec0::1",
    "168.63.129.16", "192.0.0.192", "192.88.99.1", "3fff::1", "5f00::1", "100.100.100.200",
    "100::1", "not an address", "127.1", "0x7f000001", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(RefusedError, match=r"fetch\.refused"):
        pick_address("a.example", 443, lambda host, port: [address])


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"]
)
def test_addresses_outside_are(address: str) -> None:
    assert is_public(address)
    assert pick_address("a.example", 443, lambda host, port: [address]) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x", "file:///etc/passwd", "ftp://a.example/", "gopher://a.example/", "//a.example/x", "https://",
        "https://user:pw@a.example/", "https://a.example@127.0.0.1/", "https://a.example:8443/", "https://a.example:22/",
        "https://a.example\\@127.0.0.1/", "https://a.example/\r\nHost: b", "https://a.example/ x", "https://[::1",
        "https://a.example:99999/", "https://ä.example/", "https://a.example/" + "x" * 3000,
    ],
)  # fmt: skip
def test_urls_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(RefusedError, match=r"fetch\.refused"):
        check_url(url)


def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    with pytest.raises(RefusedError):
        pick_address("rebind.example", 443, lambda host, port: ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(InputError, match=r"fetch\.failed"):
        pick_address("none.example", 443, _fails)


def _fails(host: str, port: int) -> list[str]:
    raise OSError("no such name")


def test_names_that_no_resolver_takes_are_no_fault_of_ours() -> None:
    for name in ("a..example", "x" * 64 + ".example"):
        with pytest.raises(InputError, match=r"fetch\.failed"):
            fetch(f"https://{name}/")


PUBLIC = "93.184.216.34"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Reply = Callable[[ssl.SSLSocket], None]


@dataclass
class Outside:
    """A TLS server on this machine that plays a public one; `door` leads to it and writes down what was asked."""

    port: int
    door: Door
    replies: dict[str, Reply]
    resolved: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def says(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> Reply:
    """An answer as bytes on the wire."""
    told = len(body) if length is None else length
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {told}", *headers])

    def reply(wire: ssl.SSLSocket) -> None:
        wire.sendall(head.encode() + b"\r\n\r\n" + body)

    return reply


def drips(begin: bytes, drop: bytes, pause_s: float) -> Reply:
    """Never silent long enough for a socket's own time limit, never done."""

    def reply(wire: ssl.SSLSocket) -> None:
        wire.sendall(begin)
        while True:
            wire.sendall(drop)
            time.sleep(pause_s)

    return reply


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    theirs, ours = contexts(tmp_path, "a.example")
    listening = socket.create_server(("127.0.0.1", 0))
    made = Outside(listening.getsockname()[1], Door(), {})

    def resolve(host: str, port: int) -> list[str]:
        made.resolved.append(host)
        return [host] if host[0].isdigit() else [PUBLIC]

    def connect(address: str, timeout_s: float) -> socket.socket:
        made.connected.append(address)
        return socket.create_connection(("127.0.0.1", made.port), timeout_s)

    made.door = Door(resolve, connect, ours)
    threading.Thread(target=_serve_outside, args=(listening, theirs, made), daemon=True).start()
    yield made
    listening.close()


def _serve_outside(listening: socket.socket, tls: ssl.SSLContext, made: Outside) -> None:
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer_outside, args=(plain, tls, made), daemon=True).start()


def _answer_outside(plain: socket.socket, tls: ssl.SSLContext, made: Outside) -> None:
    try:
        with tls.wrap_socket(plain, server_side=True) as wire:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += wire.recv(4096)
            made.requests.append(asked.decode())
            made.replies[asked.split()[1].decode()](wire)
    except OSError:
        plain.close()


def test_a_file_is_fetched_from_the_pinned_address_under_the_name_s_certificate(outside: Outside) -> None:
    outside.replies["/a.png?b=c"] = says("200 OK", b"picture")
    assert fetch("https://a.example/a.png?b=c#d", door=outside.door) == b"picture"
    assert (outside.resolved, outside.connected) == (["a.example"], [PUBLIC])
    lines = outside.requests[0].split("\r\n")
    assert lines[:2] == ["GET /a.png?b=c HTTP/1.1", "Host: a.example"]
    assert not any(
        line.lower().startswith(("cookie", "authorization", "referer", "user-agent")) for line in lines
    )


def test_a_certificate_of_another_name_is_refused(outside: Outside) -> None:
    with pytest.raises(InputError, match="SSLCertVerificationError"):
        fetch("https://b.example/a.png", door=outside.door)
    assert outside.requests == []
    with pytest.raises(InputError, match="SSLCertVerificationError"):
        fetch("https://a.example/a.png", door=replace(outside.door, tls=ssl.create_default_context()))


def test_a_name_that_changes_its_address_gains_nothing(outside: Outside) -> None:
    """Public when looked at, private when asked again: each hop looks once and connects to what it saw."""
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    rebinding = replace(outside.door, resolve=lambda host, port: next(answers))
    outside.replies["/a"] = says("302 Found", b"", "Location: /b")
    with pytest.raises(RefusedError, match="not public"):
        fetch("https://a.example/a", door=rebinding)
    assert outside.connected == [PUBLIC]
    assert len(outside.requests) == 1


@pytest.mark.parametrize(
    "place",
    [
        "http://a.example/", "https://127.0.0.1/", "https://a.example:22/", "file:///etc/passwd", "https://[::1]/",
        "//10.0.0.1/x", "https://[", "https://u:p@a.example/", "gopher://a.example/", "https://169.254.169.254/latest/",
    ],
)  # fmt: skip
def test_every_hop_is_looked_at_again(outside: Outside, place: str) -> None:
    outside.replies["/"] = says("301 Moved", b"", f"Location: {place}")
    resolve = lambda host, port: [PUBLIC if host == "a.example" else host.strip("[]")]  # noqa: E731
    with pytest.raises(RefusedError, match=r"fetch\.refused"):
        fetch("https://a.example/", door=replace(outside.door, resolve=resolve))
    assert outside.connected == [PUBLIC]


def test_few_redirects_are_followed_and_no_more(outside: Outside) -> None:
    for number in range(5):
        outside.replies[f"/{number}"] = says("307 Go", b"", f"Location: {number + 1}")
    outside.replies["/5"] = says("200 OK", b"end")
    assert fetch("https://a.example/2", door=outside.door) == b"end"
    assert outside.connected == [PUBLIC] * 4
    with pytest.raises(RefusedError, match="leads on"):
        fetch("https://a.example/1", door=outside.door)


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (says("200 OK", b"x" * 2000), "too large"),
        (says("200 OK", b"", length=10**12), "too large"),
        (drips(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 400, 0.01), "too large"),
        (drips(CHUNKED, b"200\r\n" + b"x" * 512 + b"\r\n", 0.01), "too large"),
        (drips(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x", 0.05), "too slow"),
        (drips(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05), "too slow"),
        (drips(b"HTTP/1.1 200 OK\r\nX-Fill: ", b"x", 0.05), "too slow"),
        (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), "too slow"),
        (drips(b"HTTP/1.1 200 OK\r\n", b"X-Fill: y\r\n" * 200, 0.01), "HTTPException"),
        (says("200 OK", b"short", length=100), "ConnectionError"),
        (says("404 Not Found"), "answered 404"),
        (says("206 Partial", b"part"), "answered 206"),
        (says("nonsense"), "cannot be asked"),
        (drips(CHUNKED, b"zz\r\n", 0.01), "cannot be asked"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "reply",
)  # fmt: skip
def test_bytes_and_seconds_are_capped_however_they_come(outside: Outside, reply: Reply, cause: str) -> None:
    outside.replies["/"] = reply
    began = time.monotonic()
    with pytest.raises(InputError, match=cause) as error:
        fetch("https://a.example/", FetchLimits(max_bytes=1000, timeout_s=0.5, total_s=1.0), outside.door)
    assert error.value.code == "fetch.failed"
    assert time.monotonic() - began < 4.0


def test_a_server_that_accepts_and_says_nothing_is_left(outside: Outside) -> None:
    """Not even a TLS greeting comes."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        outside.port = mute.getsockname()[1]
        with pytest.raises(InputError, match="too slow"):
            fetch("https://a.example/", FetchLimits(timeout_s=5.0, total_s=0.5), outside.door)


def test_checks_by_address_are_off_until_the_operator_allows_them(studio: Studio, outside: Outside) -> None:
    outside.replies["/people/p.png"] = says("200 OK", studio.people[0].path.read_bytes())
    outside.replies["/text"] = says("200 OK", b"no picture")
    wanted = {"url": "https://a.example/people/p.png"}
    with Home.open(studio.home_path) as home:
        with serve(home) as off, off.client("verifier") as client:
            answer = client.post("/v1/checks/by-url", json=wanted)
            assert (answer.status_code, answer.json()["code"]) == (403, "fetch.disabled")
        with serve(home, replace(FAST, url_checks=True)) as on, on.client("verifier") as client:
            on.service.fetch = partial(fetch, door=outside.door)
            answer = client.post("/v1/checks/by-url", json=wanted)
            assert (answer.status_code, answer.json()["verdict"]) == (201, "declared_synthetic"), answer.text
            assert answer.json()["report"]["file"] == "p.png"
            assert client.get(answer.headers["location"]).json() == answer.json()
            for url, status, code in (
                ("https://a.example/text", 415, "media.format"),
                ("https://127.0.0.1/x", 403, "fetch.refused"),
                ("http://a.example/x", 403, "fetch.refused"),
                ("x" * 2001, 422, "request.invalid"),
            ):
                refused = client.post("/v1/checks/by-url", json={"url": url})
                assert (refused.status_code, refused.json()["code"]) == (status, code)
                assert "a.example" not in refused.text
            session = auth.open_session(home.database, on.keys["verifier"])
            assert session is not None
            with httpx.Client(base_url=on.url, cookies={"facsimile": session.token}, timeout=60) as page:
                assert 'action="/check/by-url"' in page.get("/check").text
                form = {"csrf_token": session.csrf_token, "url": wanted["url"]}
                shown = page.post("/check/by-url", data=form)
                assert (shown.status_code, "data:image/jpeg;base64," in shown.text) == (200, True)
                refused = page.post("/check/by-url", data={**form, "url": "https://127.0.0.1/x"})
                assert (refused.status_code, "fetch.refused" in refused.text) == (403, True)
    assert outside.connected == [PUBLIC] * 3
