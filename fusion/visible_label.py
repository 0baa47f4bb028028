"""Draws the visible label "AI生成 / AI GENERATED" into a picture, from strokes of its own; knows no font and no law.

Letters are as high as GB 45438-2025 (4.3) asks, 5 % of the picture's shortest side, and a little more. Drawn before
the mark and the encoder, so that both cover it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from fusion.face import FloatArray, UInt8Array

Stroke = tuple[tuple[float, float], ...]

LEAST_SHARE = 0.05
"""Least height of a letter, of the picture's shortest side."""
LINES = ("AI生成", "AI GENERATED")
_EM = 0.072  # of the shortest side: ink is 0.87 em high in Chinese, 0.75 em in Latin
_CAP, _LINE, _PAD, _MARGIN, _STROKE = 0.75, 1.2, 0.35, 0.4, 0.085  # em
_OVERSAMPLED = 4
_BACKDROP = 0.62  # how dark the ground under the letters becomes

# (width, strokes) in em, y downwards from the top of the line.
_GLYPHS: dict[str, tuple[float, tuple[Stroke, ...]]] = {
    "生": (
        1.0,
        (
            ((0.32, 0.08), (0.15, 0.42)),
            ((0.24, 0.28), (0.88, 0.28)),
            ((0.22, 0.58), (0.82, 0.58)),
            ((0.54, 0.06), (0.54, 0.93)),
            ((0.06, 0.93), (0.94, 0.93)),
        ),
    ),
    "成": (
        1.0,
        (
            ((0.17, 0.28), (0.93, 0.28)),
            ((0.17, 0.28), (0.17, 0.58), (0.06, 0.93)),
            ((0.20, 0.52), (0.46, 0.52), (0.44, 0.80), (0.33, 0.76)),
            ((0.54, 0.06), (0.58, 0.40), (0.69, 0.70), (0.91, 0.93), (0.95, 0.72)),
            ((0.84, 0.42), (0.69, 0.70), (0.46, 0.92)),
            ((0.73, 0.07), (0.84, 0.19)),
        ),
    ),
    " ": (0.35, ()),
    "A": (0.62, (((0, 1), (0.31, 0), (0.62, 1)), ((0.12, 0.66), (0.5, 0.66)))),
    "D": (0.56, (((0, 0), (0, 1), (0.3, 1), (0.56, 0.72), (0.56, 0.28), (0.3, 0), (0, 0)),)),
    "E": (0.5, (((0.5, 0), (0, 0), (0, 1), (0.5, 1)), ((0, 0.5), (0.42, 0.5)))),
    "G": (
        0.6,
        (
            (
                (0.58, 0.16),
                (0.42, 0),
                (0.2, 0),
                (0.02, 0.25),
                (0.02, 0.75),
                (0.2, 1),
                (0.42, 1),
                (0.6, 0.84),
                (0.6, 0.55),
                (0.36, 0.55),
            ),
        ),
    ),
    "I": (0.04, (((0.02, 0), (0.02, 1)),)),
    "N": (0.56, (((0, 1), (0, 0), (0.56, 1), (0.56, 0)),)),
    "R": (
        0.54,
        (
            ((0, 1), (0, 0), (0.34, 0), (0.53, 0.13), (0.53, 0.4), (0.34, 0.53), (0, 0.53)),
            ((0.3, 0.53), (0.56, 1)),
        ),
    ),
    "T": (0.58, (((0, 0), (0.58, 0)), ((0.29, 0), (0.29, 1)))),
}
_GAP = 0.2


def draw_label(rgb: UInt8Array) -> UInt8Array:
    """A copy of uint8 [H, W, 3] RGB with the label at its lower left: white letters on a darkened ground."""
    ink, ground = label_masks(rgb.shape[0], rgb.shape[1])
    dark = rgb * (1 - _BACKDROP * ground[..., None])
    return np.asarray(np.rint(dark + (255 - dark) * ink[..., None]), np.uint8)


def label_masks(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """(ink, ground), float32 [H, W] in [0, 1]: where the letters lie, and the box under them."""
    em = math.ceil(_EM * min(height, width))
    longest = max(_width(line) for line in LINES)
    em = min(em, int((width - 1) / (longest + 2 * (_PAD + _MARGIN))))
    box_w, box_h = (round(em * n) for n in (longest + 2 * _PAD, _LINE * len(LINES) - 0.2 + 2 * _PAD))
    left, top = round(em * _MARGIN), height - round(em * _MARGIN) - box_h
    ink, ground = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    canvas = _drawn(em, box_w, box_h)
    ink[top : top + box_h, left : left + box_w] = canvas
    ground[top : top + box_h, left : left + box_w] = 1
    return ink, ground


def _width(line: str) -> float:
    return sum(_GLYPHS[letter][0] + _GAP for letter in line) - _GAP


def _drawn(em: int, box_w: int, box_h: int) -> FloatArray:
    """float32 [box_h, box_w]: the lines of the label, drawn larger and reduced."""
    scale = em * _OVERSAMPLED
    canvas = np.zeros((box_h * _OVERSAMPLED, box_w * _OVERSAMPLED), np.uint8)
    for number, line in enumerate(LINES):
        x, y = _PAD, _PAD + number * _LINE
        for letter in line:
            advance, strokes = _GLYPHS[letter]
            latin = letter.isascii()
            for stroke in strokes:
                points = _placed(stroke, x, y + (0.12 if latin else 0.0), _CAP if latin else 1.0, scale)
                cv2.polylines(canvas, [points], False, 255, max(1, round(_STROKE * scale)), cv2.LINE_AA)
            x += advance + _GAP
    reduced = cv2.resize(canvas, (box_w, box_h), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced / np.float32(255), np.float32)


def _placed(stroke: Stroke, x: float, y: float, height: float, scale: int) -> npt.NDArray[np.int32]:
    points = np.array(stroke, np.float64) * (1.0, height) + (x, y)
    return np.asarray(np.rint(points * scale), np.int32)
