"""Draws the faces of a video, frame by frame, the colour of each kept steady; knows no file and no policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fusion.align import five_points, landmarks_box
from fusion.face import Face, FloatArray, UInt8Array
from fusion.swap import DEFAULT_PRESET, swap_face
from fusion.track import Sighting
from fusion.warp import WarpResult
from provenance.errors import FaceError

EASE = 0.25
"""How much of a new frame's colour step enters the running mean."""
MOST_LEVELS = 4.0
"""What a frame's colour is moved by at most, of 255."""
_NOT_DRAWN = frozenset({"swap.face_too_small", "swap.face_outside"})


class ClipPainter:
    """Puts faces onto the frames of one video, in their order.

    `sources` maps a chain's number to the picture uint8 [H, W, 3] and face that it gets; other faces stay. A face that
    is too small in a frame, or has left it, stays as it is there.
    """

    def __init__(
        self,
        sources: Mapping[int, tuple[UInt8Array, Face]],
        engine: str | None = None,
        *,
        preset: str = DEFAULT_PRESET,
        detail: bool = True,
        eyes: bool = True,
    ) -> None:
        self._sources = sources
        self._engine, self._preset, self._detail, self._eyes = engine, preset, detail, eyes
        self._steps: dict[int, FloatArray] = {}
        self.num_altered = 0

    def paint(self, rgb: UInt8Array, sightings: Sequence[Sighting]) -> UInt8Array:
        """The next frame uint8 [H, W, 3], altered; the same where it shows nobody who gets a face."""
        painted = rgb
        for seen in sightings:
            if seen.chain in self._sources:
                painted = self._paint_face(painted, seen)
        self.num_altered += painted is not rgb
        kept = {seen.chain for seen in sightings}
        self._steps = {chain: step for chain, step in self._steps.items() if chain in kept}
        return painted

    def _paint_face(self, rgb: UInt8Array, seen: Sighting) -> UInt8Array:
        source_rgb, source = self._sources[seen.chain]
        points = seen.landmarks_px
        box = np.asarray(landmarks_box(points), np.float32)
        target = Face(box, five_points(points), 1.0, landmarks_px=points)
        try:
            result = swap_face(
                rgb,
                (source_rgb, source, target),
                self._engine,
                preset=self._preset,
                detail=self._detail,
                eyes=self._eyes,
            )
        except FaceError as error:
            if error.code in _NOT_DRAWN:
                return rgb
            raise
        drawn, self._steps[seen.chain] = steady_colour(rgb, result, self._steps.get(seen.chain))
        return drawn


def steady_colour(
    before: UInt8Array, result: WarpResult, mean_step: FloatArray | None
) -> tuple[UInt8Array, FloatArray]:
    """The result with its mean colour step, against the frame before [H, W, 3], eased towards that of earlier frames.

    (picture, running mean of the step [3]); None begins anew. What the scene's light does to the target stays: what was
    added to it is steadied.
    """
    x0, y0, x1, y1 = result.roi_xyxy
    part, share = result.rgb[y0:y1, x0:x1].astype(np.float32), result.mask[..., None]
    weight = float(share.sum())
    if weight < 1.0:
        return result.rgb, np.zeros(3, np.float32) if mean_step is None else mean_step
    step = ((part - before[y0:y1, x0:x1]) * share).sum((0, 1)) / weight
    mean = step if mean_step is None else mean_step + EASE * (step - mean_step)
    moved = part + share * np.clip(mean - step, -MOST_LEVELS, MOST_LEVELS)
    rgb = result.rgb.copy()
    altered = result.altered[..., None]
    rgb[y0:y1, x0:x1] = np.where(altered, np.clip(np.rint(moved), 0, 255), part).astype(np.uint8)
    return rgb, np.asarray(mean, np.float32)
