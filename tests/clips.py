"""Short videos made in code, sound and broken ones; knows nothing of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]


def corners(index: int, width: int = 160, height: int = 96) -> UInt8Array:
    """Red top left, blue bottom right, green that grows with the frame's number elsewhere."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 1] = 40 + 6 * index % 200
    rgb[: height // 2, : width // 2] = (255, 0, 0)
    rgb[height // 2 :, width // 2 :] = (0, 0, 255)
    return rgb


def filmed(rgb: UInt8Array, number: int, width: int = 320, height: int = 256) -> UInt8Array:
    """Frame `number` of a portrait of 512 px before a hand-held camera, with its sensor's noise."""
    along = number / 4
    matrix = cv2.getRotationMatrix2D((256, 256), 5 * np.sin(along), 0.85 * height / 512)
    matrix[:, 2] += np.array([width, height]) / 2 - 256 + [6 * np.sin(along / 2), 3 * np.cos(along)]
    frame = cv2.warpAffine(
        rgb, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    noise = np.random.default_rng(number).normal(0, 1.5, frame.shape)
    return np.asarray((frame + noise).clip(0, 255), np.uint8)


def hills(number: int, width: int = 320, height: int = 256) -> UInt8Array:
    """Frame `number` of a landscape without anybody."""
    soft = cv2.GaussianBlur(
        np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8), (0, 0), 12
    )
    noise = np.random.default_rng(number).normal(0, 1.5, soft.shape)
    return np.asarray((0.5 * soft + [10, 20, 60] + noise).clip(0, 255), np.uint8)


def clip(
    path: Path,
    frames: Sequence[UInt8Array],
    times_s: Sequence[float] | None = None,
    *,
    rotation: int = 0,
    sound: bool = False,
    key_every: int = 12,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container: str = "mp4",
) -> Path:
    """An MP4 of the frames at 25 a second, or at the given times; returns its path."""
    clock = Fraction(1, 12800)
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "16", "preset": "veryfast", "g": str(key_every)}
        stream.codec_context.time_base, stream.codec_context.thread_count = clock, 1
        if rotation:
            stream.set_display_rotation(rotation)
        voice: Any = out.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts = round((times_s[number] if times_s is not None else number / 25) * 12800)
            frame.time_base = clock
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if voice is not None:
            tone = np.sin(np.arange(44_100) * 0.05, dtype=np.float32)[None]
            beep: Any = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            beep.sample_rate, beep.pts = 44_100, 0
            out.mux([*voice.encode(beep), *voice.encode(None)])
    return path


def box(kind: bytes, body: bytes) -> bytes:
    """One box of an MP4."""
    return struct.pack(">I4s", len(body) + 8, kind) + body


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The same MP4 whose sample description states another size."""
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    return data[:at] + struct.pack(">HH", width, height) + data[at + 4 :]


def with_duration(data: bytes, ticks: int) -> bytes:
    """The same MP4 whose tracks state another duration."""
    at = data.index(b"mdhd") + 4 + 16
    return data[:at] + struct.pack(">I", ticks) + data[at + 4 :]
