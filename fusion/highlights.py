"""Highlights on corneas: small peaks of light as far as the lids and the limbus; knows no lamp's truth and no network.

A highlight falls off to every side, which a lid, the white of the eye and the edge of a pupil do not. So what is
looked for is the lesser curvature of the darkest channel: white light lifts that channel the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fusion import mask
from fusion.cornea import Cornea
from fusion.face import FloatArray, UInt8Array

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Highlight:
    """One highlight of a cornea.

    normal_xy   float32 [2], where it lies on the cornea's sphere
    strength    luma above what lies around, in [0, 1]
    place_px    float32 [2], its middle in the picture
    spot        bool [h, w], its pixels over the cornea's box
    """

    normal_xy: FloatArray
    strength: float
    place_px: FloatArray
    spot: BoolArray

    @property
    def lamp(self) -> FloatArray:
        """Unit vector [3] towards the lamp (picture axes): the line of sight mirrored at the normal."""
        across = self.normal_xy * min(1.0, 0.95 / max(float(np.linalg.norm(self.normal_xy)), 1e-6))
        depth = float(np.sqrt(1 - across @ across))
        return np.array([2 * depth * across[0], 2 * depth * across[1], 2 * depth * depth - 1], np.float32)


def find_highlights(rgb: UInt8Array, cornea: Cornea, limit: int = 3) -> list[Highlight]:
    """Bright spots on one visible cornea, strongest first; wide ones are looked for where no small one lies."""
    found: list[Highlight] = []
    for scale in SCALES:
        for one in _peaks(rgb, cornea, scale):
            if not any(_same(one, other, cornea) for other in found):
                found.append(one)
    most = max((one.strength for one in found), default=0.0)
    found = [one for one in found if one.strength >= 0.4 * most]
    return sorted(found, key=lambda one: -one.strength * np.sqrt(one.spot.sum()))[:limit]


def _same(one: Highlight, other: Highlight, cornea: Cornea) -> bool:
    """Whether two scales show one highlight."""
    away = float(np.linalg.norm(one.place_px - other.place_px))
    return away < 0.3 * cornea.radius_px or bool((one.spot & other.spot).any())


def _peaks(rgb: UInt8Array, cornea: Cornea, scale: float) -> list[Highlight]:
    """Highlights whose bump is highest where the cornea is, or a pixel beyond its lids."""
    inside = (cornea.visible > 0.5) & (cornea.eccentricity < 0.93)
    if inside.sum() < 9:
        return []
    bump, luma = _bump(rgb, cornea, scale), _luma(rgb, cornea)
    near = np.ones((3, 3), np.uint8)
    reach = (cv2.dilate(cornea.opening, near) > 0.3) & (cornea.eccentricity < REACH)
    tops = (bump >= cv2.dilate(bump, near)) & (bump > LEAST_BUMP) & reach
    x, y = cornea.grid_px
    found = []
    for top in zip(*np.nonzero(tops), strict=True):
        _, labels = cv2.connectedComponents((bump > 0.3 * bump[top]).astype(np.uint8))
        spot = labels == labels[top]
        strength = float(luma[spot].max()) - _around(luma, spot, inside, cornea.radius_px)
        if bump[top] < bump[spot].max() or strength < LEAST_STRENGTH:
            continue
        weight = bump * spot
        place = np.array([(x * weight).sum(), (y * weight).sum()], np.float32) / np.float32(weight.sum())
        found.append(Highlight(cornea.normal(place), strength, place, spot))
    return found


def _around(luma: FloatArray, spot: BoolArray, inside: BoolArray, radius_px: float) -> float:
    """Luma of the cornea beside a spot."""
    ring = (mask.widen(spot.astype(np.float32), 0.23 * radius_px) > 0) & ~spot & inside
    return float(np.median(luma[ring if ring.sum() > 4 else inside]))


def _luma(rgb: UInt8Array, cornea: Cornea) -> FloatArray:
    x0, y0, x1, y1 = cornea.box_xyxy
    part = np.ascontiguousarray(rgb[y0:y1, x0:x1])
    return np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)


def _bump(rgb: UInt8Array, cornea: Cornea, scale: float) -> FloatArray:
    """How steeply the darkest channel falls off to every side, over the cornea's box, float32 [h, w].

    The lesser of the two principal curvatures, downwards, times the square of the scale (Lindeberg 1998, eq. 12).
    """
    x0, y0, x1, y1 = cornea.box_xyxy
    sigma = max(scale * cornea.radius_px, 0.6)
    pad = int(np.ceil(4 * sigma))
    left, top = max(x0 - pad, 0), max(y0 - pad, 0)
    dark = rgb[top : y1 + pad, left : x1 + pad].min(-1).astype(np.float32) / np.float32(255)
    soft = cv2.GaussianBlur(dark, (0, 0), sigma)
    xx, yy = (cv2.filter2D(soft, -1, kernel) for kernel in (BEND, BEND.T))
    greater = (xx + yy) / 2 + np.hypot((xx - yy) / 2, cv2.filter2D(soft, -1, TWIST))
    bump = np.clip(-greater, 0, None) * np.float32(sigma * sigma)
    return np.asarray(bump[y0 - top :, x0 - left :][: y1 - y0, : x1 - x0], np.float32)


def agree(lights: Sequence[list[Highlight]]) -> list[list[Highlight]]:
    """Highlights of both eyes that show the same lamps: lists of the left and the right eye.

    A distant lamp has one normal on both corneas. Where both eyes show highlights and some agree, those that have no
    partner are dropped unless they are as strong; where none agree, each eye keeps its strongest.
    """
    left, right = list(lights[0]), list(lights[1])
    if not left or not right:
        return [left, right]
    apart = np.array([[np.linalg.norm(a.normal_xy - b.normal_xy) for b in right] for a in left])
    if apart.min() > SAME_LAMP:
        return [left[:1], right[:1]]
    strongest = max(left[int(i)].strength for i in np.flatnonzero(apart.min(1) <= SAME_LAMP))
    return [
        [
            one
            for one, near in zip(eye, distances, strict=True)
            if near <= SAME_LAMP or one.strength > strongest
        ]
        for eye, distances in ((left, apart.min(1)), (right, apart.min(0)))
    ]


SCALES: Final = (0.07, 0.15)  # of the limbus' radius: at which highlights are looked for
LEAST_BUMP: Final = 0.018  # of light; drawn eyes without a lamp stay under it in 99 of 100
LEAST_STRENGTH: Final = 0.04  # luma of a highlight above what lies around
REACH: Final = 1.02  # eccentricity up to which a highlight's top may lie
SAME_LAMP: Final = 0.14  # greatest difference of the normals of one lamp on two corneas
BEND: Final[FloatArray] = np.array([[1, -2, 1]], np.float32)
TWIST: Final[FloatArray] = np.array([[1, 0, -1], [0, 0, 0], [-1, 0, 1]], np.float32) / np.float32(4)
