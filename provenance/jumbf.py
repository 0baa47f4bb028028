"""Walks the boxes of a C2PA manifest store (ISO/IEC 19566-5) without judging them; knows no signature."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from provenance.errors import InputError

STORE_TYPE = bytes.fromhex("63327061" + "00110010800000aa00389b71")  # c2pa, C2PA 2.x section 11.1.4.2
MAX_STORE_BYTES = 64 << 20
_LABEL_TOGGLE = 0x02


@dataclass(frozen=True)
class ManifestBox:
    """One manifest of a store: its label and its whole superbox."""

    label: str
    raw: bytes


def manifests_of(store: bytes) -> list[ManifestBox]:
    """The manifests of a store in order, the active one last; InputError `manifest.store` where it is none."""
    kind, body, end = _box(store, 0)
    description = _description(body) if kind == b"jumb" and end == len(store) else None
    if description is None or description[0] != STORE_TYPE:
        raise _not_a_store()
    found = [ManifestBox(_label(child), raw) for raw, child in _children(body, skip=1)]
    if not found or not all(each.label for each in found):
        raise _not_a_store()
    return found


def active_manifest(store: bytes) -> bytes:
    """A store that holds the active manifest alone (C2PA 2.x section 11.1.4: the last one)."""
    body = _box(store, 0)[1]
    header = _whole_boxes(body)[0]
    content = header + manifests_of(store)[-1].raw
    return (len(content) + 8).to_bytes(4, "big") + b"jumb" + content


def manifest_uuid(label: str) -> str:
    """The UUID of a manifest's label, `urn:c2pa:UUID[:…]` or `urn:uuid:UUID`; InputError otherwise."""
    match = re.fullmatch(
        r"(?:[\w.-]+:)?urn:(?:c2pa|uuid):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?::[\w.:-]*)?",
        label.lower(),
    )
    if match is None:
        raise InputError(
            "manifest.id",
            "A manifest's id is urn:c2pa: and a UUID.",
            "Take it from an answer of byBinding, or from a `check`.",
        )
    return match[1]


def _children(body: bytes, skip: int) -> Iterator[tuple[bytes, bytes]]:
    """(whole box, its content) of the superboxes in a superbox, after `skip` boxes."""
    for raw in _whole_boxes(body)[skip:]:
        kind, content, _ = _box(raw, 0)
        if kind == b"jumb":
            yield raw, content


def _whole_boxes(body: bytes) -> list[bytes]:
    at, found = 0, []
    while at < len(body):
        end = _box(body, at)[2]
        found.append(body[at:end])
        at = end
    return found


def _box(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    """(type, content, end) of the box at an offset (ISO/IEC 19566-5 A.2: LBox, TBox, XLBox)."""
    size, header = int.from_bytes(data[at : at + 4], "big"), 8
    if size == 1:
        size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
    if size < header or at + size > len(data) or size > MAX_STORE_BYTES:
        raise _not_a_store()
    return data[at + 4 : at + 8], data[at + header : at + size], at + size


def _description(body: bytes) -> tuple[bytes, str] | None:
    """(type UUID, label) of the description box that a superbox begins with."""
    kind, content, _ = _box(body, 0)
    if kind != b"jumd" or len(content) < 17:
        return None
    label = content[17:].split(b"\0", 1)[0] if content[16] & _LABEL_TOGGLE else b""
    return content[:16], label.decode("utf-8", "replace")


def _label(body: bytes) -> str:
    found = _description(body)
    return found[1] if found else ""


def _not_a_store() -> InputError:
    return InputError(
        "manifest.store",
        "The bytes are no C2PA manifest store, or end inside a box.",
        "Give the store as it was signed.",
    )
