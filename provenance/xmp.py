"""Puts an XMP packet into a JPEG, PNG or WebP file and reads its declarations; knows no signature.

One packet per file: embedding replaces what is there. Every other part of the file stays as it is.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from provenance.container import (
    Part,
    join_parts,
    jpeg_segment,
    png_chunk,
    sniff_kind,
    split_parts,
    webp_chunk,
)
from provenance.errors import MediaError

# XMP specification part 3, section 1.1.3
JPEG_HEADER, JPEG_EXTENSION_HEADER = (
    b"http://ns.adobe.com/xap/1.0/\0",
    b"http://ns.adobe.com/xmp/extension/\0",
)
PNG_KEYWORD = b"XML:com.adobe.xmp\0"
IPTC_NAMESPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
TC260_NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
RDF_NAMESPACE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
MAX_PACKET_BYTES = 1 << 20
_VP8X_XMP, _VP8X_ALPHA = 0x04, 0x10


@dataclass(frozen=True)
class XmpDeclaration:
    """What the XMP of a file says of its origin; anyone may have written it."""

    digital_source_type: str | None
    aigc: dict[str, str] | None
    num_packets: int


def embed_xmp(data: bytes, mime: str, packet: bytes) -> bytes:
    """The file with `packet` as its only XMP packet; MediaError if it is not of `mime`, or cut short."""
    if mime != f"image/{sniff_kind(data)}":
        raise MediaError("media.format", f"The file is not {mime}.", "Give the format that the bytes are in.")
    parts = [part for part in split_parts(data) if _packet_of(part) is None]
    kind = parts[0].name
    if kind == "SOI":
        after = next(i for i, part in enumerate(parts[1:], 1) if part.name not in ("FFE0", "FFE1"))
        parts.insert(after, jpeg_segment(0xE1, JPEG_HEADER + packet))
    elif kind == "signature":
        parts.insert(2, png_chunk("iTXt", PNG_KEYWORD + b"\0\0\0\0" + packet))  # uncompressed, no language
    else:
        parts = [*_extended_webp(parts), webp_chunk("XMP ", packet)]
    return join_parts(parts)


def read_xmp(data: bytes) -> tuple[bytes, ...]:
    """Every XMP packet of the file in order; MediaError if the file is foreign or cut short."""
    packets = (_packet_of(part) for part in split_parts(data))
    return tuple(packet for packet in packets if packet)


def read_declaration(data: bytes) -> XmpDeclaration:
    """`declaration_of` the packets of a JPEG, PNG or WebP file; MediaError if it is foreign or cut short."""
    return declaration_of(read_xmp(data))


def declaration_of(packets: Sequence[bytes]) -> XmpDeclaration:
    """IPTC DigitalSourceType and TC260 AIGC of the first packet; unsound XML declares nothing."""
    found = _properties(packets[0]) if packets else {}
    return XmpDeclaration(
        digital_source_type=found.get(f"{{{IPTC_NAMESPACE}}}DigitalSourceType"),
        aigc=parse_aigc(found.get(f"{{{TC260_NAMESPACE}}}AIGC", "")),
        num_packets=len(packets),
    )


def _packet_of(part: Part) -> bytes | None:
    """The XMP packet a part carries; empty for the rest of an extended one, None for other parts."""
    if part.name == "FFE1" and part.data.startswith(JPEG_HEADER):
        return part.data[len(JPEG_HEADER) :]
    if part.name == "FFE1" and part.data.startswith(JPEG_EXTENSION_HEADER):
        return b""
    if part.name == "iTXt" and part.data.startswith(PNG_KEYWORD):
        return _international_text(part.data[len(PNG_KEYWORD) :])
    return part.data if part.name == "XMP " else None


def _international_text(body: bytes) -> bytes:
    """Text of an iTXt chunk behind its keyword (PNG 3rd edition, 11.3.3.4), at most MAX_PACKET_BYTES."""
    compressed, fields = body[:1] == b"\1", body[2:].split(b"\0", 2)
    if len(fields) < 3:
        return b""
    if not compressed:
        return fields[2]
    try:
        return zlib.decompressobj().decompress(fields[2], MAX_PACKET_BYTES)
    except zlib.error:
        return b""


def _properties(packet: bytes) -> dict[str, str]:
    """Simple properties of every rdf:Description, as attributes or as elements, by their {namespace}name."""
    if len(packet) > MAX_PACKET_BYTES or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return {}
    try:
        root = ElementTree.fromstring(packet)
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    found: dict[str, str] = {}
    for description in root.iter(f"{{{RDF_NAMESPACE}}}Description"):
        found |= {str(name): str(value) for name, value in description.attrib.items()}
        found |= {child.tag: child.text for child in description if child.text and not len(child)}
    return found


def parse_aigc(text: str) -> dict[str, str] | None:
    """The fields of a label of GB 45438 (JSON); None for what is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else None


def _extended_webp(parts: list[Part]) -> list[Part]:
    """The parts with a VP8X header that announces XMP (RFC 9649 section 2.7)."""
    first = parts[1] if len(parts) > 1 else Part("", b"", b"")
    if first.name == "VP8X" and len(first.data) >= 10:
        header = bytes([first.data[0] | _VP8X_XMP]) + first.data[1:]
        return [parts[0], webp_chunk("VP8X", header), *parts[2:]]
    width, height, alpha = _webp_size(first)
    flags = _VP8X_XMP | (_VP8X_ALPHA if alpha else 0)
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return [parts[0], webp_chunk("VP8X", bytes([flags, 0, 0, 0]) + canvas), *parts[1:]]


def _webp_size(part: Part) -> tuple[int, int, bool]:
    """Width, height and use of alpha of a VP8 key frame (RFC 6386 9.1) or a VP8L stream (RFC 9649 3.4)."""
    if part.name == "VP8 " and part.data[3:6] == b"\x9d\x01\x2a" and len(part.data) >= 10:
        width, height = struct.unpack("<HH", part.data[6:10])
        return width & 0x3FFF, height & 0x3FFF, False
    if part.name == "VP8L" and part.data[:1] == b"\x2f" and len(part.data) >= 5:
        bits = int.from_bytes(part.data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    raise MediaError("media.webp", "The WebP file has no picture where one belongs.", "Re-save the picture.")
