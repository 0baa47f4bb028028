"""Boxes of a manifest store: walked, cut down to one manifest, and refused where they are none."""

from __future__ import annotations

import pytest

from provenance.errors import InputError
from provenance.jumbf import STORE_TYPE, active_manifest, manifest_uuid, manifests_of

FIRST, SECOND = (f"urn:c2pa:0000000{n}-0000-4000-8000-000000000000" for n in (1, 2))


def box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def described(kind: bytes, label: str, *children: bytes) -> bytes:
    description = box(b"jumd", kind + b"\x03" + label.encode() + b"\0")
    return box(b"jumb", description + b"".join(children))


def store_of_two() -> bytes:
    manifests = [
        described(b"c2ma" + STORE_TYPE[4:], label, box(b"cbor", b"\xa0")) for label in (FIRST, SECOND)
    ]
    return described(STORE_TYPE, "c2pa", *manifests)


def test_manifests_are_listed_in_order_and_the_last_is_active() -> None:
    store = store_of_two()
    assert [each.label for each in manifests_of(store)] == [FIRST, SECOND]
    assert manifests_of(active_manifest(store)) == manifests_of(store)[1:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: b"",
        lambda store: store[:-1],
        lambda store: store + b"\0",
        lambda store: b"\xff\xff\xff\xff" + store[4:],
        lambda store: (0).to_bytes(4, "big") + store[4:],
        lambda store: store.replace(STORE_TYPE, b"c2pb" + STORE_TYPE[4:]),
        lambda store: described(STORE_TYPE, "c2pa"),
        lambda store: store[:40] + b"\0\0\0\1" + store[44:],
    ],
)
def test_what_is_no_store_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        manifests_of(damage(store_of_two()))
    assert caught.value.code == "manifest.store"


def test_every_cut_of_a_store_is_refused() -> None:
    store = store_of_two()
    for end in range(len(store)):
        with pytest.raises(InputError, match=r"manifest\.store"):
            manifests_of(store[:end])


def test_ids_with_and_without_vendor_and_version_name_one_manifest() -> None:
    uuid = FIRST.removeprefix("urn:c2pa:")
    for label in (FIRST, f"urn:uuid:{uuid}", f"acme:urn:uuid:{uuid}", f"{FIRST}:acme:2_1", FIRST.upper()):
        assert manifest_uuid(label) == uuid
