"""Puts an XMP packet into an MP4 file and finds XMP, keys and the C2PA store in one; reads no sample and no table.

Works on open files: a video is never held whole. Every box is left where it is, so no offset of a sample changes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from provenance.errors import MediaError

XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # XMP specification part 3, 1.3.1
C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # C2PA 2.x appendix A.5.1
MAX_BOXES = 200_000
MAX_STORE_BYTES = 64 << 20
MAX_META_BYTES = 1 << 20
_HEADER = 8 + 16  # length, type, extended type
_UTF8 = bytes((0, 0, 0, 1))  # type of a value (QuickTime File Format, well-known types)


def append_xmp(file: BinaryIO, packet: bytes) -> None:
    """Write `packet` as a box of its own behind the last one of a file open for reading and writing.

    MediaError when the file is cut short, or carries a packet already: there is one per file.
    """
    if read_packets(file):
        raise MediaError("media.xmp", "The video carries an XMP packet already.", "Write it without one.")
    file.seek(0, 2)
    file.write(struct.pack(">I4s", _HEADER + len(packet), b"uuid") + XMP_UUID + packet)
    file.flush()


def read_packets(file: BinaryIO) -> tuple[bytes, ...]:
    """Every XMP packet of an open file, in order; MediaError if it is cut short."""
    return tuple(body for uuid, body in _extended(file) if uuid == XMP_UUID)


def c2pa_store(file: BinaryIO) -> bytes:
    """The C2PA manifest store of an open file; empty if there is none.

    Version and flags, the purpose ended by a zero, the offset of a Merkle box, the store (C2PA 2.x appendix A.5.1).
    """
    for uuid, body in _extended(file):
        purpose, _, rest = body[4:].partition(b"\0")
        if uuid == C2PA_UUID and purpose == b"manifest":
            return rest[8:]
    return b""


def read_keys(file: BinaryIO) -> dict[str, str]:
    """Texts of an open file by their keys (QuickTime metadata: `keys` and `ilst`); the first, where a key has several.

    MediaError if the file is cut short; a box inside that is unsound, or of another form, tells nothing.
    """
    found: dict[str, str] = {}
    for kind, start, end in _boxes(file):
        if kind == b"moov" and end - start <= MAX_STORE_BYTES:
            file.seek(start)
            for meta in _metas(file.read(end - start)):
                found = _keyed(meta) | found
    return found


def _metas(moov: bytes) -> Iterator[bytes]:
    """Content of the `meta` boxes of a `moov`, and of its `udta`; one larger than any honest one is passed over."""
    for kind, body in _children(moov):
        for name, meta in _children(body) if kind == b"udta" else [(kind, body)]:
            if name == b"meta" and len(meta) <= MAX_META_BYTES:
                yield meta.removeprefix(bytes(4))  # ISO's has version and flags, QuickTime's has not


def _keyed(meta: bytes) -> dict[str, str]:
    boxes = dict(_children(meta))
    names = [name.decode("utf-8", "replace") for _, name in _children(boxes.get(b"keys", b"")[8:])]
    found: dict[str, str] = {}
    for number, item in _children(boxes.get(b"ilst", b"")):
        at = int.from_bytes(number, "big") - 1
        for kind, data in _children(item):
            if kind == b"data" and data[:4] == _UTF8 and 0 <= at < len(names):
                found.setdefault(names[at], data[8:].decode("utf-8", "replace"))
    return found


def _children(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each box inside a box; ends at one that is longer than what is left."""
    at = 0
    while at + 8 <= len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        if not 8 <= size <= len(body) - at:
            return
        yield body[at + 4 : at + 8], body[at + 8 : at + size]
        at += size


def _extended(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Extended type and content of each `uuid` box; one larger than any honest store is passed over."""
    for kind, start, end in _boxes(file):
        if kind == b"uuid" and 16 <= end - start <= MAX_STORE_BYTES:
            file.seek(start)
            body = file.read(end - start)
            yield body[:16], body[16:]


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each top-level box; MediaError where one ends behind the file."""
    num_bytes, at = file.seek(0, 2), 0
    for _ in range(MAX_BOXES):
        if at + 8 > num_bytes:
            return
        kind, start, end = read_box_header(file, at, num_bytes)
        if end < start or end > num_bytes:
            raise MediaError("media.truncated", "The video ends inside a box.", "Fetch the file again.")
        yield kind, start, end
        at = end
    raise MediaError("media.parts", f"More than {MAX_BOXES} boxes.", "Save the video again.")


def read_box_header(file: BinaryIO, at: int, num_bytes: int) -> tuple[bytes, int, int]:
    """Type of the box at `at` of a file of `num_bytes`, where its content starts and where it says that it ends.

    ISO/IEC 14496-12, 4.2. Nothing is checked: the end may lie behind the file, or before the content.
    """
    file.seek(at)
    head = file.read(16)
    size, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
    if size == 1:
        size, start = int.from_bytes(head[8:16], "big"), 16
    size = num_bytes - at if size == 0 else size
    return kind, at + start, at + size
