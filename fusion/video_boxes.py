"""Walks the boxes of an MP4 or QuickTime file (ISO/IEC 14496-12): sizes, times, counts; decodes nothing.

Every limit that a header can break is checked here, before a decoder sees a byte. Knows no pixels and no manifest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from fusion.formats import ORIGINAL, damaged, truncated
from provenance.errors import MediaError

CODECS = {
    "avc1": "H.264", "avc3": "H.264", "hvc1": "H.265", "hev1": "H.265", "av01": "AV1", "vp09": "VP9", "mp4v": "MPEG-4",
}  # fmt: skip
"""Sample descriptions that are accepted, and what people call them."""
SKIPPED = "damaged pieces of the video were skipped"
"""What is noted of a video that could be decoded in part."""
_FOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}


@dataclass(frozen=True)
class VideoLimits:
    """What one video may cost. All of `max_*` is checked before decoding; the child is held to the rest."""

    max_bytes: int = 4 << 30
    max_pixels: int = 1 << 24  # of a frame
    max_side_px: int = 8192
    max_duration_s: float = 3 * 3600.0
    max_frames: int = 1_000_000
    max_boxes: int = 200_000
    max_index_bytes: int = 64 << 20  # of the moov box
    child_bytes: int = 3 << 30  # of address space
    child_cpu_s: int = 300
    frame_wait_s: float = 90.0  # for the next frame


VIDEO_LIMITS = VideoLimits()


@dataclass(frozen=True)
class VideoHeader:
    """What the boxes say, before anything is decoded.

    width, height: px of the coded picture, before it is turned; num_frames: 0 where fragments hold the counts;
    missing_bytes: how much the file is shorter than its boxes say
    """

    width: int
    height: int
    codec: str
    num_frames: int
    duration_s: float
    num_audio_tracks: int
    missing_bytes: int = 0
    fragmented: bool = False


@dataclass
class _Track:
    kind: bytes = b""
    width: int = 0
    height: int = 0
    codec: str = ""
    num_frames: int = 0
    duration_s: float = 0.0


@dataclass
class _Found:
    moov: bytes | None = None
    missing: int = 0
    fragmented: bool = False


def is_video(head: bytes) -> bool:
    """Whether a file that begins so calls itself an MP4 or QuickTime video (HEIC and AVIF are pictures)."""
    pictures = (
        b"avif",
        b"avis",
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"mif1",
        b"msf1",
        b"jp2 ",
        b"crx ",
    )
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") and head[8:12] not in pictures


def read_video_header(file: IO[bytes], limits: VideoLimits = VIDEO_LIMITS) -> VideoHeader:
    """Walk an open, seekable file and check every limit; MediaError with a code for each way to fail."""
    num_bytes = file.seek(0, 2)
    if num_bytes > limits.max_bytes:
        raise MediaError(
            "media.too_many_bytes",
            f"The video has {num_bytes / 1e9:.1f} GB; {limits.max_bytes / 1e9:.1f} GB are accepted.",
            "Cut it into parts and retry.",
        )
    found = _walk_file(file, num_bytes, limits)
    if found.moov is None:
        raise truncated("the index of the video (its moov box) is missing")
    tracks = [_track(body) for kind, body in _boxes(found.moov, limits) if kind == b"trak"]
    videos = [track for track in tracks if track.kind == b"vide"]
    if not videos:
        raise MediaError(
            "media.no_video", "The file holds no video track.", "Hand in a video with a picture."
        )
    header = _header(max(videos, key=lambda track: track.width * track.height), found)
    header = replace(header, num_audio_tracks=sum(track.kind == b"soun" for track in tracks))
    _check(header, limits)
    return header


def _walk_file(file: IO[bytes], num_bytes: int, limits: VideoLimits) -> _Found:
    found, pos, count = _Found(), 0, 0
    while pos + 8 <= num_bytes:
        count += 1
        if count > limits.max_boxes:
            raise damaged(f"it is cut into more than {limits.max_boxes} boxes")
        file.seek(pos)
        head = file.read(16)
        size, kind, start = _size(head, num_bytes - pos)
        if not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
            break  # junk after the last box: left unread
        body_bytes = min(size, num_bytes - pos) - start
        if kind == b"moov" and found.moov is None:
            found.moov = _index(file, pos + start, body_bytes, size - start, limits)
        found.fragmented |= kind == b"moof"
        found.missing = max(0, pos + size - num_bytes)
        pos += size
    return found


def _size(head: bytes, left: int) -> tuple[int, bytes, int]:
    """Size of a box with its header, its type, and where its content begins (14496-12, 4.2.2)."""
    size, kind = struct.unpack_from(">I4s", head)
    if size == 1:
        if len(head) < 16:
            raise truncated("inside the header of a box")
        size, start = struct.unpack_from(">Q", head, 8)[0], 16
    else:
        size, start = (left if size == 0 else size), 8
    if size < start:
        raise damaged("a box is shorter than its own header")
    return int(size), bytes(kind), start


def _index(file: IO[bytes], start: int, num_bytes: int, stated: int, limits: VideoLimits) -> bytes:
    if stated > limits.max_index_bytes:
        raise damaged(f"its index states {stated / 1e6:.0f} MB")
    if num_bytes < stated:
        raise truncated("inside the index of the video (its moov box)")
    file.seek(start)
    return file.read(num_bytes)


def _boxes(body: bytes, limits: VideoLimits = VIDEO_LIMITS) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each box in `body`, one level deep."""
    pos = 0
    while pos + 8 <= len(body):
        size, kind, start = _size(body[pos : pos + 16], len(body) - pos)
        if pos + size > len(body):
            raise damaged(f"the box {kind.decode('latin-1')!r} reaches beyond the one that holds it")
        yield kind, body[pos + start : pos + size]
        pos += size


def _track(body: bytes) -> _Track:
    track = _Track()
    for kind, content in _leaves(body, 0):
        try:
            _take(track, kind, content)
        except struct.error as error:
            raise damaged(f"the box {kind.decode('latin-1')!r} is too short") from error
    return track


def _leaves(body: bytes, depth: int) -> Iterator[tuple[bytes, bytes]]:
    for kind, content in _boxes(body):
        if kind in _FOLDERS and depth < 8:
            yield from _leaves(content, depth + 1)
        else:
            yield kind, content


def _take(track: _Track, kind: bytes, content: bytes) -> None:
    if kind == b"hdlr" and not track.kind:
        track.kind = content[8:12]
    elif kind == b"mdhd":
        at = ">II" if content[:1] == b"\0" else ">IQ"
        scale, duration = struct.unpack_from(at, content, 12 if content[:1] == b"\0" else 20)
        unknown = duration in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
        track.duration_s = 0.0 if unknown or not scale else duration / scale
    elif kind == b"stsd" and len(content) >= 16:
        track.codec = content[12:16].decode("latin-1")
        if len(content) >= 44:
            track.width, track.height = struct.unpack_from(">HH", content, 40)
    elif kind in (b"stsz", b"stz2"):
        track.num_frames = struct.unpack_from(">I", content, 8)[0]


def _header(track: _Track, found: _Found) -> VideoHeader:
    return VideoHeader(
        width=track.width,
        height=track.height,
        codec=CODECS.get(track.codec, track.codec),
        num_frames=track.num_frames,
        duration_s=track.duration_s,
        num_audio_tracks=0,
        missing_bytes=found.missing,
        fragmented=found.fragmented,
    )


def _check(header: VideoHeader, limits: VideoLimits) -> None:
    if header.codec not in CODECS.values():
        raise MediaError(
            "media.unsupported",
            f"The video is coded as {header.codec!r}, which is not accepted.",
            f"Convert it to H.264. Accepted: {', '.join(dict.fromkeys(CODECS.values()))}.",
        )
    if header.width < 1 or header.height < 1:
        raise damaged(f"it states a size of {header.width} x {header.height} pixels")
    if (
        header.width * header.height > limits.max_pixels
        or max(header.width, header.height) > limits.max_side_px
    ):
        raise MediaError(
            "media.too_many_pixels",
            f"The video's frames have {header.width} x {header.height} pixels;"
            f" {limits.max_pixels / 1e6:.0f} million in all and {limits.max_side_px} a side are accepted.",
            "Scale it down and retry.",
        )
    if header.duration_s > limits.max_duration_s or header.num_frames > limits.max_frames:
        raise MediaError(
            "media.too_long",
            f"The video states {header.duration_s / 60:.0f} minutes and {header.num_frames} frames;"
            f" {limits.max_duration_s / 60:.0f} minutes and {limits.max_frames} frames are accepted.",
            "Cut out the part that matters and retry.",
        )
    if header.num_frames == 0 and not header.fragmented:
        raise MediaError("media.truncated", "The video's index lists no frame.", ORIGINAL)
