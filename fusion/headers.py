"""Walks the bytes of JPEG, PNG and WebP files: size, orientation, profile, pixels; decodes none.

Every limit of a picture is checked here, on the header, before a decoder sees a byte. What a decoder is given
later (`Header.pixel_stream`) is rebuilt from the parts that carry pixels only: text, EXIF, XMP, profiles,
manifests, thumbnails, second pictures and whatever follows the end never reach it.
"""

from __future__ import annotations

import re
import struct
import zlib

from fusion.formats import (
    LIMITS,
    PNG_SIGNATURE,
    Format,
    Header,
    Limits,
    animated,
    check_parts,
    check_size,
    damaged,
    exif_orientation,
    sniff,
    trailing_note,
    truncated,
    unsupported,
)
from provenance.errors import MediaError


def read_header(data: bytes, limits: Limits = LIMITS) -> Header:
    """Walk a file and check every limit. MediaError with a code of its own for each way to fail."""
    if len(data) > limits.max_bytes:
        raise MediaError(
            "media.too_many_bytes",
            f"The file has {len(data) / 1e6:.0f} MB; {limits.max_bytes / 1e6:.0f} MB are accepted.",
            "Save it smaller and retry.",
        )
    walk = {Format.JPEG: _walk_jpeg, Format.PNG: _walk_png, Format.WEBP: _walk_webp}[sniff(data)]
    return walk(data, limits)


# --- JPEG (ITU-T T.81, annex B)

_MARKER = re.compile(rb"\xff[^\xff]", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


class _Jpeg:
    """What has been gathered of a JPEG so far."""

    def __init__(self) -> None:
        self.kept = [b"\xff\xd8"]
        self.width = self.height = self.num_blocks = self.num_mcus = 0
        self.progressive = False
        self.restart_interval = 0
        self.num_scans = 0
        self.num_scan_bytes = 0
        self.orientation = 1
        self.profile_parts: dict[int, bytes] = {}
        self.jfif = self.adobe = False

    def keep(self, marker: int, body: bytes) -> None:
        self.kept.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)


def _walk_jpeg(data: bytes, limits: Limits) -> Header:
    jpeg, pos, num_parts = _Jpeg(), 2, 0
    while True:
        found = _MARKER.search(data, pos)
        if found is None:
            raise truncated("the end marker is missing")
        marker, pos = data[found.end() - 1], found.end()
        num_parts += 1
        check_parts(num_parts, limits)
        if marker == 0xD9:
            break
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:
            continue
        if marker == 0xD8 or 0x02 <= marker <= 0xBF:
            raise damaged(f"marker 0x{marker:02X} stands where none may")
        if pos + 2 > len(data):
            raise truncated("inside a segment")
        end = pos + int.from_bytes(data[pos : pos + 2], "big")
        if end > len(data):
            raise truncated("inside a segment")
        if end < pos + 2:
            raise damaged("a segment is shorter than its own length")
        body = data[pos + 2 : end]
        pos = end
        if marker == 0xDA:
            pos = _take_scan(jpeg, data, body, end, limits)
        else:
            _take_segment(jpeg, marker, body, limits)
    return _jpeg_header(jpeg, len(data) - pos)


def _take_segment(jpeg: _Jpeg, marker: int, body: bytes, limits: Limits) -> None:
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
        _take_frame(jpeg, marker, body, limits)
    elif marker in (0xC4, 0xDB, 0xDD):
        if marker == 0xDD and len(body) == 2:
            jpeg.restart_interval = int.from_bytes(body, "big")
        jpeg.keep(marker, body)
    elif marker in (0xC8, 0xCC, 0xDC, 0xDE, 0xDF):
        raise unsupported("a rare kind of JPEG (arithmetic or hierarchical coding)")
    elif marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 12 and not jpeg.jfif:
        jpeg.jfif = True
        jpeg.keep(marker, body[:12] + b"\0\0")  # without its thumbnail
    elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12 and not jpeg.adobe:
        jpeg.adobe = True
        jpeg.keep(marker, body[:12])
    elif marker == 0xE1 and body[:6] == b"Exif\0\0":
        jpeg.orientation = exif_orientation(body)
    elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
        jpeg.profile_parts[body[12]] = body[14:]


def _take_frame(jpeg: _Jpeg, marker: int, body: bytes, limits: Limits) -> None:
    if jpeg.width:
        raise damaged("it states its size twice")
    if marker not in (0xC0, 0xC1, 0xC2):
        raise unsupported("a rare kind of JPEG (lossless, arithmetic or hierarchical coding)")
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise damaged("its frame header is too short")
    bits, height, width, num_components = struct.unpack_from(">BHHB", body)
    if bits != 8:
        raise unsupported(f"a JPEG of {bits} bits per channel")
    if num_components not in (1, 3, 4):
        raise unsupported(f"a JPEG of {num_components} channels")
    check_size(width, height, limits)
    factors = [(body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(num_components)]
    if not all(1 <= h <= 4 and 1 <= v <= 4 for h, v in factors):
        raise damaged("its sampling factors are impossible")
    most_h, most_v = max(h for h, _ in factors), max(v for _, v in factors)
    jpeg.width, jpeg.height, jpeg.progressive = width, height, marker == 0xC2
    jpeg.num_blocks = sum(-(-width * h // (8 * most_h)) * -(-height * v // (8 * most_v)) for h, v in factors)
    if num_components == 1:
        most_h = most_v = 1
    jpeg.num_mcus = -(-width // (8 * most_h)) * -(-height // (8 * most_v))
    jpeg.keep(marker, body[: 6 + 3 * num_components])


def _take_scan(jpeg: _Jpeg, data: bytes, body: bytes, start: int, limits: Limits) -> int:
    if not jpeg.width:
        raise damaged("pixels come before the size")
    found = _SCAN_END.search(data, start)
    if found is None:
        raise truncated("inside the pixels")
    end = found.start()
    jpeg.num_scans += 1
    jpeg.num_scan_bytes += end - start
    if jpeg.num_scans * jpeg.width * jpeg.height > limits.max_scan_pixels or jpeg.num_scans > 200:
        raise damaged(f"it codes its pixels in more than {jpeg.num_scans - 1} scans")
    if jpeg.restart_interval and not jpeg.progressive and body[:1] != b"\x01":
        wanted = -(-jpeg.num_mcus // jpeg.restart_interval) - 1
        if len(_RESTART.findall(data, start, end)) < wanted:
            raise truncated("pixels are missing")
    jpeg.keep(0xDA, body)
    jpeg.kept.append(data[start:end])
    return end


def _jpeg_header(jpeg: _Jpeg, num_trailing: int) -> Header:
    if not jpeg.num_scans:
        raise truncated("it holds no pixels")
    # a block of a sequential scan takes two bits at the least: one for DC, one for the end of block
    if not jpeg.progressive and jpeg.num_scan_bytes * 4 < jpeg.num_blocks:
        raise truncated(f"too little data for {jpeg.width} x {jpeg.height} pixels")
    parts = jpeg.profile_parts
    jpeg.kept.append(b"\xff\xd9")
    return Header(
        Format.JPEG,
        jpeg.width,
        jpeg.height,
        8,
        jpeg.orientation,
        b"".join(parts[i] for i in sorted(parts)) or None,
        b"".join(jpeg.kept),
        trailing_note(num_trailing),
        jpeg.num_scans > 1,
    )


# --- PNG (W3C PNG, third edition)

_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))


def _walk_png(data: bytes, limits: Limits) -> Header:
    kept, found = [PNG_SIGNATURE], dict[bytes, bytes]()
    pos, num_parts, kind = 8, 0, b""
    while kind != b"IEND":
        if pos + 12 > len(data):
            raise truncated("the end chunk is missing")
        length, kind = int.from_bytes(data[pos : pos + 4], "big"), data[pos + 4 : pos + 8]
        end = pos + 12 + length
        num_parts += 1
        check_parts(num_parts, limits)
        if num_parts == 1:
            _check_png_start(kind, data[pos + 8 : pos + 8 + length], limits)
        if end > len(data):
            raise truncated(f"inside a {kind.decode('latin-1')!r} chunk")
        if kind in _PNG_KEPT:
            if zlib.crc32(memoryview(data)[pos + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise damaged(f"the checksum of a {kind.decode()} chunk is wrong")
            kept.append(data[pos:end])
        elif not kind[0] & 0x20:
            raise damaged(f"{kind.decode('latin-1')!r} is no chunk a PNG may hold")
        if kind != b"IDAT":
            if kind in (b"IHDR", b"PLTE", b"tRNS") and kind in found:
                raise damaged(f"it holds {kind.decode()} twice")
            found[kind] = data[pos + 8 : end - 4] if kind in (b"IHDR", b"acTL", b"iCCP", b"eXIf") else b""
        else:
            found[kind] = b""
        pos = end
    return _png_header(found, b"".join(kept), len(data) - pos, limits)


def _check_png_start(kind: bytes, body: bytes, limits: Limits) -> None:
    if kind != b"IHDR" or len(body) != 13:
        raise damaged("it does not begin with a header chunk")
    width, height, bits, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", body)
    check_size(width, height, limits)
    if bits not in _PNG_BITS.get(colour, ()) or packing or filtering or interlace > 1:
        raise damaged("its header names a coding that does not exist")


def _png_header(found: dict[bytes, bytes], stream: bytes, num_trailing: int, limits: Limits) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", found[b"IHDR"])
    if b"IDAT" not in found or (colour == 3 and b"PLTE" not in found):
        raise truncated("it holds no pixels or no palette")
    if int.from_bytes(found.get(b"acTL", b"")[:4], "big") > 1:
        raise animated("PNG")
    profile, notes = _png_profile(found.get(b"iCCP"), limits.max_profile_bytes)
    orientation = exif_orientation(found.get(b"eXIf", b""))
    notes += trailing_note(num_trailing)
    interlaced = found[b"IHDR"][12] == 1
    return Header(Format.PNG, width, height, bits, orientation, profile, stream, notes, interlaced)


def _png_profile(chunk: bytes | None, max_bytes: int) -> tuple[bytes | None, tuple[str, ...]]:
    if chunk is None:
        return None, ()
    packed = chunk[chunk.find(b"\0") + 2 :]
    try:
        profile = zlib.decompressobj().decompress(packed, max_bytes + 1)
    except zlib.error:
        return None, ("the colour profile is damaged and was not used",)
    if len(profile) > max_bytes:
        return None, ("the colour profile is too large and was not used",)
    return profile, ()


# --- WebP (RFC 9649)


def _walk_webp(data: bytes, limits: Limits) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise truncated("inside the pixels")
    chunks, pos = dict[bytes, bytes](), 12
    while pos + 8 <= end:
        kind, length = data[pos : pos + 4], int.from_bytes(data[pos + 4 : pos + 8], "little")
        check_parts(len(chunks), limits)
        if pos + 8 + length > end:
            raise truncated(f"inside a {kind.decode('latin-1')!r} chunk")
        if kind in (b"ANIM", b"ANMF"):
            raise animated("WebP")
        if kind in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"EXIF"):
            if kind == b"VP8X":
                check_size(*_webp_canvas(data[pos + 8 : pos + 8 + length]), limits)
            chunks.setdefault(kind, data[pos + 8 : pos + 8 + length])
        pos += 8 + length + length % 2
    return _webp_header(chunks, len(data) - end, limits)


def _webp_canvas(body: bytes) -> tuple[int, int]:
    if len(body) < 10:
        raise damaged("its header chunk is too short")
    if body[0] & 0x02:
        raise animated("WebP")
    return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1


def _webp_frame(chunks: dict[bytes, bytes]) -> tuple[bytes, int, int]:
    if (lossy := chunks.get(b"VP8 ", b""))[3:6] == b"\x9d\x01\x2a" and len(lossy) >= 10:
        width, height = struct.unpack_from("<HH", lossy, 6)
        return b"VP8 ", width & 0x3FFF, height & 0x3FFF
    if (lossless := chunks.get(b"VP8L", b""))[:1] == b"\x2f" and len(lossless) >= 5:
        size = int.from_bytes(lossless[1:5], "little")
        return b"VP8L", (size & 0x3FFF) + 1, (size >> 14 & 0x3FFF) + 1
    raise truncated("it holds no pixels")


def _webp_header(chunks: dict[bytes, bytes], num_trailing: int, limits: Limits) -> Header:
    kind, width, height = _webp_frame(chunks)
    check_size(width, height, limits)
    if b"VP8X" in chunks and _webp_canvas(chunks[b"VP8X"]) != (width, height):
        raise damaged("its canvas and its picture differ in size")
    body = _riff(kind, chunks[kind])
    if b"ALPH" in chunks and kind == b"VP8 ":
        canvas = (
            bytes((0x10, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        )
        body = _riff(b"VP8X", canvas) + _riff(b"ALPH", chunks[b"ALPH"]) + body
    profile = chunks.get(b"ICCP")
    notes = trailing_note(num_trailing)
    if profile is not None and len(profile) > limits.max_profile_bytes:
        profile, notes = None, (*notes, "the colour profile is too large and was not used")
    stream = _riff(b"RIFF", b"WEBP" + body)
    orientation = exif_orientation(chunks.get(b"EXIF", b""))
    return Header(Format.WEBP, width, height, 8, orientation, profile, stream, notes)


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def jpeg_luma_table(pixel_stream: bytes) -> tuple[int, ...] | None:
    """The 64 steps of quantisation table 0 of `Header.pixel_stream` (T.81, B.2.4.1), None where it is no JPEG's."""
    pos = 2
    while pixel_stream[:2] == b"\xff\xd8" and pixel_stream[pos : pos + 2] not in (b"\xff\xda", b""):
        size = int.from_bytes(pixel_stream[pos + 2 : pos + 4], "big")
        if pixel_stream[pos + 1] == 0xDB:
            body, at = pixel_stream[pos + 4 : pos + 2 + size], 0
            while at < len(body):
                wide = body[at] >> 4 == 1
                steps = body[at + 1 : at + 1 + (128 if wide else 64)]
                if body[at] & 15 == 0 and len(steps) == (128 if wide else 64):
                    return struct.unpack(">64H", steps) if wide else tuple(steps)
                at += 1 + (128 if wide else 64)
        pos += 2 + size
    return None
