"""Training batches from stored pairs: one window, one scale and one delivery for both members; knows no network.

Half of a batch is real (among them identity passes and overlaid reals), a quarter self-blended, a
quarter swaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from detector.blend import FAMILIES, self_blend
from detector.crop import reduce_square
from detector.delivery import deliver, draw_delivery
from detector.pairs import IDENTITY_PASS, STORED_PX, StoredPairs
from fusion.face import FloatArray, UInt8Array

Rng = np.random.Generator

WINDOW_PX: Final = 128
GRID_PX: Final = 8
LEAST_SHARE: Final = 0.01
"""An altered window with less of the mask than this is neither fake nor real; its picture label is not asked."""


@dataclass(frozen=True, eq=False)
class Batch:
    """pictures uint8 [N, P, P, 3]; masks float32 [N, P, P]; label float32 [N] (1 altered, 0 not, nan not asked)."""

    pictures: UInt8Array
    masks: FloatArray
    label: FloatArray


@dataclass(frozen=True, eq=False)
class Member:
    """One picture of a pair before its window is cut: uint8 [S, S, 3], mask float32 [S, S] or None for a real."""

    rgb: UInt8Array
    mask: FloatArray | None


class BatchMaker:
    """Draws batches; `stored` may grow between calls (set it anew)."""

    def __init__(self, stored: StoredPairs, window_px: int = WINDOW_PX) -> None:
        self.stored = stored
        self.window_px = window_px

    def draw(self, rng: Rng, pairs: int, hardness: float) -> Batch:
        """2 * `pairs` pictures, members of a pair next to each other; `hardness` 0 to 1 is the curriculum."""
        drawn: list[tuple[UInt8Array, FloatArray, float]] = []
        for index in range(pairs):
            drawn += self._draw_pair(rng, hardness, blended=index % 2 == 0)
        pictures, masks, labels = zip(*drawn, strict=True)
        return Batch(np.stack(pictures), np.stack(masks), np.array(labels, np.float32))

    def _draw_pair(
        self, rng: Rng, hardness: float, *, blended: bool
    ) -> list[tuple[UInt8Array, FloatArray, float]]:
        shard = int(rng.integers(len(self.stored.planes)))
        index = int(rng.integers(len(self.stored.planes[shard])))
        planes = np.asarray(self.stored.planes[shard][index])
        points = self.stored.points[shard][index]
        is_pass = self.stored.recipes[shard][index]["engine"] == IDENTITY_PASS
        side = self._draw_side(rng)
        points = ((points + 0.5) * (side / planes.shape[0]) - 0.5).astype(np.float32)
        if rng.random() < 0.5:
            planes, points = planes[:, ::-1], (points * [-1, 1] + [side - 1, 0]).astype(np.float32)
        real, other, share = (
            reduce_square(np.ascontiguousarray(part), side) for part in np.split(planes, (3, 6), axis=2)
        )
        if blended or is_pass:
            # An identity pass is the real member of a self-blended pair: the blend is made on top of it.
            real = other if is_pass else real
            family = FAMILIES[int(rng.integers(len(FAMILIES)))]
            fake = Member(*self_blend(real, points, rng, family, 2.0 - hardness * rng.uniform(0.7, 1.3)))
        else:
            fake = Member(other, share.reshape(side, side).astype(np.float32) / np.float32(255))
        if rng.random() < 0.15:
            real, fake = distract(real, fake, rng)
        return self._window([Member(real, None), fake], points, rng, hardness)

    def _draw_side(self, rng: Rng) -> int:
        """Side of the whole face crop, so that windows hold a third of a face up to all of it."""
        return round(float(np.exp(rng.uniform(np.log(self.window_px + 16), np.log(STORED_PX)))))

    def _window(
        self, members: list[Member], points: FloatArray, rng: Rng, hardness: float
    ) -> list[tuple[UInt8Array, FloatArray, float]]:
        """One place, one reduction, one delivery for all; the codec's grid starts at a random phase."""
        side, out = members[0].rgb.shape[0], self.window_px
        most = (side - GRID_PX) / out
        ratio = float(rng.uniform(1, min(most, 2.0))) if rng.random() < 0.5 and most > 1 else 1.0
        need = min(side, int(np.ceil(out * ratio)) + GRID_PX)
        centre = points[int(rng.integers(468))]
        low = np.clip(centre - need * rng.uniform(0.3, 0.7, 2), 0, side - need).astype(int)
        take = int(out * ratio)
        phase = rng.integers(0, need - take + 1, 2)
        delivery = draw_delivery(rng, hardness)
        cut = []
        for member in members:
            part = np.ascontiguousarray(member.rgb[low[1] : low[1] + need, low[0] : low[0] + need])
            part = deliver(part, delivery)[phase[1] : phase[1] + take, phase[0] : phase[0] + take]
            mask = (
                np.zeros((need, need), np.float32)
                if member.mask is None
                else member.mask[low[1] : low[1] + need, low[0] : low[0] + need]
            )
            mask = mask[phase[1] : phase[1] + take, phase[0] : phase[0] + take]
            if take != out:
                part = np.asarray(cv2.resize(part, (out, out), interpolation=cv2.INTER_AREA), np.uint8)
                mask = np.asarray(cv2.resize(mask, (out, out), interpolation=cv2.INTER_AREA), np.float32)
            share = float(mask.mean())
            label = 0.0 if member.mask is None else 1.0 if share > LEAST_SHARE else np.nan
            cut.append((np.asarray(part, np.uint8), np.asarray(mask, np.float32), label))
        return cut


def distract(real: UInt8Array, fake: Member, rng: Rng) -> tuple[UInt8Array, Member]:
    """The same foreign thing laid over both members: stroke, box or soft cast; no altered face."""
    side = real.shape[0]
    layer = np.zeros((side, side), np.float32)
    a, b = rng.integers(0, side, 2), rng.integers(0, side, 2)
    if rng.random() < 0.5:
        cv2.line(layer, a.tolist(), b.tolist(), 1, int(rng.integers(1, 8)), cv2.LINE_AA)
    else:
        cv2.rectangle(layer, a.tolist(), (a + (b - a) // 3).tolist(), 1, -1)
    if rng.random() < 0.5:
        layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(0.5, 6))), np.float32)
    layer *= np.float32(rng.uniform(0.3, 1))
    colour = rng.integers(0, 256, 3).astype(np.float32)
    over = [np.clip(p + layer[..., None] * (colour - p), 0, 255).astype(np.uint8) for p in (real, fake.rgb)]
    mask: npt.NDArray[np.float32] | None = fake.mask * (1 - layer) if fake.mask is not None else None
    return over[0], Member(over[1], mask)
