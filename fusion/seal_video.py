"""Mark, encode, sign, record, release: the last steps of every finished video, in this order; knows no engine.

Frames come one by one and are not kept. What is being made lies in files without a name, so that a kill leaves nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fusion.evidence import VIDEO_MIME
from fusion.face import UInt8Array
from fusion.files import nameless_files, write_file_atomically
from fusion.seal import Job, Sealed, entry_of, ingredients_of, manifest_of, recording
from fusion.stopwatch import Stopwatch
from fusion.video import VIDEO_LIMITS, Video, sample_times
from fusion.video_codec import VideoWriter
from fusion.visible_label import draw_label
from provenance import claim, mp4, signing
from provenance.errors import MediaError, UsageError, VerificationError
from provenance.hashes import video_content_sha256
from provenance.home import Home
from provenance.looks import FIELD, FrameHasher
from provenance.manifests import record_output
from provenance.mark_frames import FrameMarker, FrameReader

CODEC = "vp9"
READ_BACK = 12
"""Frames of the encoded video that the mark must be read from before anything is signed."""


class VideoRelease:
    """The file that a finished video becomes, once its record has been committed; UsageError for another name."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() != ".mp4":
            raise UsageError(
                "usage.output_format",
                f"The target is a video, and {path.name} does not name one.",
                "End the output's name in .mp4.",
            )
        self.path = path

    def release(self, file: BinaryIO) -> None:
        """Called with the signed video when the record has been committed."""
        write_file_atomically(self.path, file)


@dataclass(frozen=True)
class Shape:
    """What an encoder must know beforehand; `sound` is an open file whose sound is copied."""

    width: int
    height: int
    num_frames: int
    sound: BinaryIO | None


def seal_video(
    frames: Iterable[tuple[UInt8Array, float]],
    shape: Shape,
    job: Job,
    home: Home,
    release: VideoRelease,
    watch: Stopwatch,
    tell: Callable[[], dict[str, Any]],
) -> Sealed:
    """Seal frames uint8 [H, W, 3] with their times, record and release them as one MP4; errors as `seal_and_release`.

    `tell` is asked for the details when all frames are made.
    """
    asset_id, hasher = secrets.token_bytes(8), FrameHasher()
    with nameless_files(home.path, 2) as (encoded, again), nameless_files(home.path, 1) as (signed,):
        _encode(frames, encoded, shape, asset_id, hasher, job, home, watch)
        with watch.stage("read_back"):
            _require_mark(again, asset_id.hex(), home)
        with watch.stage("sign"):
            _sign(encoded, signed, asset_id.hex(), job, home)
        with watch.stage("record"):
            hashes = {"media": "video", FIELD: hasher.record()}
            sealed = _record(signed, asset_id.hex(), hashes, job, home, release.path, watch, tell())
        with watch.stage("release"):
            release.release(signed)
    return sealed


def _encode(
    frames: Iterable[tuple[UInt8Array, float]],
    file: BinaryIO,
    shape: Shape,
    asset_id: bytes,
    hasher: FrameHasher,
    job: Job,
    home: Home,
    watch: Stopwatch,
) -> None:
    """Every frame with the mark of the one id, moving with the scene."""
    marker = FrameMarker(home.keys.mark_key)
    label = {
        "AIGC": claim.aigc_label(asset_id.hex(), home.organisation)
    }  # GB 45438-2025, appendix E: key of an MP4
    with VideoWriter(
        file,
        shape.width,
        shape.height,
        codec=CODEC,
        sound_from=shape.sound,
        metadata=label,
        room_for=shape.num_frames,
    ) as writer:
        for rgb, time_s in frames:
            with watch.stage("mark"):
                marked = marker.embed(draw_label(rgb) if job.label else rgb, asset_id)
                hasher.look(marked)
            with watch.stage("encode"):
                writer.write(marked, time_s)


def _require_mark(file: BinaryIO, asset_id: str, home: Home) -> None:
    """VerificationError unless frames of the encoded video give the id back."""
    reader = FrameReader(home.keys.mark_key)
    video = Video(file, VIDEO_LIMITS)
    try:
        for frame in video.frames(sample_times(video.info, READ_BACK, 0.04)):
            reader.look(frame.rgb)
    finally:
        video.close()
    reading = reader.reading()
    if reading is None or reading.asset_id != asset_id:
        raise VerificationError(
            "mark.lost",
            "The mark cannot be read from the encoded video, so it may not be released.",
            "Use a video with more pixels or more detail.",
        )


def _sign(encoded: BinaryIO, signed: BinaryIO, asset_id: str, job: Job, home: Home) -> None:
    manifest, source_type = manifest_of(asset_id, VIDEO_MIME, job, home)
    mp4.append_xmp(encoded, claim.xmp_packet(asset_id, source_type, home.organisation))
    signing.sign_stream(
        encoded,
        signed,
        VIDEO_MIME,
        manifest,
        home.keys,
        ingredients_of(job),
        timestamp_url=home.timestamp_url,
    )


def _record(
    signed: BinaryIO,
    asset_id: str,
    hashes: dict[str, Any],
    job: Job,
    home: Home,
    path: Path,
    watch: Stopwatch,
    details: dict[str, Any],
) -> Sealed:
    store = mp4.c2pa_store(signed)
    if not store:
        raise MediaError("media.damaged", "The signed video lost its manifest.", "Report this with the file.")
    signed.seek(0)
    whole = hashlib.file_digest(signed, "sha256").hexdigest()  # type: ignore[arg-type]
    hashes = {**hashes, "content_sha256": video_content_sha256(signed), "file_sha256": whole}
    entry = entry_of(asset_id, hashes, job, home)
    with recording(job, home) as conn:
        receipt = record_output(home.ledger, entry, store, conn)
    told = {**details, "models": job.models, "timings_ms": watch.timings_ms}
    return Sealed(path, asset_id, hashes["content_sha256"], receipt, told)
