"""What a picture becomes on its way to others, and whether a verdict on its faces survives it; knows no network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from detector.evidence import STRENGTH, Band
from fusion.face import Face, FloatArray, UInt8Array
from fusion.media import encode_picture, read_picture

JPEG_QUALITY = 75
RESIZE = 0.75
CROP = 0.04
"""Share of width and height that a careless crop takes, at the left and the top."""


@dataclass(frozen=True, eq=False)
class Delivered:
    """A re-delivered copy uint8 [H, W, 3] and how to get there: point = scale * point + shift."""

    rgb: UInt8Array
    scale: float = 1.0
    shift_px: tuple[float, float] = (0.0, 0.0)

    def face(self, face: Face) -> Face:
        """Where a face of the original lies in the copy; pixel centres on integers."""
        points = {"box_xyxy": face.box_xyxy, "points_px": face.points_px, "landmarks_px": face.landmarks_px}
        moved = {name: self._move(each) for name, each in points.items() if each is not None}
        return dataclasses.replace(face, **moved)  # type: ignore[arg-type]

    def _move(self, places: FloatArray) -> FloatArray:
        moved = (places.reshape(-1, 2) + 0.5) * self.scale - 0.5 + np.array(self.shift_px)
        return np.asarray(moved.reshape(places.shape), np.float32)


def _compressed(rgb: UInt8Array) -> Delivered:
    return Delivered(read_picture(encode_picture(rgb, "jpeg", JPEG_QUALITY)).rgb)


def _resized(rgb: UInt8Array) -> Delivered:
    size = (max(round(rgb.shape[1] * RESIZE), 1), max(round(rgb.shape[0] * RESIZE), 1))
    return Delivered(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8), RESIZE)


def _cropped(rgb: UInt8Array) -> Delivered:
    """Off the 8 px grid on purpose: a JPEG's blocks fall elsewhere."""
    left, top = round(CROP * rgb.shape[1]) | 1, round(CROP * rgb.shape[0]) | 1
    return Delivered(np.ascontiguousarray(rgb[top:, left:]), shift_px=(-left, -top))


VARIANTS: Mapping[str, Callable[[UInt8Array], Delivered]] = {
    "jpeg_q75": _compressed,
    "resize_0.75": _resized,
    "crop_4": _cropped,
}
"""Name of each re-delivery and how a copy is made; one at a time, to hold one copy in memory."""


def flips(band: Band, variants: Mapping[str, Band]) -> bool:
    """Whether any re-delivery moves a face into another band; one that abstains moves nothing."""
    seen = {each for each in (band, *variants.values()) if each in STRENGTH}
    return len(seen) > 1
