"""Splits a JPEG, PNG or WebP file into its parts and joins them again; does not know what a part means."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from provenance.errors import MediaError

Kind = Literal["jpeg", "png", "webp"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PARTS = 65536
_MARKER_IN_SCAN = re.compile(
    rb"\xff[^\x00\x01\xd0-\xd8\xff]"
)  # no stuffed or fill byte, nothing without length
_MARKERS_WITHOUT_LENGTH = (
    b"\x01\xd0\xd1\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9"  # T.81 table B.1: TEM, RST, SOI, EOI
)


@dataclass(frozen=True)
class Part:
    """One segment or chunk as it stands in the file.

    name  JPEG: "SOI", the marker as "FFE1", "scan" from the first start-of-scan to the end-of-image marker;
          PNG: "signature", the chunk type; WebP: "RIFF", the four characters; all: "trailer", behind the end
    raw   every byte of it, header and check sum included
    data  its content alone
    """

    name: str
    raw: bytes
    data: bytes


def sniff_kind(data: bytes) -> Kind | None:
    """Tell the format by its first bytes; None if it is none of the three."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == PNG_SIGNATURE:
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def split_parts(data: bytes) -> list[Part]:
    """Parts in file order; `b"".join(part.raw ...)` is the file. MediaError if foreign or cut short."""
    kind = sniff_kind(data)
    if kind is None:
        raise MediaError(
            "media.format", "The bytes are no JPEG, PNG or WebP picture.", "Give a .jpg, .png or .webp file."
        )
    parts = {"jpeg": _jpeg_parts, "png": _png_parts, "webp": _webp_parts}[kind](data)
    found: list[Part] = []
    for part in parts:
        found.append(part)
        if len(found) > MAX_PARTS:
            raise MediaError("media.parts", f"More than {MAX_PARTS} parts.", "Re-save the picture.")
    return found


def join_parts(parts: list[Part]) -> bytes:
    """Inverse of `split_parts`; the RIFF size of a WebP file is written anew."""
    if parts[0].name != "RIFF":
        return b"".join(part.raw for part in parts)
    chunks = b"".join(part.raw for part in parts[1:] if part.name != "trailer")
    trailer = b"".join(part.raw for part in parts[1:] if part.name == "trailer")
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks + trailer


def c2pa_store(parts: list[Part]) -> bytes:
    """The C2PA manifest store among the parts (C2PA 2.x appendix A.3); empty if there is none."""
    if parts[0].name != "SOI":
        return b"".join(part.data for part in parts if _holds_c2pa(part))
    boxes = [part.data for part in parts if _holds_c2pa(part)]
    return b"".join(
        box[8 if at == 0 else 16 :] for at, box in enumerate(boxes)
    )  # each repeats length and type


def without_c2pa_store(parts: list[Part]) -> list[Part]:
    """The parts without the manifest store."""
    return [part for part in parts if not _holds_c2pa(part)]


def _holds_c2pa(part: Part) -> bool:
    return part.name in ("caBX", "C2PA") or (part.name == "FFEB" and part.data[:2] == b"JP")


def jpeg_segment(marker: int, data: bytes) -> Part:
    """A marker segment (ITU-T T.81 B.1.1.4); `marker` is its second byte, `data` at most 65 533 bytes."""
    if len(data) > 65533:
        raise MediaError(
            "media.segment", "A JPEG segment holds at most 65 533 bytes.", "Shorten the metadata."
        )
    return Part(f"FF{marker:02X}", bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data, data)


def png_chunk(name: str, data: bytes) -> Part:
    """A PNG chunk with its length and CRC (PNG 3rd edition, 5.3)."""
    body = name.encode("ascii") + data
    return Part(name, struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)), data)


def webp_chunk(name: str, data: bytes) -> Part:
    """A RIFF chunk, padded to an even size (RFC 9649 section 2.3)."""
    return Part(
        name, name.encode("ascii") + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1), data
    )


def _jpeg_parts(data: bytes) -> Iterator[Part]:
    yield Part("SOI", data[:2], b"")
    at = 2
    while data[at + 1 : at + 2] != b"\xda":
        start = at
        while data[at : at + 2] == b"\xff\xff":  # fill bytes, T.81 B.1.1.2
            at += 1
        if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] in _MARKERS_WITHOUT_LENGTH:
            raise _truncated()
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            raise _truncated()
        yield Part(f"FF{data[at + 1]:02X}", data[start:end], data[at + 4 : end])
        at = end
    end = _end_of_scans(data, at)
    yield Part("scan", data[at:end], data[at:end])
    if end < len(data):
        yield Part("trailer", data[end:], data[end:])


def _end_of_scans(data: bytes, at: int) -> int:
    """Offset behind the end-of-image marker, else the end of the file (T.81 B.1.1.2, B.2.1)."""
    while match := _MARKER_IN_SCAN.search(data, at):
        if match[0] == b"\xff\xd9":
            return match.end()
        at = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return len(data)


def _png_parts(data: bytes) -> Iterator[Part]:
    yield Part("signature", data[:8], b"")
    at = 8
    while True:
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8].decode("latin-1")
        if len(data) < at + 12 or end > len(data):
            raise _truncated()
        yield Part(name, data[at:end], data[at + 8 : end - 4])
        at = end
        if name == "IEND":
            break
    if at < len(data):
        yield Part("trailer", data[at:], data[at:])


def _webp_parts(data: bytes) -> Iterator[Part]:
    riff_end = 8 + int.from_bytes(data[4:8], "little")
    if riff_end > len(data):
        raise _truncated()
    yield Part("RIFF", data[:12], b"")
    at = 12
    while at < riff_end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + (size & 1)
        if len(data) < at + 8 or end > riff_end:
            raise _truncated()
        yield Part(data[at : at + 4].decode("latin-1"), data[at:end], data[at + 8 : at + 8 + size])
        at = end
    if at < len(data):
        yield Part("trailer", data[at:], data[at:])


def _truncated() -> MediaError:
    return MediaError("media.truncated", "The picture ends before its parts do.", "Fetch the file again.")
