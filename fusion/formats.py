"""The three accepted formats, told by their first bytes, and what one picture may cost; decodes nothing."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from provenance.errors import MediaError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAVE_AGAIN = "Save it again as a JPEG, PNG or WebP picture and retry."
ORIGINAL = "Fetch the original file again; this copy is cut short or damaged."


class Format(StrEnum):
    """The three accepted formats; the value is also what files name themselves by."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"

    @property
    def mime(self) -> str:
        """The media type, such as "image/jpeg"."""
        return f"image/{self.value}"

    @property
    def suffix(self) -> str:
        """The usual ending of a file's name, with its dot."""
        return ".jpg" if self is Format.JPEG else f".{self.value}"


@dataclass(frozen=True)
class Limits:
    """What one picture may cost. All of `max_*` is checked before decoding; the child is held to the rest."""

    max_bytes: int = 64 << 20
    max_pixels: int = 1 << 26  # 67 million
    max_side_px: int = 30_000
    max_parts: int = 50_000  # segments of a JPEG, chunks of a PNG or WebP
    max_scan_pixels: int = 1_024_000_000  # scans times pixels of a JPEG: what a progressive one costs in time
    max_profile_bytes: int = 4 << 20
    apart_above_pixels: int = 1 << 24  # larger pictures are decoded in a child process; -1: all of them
    child_bytes: int = 2 << 30  # of address space
    child_cpu_s: int = 20


LIMITS = Limits()


@dataclass(frozen=True)
class Header:
    """What the header of a picture says, and the bytes a decoder may see."""

    format: Format
    width: int
    height: int
    bits: int  # per channel
    orientation: int  # EXIF 1-8
    profile: bytes | None  # ICC
    pixel_stream: bytes
    notes: tuple[str, ...]
    interlaced: bool = False  # PNG in seven passes, JPEG in several scans

    @property
    def num_pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


@dataclass(frozen=True)
class Picture:
    """One upright picture: rgb uint8 [H, W, 3] sRGB, writable; `notes` say what had to be done to get it."""

    rgb: NDArray[np.uint8]
    format: Format
    notes: tuple[str, ...] = ()


# (offset, magic, name) of what people hand in by mistake, or attackers on purpose
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"II+\0", "a TIFF"),
    (0, b"BM", "a BMP"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript (EPS) document"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript (EPS) document"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftyp", "an MP4 or QuickTime film"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM film"),
    (257, b"ustar", "a tar archive"),
)


def sniff(data: bytes) -> Format:
    """The format by the first bytes, never by the name. MediaError for all but JPEG, PNG and WebP."""
    if not data:
        raise MediaError("media.empty", "The file is empty: it holds no bytes at all.", "Hand in a picture.")
    if data[:3] == b"\xff\xd8\xff":
        return Format.JPEG
    if data[:8] == PNG_SIGNATURE:
        return Format.PNG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Format.WEBP
    if data[:4] == b"GIF8" and _gif_is_animated(data):
        raise animated("GIF")
    raise MediaError(
        "media.format", f"This is {_what_it_is(data)}, not a JPEG, PNG or WebP picture.", SAVE_AGAIN
    )


def exif_orientation(exif: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block (EXIF 2.32, 4.6.2); 1 when absent or malformed."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    start = int(struct.unpack_from(order + "I", exif, 4)[0])
    if start + 2 > len(exif):
        return 1
    num_tags = int(struct.unpack_from(order + "H", exif, start)[0])
    for at in range(start + 2, min(start + 2 + 12 * num_tags, len(exif) - 11), 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, at)
        if tag == 0x0112:
            return int(value) if kind == 3 and count == 1 and 1 <= value <= 8 else 1
    return 1


def _what_it_is(data: bytes) -> str:
    for offset, magic, name in _OTHERS:
        if data[offset : offset + len(magic)] == magic:
            return name
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "a text file"
    return "a file of an unknown kind"


def _gif_is_animated(data: bytes) -> bool:
    """True at the second image descriptor; never walks past it, so that an endless file costs nothing."""
    pos, frames = 13 + _gif_table(data, 10), 0
    for _ in range(1000):
        block = data[pos : pos + 1]
        if block == b",":
            frames += 1
            pos += 10 + _gif_table(data, pos + 9) + 1
        elif block == b"!":
            pos += 2
        else:
            return False
        if frames == 2 or data[pos : pos + 11] == b"NETSCAPE2.0":
            return True
        while pos < len(data) and (length := data[pos]):
            if data[pos + 1 : pos + 12] == b"NETSCAPE2.0":
                return True
            pos += 1 + length
        pos += 1
    return False


def _gif_table(data: bytes, at: int) -> int:
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def animated(name: str) -> MediaError:
    """The error of a film where a still picture is wanted."""
    return MediaError(
        "media.animated",
        f"This {name} is an animation; one still picture is needed.",
        "Save one frame of it.",
    )


def truncated(what: str) -> MediaError:
    """The error of a file that ends too early."""
    return MediaError("media.truncated", f"The file ends too early: {what}.", ORIGINAL)


def damaged(what: str) -> MediaError:
    """The error of a file that contradicts itself."""
    return MediaError("media.damaged", f"The file contradicts itself: {what}.", ORIGINAL)


def unsupported(what: str) -> MediaError:
    """The error of a coding that a decoder would take and we do not."""
    return MediaError("media.unsupported", f"The picture uses {what}, which is not accepted.", SAVE_AGAIN)


def undecodable(what: str) -> MediaError:
    """The error of a decoder that gives up on the pixels."""
    return damaged(f"its pixels cannot be decoded ({what})")


def too_costly() -> MediaError:
    """The error of a decoder that runs into its limits."""
    return MediaError(
        "media.too_costly", "Decoding the picture takes more memory or time than is allowed.", SAVE_AGAIN
    )


def check_size(width: int, height: int, limits: Limits) -> None:
    """MediaError for no pixels and for too many."""
    if width < 1 or height < 1:
        raise damaged(f"it states a size of {width} x {height} pixels")
    if width * height > limits.max_pixels or max(width, height) > limits.max_side_px:
        raise MediaError(
            "media.too_many_pixels",
            f"The picture has {width} x {height} pixels; {limits.max_pixels / 1e6:.0f} million in all"
            f" and {limits.max_side_px} a side are accepted.",
            "Scale it down and retry.",
        )


def check_parts(num_parts: int, limits: Limits) -> None:
    """MediaError for a file that is cut into too many pieces to walk."""
    if num_parts > limits.max_parts:
        raise damaged(f"it is cut into more than {limits.max_parts} parts")


def trailing_note(num_bytes: int) -> tuple[str, ...]:
    """A note on what follows the end of a picture; none when nothing does."""
    return (f"{num_bytes} bytes after the end of the picture were not read",) if num_bytes > 0 else ()
