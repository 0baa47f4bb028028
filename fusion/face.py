"""What is known of one face in one picture; knows no network and no file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Face:
    """One face; every coordinate is in pixels of the picture it was found in (x right, y down).

    box_xyxy      float32 [4], left, top, right, bottom
    points_px     float32 [5, 2], eye on the picture's left, other eye, nose tip, mouth corners (left, right)
    score         detection score in [0, 1]
    landmarks_px  float32 [478, 2], MediaPipe topology, iris last (468-472 on the left); None if not asked
    embedding     float32 [512], unit length; None if not asked
    """

    box_xyxy: FloatArray
    points_px: FloatArray
    score: float
    landmarks_px: FloatArray | None = None
    embedding: FloatArray | None = None

    @property
    def area_px(self) -> float:
        """Of the box, px²; 0 for a box without an inside."""
        left, top, right, bottom = (float(side) for side in self.box_xyxy)
        return max(right - left, 0.0) * max(bottom - top, 0.0)

    @property
    def side_px(self) -> float:
        """Of the square as large as the box, px."""
        return math.sqrt(self.area_px)
