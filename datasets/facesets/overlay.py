"""Draws a sample's labels over its picture, for people to look at; opens no file and judges no label."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from facesets.record import SampleRecord
from facesets.rle import decode_runs

UInt8Array = npt.NDArray[np.uint8]

TINTS: Final = {
    "face": (70, 160, 90),
    "eyes": (60, 120, 220),
    "mouth": (220, 110, 60),
    "blend": (200, 40, 160),
}
"""Colour of each mask's outline; `blend`: what an alteration changed."""
_BOX, _POINT, _LIGHT = (250, 210, 60), (255, 255, 255), (255, 60, 60)
_LEAST_PX: Final = 384
"""Smaller pictures are enlarged, so that lines do not cover what they label."""


def draw_labels(rgb: UInt8Array, record: SampleRecord) -> UInt8Array:
    """A picture uint8 [H, W, 3] with box, landmarks, outlines of its masks, catch-lights and its name.

    The result is at least _LEAST_PX on its longer side. ValueError where a mask does not fill the picture.
    """
    times = max(1, -(-_LEAST_PX // max(rgb.shape[:2])))
    size = (rgb.shape[1] * times, rgb.shape[0] * times)
    drawn = np.ascontiguousarray(cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    for name, runs in record.masks.items():
        mask = decode_runs(runs, record.height, record.width).astype(np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, TINTS.get(name, _POINT), 1, cv2.LINE_AA)

    def place(point: tuple[float, float]) -> tuple[int, int]:
        return round((point[0] + 0.5) * times - 0.5), round((point[1] + 0.5) * times - 0.5)

    for point in record.landmarks_px:
        cv2.circle(drawn, place(point), 0, _POINT, -1)
    for point in record.points_px:
        cv2.circle(drawn, place(point), 3, _BOX, 1, cv2.LINE_AA)
    for light in record.catchlights:
        cv2.circle(drawn, place(light.place_px), 4, _LIGHT, 1, cv2.LINE_AA)
    left, top, right, bottom = record.box_xyxy
    cv2.rectangle(drawn, place((left, top)), place((right, bottom)), _BOX, 1, cv2.LINE_AA)
    for colour, width in (((0, 0, 0), 3), (_POINT, 1)):
        told = f"{record.sample_id} {record.kind} {record.split}"
        cv2.putText(drawn, told, (6, size[1] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, width, cv2.LINE_AA)
    return np.asarray(drawn, np.uint8)
