"""Clips that move, made from a still picture, to measure marked video; knows no codec, no file and no ledger.

Whoever calls brings the codec, as a function from frames to what a viewer sees of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from provenance import codec
from provenance.mark_attacks import sized
from provenance.mark_bench import Found, psnr_db
from provenance.mark_frames import FrameMarker, FrameReader
from provenance.mark_signal import UInt8Array

Coded = Callable[[Sequence[UInt8Array]], Sequence[UInt8Array]]
Motion = Callable[[UInt8Array, float, int, int], UInt8Array]
FRAMES = 16
SIZES: Mapping[str, tuple[int, int]] = {
    "256": (256, 256),
    "512": (512, 512),
    "360p": (640, 360),
    "720p": (1280, 720),
}


def _window(rgb: UInt8Array, x: float, y: float, zoom: float, width: int, height: int) -> UInt8Array:
    """What a camera sees of a picture: `zoom` picture pixels a frame pixel, the frame's corner at (x, y)."""
    matrix = np.array([[zoom, 0, x], [0, zoom, y]], np.float32)
    mode = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(rgb, matrix, (width, height), flags=mode, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(seen, np.uint8)


def _object(rgb: UInt8Array, frame: float, width: int, height: int) -> UInt8Array:
    """A still scene that a small copy of itself crosses, three pixels a frame."""
    scene = _window(rgb, 0, 0, 1, width, height).copy()
    side = min(width, height) // 3
    small, left, top = sized(rgb, side, side), int(3 * frame) % (width - side), height // 3
    scene[top : top + side, left : left + side] = small
    return scene


MOTIONS: Mapping[str, Motion] = {
    "still": lambda rgb, frame, width, height: _window(rgb, 0, 0, 1, width, height),
    "pan": lambda rgb, frame, width, height: _window(rgb, 2 * frame, 0, 1, width, height),
    "drift": lambda rgb, frame, width, height: _window(rgb, 0.7 * frame, 0.4 * frame, 1, width, height),
    "zoom": lambda rgb, frame, width, height: _window(rgb, frame, frame, 1 - 0.004 * frame, width, height),
    "object": _object,
}


@dataclass(frozen=True)
class Clip:
    """size: one of SIZES; motion: one of MOTIONS; rgb: the picture that it is made of."""

    size: str
    motion: str
    rgb: UInt8Array

    def frames(self, count: int = FRAMES) -> list[UInt8Array]:
        """uint8 [h, w, 3] each, with the faint noise of a sensor (1.5 grey levels)."""
        width, height = SIZES[self.size]
        zoom = max((width + 64) / self.rgb.shape[1], (height + 64) / self.rgb.shape[0])
        scene = sized(self.rgb, round(self.rgb.shape[1] * zoom), round(self.rgb.shape[0] * zoom))
        rng = np.random.default_rng(count)
        seen = (MOTIONS[self.motion](scene, float(frame), width, height) for frame in range(count))
        return [
            np.clip(np.rint(each + rng.normal(0, 1.5, each.shape)), 0, 255).astype(np.uint8) for each in seen
        ]


def measure_clip(clip: Clip, coded: Coded, key: bytes, seed: Sequence[int]) -> Found:
    """A clip whose frames carry one id, coded, and read by summing: cases h264_crf28 and h264_crf28 of its kind."""
    asset_id, marker = np.random.default_rng(list(seed)).bytes(codec.ID_BYTES), FrameMarker(key)
    plain = clip.frames()
    marked = [marker.embed(rgb, asset_id) for rgb in plain]
    reader, alone = FrameReader(key), list[bool]()
    for rgb in coded(marked):
        alone.append(reader.look(rgb).asset_id == asset_id.hex())
    together = reader.reading()
    assert together is not None
    figures = {
        "id_recovered": float(together.asset_id == asset_id.hex()),
        "id_wrong": float(together.asset_id not in (None, asset_id.hex())),
        "present": float(together.present),
        "p_false": together.p_false,
        "frames_alone": float(np.mean(alone)),
        "psnr_db": float(np.mean([psnr_db(a, b) for a, b in zip(plain, marked, strict=True)])),
    }
    return dict.fromkeys(("h264_crf28", f"h264_crf28_{clip.motion}", f"h264_crf28_{clip.size}"), figures)
