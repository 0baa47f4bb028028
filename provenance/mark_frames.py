"""Reads one mark from many frames of a video; knows no codec, no file and no ledger.

The same id is in every frame. The reader's filter is linear, so adding the carriers of frames adds the logits of their
bits, and the bounds of `provenance.watermark` hold for the sum as for one picture: they hold whatever the carriers are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from provenance import watermark
from provenance.mark_pattern import ComplexArray, pattern_for
from provenance.mark_search import POSES_TRIED, Pose, carriers_at, view_of
from provenance.mark_signal import UInt8Array, working_band
from provenance.watermark import FALSE_ALARM, MarkReading

SEARCHED = 2
"""Frames that are searched for crops and turns; where they point is looked at in all later ones too."""
STRAIGHT = (Pose(), Pose(mirrored=True))


@dataclass(frozen=True)
class FrameMarker:
    """Marks the frames of one video; the key has 32 bytes."""

    key: bytes

    def embed(self, rgb: UInt8Array, asset_id: bytes) -> UInt8Array:
        """A frame, uint8 [H, W, 3], with the id; errors as `watermark.embed`."""
        return watermark.embed(rgb, asset_id, self.key)


@dataclass(eq=False)
class FrameReader:
    """Takes frames one by one and keeps sums, never pixels; the key has 32 bytes."""

    key: bytes
    num_frames: int = 0
    _sums: dict[Pose, ComplexArray] = field(default_factory=dict)
    _single: MarkReading | None = None

    def look(self, rgb: UInt8Array) -> MarkReading:
        """Add a frame, uint8 [H, W, 3]; what it says alone. InputError as `watermark.extract`."""
        alone = watermark.extract(rgb, self.key, search="fast")
        pattern, band = pattern_for(self.key), working_band(rgb)
        view = view_of(band, 1)
        poses = dict.fromkeys((*STRAIGHT, *self._sums))
        if self.num_frames < SEARCHED and alone.asset_id is None:
            signal = watermark.strongest_signal(pattern, view, band)
            found = watermark.read_signal(pattern, self.key, signal)
            alone = found if found.p_false < alone.p_false else alone
            poses |= {signal.pose: None}
        for pose in poses:
            white = carriers_at(pattern, view, pose)
            self._sums[pose] = self._sums[pose] + white if pose in self._sums else white
        self.num_frames += 1
        if self._single is None or alone.p_false < self._single.p_false:
            self._single = alone
        return alone

    def reading(self) -> MarkReading | None:
        """What all frames say: the sum at one pose, or a single frame where that says more; None before the first.

        Each bound counts how many ways were tried.
        """
        if self._single is None:
            return None
        best = replace(self._single, p_false=min(1.0, 2 * self.num_frames * self._single.p_false))
        pattern, ways = pattern_for(self.key), 2 * len(self._sums)
        for pose, white in self._sums.items():
            poses = ways * (1.0 if pose in STRAIGHT else POSES_TRIED)
            signal = watermark.signal_of(pattern, white, pose, poses=poses, tries=ways)
            found = watermark.read_signal(pattern, self.key, signal, ways)
            best = found if found.p_false < best.p_false else best
        if best.p_false < FALSE_ALARM:
            return best
        return replace(best, present=False, asset_id=None, bit_accuracy=None)
