"""Names bytes and pictures by exact, content and perceptual hashes; knows no ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from provenance.container import Part, split_parts
from provenance.mp4 import read_box_header

PERCEPTUAL_BITS = 64
PERCEPTUAL_SAME = 8  # at most so many differing bits: the same picture, not cropped (or one framed alike)
PERCEPTUAL_OTHER = 24  # so many or more: another picture; in between, a crop or a cousin: undecided
# Parts that decode into pixels; the rest (C2PA store, XMP, EXIF, comments, trailing bytes) may be stripped by
# others without touching one.
_PICTURE_PARTS = {
    "png": {"IHDR", "PLTE", "tRNS", "IDAT"},
    "webp": {"VP8 ", "VP8L", "ALPH", "ANIM", "ANMF"},
}


def sha256_hex(data: bytes) -> str:
    """SHA-256 of the bytes, 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def content_sha256(data: bytes) -> str:
    """SHA-256 of the coded picture: the parts of a JPEG, PNG or WebP file that decode into pixels, in order.

    The same before signing, after signing, and after a tool has stripped or edited metadata without encoding
    anew. The hash of the whole file is no identity: anyone can change the padding of a C2PA store while its
    signature holds. Equal content hashes mean equal pixels; EXIF orientation and colour profile stay outside.
    Names and lengths are hashed too, so that no two lists of parts give one stream. MediaError if the bytes
    are no picture of the three formats or end inside a part.
    """
    digest = hashlib.sha256(b"facsimile content v1\0")
    for name, body in _picture_bytes(split_parts(data)):
        digest.update(name.encode("latin-1") + len(body).to_bytes(8, "big"))
        digest.update(body)
    return digest.hexdigest()


def video_content_sha256(file: BinaryIO) -> str:
    """SHA-256 of the coded samples of an open MP4 or QuickTime file and of the tables that say how to show them.

    The same before and after signing or a change of metadata, which move the samples and rewrite their offsets:
    offsets count from the `mdat` that holds them (ISO/IEC 14496-12). Fragments (`moof`) are hashed as they are.
    """
    digest, mdats, moov = hashlib.sha256(b"facsimile video v1\0"), list[tuple[int, int]](), b""
    for kind, start, length in _top_boxes(file):
        file.seek(start)
        if kind == b"moov":
            moov = file.read(length)
        elif kind == b"mdat":
            mdats.append((start, length))
        if kind in (b"mdat", b"moof"):
            digest.update(kind + length.to_bytes(8, "big"))
            for at in range(0, length, 1 << 20):
                digest.update(file.read(min(length - at, 1 << 20)))
    for kind, body in _sample_tables(moov):
        table = _relative(kind, body, mdats) if kind in (b"stco", b"co64") else kind + body
        digest.update(len(table).to_bytes(8, "big") + table)
    return digest.hexdigest()


def perceptual_hash(rgb: npt.NDArray[np.uint8]) -> str:
    """64-bit DCT hash of the luma of a uint8 [H, W, 3] RGB picture, 16 hex digits (Zauner 2010, 3.2.1).

    Luma is reduced to 32 x 32 by area; DCT coefficients (1..8, 1..8) are compared with their median. Measured:
    JPEG q30, resize 0.25, blur, light and contrast +20 % move at most 8 bits (95 % at most 4); a crop by 2 % 4-12,
    by 10 % 12-22. Two unlike photographs are 18 or more apart (median 32), two portraits framed alike 2 or more
    (median 26): few bits apart says "the same or framed alike", 24 or more "not this picture".
    """
    return hash_of_luma(reduced_luma(rgb))


def reduced_luma(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [256, 256]: the luma of a uint8 [H, W, 3] RGB picture, reduced by area; all that perceptual hashes see."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"rgb must be uint8 [H, W, 3], not {rgb.dtype} {rgb.shape}")
    size = (256, 256)
    return np.asarray(
        cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA), np.uint8
    )


def hash_of_luma(luma: npt.NDArray[np.uint8], side: int = 8) -> str:
    """The DCT hash of `reduced_luma`: side² bits from four times as many pixels a side; `perceptual_hash` has 8."""
    small = cv2.resize(luma.astype(np.float32), (4 * side, 4 * side), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(small))[1 : side + 1, 1 : side + 1].ravel()
    return np.packbits(low > np.median(low)).tobytes().hex()


def hamming_distance(a: str, b: str) -> int:
    """Number of differing bits of two hex hashes of one length, 0 to 64 for perceptual hashes."""
    if len(a) != len(b):
        raise ValueError(f"hashes of {len(a)} and {len(b)} digits cannot be compared")
    return (int(a, 16) ^ int(b, 16)).bit_count()


def _picture_bytes(parts: list[Part]) -> list[tuple[str, bytes]]:
    """Name and content of each part that decodes into pixels; a PNG has one stream, however it is cut."""
    kind = {"SOI": "jpeg", "signature": "png", "RIFF": "webp"}[parts[0].name]
    if kind == "jpeg":  # all but APPn and COM; Adobe's APP14 says how to read the colours
        kept = [part for part in parts if not _is_jpeg_metadata(part.name)]
        return [(part.name, part.data) for part in kept]
    kept = [part for part in parts if part.name in _PICTURE_PARTS[kind]]
    named = [(part.name, part.data) for part in kept if part.name != "IDAT"]
    stream = b"".join(part.data for part in kept if part.name == "IDAT")
    return [*named, ("IDAT", stream)] if kind == "png" else named


def _is_jpeg_metadata(name: str) -> bool:
    return name in ("FFFE", "trailer") or (name.startswith("FFE") and name != "FFEE")


_FOLDERS = frozenset((b"trak", b"mdia", b"minf", b"stbl", b"edts"))
_TABLES = frozenset(
    (b"elst", b"stsd", b"stts", b"ctts", b"stss", b"stsz", b"stz2", b"stsc", b"stco", b"co64", b"hdlr")
)


def _top_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of the content of each top-level box; a last one that is cut ends with the file."""
    num_bytes, at = file.seek(0, 2), 0
    while at + 8 <= num_bytes:
        kind, start, end = read_box_header(file, at, num_bytes)
        if end < start:
            return
        yield kind, start, min(end, num_bytes) - start
        at = end


def _sample_tables(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The tables of all tracks, in order."""
    pos = 0
    while pos + 8 <= len(body):
        size, kind = int.from_bytes(body[pos : pos + 4], "big"), body[pos + 4 : pos + 8]
        if size < 8:
            return
        if kind in _FOLDERS:
            yield from _sample_tables(body[pos + 8 : pos + size])
        elif kind in _TABLES:
            yield kind, body[pos + 8 : pos + size]
        pos += size


def _relative(kind: bytes, body: bytes, mdats: list[tuple[int, int]]) -> bytes:
    """A table of chunk offsets, each as the number of its `mdat` and the distance from where that begins."""
    wide = 8 if kind == b"co64" else 4
    told = b"offsets"
    for at in range(8, len(body) - wide + 1, wide):
        offset = int.from_bytes(body[at : at + wide], "big")
        inside = [
            (n, offset - start) for n, (start, length) in enumerate(mdats) if 0 <= offset - start < length
        ]
        number, distance = inside[0] if inside else (-1, offset)
        told += (number + 1).to_bytes(4, "big") + distance.to_bytes(8, "big")
    return told
