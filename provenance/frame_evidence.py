"""What the frames of a video say together: their one mark, and the looks of those that carry it; knows no codec."""

from __future__ import annotations

import numpy as np

from provenance.codec import CODED_BITS
from provenance.looks import Look
from provenance.mark_frames import FrameReader
from provenance.mark_search import Pose
from provenance.mark_signal import UInt8Array
from provenance.watermark import MIN_SIDE_PX, MarkReading

NO_MARK = MarkReading(False, None, None, 1.0, np.zeros(CODED_BITS, np.float32), Pose())
"""The reading of what is too small to carry a mark."""


class FrameEvidence:
    """Takes frames one by one; keeps sums, and a small grey copy of each. The key has 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._reader = FrameReader(key)
        self._seen: list[tuple[str | None, Look]] = []

    def look(self, rgb: UInt8Array) -> str | None:
        """Add a frame, uint8 [H, W, 3]; the id that it shows by itself. One too small for a mark carries none."""
        alone = self._reader.look(rgb).asset_id if min(rgb.shape[:2]) >= MIN_SIDE_PX else None
        self._seen.append((alone, Look.of(rgb)))
        return alone

    def mark(self) -> MarkReading:
        """What all frames say."""
        return self._reader.reading() or NO_MARK

    def carrying(self, mark: MarkReading) -> list[Look]:
        """Looks of the frames that show the mark by themselves; of all, where only their sum does."""
        alone = [look for asset_id, look in self._seen if asset_id is not None and asset_id == mark.asset_id]
        return alone or [look for _, look in self._seen]
