"""Fetches a file by its address without being led into the house: for checks by URL, which are off by default.

https only. The name is resolved once, every address it has must be public, the connection goes to the very address
that was looked at, the certificate must be the name's. Redirects are followed by the same rules, few of them; bytes
and time are capped, the time by a watchdog that ends the connection however slowly it trickles. Addresses that embed
another (v4-mapped, NAT64, 6to4, Teredo) are refused: `is_global` passes some of them. It does not know what else a
public address may be: a service of the house that is open to the Internet is asked like any other, without a login.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from provenance.errors import InputError, RefusedError

MAX_HOPS: Final = 3
MAX_URL: Final = 2000
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

Connect = Callable[[str, float], socket.socket]

_CLOSED: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "168.63.129.16/32",  # answers every machine of a large cloud, from inside
        "192.0.0.0/24",  # protocol assignments (RFC 6890); a cloud keeps its metadata there
        "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
        "::ffff:0:0/96",  # v4-mapped (RFC 4291)
        "::/96",  # v4-compatible, deprecated
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
        "2002::/16",  # 6to4 (RFC 3056)
        "2001::/32",  # Teredo (RFC 4380)
        "fec0::/10",  # site-local, deprecated
        "100::/64",  # discard
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment routing (RFC 9602)
    )
)


@dataclass(frozen=True)
class FetchLimits:
    """What one fetch may cost: bytes of the file, seconds of silence, seconds of all hops together."""

    max_bytes: int = 64 << 20
    timeout_s: float = 10.0
    total_s: float = 30.0


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(each[4][0]) for each in found]


def _connect(address: str, timeout_s: float) -> socket.socket:
    return socket.create_connection((address, 443), timeout_s)


@dataclass(frozen=True)
class Door:
    """The way out: names to addresses, an address to a connection, whose certificates are believed."""

    resolve: Resolve = _resolve
    connect: Connect = _connect
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)


def fetch(url: str, limits: FetchLimits | None = None, door: Door | None = None) -> bytes:
    """The bytes at an https address. RefusedError `fetch.refused`: it may not be asked; InputError `fetch.failed`."""
    limits, door = limits or FetchLimits(), door or Door()
    until = time.monotonic() + limits.total_s
    for _ in range(MAX_HOPS + 1):
        parts = check_url(url)
        address = pick_address(parts.hostname or "", parts.port or 443, door.resolve)
        answer, place = _get(parts, address, limits, until, door)
        if place is None:
            return answer
        url = _next(url, place)
    raise _refused(f"it leads on more than {MAX_HOPS} times")


def _next(url: str, place: str) -> str:
    try:
        return urljoin(url, place)
    except ValueError:
        raise _refused("it leads on to no address of the usual form") from None


def check_url(url: str) -> SplitResult:
    """The parts of an address that may be asked; RefusedError for any other scheme, port, form, or with a login."""
    if len(url) > MAX_URL or any(ord(each) < 33 or ord(each) > 126 or each == "\\" for each in url):
        raise _refused("it is no address of the usual form")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("it is no address of the usual form") from None
    if parts.scheme != "https":
        raise _refused("only https is asked")
    if not parts.hostname or parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise _refused("it carries a login, or no name")
    if port not in (None, 443):
        raise _refused("only port 443 is asked")
    return parts


def pick_address(host: str, port: int, resolve: Resolve) -> str:
    """One address of a name, all of which must be public: a name that has both kinds is no accident."""
    try:
        found = list(dict.fromkeys(resolve(host, port)))
    except (OSError, UnicodeError):  # a name of a form that no resolver takes
        raise _failed("The name cannot be resolved.") from None
    if not found or not all(is_public(each) for each in found):
        raise _refused("its name leads to an address that is not public")
    return found[0]


def is_public(text: str) -> bool:
    """Whether an IP address is one of the open Internet and hides no other."""
    try:
        address: Address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    if any(address in network for network in _CLOSED if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class _Pinned(http.client.HTTPSConnection):
    """Connects to the address that was looked at, and asks for the certificate of the name."""

    def __init__(self, host: str, address: str, timeout_s: float, door: Door) -> None:
        super().__init__(host, 443, timeout=timeout_s, context=door.tls)
        self._address = address
        self._timeout_s = timeout_s
        self._door = door
        self._live: socket.socket | None = None  # http.client forgets the one that it reads from

    def connect(self) -> None:
        self._live = self._door.connect(self._address, self._timeout_s)
        wrapped = self._door.tls.wrap_socket(
            self._live, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = self._live = wrapped
        wrapped.do_handshake()

    def close(self) -> None:
        super().close()
        if self._live is not None:
            self._live.close()  # what reads from it keeps it open until it is closed, too

    def end(self) -> None:
        """Whoever reads from it finds its end; the TLS object stays as it is, for it is being read."""
        if self._live is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._live, socket.SHUT_RDWR)


@contextmanager
def _watched(connection: _Pinned, until: float) -> Iterator[None]:
    """Ends the connection at `until`: a socket's own timeout begins anew with each byte."""
    watchdog = threading.Timer(max(until - time.monotonic(), 0.0), connection.end)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        connection.close()


def _get(
    parts: SplitResult, address: str, limits: FetchLimits, until: float, door: Door
) -> tuple[bytes, str | None]:
    """(body, None), or (nothing, where a redirect leads)."""
    wait_s = min(limits.timeout_s, until - time.monotonic())
    if wait_s <= 0:
        raise _too_slow()
    connection = _Pinned(str(parts.hostname), address, wait_s, door)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with _watched(connection, until):
        try:
            connection.request("GET", path, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
            with connection.getresponse() as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    return b"", answer.getheader("Location", "")
                if answer.status != 200:
                    raise _failed(f"The other server answered {answer.status}.")
                body = _read(answer, limits)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= until or isinstance(error, TimeoutError):
                raise _too_slow() from None
            raise _failed(f"The other server cannot be asked ({type(error).__name__}).") from None
    if time.monotonic() >= until:
        raise _too_slow()  # what was cut off may look like a whole body
    return body, None


def _read(answer: http.client.HTTPResponse, limits: FetchLimits) -> bytes:
    """The whole body; one that is shorter than announced is an IncompleteRead or an OSError."""
    if (answer.length or 0) > limits.max_bytes:
        raise _too_large()
    body = bytearray()
    while piece := answer.read(min(1 << 16, limits.max_bytes + 1 - len(body))):
        body += piece
        if len(body) > limits.max_bytes:
            raise _too_large()
    if answer.length:
        raise ConnectionError("the body ended early")
    return bytes(body)


def _failed(cause: str) -> InputError:
    return InputError("fetch.failed", cause, "Check the address, or hand in the file itself.")


def _too_slow() -> InputError:
    return _failed("The other server is too slow.")


def _too_large() -> InputError:
    return _failed("The file is too large.")


def _refused(reason: str) -> RefusedError:
    return RefusedError("fetch.refused", f"This address is not asked: {reason}.", "Hand in the file itself.")
