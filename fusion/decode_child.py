"""Decodes one picture in a process of its own, under limits of memory and time; does not know why.

Run as a module it is that process: the file comes in by stdin; a line of JSON and the pixels go out.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np

from fusion.formats import Header, Limits, Picture, too_costly, undecodable
from provenance.errors import MediaError

OUT_OF_MEMORY = 3


def read_picture_apart(data: bytes, header: Header, limits: Limits) -> Picture:
    """`fusion.media.read_picture` in a child that may use `limits.child_bytes` and `limits.child_cpu_s`.

    MediaError `media.too_costly` when it needs more, `media.damaged` when it crashes.
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "fusion.decode_child", json.dumps(asdict(limits))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    timer = threading.Timer(4 * limits.child_cpu_s, child.kill)
    timer.start()
    try:
        return _converse(child, data, header)
    finally:
        timer.cancel()
        child.kill()
        child.wait()


def child_environment() -> dict[str, str]:
    """What a decoding process may know of ours: where libraries and this checkout are, nothing else."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ}
    root = str(Path(__file__).resolve().parent.parent)
    return {**kept, "PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def _converse(child: subprocess.Popen[bytes], data: bytes, header: Header) -> Picture:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError), child.stdin as sink:
        sink.write(data)
    with child.stdout as stream:
        answer = _read_answer(stream)
        if answer is None:
            raise death_of(child.wait())
        if "code" in answer:
            raise MediaError(str(answer["code"]), str(answer["cause"]), str(answer["next_step"]))
        return _read_pixels(stream, answer, header)


def _read_answer(stream: IO[bytes]) -> dict[str, object] | None:
    line = stream.readline(1 << 16)
    return dict(json.loads(line)) if line.endswith(b"\n") else None


def _read_pixels(stream: IO[bytes], answer: dict[str, object], header: Header) -> Picture:
    upright = header.orientation < 5
    size = (header.height, header.width, 3) if upright else (header.width, header.height, 3)
    rgb = np.empty(size, np.uint8)
    if stream.readinto(rgb.data.cast("B")) != rgb.nbytes:  # type: ignore[attr-defined]
        raise undecodable("the decoder stopped halfway")
    notes = answer["notes"]
    return Picture(rgb, header.format, tuple(str(note) for note in notes) if isinstance(notes, list) else ())


def death_of(status: int) -> MediaError:
    """The error that the exit status of a decoding child stands for."""
    if status in (OUT_OF_MEMORY, -signal.SIGXCPU, -signal.SIGKILL):
        return too_costly()
    return undecodable("the decoder stopped")


def restrict(cpu_s: int, memory_bytes: int) -> None:
    """Limit this process for good: seconds of CPU, address space, and no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def main() -> int:
    """The child: limits first, then read, decode and answer."""
    limits = Limits(**json.loads(sys.argv[1]))
    from fusion.media import read_picture_here

    restrict(limits.child_cpu_s, limits.child_bytes)
    out = sys.stdout.buffer
    try:
        picture = read_picture_here(sys.stdin.buffer.read(), limits)
    except MediaError as error:
        cause = str(error).removeprefix(f"{error.code}: ")
        answer = {"code": error.code, "cause": cause, "next_step": error.next_step}
        out.write(json.dumps(answer).encode() + b"\n")
        return 0
    except MemoryError:
        return OUT_OF_MEMORY
    out.write(json.dumps({"notes": picture.notes}).encode() + b"\n")
    out.write(picture.rgb.data.cast("B"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
