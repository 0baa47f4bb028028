"""Fetches a file by its address without being led into the house: for checks by URL, which are off by default.

https only. The name is resolved once, every address it has must be public, the connection goes to the very address
that was looked at, the certificate must be the name's. Redirects are followed by the same rules, few of them; bytes
and time are capped. Addresses that embed another (v4-mapped, NAT64, 6to4, Teredo) are refused: `is_global` passes
some of them.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from provenance.errors import InputError, RefusedError

MAX_HOPS: Final = 3
MAX_URL: Final = 2000
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

_EMBEDDING: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "::ffff:0:0/96",  # v4-mapped (RFC 4291)
        "::/96",  # v4-compatible, deprecated
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
        "2002::/16",  # 6to4 (RFC 3056)
        "2001::/32",  # Teredo (RFC 4380)
        "fec0::/10",  # site-local, deprecated
        "100::/64",  # discard
    )
)


@dataclass(frozen=True)
class FetchLimits:
    """What one fetch may cost."""

    max_bytes: int = 64 << 20
    timeout_s: float = 10.0
    total_s: float = 30.0


def fetch(url: str, limits: FetchLimits | None = None, resolve: Resolve | None = None) -> bytes:
    """The bytes at an https address. RefusedError `fetch.refused`: it may not be asked; InputError `fetch.failed`."""
    limits = limits or FetchLimits()
    until = time.monotonic() + limits.total_s
    for _ in range(MAX_HOPS + 1):
        parts = check_url(url)
        address = pick_address(parts.hostname or "", parts.port or 443, resolve or _resolve)
        answer, place = _get(parts, address, limits, until)
        if place is None:
            return answer
        url = urljoin(url, place)
    raise _refused(f"it leads on more than {MAX_HOPS} times")


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
    except OSError:
        raise InputError("fetch.failed", "The name cannot be resolved.", "Check the address.") from None
    if not found or not all(is_public(each) for each in found):
        raise _refused("its name leads to an address that is not public")
    return found[0]


def is_public(text: str) -> bool:
    """Whether an IP address is one of the open Internet and hides no other."""
    try:
        address: Address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    if any(address in network for network in _EMBEDDING if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(each[4][0]) for each in found]


class _Pinned(http.client.HTTPSConnection):
    """Connects to the address that was looked at, and asks for the certificate of the name."""

    def __init__(self, host: str, address: str, timeout_s: float) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, 443, timeout=timeout_s, context=self._tls)
        self._address = address

    def connect(self) -> None:
        plain = socket.create_connection((self._address, 443), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def _get(parts: SplitResult, address: str, limits: FetchLimits, until: float) -> tuple[bytes, str | None]:
    """(body, None), or (nothing, where a redirect leads)."""
    connection = _Pinned(str(parts.hostname), address, limits.timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308):
            return b"", answer.getheader("Location", "")
        if answer.status != 200:
            raise InputError(
                "fetch.failed", f"The other server answered {answer.status}.", "Check the address."
            )
        return _read(answer, limits, until), None
    except (OSError, http.client.HTTPException) as error:
        cause = f"The other server cannot be asked ({type(error).__name__})."
        raise InputError("fetch.failed", cause, "Check the address.") from None
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, limits: FetchLimits, until: float) -> bytes:
    body = bytearray()
    while piece := answer.read(min(1 << 16, limits.max_bytes + 1 - len(body))):
        body += piece
        if len(body) > limits.max_bytes:
            raise InputError("fetch.failed", "The file is too large.", "Hand in the file itself.")
        if time.monotonic() > until:
            raise InputError("fetch.failed", "The other server is too slow.", "Hand in the file itself.")
    return bytes(body)


def _refused(reason: str) -> RefusedError:
    return RefusedError("fetch.refused", f"This address is not asked: {reason}.", "Hand in the file itself.")
