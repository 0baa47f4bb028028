"""Reads a copy, picture or video, for `recover` and for the report on compliance; decides nothing.

A video is looked at in some frames, spread evenly: its mark is summed over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fusion.evidence import VIDEO_MIME
from fusion.files import nameless_files, open_file, read_file
from fusion.media import LIMITS, Format, encode_picture, read_picture
from fusion.seal_video import CODEC
from fusion.video import VIDEO_LIMITS, Frame, Video, is_video, sample_times
from fusion.video_codec import VideoWriter
from provenance import watermark
from provenance.compliance import Released
from provenance.frame_evidence import FrameEvidence
from provenance.hashes import content_sha256, video_content_sha256
from provenance.home import Home
from provenance.looks import Look
from provenance.resolution import Copy, Evidence

MOST_FRAMES = 24
RECODED_FRAMES, RECODED_STEP_S = 12, 0.04


def names_video(path: Path) -> bool:
    """Whether the file begins like a video; InputError `file.*` where it cannot be read."""
    with open_file(path, VIDEO_LIMITS.max_bytes) as file:
        return is_video(file.read(16))


@contextmanager
def open_copy(path: Path, mark_key: bytes) -> Iterator[Copy]:
    """A copy as `resolution.recover` takes it; MediaError `media.*` when it is no picture and no video."""
    if not names_video(path):
        data = read_file(path, LIMITS.max_bytes)
        picture = read_picture(data)
        mark = watermark.extract(picture.rgb, mark_key)
        found = Evidence(content_sha256(data), mark, [Look.of(picture.rgb)])
        yield Copy(data, picture.format.mime, found)
        return
    with open_file(path, VIDEO_LIMITS.max_bytes) as file:
        seen = FrameEvidence(mark_key)
        for frame in _sampled(file, MOST_FRAMES):
            seen.look(frame.rgb)
        mark = seen.mark()
        yield Copy(file, VIDEO_MIME, Evidence(video_content_sha256(file), mark, seen.carrying(mark)))


def released_files(paths: Iterable[Path], home: Home) -> Iterator[Released]:
    """Released files as `compliance.judge` takes them, one open at a time; errors as `open_copy`."""
    key = home.keys.mark_key
    for path in paths:
        if names_video(path):
            with open_file(path, VIDEO_LIMITS.max_bytes) as file:
                yield Released(path.name, file, VIDEO_MIME, *_ids_of_video(file, home))
            continue
        data = read_file(path, LIMITS.max_bytes)
        picture = read_picture(data)
        again = read_picture(encode_picture(picture.rgb, Format.JPEG)).rgb
        ids = [watermark.extract(rgb, key).asset_id for rgb in (picture.rgb, again)]
        yield Released(path.name, data, picture.format.mime, *ids)


def _ids_of_video(file: BinaryIO, home: Home) -> tuple[str | None, str | None]:
    """The ids that frames of an open video carry, before and after they are coded anew."""
    first, second = FrameEvidence(home.keys.mark_key), FrameEvidence(home.keys.mark_key)
    with nameless_files(home.path, 2) as (written, read), ExitStack() as ending:
        writer: VideoWriter | None = None
        for frame in _sampled(file, RECODED_FRAMES):
            first.look(frame.rgb)
            if writer is None:
                height, width = (side // 2 * 2 for side in frame.rgb.shape[:2])
                writing = VideoWriter(written, width, height, codec=CODEC, room_for=RECODED_FRAMES)
                writer = ending.enter_context(writing)
            writer.write(np.ascontiguousarray(frame.rgb[:height, :width]), frame.time_s)
        ending.close()
        for frame in _sampled(read, RECODED_FRAMES, RECODED_STEP_S):
            second.look(frame.rgb)
    return first.mark().asset_id, second.mark().asset_id


def _sampled(file: BinaryIO, most: int, least_step_s: float = 0.5) -> Iterator[Frame]:
    """At most so many frames of an open video, spread evenly."""
    with closing(Video(file, VIDEO_LIMITS)) as video:
        yield from video.frames(sample_times(video.info, most, least_step_s))
