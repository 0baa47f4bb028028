"""Marks the frames of a video and reads one mark from many; knows no codec, no file and no ledger.

The same id is in every frame. A codec sends what moves as a vector and drops what is faint, so the mark must move with
the scene: it is drawn, and read, where the picture of the last cut has gone. The reader's filter is linear, so adding
the carriers of frames adds the logits of their bits, and the bounds of `provenance.watermark` hold for the sum as for
one picture: they hold whatever the carriers are, and motion is seen in the picture alone, without the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from provenance import watermark
from provenance.mark_pattern import ComplexArray, FloatArray, Pattern, pattern_for
from provenance.mark_search import POSES_TRIED, Pose, carriers_at, shifted, view_of
from provenance.mark_signal import UInt8Array, working_band
from provenance.watermark import FALSE_ALARM, MarkReading

SEARCHED = 2
"""Frames that are searched for crops and turns; where they point is looked at in all later ones too."""
STRAIGHT = (Pose(), Pose(mirrored=True))
_SURE = 0.15  # response of the phase correlation; two unlike pictures stay under 0.05, pans over 0.7
_STILL = 0.3  # working px: less is no motion
_FAR = 0.2  # of the frame's width: then a newer frame is compared with
_WAYS = 4  # single frames, sums where they stand, sums that follow the scene, both together
Shift = tuple[float, float]


@dataclass(eq=False)
class Motion:
    """Where the scene of the last cut has gone, frame by frame; keeps two small planes."""

    at: Shift = (0.0, 0.0)
    _anchor: FloatArray | None = None
    _anchor_at: Shift = (0.0, 0.0)
    _last: FloatArray | None = None

    def follow(self, plane: FloatArray) -> Shift:
        """The shift (x, y) of the whole scene, working px, at a frame's band [h, w]; (0, 0) from a cut on.

        Translation only (phase correlation, Kuglin & Hines 1975): who zooms or turns starts anew at every frame.
        """
        moved = self._against(self._anchor, self._anchor_at, plane)
        if moved is None and self._last is not None:
            self._anchor, self._anchor_at = self._last, self.at
            moved = self._against(self._anchor, self._anchor_at, plane)
        self.at, self._last = moved or (0.0, 0.0), plane
        if moved is None:
            self._anchor, self._anchor_at = plane, self.at
        return self.at

    @staticmethod
    def _against(before: FloatArray | None, at: Shift, plane: FloatArray) -> Shift | None:
        """`at` and how far the plane has moved since; None where that is not sure."""
        if before is None or before.shape != plane.shape:
            return None
        window = cv2.createHanningWindow((plane.shape[1], plane.shape[0]), cv2.CV_32F)
        (dx, dy), response = cv2.phaseCorrelate(before, plane, window)
        far = math.hypot(dx, dy)
        if response < _SURE or far > _FAR * plane.shape[1]:
            return None
        return at if far < _STILL else (at[0] + dx, at[1] + dy)


@dataclass(eq=False)
class FrameMarker:
    """Marks the frames of one video, in their order; the key has 32 bytes."""

    key: bytes
    motion: Motion = field(default_factory=Motion)

    def embed(self, rgb: UInt8Array, asset_id: bytes) -> UInt8Array:
        """The next frame, uint8 [H, W, 3], with the id; errors as `watermark.embed`."""
        return watermark.embed(rgb, asset_id, self.key, shift_px=self.motion.follow(working_band(rgb)))


@dataclass(eq=False)
class _Sum:
    """Carriers of all frames at a pose: where it stands, and following the scene from where it was first seen."""

    pose: Pose
    seen_at: Shift
    standing: ComplexArray
    following: ComplexArray

    def add(self, pattern: Pattern, white: ComplexArray, moved: Shift) -> None:
        self.standing = self.standing + white
        x, y = (each - first for each, first in zip(moved, self.seen_at, strict=True))
        x = -x if self.pose.mirrored else x
        turn = math.radians(self.pose.turn_deg)
        c, s = self.pose.scale * math.cos(turn), self.pose.scale * math.sin(turn)
        self.following = self.following + shifted(pattern, white, (c * x - s * y, s * x + c * y))

    def ways(self) -> list[ComplexArray]:
        if np.array_equal(self.standing, self.following):
            return [self.standing]
        return [self.standing, self.following, self.standing + self.following]


@dataclass(eq=False)
class FrameReader:
    """Takes frames one by one and keeps sums; the key has 32 bytes."""

    key: bytes
    num_frames: int = 0
    _sums: dict[Pose, _Sum] = field(default_factory=dict)
    _single: MarkReading | None = None
    _motion: Motion = field(default_factory=Motion)

    def look(self, rgb: UInt8Array) -> MarkReading:
        """Add a frame, uint8 [H, W, 3]; what it says alone. InputError as `watermark.extract`."""
        alone = watermark.extract(rgb, self.key, search="fast")
        pattern, band = pattern_for(self.key), working_band(rgb)
        view, moved = view_of(band), self._motion.follow(band)
        poses = dict.fromkeys((*STRAIGHT, *self._sums))
        if self.num_frames < SEARCHED and alone.asset_id is None:
            signal = watermark.strongest_signal(pattern, view)
            found = watermark.read_signal(pattern, self.key, signal)
            alone = found if found.p_false < alone.p_false else alone
            poses |= {signal.pose: None}
        for pose in poses:
            if pose not in self._sums:
                nothing = np.zeros(len(pattern.kx), np.complex64)
                seen_at = (0.0, 0.0) if pose in STRAIGHT else moved
                self._sums[pose] = _Sum(pose, seen_at, nothing, nothing)
            self._sums[pose].add(pattern, carriers_at(pattern, view, pose), moved)
        self.num_frames += 1
        if self._single is None or alone.p_false < self._single.p_false:
            self._single = alone
        return alone

    def reading(self) -> MarkReading | None:
        """What all frames say: a sum at one pose, or a single frame where that says more; None before the first.

        Each bound counts how many ways were tried.
        """
        if self._single is None:
            return None
        best = replace(self._single, p_false=min(1.0, _WAYS * self.num_frames * self._single.p_false))
        pattern, ways = pattern_for(self.key), _WAYS * len(self._sums)
        for pose, each in self._sums.items():
            poses = ways * (1.0 if pose in STRAIGHT else POSES_TRIED)
            for white in each.ways():
                signal = watermark.signal_of(pattern, white, pose, poses=poses, tries=ways)
                found = watermark.read_signal(pattern, self.key, signal, ways)
                best = found if found.p_false < best.p_false else best
        if best.p_false < FALSE_ALARM:
            return best
        return replace(best, present=False, asset_id=None, bit_accuracy=None)
