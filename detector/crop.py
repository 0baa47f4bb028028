"""The one preprocessing of training, evaluation and the API: face box → square crop; knows no network, no labels.

A small face is cut out as it is, pixel for pixel; only a large one is reduced (by areas) to the working size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from fusion.face import FloatArray, UInt8Array

MARGIN: Final = 1.25
"""Side of the crop in longer sides of the face's mesh box: the seam and some untouched surroundings are in it."""
CELL_PX: Final = 16
"""Sides of crops are multiples of this, the coarsest stride of the network."""


@dataclass(frozen=True)
class Window:
    """A square part of a picture: left, top and side in its pixels."""

    left: int
    top: int
    side: int

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.side, self.top + self.side


def face_window(size: tuple[int, int], box_xyxy: FloatArray, margin: float = MARGIN) -> Window:
    """The square around a face box, moved into a picture of `size` (height, width), never larger than it."""
    height, width = size
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    side = int(min(round(margin * max(x1 - x0, y1 - y0)), height, width))
    side = max(side, 1)
    left = int(np.clip(round((x0 + x1 - side) / 2), 0, width - side))
    top = int(np.clip(round((y0 + y1 - side) / 2), 0, height - side))
    return Window(left, top, side)


def cut(picture: UInt8Array, window: Window) -> UInt8Array:
    """The window of a picture [H, W, ...], a view."""
    return picture[window.top : window.top + window.side, window.left : window.left + window.side]


def reduce_square(square: UInt8Array, side: int) -> UInt8Array:
    """A square [S, S, C] or [S, S] averaged down to `side` px; returned as it is when it is not larger."""
    if square.shape[0] <= side:
        return square
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def crop_face(rgb: UInt8Array, box_xyxy: FloatArray, working_px: int) -> tuple[UInt8Array, Window]:
    """What the network sees of one face, uint8 [S, S, 3], and where it lies in the picture uint8 [H, W, 3].

    S is a multiple of CELL_PX: `working_px` for a large face, else the window's own side, trimmed at right and
    bottom to the next multiple. ValueError for a window under CELL_PX.
    """
    window = face_window(rgb.shape[:2], box_xyxy)
    if window.side < working_px:
        window = Window(window.left, window.top, window.side // CELL_PX * CELL_PX)
    if window.side == 0:
        raise ValueError(f"a face of {box_xyxy} px leaves nothing to look at")
    return np.ascontiguousarray(reduce_square(cut(rgb, window), working_px)), window
