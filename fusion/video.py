"""Videos to frames, decoded in a child process under limits; knows no faces, no marks and no manifests.

Frames come as a generator with their times; nothing holds a whole video. Run as a module it is the child: the file is
its stdin; lines of JSON and pixels go out.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fusion.decode_child import OUT_OF_MEMORY, child_environment, death_of, restrict
from fusion.files import open_file
from fusion.formats import damaged
from fusion.video_boxes import SKIPPED, VIDEO_LIMITS, VideoHeader, VideoLimits, is_video, read_video_header
from provenance.errors import MediaError

__all__ = [
    "VIDEO_LIMITS",
    "Frame",
    "Video",
    "VideoInfo",
    "VideoLimits",
    "is_video",
    "open_video",
    "sample_times",
]


@dataclass(frozen=True, eq=False)
class Frame:
    """One upright frame: rgb uint8 [H, W, 3], time_s from the start, whether it is coded by itself."""

    rgb: npt.NDArray[np.uint8]
    time_s: float
    is_key: bool


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before a frame is decoded; width and height are those of the coded picture."""

    width: int
    height: int
    codec: str
    num_frames: int
    duration_s: float
    frame_rate: float
    variable_rate: bool
    has_sound: bool
    missing_bytes: int
    times_s: tuple[float, ...]
    keys_s: tuple[float, ...]


class Video:
    """An open video. `info` is there at once; `frames` decodes; `notes` is complete when its frames are used up."""

    def __init__(self, file: IO[bytes], limits: VideoLimits) -> None:
        self._file, self._limits = file, limits
        header = read_video_header(file, limits)
        self.notes: list[str] = []
        if header.missing_bytes:
            self.notes.append(f"the file ends {header.missing_bytes} bytes too early")
        self._talk = _Talk(file, limits)
        try:
            self.info = _info(header, self._talk.line())
            if self.info.duration_s > limits.max_duration_s:
                raise damaged(f"its fragments last {self.info.duration_s / 60:.0f} minutes")
        except BaseException:
            self.close()
            raise

    def frames(self, wanted_s: Sequence[float] | None = None) -> Iterator[Frame]:
        """All frames in the order shown, or for each wanted time (ascending) the frame shown then.

        MediaError `media.damaged` when none can be decoded, `media.too_costly` beyond memory or time. One after the
        other, not two at once.
        """
        self._talk.ask(None if wanted_s is None else list(wanted_s))
        while True:
            answer = self._talk.line()
            if "end" in answer:
                self.notes += [note for note in answer["end"] if note not in self.notes]
                return
            height, width = int(answer["height"]), int(answer["width"])
            yield Frame(self._talk.pixels(height, width), float(answer["time_s"]), bool(answer["is_key"]))

    @property
    def is_whole(self) -> bool:
        """Whether nothing was missing or skipped so far."""
        return not self.info.missing_bytes and SKIPPED not in self.notes

    def close(self) -> None:
        """End the decoding process."""
        self._talk.close()


@contextmanager
def open_video(path: Path, limits: VideoLimits = VIDEO_LIMITS) -> Iterator[Video]:
    """A video file, open for reading; MediaError `media.*` for all that is not one within `limits`."""
    with open_file(path, limits.max_bytes) as file:
        video = Video(file, limits)
        try:
            yield video
        finally:
            video.close()


def sample_times(info: VideoInfo, most: int, least_step_s: float = 0.5) -> list[float]:
    """At most `most` times spread evenly over a video, ascending; of each step, the frame that stands by itself if any.

    Such frames are coded best and need no others to be decoded.
    """
    times, keys = np.array(info.times_s), np.array(info.keys_s)
    if not len(times):
        return [0.0]
    count = int(np.clip(np.ceil(info.duration_s / least_step_s), min(4, len(times)), min(most, len(times))))
    edges = np.linspace(times[0], max(info.duration_s, times[-1]) + 1e-6, count + 1)
    chosen = set[float]()
    for low, high in itertools.pairwise(edges):
        inside = times[(times >= low) & (times < high)]
        first = keys[(keys >= low) & (keys < high)]
        if len(inside):
            chosen.add(float(first[0] if len(first) else inside[len(inside) // 2]))
    return sorted(chosen)


def _info(header: VideoHeader, answer: dict[str, Any]) -> VideoInfo:
    times, duration = tuple(answer["times_s"]), float(answer["duration_s"]) or header.duration_s
    return VideoInfo(
        width=header.width,
        height=header.height,
        codec=header.codec,
        num_frames=header.num_frames or len(times),
        duration_s=duration,
        frame_rate=len(times) / duration if duration else 0.0,
        variable_rate=bool(answer["varies"]),
        has_sound=header.num_audio_tracks > 0,
        missing_bytes=header.missing_bytes,
        times_s=times,
        keys_s=tuple(answer["keys_s"]),
    )


class _Talk:
    """The parent's end of a decoding process that reads `file` by itself; every answer has a limit of time."""

    def __init__(self, file: IO[bytes], limits: VideoLimits) -> None:
        file.seek(0)
        asked_at, self._ask = os.pipe()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "fusion.video", str(asked_at), json.dumps(asdict(limits))],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                pass_fds=(asked_at,),
            )
        finally:
            os.close(asked_at)
        assert self._child.stdout is not None
        self._out, self._wait_s = self._child.stdout, limits.frame_wait_s

    def ask(self, wanted_s: list[float] | None) -> None:
        try:
            os.write(self._ask, json.dumps(wanted_s).encode() + b"\n")
        except BrokenPipeError as error:
            raise death_of(self._child.wait()) from error

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._out.close()
        os.close(self._ask)

    def line(self) -> dict[str, Any]:
        with self._hurry():
            line = self._out.readline(128 << 20)
        if not line.endswith(b"\n"):
            raise death_of(self._child.wait())
        answer = dict(json.loads(line))
        if "code" in answer:
            raise MediaError(str(answer["code"]), str(answer["cause"]), str(answer["next_step"]))
        return answer

    def pixels(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        rgb = np.empty((height, width, 3), np.uint8)
        with self._hurry():
            num_bytes = self._out.readinto(rgb.data.cast("B"))  # type: ignore[attr-defined]
        if num_bytes != rgb.nbytes:
            raise death_of(self._child.wait())
        return rgb

    @contextmanager
    def _hurry(self) -> Iterator[None]:
        timer = threading.Timer(self._wait_s, self._child.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _serve(asked: IO[str], out: IO[bytes]) -> None:
    from fusion.video_codec import VideoReader

    reader = VideoReader(sys.stdin.buffer)
    timing = reader.timing()
    _say(
        out,
        times_s=timing.times_s.tolist(),
        keys_s=timing.keys_s.tolist(),
        duration_s=timing.duration_s,
        varies=timing.varies,
    )
    for line in asked:
        for frame in reader.frames(json.loads(line)):
            height, width = frame.rgb.shape[:2]
            _say(out, height=height, width=width, time_s=frame.time_s, is_key=frame.is_key)
            out.write(frame.rgb.data.cast("B"))
        _say(out, end=reader.notes)
        reader.rewind()


def _say(out: IO[bytes], **answer: object) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    out.flush()


def main() -> int:
    """The child: limits first, then read, decode and answer until nobody asks any more."""
    limits = VideoLimits(**json.loads(sys.argv[2]))
    restrict(limits.child_cpu_s, limits.child_bytes)
    out = sys.stdout.buffer
    try:
        with os.fdopen(int(sys.argv[1])) as asked:
            _serve(asked, out)
    except MediaError as error:
        cause = str(error).removeprefix(f"{error.code}: ")
        _say(out, code=error.code, cause=cause, next_step=error.next_step)
    except MemoryError:
        return OUT_OF_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main())
