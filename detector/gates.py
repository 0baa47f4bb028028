"""Whether the detector may judge a face at all: size, compression, photograph or drawing; knows no network and no file.

Each gate names its reason. The numbers behind the thresholds are in docs/check.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from detector.statement import Statement
from fusion.face import Face, FloatArray, UInt8Array

VERSION = "1"
"""Raised when a gate or its threshold changes."""
MIN_FACE_PX = 64.0
MIN_QUALITY = 35.0
"""Least JPEG quality (of the Independent JPEG Group's scale) by the file's own tables."""
MAX_BLOCKINESS = 2.0
"""Most contrast across the borders of a hidden 8 x 8 grid, against that beside them."""
CLEAN_QUALITY = 60.0
"""From here on the file's own compression leaves no strong grid: one that shows is an earlier one's."""
MAX_FLAT = 0.5
"""Most of a face that may be without any grain at all, in a photograph."""

# ITU-T T.81 table K.1: luminance, in natural order
_K1 = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
], np.float64)  # fmt: skip


@dataclass(frozen=True)
class PictureGates:
    """What holds for a whole picture; `reason` is None where its faces may be judged."""

    reason: Statement | None
    quality: float | None
    blockiness: float


def judge_picture(rgb: UInt8Array, luma_table: Sequence[int] | None = None) -> PictureGates:
    """Compression, by the file's table [64] where it is a JPEG and by the trace of a grid in uint8 [H, W, 3]."""
    quality = None if luma_table is None else jpeg_quality(luma_table)
    trace = blockiness(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8))
    reason = None
    if quality is not None and quality < MIN_QUALITY:
        reason = Statement(
            "gate.compression",
            "the picture is compressed too heavily (JPEG quality {quality}, {least} is needed)",
            quality=round(quality),
            least=round(MIN_QUALITY),
        )
    elif trace > MAX_BLOCKINESS and (quality is None or quality >= CLEAN_QUALITY):
        reason = Statement(
            "gate.blocks",
            "the picture was compressed heavily before: its pixels show the grid of an earlier JPEG",
        )
    return PictureGates(reason, quality, trace)


def judge_face(rgb: UInt8Array, face: Face) -> Statement | None:
    """Why one face of uint8 [H, W, 3] cannot be judged, or None."""
    if face.side_px < MIN_FACE_PX:
        return Statement(
            "gate.face_small",
            "the face is {size} px large, {least} px are needed",
            size=round(face.side_px),
            least=round(MIN_FACE_PX),
        )
    if flatness(_inner(rgb, face.box_xyxy)) > MAX_FLAT:
        return Statement("gate.drawing", "the face looks drawn or rendered, not photographed")
    return None


def jpeg_quality(luma_table: Sequence[int]) -> float:
    """The IJG quality (1-100) whose table is nearest to a luminance table of 64 steps, in any order.

    libjpeg, jcparam.c: a quality scales table K.1 by 5000 / q below 50, by 200 - 2 q above.
    """
    scale = 100.0 * float(np.sum(luma_table)) / float(_K1.sum())
    return float(np.clip(5000.0 / scale if scale > 100 else (200.0 - scale) / 2, 1, 100))


def blockiness(luma: UInt8Array) -> float:
    """Contrast across the strongest 8 px grid over that across all other lines, [H, W]; 1 where there is no grid."""
    height, width = luma.shape
    if min(height, width) < 64:
        return 1.0
    plane = luma.astype(np.int16)
    ratios = []
    for steps in (np.abs(np.diff(plane, axis=1)).mean(0), np.abs(np.diff(plane, axis=0)).mean(1)):
        lines = steps[: len(steps) // 8 * 8].reshape(-1, 8).mean(0) + 0.25
        best = int(lines.argmax())
        ratios.append(float(lines[best] / np.delete(lines, best).mean()))
    return float(min(ratios))


def flatness(rgb: UInt8Array) -> float:
    """Share of a picture [H, W, 3] whose 4 x 4 neighbourhood has no grain (luma spread of at most 1)."""
    if min(rgb.shape[:2]) < 8:
        return 0.0
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    kernel = np.ones((4, 4), np.uint8)
    spread = cv2.dilate(luma, kernel).astype(np.int16) - cv2.erode(luma, kernel)
    return float((spread <= 1).mean())


def _inner(rgb: UInt8Array, box_xyxy: FloatArray) -> UInt8Array:
    """The middle of a face's box, without hair and ground."""
    left, top, right, bottom = (float(value) for value in box_xyxy)
    inset_x, inset_y = 0.15 * (right - left), 0.15 * (bottom - top)
    x0, y0 = max(round(left + inset_x), 0), max(round(top + inset_y), 0)
    return rgb[y0 : max(round(bottom - inset_y), y0 + 1), x0 : max(round(right - inset_x), x0 + 1)]
