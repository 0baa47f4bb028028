"""Decodes and encodes video; alone imports PyAV (FFmpeg), knows no faces, no marks and no limits of its own.

The demuxer is given an open file and the container's name: it opens no other file and no address. Decoding belongs
into the child process of `fusion.video`.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import av
import numpy as np
import numpy.typing as npt

from fusion.formats import undecodable
from fusion.video_boxes import SKIPPED
from provenance.errors import MediaError, StoreError

_TICKS = 90_000  # of a second: the clock of what is written
_UNSPECIFIED = 2  # ISO/IEC 23091-2, matrix coefficients
_HDR = (16, 18)  # transfer characteristics PQ and HLG
_SAME_TIME_S = 1e-4
_MAX_BAD_PACKETS = 500
_VARIES = 0.1  # of the median interval between frames
_ROOM_BYTES, _ROOM_A_SAMPLE = 1 << 16, 48  # of an index: tracks and keys, tables of times, sizes, places


@dataclass(frozen=True)
class Coding:
    """An encoder by FFmpeg's name, its usual constant rate factor and its settings."""

    encoder: str
    crf: int
    options: Mapping[str, str]


CODECS: Final[Mapping[str, Coding]] = {
    "vp9": Coding("libvpx-vp9", 22, {"b": "0", "deadline": "realtime", "cpu-used": "6", "g": "250"}),
    "h264": Coding("libx264", 18, {"preset": "medium"}),
}
"""vp9 (libvpx, BSD) is what leaves the house; h264 (libx264, GPL) is for measuring what others do to a video."""
SOUNDS: Final = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac", "vorbis"})
"""Codings of sound that an MP4 carries (FFmpeg's names)."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """One upright frame: rgb uint8 [H, W, 3], time_s from the start, whether it is coded by itself."""

    rgb: npt.NDArray[np.uint8]
    time_s: float
    is_key: bool


@dataclass(frozen=True)
class Timing:
    """When the frames of a track are shown, in order: float64 [N] seconds; which of them stand by themselves."""

    times_s: npt.NDArray[np.float64]
    keys_s: npt.NDArray[np.float64]
    duration_s: float

    @property
    def varies(self) -> bool:
        """Whether the frame rate is variable."""
        steps = np.diff(self.times_s)
        return bool(len(steps) > 1 and np.ptp(steps) > _VARIES * np.median(steps))


class VideoReader:
    """Frames of the largest video track of an open, seekable MP4 or QuickTime file; MediaError when there is none.

    `notes` fills while reading: what had to be done or skipped.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.notes: list[str] = []
        self._bad_packets = 0
        self._container: Any = None
        try:
            self._container = av.open(file, "r", format="mov", options={"protocol_whitelist": "file"})
            tracks = [each for each in self._container.streams.video if each.width and each.height]
            self._stream = max(tracks, key=lambda each: each.width * each.height)
            self._stream.thread_count = 1
        except (av.FFmpegError, ValueError, OSError) as error:
            raise undecodable(type(error).__name__) from error
        self._base = float(self._stream.time_base or Fraction(1, _TICKS))

    def timing(self) -> Timing:
        """From the index, decoding nothing."""
        entries = [each for each in self._stream.index_entries if not each.is_discard]
        times = np.array(sorted(each.timestamp for each in entries), np.float64) * self._base
        keys = (
            np.array(sorted(each.timestamp for each in entries if each.is_keyframe), np.float64) * self._base
        )
        start = float(times[0]) if len(times) else 0.0
        stated = (self._container.duration or 0) / 1e6
        spread = float(times[-1] - start) if len(times) else 0.0
        return Timing(times - start, keys - start, max(stated, spread))

    def frames(self, wanted_s: Sequence[float] | None = None) -> Iterator[Decoded]:
        """Every frame in the order shown, or of each wanted time (ascending) the frame shown then.

        What cannot be decoded is skipped and noted; MediaError when not one frame can be.
        """
        count = 0
        for frame in self._all() if wanted_s is None else self._at(wanted_s):
            count += 1
            yield frame
        if self._bad_packets:
            self._note_once(SKIPPED)
        if not count:
            raise undecodable("not one frame")

    def rewind(self) -> None:
        """Back to the first frame."""
        self._seek(0.0)

    def _raw(self) -> Iterator[Any]:
        """Decoded frames from where the file stands; stops at the end or where the file breaks off."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError):
                self._bad_packets += 1
                with suppress(av.FFmpegError, OSError):
                    yield from self._stream.decode(None)
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self._bad_packets += 1
                if self._bad_packets > _MAX_BAD_PACKETS:
                    return

    def _all(self) -> Iterator[Decoded]:
        start: float | None = None
        for raw in self._raw():
            time_s = float(raw.time or 0.0)
            start = time_s if start is None else start
            yield self._upright(raw, time_s - start)

    def _at(self, wanted_s: Sequence[float]) -> Iterator[Decoded]:
        """Seeks only where a frame that stands by itself lies between here and the wanted time."""
        timing = self.timing()
        left, last, start, raws = list(wanted_s), None, None, self._raw()
        here = -1.0
        while left:
            key = timing.keys_s[timing.keys_s <= left[0] + _SAME_TIME_S]
            if start is not None and len(key) and key[-1] > here + 1.0:
                raws, last = self._seek(float(key[-1]) + start), None
            for raw in raws:
                time_s = float(raw.time or 0.0)
                start = time_s if start is None else start
                here = time_s - start
                if here > left[0] + _SAME_TIME_S and last is not None:
                    yield self._upright(last, float(last.time or 0.0) - start)
                    left = [each for each in left[1:] if each + _SAME_TIME_S >= here]
                    last = raw
                    break
                last = raw
            else:
                if last is not None and start is not None:
                    yield self._upright(last, float(last.time or 0.0) - start)
                return

    def _seek(self, time_s: float) -> Iterator[Any]:
        with suppress(av.FFmpegError, OSError):
            self._container.seek(round(time_s / self._base), stream=self._stream)
            self._stream.codec_context.flush_buffers()
        return self._raw()

    def _upright(self, raw: Any, time_s: float) -> Decoded:
        space = raw.colorspace
        if space == _UNSPECIFIED:  # as players assume it
            space = "itu709" if min(raw.width, raw.height) >= 720 else "itu601"
        if raw.color_trc in _HDR:
            self._note_once("high dynamic range was reduced without tone mapping")
        rgb = raw.to_ndarray(format="rgb24", src_colorspace=space, dst_colorspace="itu709", threads=1)
        turns = round((raw.rotation or 0) / 90) % 4
        if turns:
            self._note_once(f"turned upright by {turns * 90} degrees")
        return Decoded(np.ascontiguousarray(np.rot90(rgb, turns)), time_s, bool(raw.key_frame))

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


class VideoWriter:
    """Writes an MP4 (BT.709, 4:2:0), frame by frame; sound is copied from another file, not coded anew.

    A context manager: leaving it by an exception leaves a file that must be thrown away. Does not mark, sign or record:
    `fusion.seal_video` alone may call it for what leaves the house. `out` is a path, or a file open for writing and
    seeking. `codec` is a key of CODECS; `crf` its constant rate factor. `metadata` becomes keys of the file. With
    `room_for` (frames) the index is put before the samples, in room kept for it.
    """

    def __init__(
        self,
        out: Path | IO[bytes],
        width: int,
        height: int,
        *,
        codec: str = "h264",
        crf: int | None = None,
        sound_from: Path | IO[bytes] | None = None,
        metadata: Mapping[str, str] | None = None,
        room_for: int | None = None,
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"4:2:0 needs even sides, not {width} x {height}")
        self._sound = _Sound(sound_from) if sound_from is not None else None
        options = {"movflags": "+use_metadata_tags" if room_for else "+faststart+use_metadata_tags"}
        if room_for:
            room = _ROOM_BYTES + _ROOM_A_SAMPLE * (room_for + (self._sound.num_packets if self._sound else 0))
            options["moov_size"] = str(room)
        name = str(out) if isinstance(out, Path) else out
        try:
            self._out = av.open(name, "w", format="mp4", options=options)
        except (av.FFmpegError, OSError) as error:
            raise _unwritable(out, error) from error
        self._name, self._at, self._step = out, 0, 0
        self._out.metadata.update(metadata or {})
        self._stream = self._add_stream(CODECS[codec], width, height, crf)
        if self._sound is not None:
            self._sound.join(self._out)

    def _add_stream(self, coding: Coding, width: int, height: int, crf: int | None) -> Any:
        stream: Any = self._out.add_stream(coding.encoder, rate=_TICKS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.thread_count = 1
        stream.codec_context.colorspace, stream.codec_context.color_primaries = 1, 1
        stream.codec_context.color_trc, stream.codec_context.color_range = 1, 1
        stream.options = {"crf": str(coding.crf if crf is None else crf), **coding.options}
        return stream

    def write(self, rgb: npt.NDArray[np.uint8], time_s: float) -> None:
        """Append a frame uint8 [H, W, 3], shown from `time_s` on; times must ascend. StoreError on a full disk."""
        frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(
            format="yuv420p",
            src_colorspace="itu709",
            dst_colorspace="itu709",
            dst_color_range="MPEG",
            threads=1,
        )
        frame.pts, frame.time_base = round(time_s * _TICKS), Fraction(1, _TICKS)
        self._step = frame.pts - self._at
        self._at = frame.pts
        self._put(frame)
        if self._sound is not None:
            self._sound.copy_until(time_s, self._out)

    def _put(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                packet.duration = max(
                    self._step, 1
                )  # counts for the last frame only: it lasts as the one before
                self._out.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise _unwritable(self._name, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._put(None)
                if self._sound is not None:
                    self._sound.copy_until(math.inf, self._out)
            self._close(kind is None)
        finally:
            if self._sound is not None:
                self._sound.close()

    def _close(self, is_whole: bool) -> None:
        """Write the index; of a file that is thrown away anyway no error is told."""
        try:
            self._out.close()
        except (av.FFmpegError, OSError) as failed:
            if is_whole:
                raise _unwritable(self._name, failed) from failed


def check_sound(source: IO[bytes]) -> None:
    """MediaError `media.sound` where the sound of an open file cannot be copied into an MP4."""
    _Sound(source).close()


class _Sound:
    """The audio tracks of a file, copied packet by packet in step with the pictures."""

    def __init__(self, source: Path | IO[bytes]) -> None:
        if not isinstance(source, Path):
            source.seek(0)
        name = str(source) if isinstance(source, Path) else source
        self._in: Any = av.open(name, "r", format="mov", options={"protocol_whitelist": "file"})
        tracks: Any = self._in.streams.audio
        self.num_packets = sum(len(each.index_entries) for each in tracks)
        strange = [each.codec_context.name for each in tracks if each.codec_context.name not in SOUNDS]
        if strange:
            self._in.close()
            raise MediaError(
                "media.sound",
                f"The video's sound is coded as {strange[0]}, which an MP4 cannot carry.",
                "Convert the sound to AAC, or leave it out.",
            )
        videos: Any = self._in.streams.video
        starts = [float(each.start_time * each.time_base) for each in videos if each.start_time]
        self._start_s = min(starts, default=0.0)
        self._copies: dict[int, Any] = {}
        self._packets = self._in.demux(*tracks) if tracks else iter(())
        self._next: Any = None

    def join(self, out: Any) -> None:
        """Give the output a track for each of these."""
        self._copies = {each.index: out.add_stream_from_template(each) for each in self._in.streams.audio}

    def copy_until(self, time_s: float, out: Any) -> None:
        """Copy what sounds until `time_s` of the video."""
        while True:
            packet: Any = self._next if self._next is not None else next(self._packets, None)
            self._next = None
            if packet is None:
                return
            if packet.dts is None:
                continue
            base = float(packet.time_base)
            if packet.dts * base - self._start_s > time_s:
                self._next = packet
                return
            shift = round(self._start_s / base)
            packet.dts, packet.pts = packet.dts - shift, packet.pts - shift
            packet.stream = self._copies[packet.stream.index]
            try:
                out.mux(packet)
            except (av.FFmpegError, OSError) as error:
                raise _unwritable(Path("the video"), error) from error

    def close(self) -> None:
        self._in.close()


def _unwritable(out: object, error: Exception) -> StoreError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            "store.disk_full", "No room is left to write a video.", "Free some space and retry."
        )
    name = str(out) if isinstance(out, Path) else "The video"
    return StoreError("store.write_failed", f"{name} cannot be written: {error}.", "Check the disk.")
