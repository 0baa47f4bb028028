"""Names the look of a video by hashes of its frames, and says how far a copy is from what was recorded.

As vPDQ does (Meta, ThreatExchange): a hash for each frame, whatever its time, so that a copy may be cut, slowed down or
joined to others. Knows no codec, no mark and no ledger; cannot tell two videos of the same frames in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from provenance.hashes import (
    PERCEPTUAL_BITS,
    PERCEPTUAL_OTHER,
    PERCEPTUAL_SAME,
    hamming_distance,
    hash_of_luma,
    reduced_luma,
)

UInt8Array = npt.NDArray[np.uint8]

FIELD = "frame_hashes"
"""What a video's ledger entry calls its hashes; entries of before it was there have none."""
FRAME_SIDE = 16
FRAME_BITS = FRAME_SIDE**2
RADIUS = 16  # bits of 256: a frame this close to a kept one is not kept as well
WIDER = 8  # by so many it grows when there are too many
MOST = 128  # hashes of one video: 8 kB of its entry
WIDEST = 48  # beyond it, the kept frames stand for too much: nothing is compared
VIDEO_OTHER = 20  # bits of 64 from which it is another video: longer hashes tell more (docs/log.md)


@dataclass(frozen=True, eq=False)
class Look:
    """A picture or a frame as hashes see it: luma uint8 [256, 256]."""

    luma: UInt8Array

    @classmethod
    def of(cls, rgb: UInt8Array) -> Look:
        """Of uint8 [H, W, 3]."""
        return cls(reduced_luma(rgb))

    @cached_property
    def picture_hash(self) -> str:
        """`hashes.perceptual_hash`: 64 bits in 16 hex digits."""
        return hash_of_luma(self.luma)

    @cached_property
    def frame_hash(self) -> str:
        """256 bits in 64 hex digits, made alike: DCT coefficients (1..16, 1..16) of 64 x 64 pixels, as PDQ takes."""
        return hash_of_luma(self.luma, FRAME_SIDE)

    @property
    def mirrored(self) -> Look:
        """The same, left for right."""
        return Look(np.ascontiguousarray(self.luma[:, ::-1]))


@dataclass(eq=False)
class FrameHasher:
    """Takes every frame of a video and keeps hashes that stand for them all; memory does not grow with length.

    A frame is kept unless one within `radius` bits is kept already. Of more than MOST the radius grows, and those that
    the wider one makes needless go.
    """

    radius: int = RADIUS
    _kept: UInt8Array = field(default_factory=lambda: np.zeros((0, FRAME_BITS // 8), np.uint8))

    def look(self, rgb: UInt8Array) -> None:
        """The next frame, uint8 [H, W, 3]."""
        self._add(_packed([Look.of(rgb).frame_hash]))
        while len(self._kept) > MOST:
            self.radius += WIDER
            before, self._kept = self._kept, self._kept[:0]
            for row in before:
                self._add(row[None])

    def _add(self, row: UInt8Array) -> None:
        if not len(self._kept) or _bits_apart(row, self._kept).min() > self.radius:
            self._kept = np.concatenate([self._kept, row])

    def record(self) -> dict[str, Any]:
        """What the ledger keeps: `radius` in bits of 256, `frames` in 64 hex digits each."""
        return {"radius": self.radius, "frames": [row.tobytes().hex() for row in self._kept]}


@dataclass(frozen=True)
class Likeness:
    """How far a copy is from what was recorded: bits of 64, and from how many on it is another picture or video."""

    distance: int
    other_from: int

    @property
    def same(self) -> bool | None:
        """True up to PERCEPTUAL_SAME bits, False from `other_from` on, None in between: a crop, or a cousin."""
        if PERCEPTUAL_SAME < self.distance < self.other_from:
            return None
        return self.distance <= PERCEPTUAL_SAME


def compare(entry: Mapping[str, Any], looks: Sequence[Look]) -> Likeness | None:
    """A copy's frames, or a picture, against what the body of a ledger's entry says.

    For each look the nearest recorded frame or picture, and of these the median; a video's 256 bits are counted in
    fours. None without a look, for an entry without a hash, and for a video so rich that its hashes say little.
    """
    if not looks:
        return None
    if "perceptual_hash" in entry:
        recorded = str(entry["perceptual_hash"])
        apart = np.array([hamming_distance(recorded, look.picture_hash) for look in looks])
        return Likeness(int(np.median(apart)), PERCEPTUAL_OTHER)
    hashes = entry.get(FIELD)
    if hashes is None or hashes["radius"] > WIDEST:
        return None
    apart = _bits_apart(_packed([look.frame_hash for look in looks]), _packed(hashes["frames"])).min(1)
    return Likeness(int(np.median(apart) * PERCEPTUAL_BITS / FRAME_BITS), VIDEO_OTHER)


def _packed(hashes: Sequence[str]) -> UInt8Array:
    """uint8 [N, 32] of N hashes of 64 hex digits."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)


def _bits_apart(one: UInt8Array, other: UInt8Array) -> npt.NDArray[np.int64]:
    """int64 [N, M]: differing bits of each of N with each of M."""
    return np.asarray(np.bitwise_count(one[:, None] ^ other[None]).sum(2), np.int64)
