"""The learned mark as a scheme that `bench mark` can measure beside the one that ships; nothing else uses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusion.train.mark_judge import LearnedMark
from provenance import codec
from provenance.mark_bench import psnr_db, ssim
from provenance.mark_pattern import FloatArray
from provenance.mark_search import Pose
from provenance.mark_signal import UInt8Array
from provenance.watermark import FALSE_ALARM, TARGET_PSNR_DB, TARGET_SSIM, MarkReading, decode_logits

TRIES = 2 + 2 * 64  # straight, mirrored, and every first cell of two poses


@dataclass(frozen=True)
class LearnedScheme:
    """Two networks under one key, at the picture quality of the mark that ships.

    There is no pilot: only the code tells a mark from none, so that an id needs a bound of 1e-6 by the code alone.
    """

    key: bytes
    nets: LearnedMark

    def embed(self, rgb: UInt8Array, asset_id: bytes) -> UInt8Array:
        """As strong as PSNR and SSIM allow, by halving."""
        change = self.nets.change(rgb, codec.encode(asset_id, self.key))
        low, high = 0.2, 3.0
        for _ in range(7):
            middle = (low + high) / 2
            marked = _added(rgb, middle * change)
            good = psnr_db(rgb, marked) >= TARGET_PSNR_DB and ssim(rgb, marked) >= TARGET_SSIM
            low, high = (middle, high) if good else (low, middle)
        return _added(rgb, low * change)

    def extract(self, rgb: UInt8Array) -> MarkReading:
        """Straight, mirrored, then by the search for sizes and turns."""
        mirror = np.ascontiguousarray(rgb[:, ::-1])
        best = min((self._of(self.nets.straight(each)) for each in (rgb, mirror)), key=lambda r: r.p_false)
        if best.asset_id is not None:
            return best
        for logits in (each for pose in self.nets.searched(rgb) for each in pose):
            if codec.decode((logits > 0).astype(np.uint8), self.key) is not None:
                found = self._of(logits)
                best = found if found.p_false < best.p_false else best
        return best

    def _of(self, logits: FloatArray) -> MarkReading:
        found, p_false = decode_logits(logits, self.key, tries=TRIES)
        present = p_false < FALSE_ALARM
        asset_id = found.asset_id.hex() if present else None
        accuracy = 1 - found.errors / codec.CODED_BITS if present else None
        return MarkReading(present, asset_id, accuracy, p_false, logits, Pose())


def _added(rgb: UInt8Array, change: FloatArray) -> UInt8Array:
    return np.asarray(np.clip(np.rint(rgb + change[..., None]), 0, 255), np.uint8)
