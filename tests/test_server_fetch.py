"""Addresses that lead into the house are refused; nothing here asks the network."""

from __future__ import annotations

import pytest

from provenance.errors import InputError, RefusedError
from server.fetch import check_url, fetch, is_public, pick_address

INSIDE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:0808:0808::1", "2001:0:1::1", "2001:db8::1", "fec0::1",
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


def test_the_name_is_resolved_once_per_hop_and_the_address_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when looked at and private when connected to gains nothing: it is looked at once."""
    asked: list[str] = []
    connected: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8"] if len(asked) == 1 else ["127.0.0.1"]

    def connect(address: tuple[str, int], timeout: float) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr("server.fetch.socket.create_connection", connect)
    with pytest.raises(InputError, match=r"fetch\.failed"):
        fetch("https://rebind.example/a.png", resolve=resolve)
    assert (asked, connected) == (["rebind.example"], ["8.8.8.8"])


@pytest.mark.parametrize(
    "place", ["http://a.example/", "https://127.0.0.1/", "https://a.example:22/", "file:///etc/passwd"]
)
def test_every_hop_is_looked_at_again(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr("server.fetch._get", lambda *_: (b"", place))
    with pytest.raises(RefusedError, match=r"fetch\.refused"):
        fetch("https://a.example/", resolve=lambda host, port: [host if host[0].isdigit() else "8.8.8.8"])


def test_redirects_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.fetch._get", lambda *_: (b"", "https://a.example/again"))
    with pytest.raises(RefusedError, match="leads on"):
        fetch("https://a.example/", resolve=lambda host, port: ["8.8.8.8"])
