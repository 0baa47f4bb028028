"""Swapped portraits for the identity recipe: one portrait's face in another's head, by the engine that ships.

Knows no network. What the suite makes is what its identity network is asked about, so the network should have seen
such pictures; they are labelled by the teacher like every other crop.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fusion.align import five_points
from fusion.pose import load_shape_model
from fusion.train.identity_crops import align_picture
from fusion.train.portraitset import read_portraits
from fusion.warp import WarpOptions, warp_face
from provenance.errors import FaceError, InputError

UInt8Array = npt.NDArray[np.uint8]

MAX_REFUSALS = 100
SHAPE_BLENDS = (0.0, 1.0)  # range of WarpOptions.shape_blend


class Swapper:
    """Draws crops of one split's portraits with another portrait's face."""

    def __init__(self, data: Path, split: str, size: int = 192) -> None:
        self.portraits = read_portraits(data, split, size)
        self.shape = load_shape_model()

    def draw(self, rng: np.random.Generator) -> UInt8Array:
        """uint8 [136, 120, 3] RGB, aligned by the target's points; a pair the engine refuses is drawn again."""
        for _ in range(MAX_REFUSALS):
            source, target = (int(i) for i in rng.choice(len(self.portraits), 2, replace=False))
            options = replace(WarpOptions(), shape_blend=float(rng.uniform(*SHAPE_BLENDS)))
            pictures, points = self.portraits.pictures, self.portraits.points[:, :, :2]
            try:
                swapped = warp_face(
                    pictures[target],
                    points[target],
                    pictures[source],
                    points[source],
                    options,
                    shape=self.shape,
                )
            except FaceError:
                continue
            return align_picture(swapped.rgb, five_points(points[target]))[0]
        cause = f"the engine refused {MAX_REFUSALS} pairs one after the other"
        raise InputError("train.data", cause, "Look at the landmarks of the portraits.")
