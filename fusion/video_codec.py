"""Decodes and encodes video; alone imports PyAV (FFmpeg), knows no faces, no marks and no limits of its own.

The demuxer is given an open file and the container's name: it opens no other file and no address. Decoding belongs
into the child process of `fusion.video`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import av
import numpy as np
import numpy.typing as npt

from fusion.formats import undecodable
from provenance.errors import StoreError

_TICKS = 90_000  # of a second: the clock of what is written
_UNSPECIFIED = 2  # ISO/IEC 23091-2, matrix coefficients
_HDR = (16, 18)  # transfer characteristics PQ and HLG
_SAME_TIME_S = 1e-4
_MAX_BAD_PACKETS = 500
_VARIES = 0.1  # of the median interval between frames


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
            self._note_once("damaged pieces of the video were skipped")
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
    """Writes an H.264 MP4 (BT.709, 4:2:0), frame by frame; sound is copied from another file, not coded anew.

    A context manager: leaving it by an exception leaves a file that must be thrown away. Does not mark, sign or record:
    `fusion.pipeline` alone may call it for what leaves the house.
    """

    def __init__(
        self, path: Path, width: int, height: int, *, crf: int = 18, sound_from: Path | None = None
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"H.264 4:2:0 needs even sides, not {width} x {height}")
        try:
            self._out = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        except (av.FFmpegError, OSError) as error:
            raise StoreError(
                "store.write_failed", f"{path} cannot be written: {error}.", "Check the disk."
            ) from error
        stream: Any = self._out.add_stream("libx264", rate=_TICKS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.thread_count = 1
        stream.codec_context.colorspace, stream.codec_context.color_primaries = 1, 1
        stream.codec_context.color_trc, stream.codec_context.color_range = 1, 1
        stream.options = {"crf": str(crf), "preset": "medium"}
        self._stream = stream
        self._sound: Any = av.open(str(sound_from), "r", format="mov") if sound_from else None
        self._copies = self._add_sound() if self._sound else {}

    def write(self, rgb: npt.NDArray[np.uint8], time_s: float) -> None:
        """Append a frame uint8 [H, W, 3], shown from `time_s` on; times must ascend."""
        frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(
            format="yuv420p",
            src_colorspace="itu709",
            dst_colorspace="itu709",
            dst_color_range="MPEG",
            threads=1,
        )
        frame.pts, frame.time_base = round(time_s * _TICKS), Fraction(1, _TICKS)
        for packet in self._stream.encode(frame):
            self._out.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for packet in self._stream.encode(None):
                    self._out.mux(packet)
                self._copy_sound()
        finally:
            self._out.close()
            if self._sound:
                self._sound.close()

    def _add_sound(self) -> dict[int, Any]:
        return {each.index: self._out.add_stream_from_template(each) for each in self._sound.streams.audio}

    def _copy_sound(self) -> None:
        if not self._copies:
            return
        for packet in self._sound.demux(*self._sound.streams.audio):
            if packet.dts is not None:
                packet.stream = self._copies[packet.stream.index]
                self._out.mux(packet)
