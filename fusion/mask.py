"""What of a face is replaced: soft masks from contours, and skin told from hair, glasses and hands; knows no files.

Masks are float32 [H, W] in [0, 1] on the grid whose pixel coordinates the points are given in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fusion import mesh
from fusion.align import Matrix, compose
from fusion.blend import blur, masked_blur
from fusion.face import FloatArray

_SHIFT: Final = 4  # fixed-point bits of cv2.fillPoly


@dataclass(frozen=True, eq=False)
class CoverMap:
    """What lies before a face, seen on a small grid aligned with it.

    share            float32 [S, S] in [0, 1]; beyond the grid it is 0
    map_from_image   from the picture's pixels to the grid's
    """

    share: FloatArray
    map_from_image: Matrix

    def at(self, coordinates: FloatArray) -> FloatArray:
        """Share at places of the picture, (x, y) float32 [h, w, 2] → [h, w], bilinear."""
        there = cv2.transform(coordinates, self.map_from_image.astype(np.float32))
        x, y = (np.ascontiguousarray(there[..., k], np.float32) for k in range(2))
        return np.asarray(cv2.remap(self.share, x, y, cv2.INTER_LINEAR), np.float32)

    def over(self, roi_xyxy: tuple[int, int, int, int]) -> FloatArray:
        """Share of each pixel of a region of the picture, float32 [h, w], bilinear."""
        x0, y0, x1, y1 = roi_xyxy
        map_from_roi = compose(self.map_from_image, np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]]))
        way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(self.share, map_from_roi, (x1 - x0, y1 - y0), flags=way), np.float32)


def fill_contour(points: FloatArray, contour: Sequence[int], size: tuple[int, int]) -> FloatArray:
    """Anti-aliased inside of a closed contour of points, grid `size` = (height, width)."""
    canvas = np.zeros(size, np.uint8)
    polygon = np.rint(points[list(contour)] * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(canvas, [polygon], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return np.asarray(canvas, np.float32) / np.float32(255)


def feather_inside(mask: FloatArray, width_px: float) -> FloatArray:
    """Fall from 1 to 0 over the last `width_px` within the mask; 0 outside. Smooth at both ends."""
    padded = cv2.copyMakeBorder((mask > 0.5).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)
    return smooth_step(distance / np.float32(max(width_px, 1.0)))


def smooth_step(x: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, 3x² - 2x³ between."""
    t = np.clip(x, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def fill_outlines(inside: npt.NDArray[np.bool_]) -> FloatArray:
    """Outermost outlines of a region, filled: 0 or 1, float32 [h, w]; the picture's rim is always outside."""
    bits = inside.astype(np.uint8)
    bits[[0, -1]] = 0
    bits[:, [0, -1]] = 0
    outlines, _ = cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(bits, outlines, -1, 1, cv2.FILLED), np.float32)


def widen(mask: FloatArray, radius_px: float) -> FloatArray:
    """Grow a mask by a disc."""
    return np.asarray(cv2.dilate(mask, _disc(radius_px)), np.float32)


def feature_mask(points: FloatArray, size: tuple[int, int], width: float) -> FloatArray:
    """Eyes, brows, lips and nostrils: colour says nothing about occlusion here. `width`: mesh.face_width."""
    mask = np.zeros(size, np.float32)
    for contour in (*EYES, mesh.LEFT_BROW, mesh.RIGHT_BROW, mesh.OUTER_LIPS, NOSTRILS):
        mask = np.maximum(mask, fill_contour(points, contour, size))
    return widen(mask, 0.025 * width)


def lips_mask(points: FloatArray, size: tuple[int, int], width: float) -> FloatArray:
    """Both lips without the mouth's interior, soft at the rim."""
    lips = fill_contour(points, mesh.OUTER_LIPS, size) - fill_contour(points, mesh.INNER_LIPS, size)
    return blur(np.maximum(lips, 0), 0.008 * width)


def cheek_mask(points: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Places that are bare skin on nearly every face: both cheeks and the ridge of the nose."""
    mask = np.zeros(size, np.float32)
    for contour in BARE:
        mask = np.maximum(mask, fill_contour(points, contour, size))
    return mask


def skin_likelihood(rgb: FloatArray, points: FloatArray, hull: FloatArray, width: float) -> FloatArray:
    """How much each pixel looks like this face's own skin, float32 [H, W] in [0, 1], 0 outside the hull.

    rgb float32 [H, W, 3] in [0, 1]. CIE Lab distance to the skin expected there: first the cheeks' median, then
    the mean of the skin around, so that light may differ across the face. Hair, glasses and beard come out low.
    """
    lab = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab), np.float32)
    size = (rgb.shape[0], rgb.shape[1])
    known = cheek_mask(points, size) * hull > 0.5
    if not known.any():
        return hull.copy()
    middle = np.median(lab[known], axis=0)
    spread = np.maximum(1.5 * np.median(np.abs(lab[known] - middle), axis=0), SKIN_SPREAD)
    expected: FloatArray = np.broadcast_to(middle, lab.shape).astype(np.float32)
    features = feature_mask(points, size, width)
    looseness = 2.0
    for _ in range(3):
        away = (lab - expected) / (looseness * spread)
        distance = np.einsum("hwc,hwc->hw", away, away)
        likely = np.exp(-0.5 * distance).astype(np.float32) * hull * (1 - features)
        expected = masked_blur(lab, likely + 1e-4 * known, 0.14 * width)
        looseness = 1.5
    away = (lab - expected) / spread
    distance = np.sqrt(np.einsum("hwc,hwc->hw", away, away))
    return np.asarray(smooth_step((4.5 - distance) / 2.0) * hull, np.float32)


def occluder_mask(skin: FloatArray, points: FloatArray, hull: FloatArray, width: float) -> FloatArray:
    """What lies on the face from outside (hair, a hand, the rim of a hat): not skin, and joined to the outline.

    Brows, eyes, lips and the beard's place are never counted. float32 [H, W] in [0, 1].
    """
    size = (hull.shape[0], hull.shape[1])
    spared = _spared(points, size, width)
    suspect = np.where(spared > 0.5, 0, (1 - skin) * hull).astype(np.float32)
    seed = (hull > 0.5) & (feather_inside(hull, 0.05 * width) < 0.9)
    found = joined_to((suspect > 0.5) & (hull > 0.5), seed).astype(np.float32) * suspect
    soft = blur(widen(found, 0.012 * width), 0.01 * width)
    return np.asarray(np.minimum(soft * np.float32(1.2), 1), np.float32)


def fringe_mask(skin: FloatArray, points: FloatArray, hull: FloatArray, width: float) -> FloatArray:
    """A source's fringe and what lies between its strands and below their ends, which fade. float32 [H, W] in [0, 1].

    `skin` is the source's skin_likelihood. Painted on a bare forehead, strands look like wrinkles.
    """
    size = (hull.shape[0], hull.shape[1])
    forehead = fill_contour(points, FOREHEAD, size) * (1 - feature_mask(points, size, width))
    strands = (skin < 0.8 * hull) & (forehead > 0.5) & (hull > 0.5)
    rim = (hull > 0.5) & (feather_inside(hull, 0.05 * width) < 0.9)
    found = joined_to(strands, rim).astype(np.float32)
    if found.sum() < 0.003 * width * width:
        return np.zeros(size, np.float32)
    reach = 2 * max(1, round(0.05 * width)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    whole = np.asarray(cv2.morphologyEx(found, cv2.MORPH_CLOSE, kernel), np.float32)
    return blur(widen(whole, 0.04 * width), 0.012 * width) * (1 - feature_mask(points, size, width))


def foreign_mask(
    rgb: FloatArray, skin: FloatArray, points: FloatArray, hull: FloatArray, width: float
) -> FloatArray:
    """What lies on the lower face and has no colour of a face: a microphone, a scarf, a cup. float32 [H, W] in [0, 1].

    Skin, its shade and a beard's hair lie on one line of CIE Lab, from the cheeks' colour to black. What is far off it,
    no likely skin and joined to the outline is no beard; from there it may reach over the lips. rgb float32 [H, W, 3]
    in [0, 1], `skin` its skin_likelihood [H, W].
    """
    size = (rgb.shape[0], rgb.shape[1])
    lab = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab), np.float32)
    known = cheek_mask(points, size) * hull > 0.5
    if not known.any():
        return np.zeros(size, np.float32)
    tone = np.median(lab[known], axis=0)
    lightness = np.clip((lab[..., 0] - BLACK[0]) / max(float(tone[0] - BLACK[0]), 1.0), 0, 1.2)
    expected = BLACK[1:] + lightness[..., None] * (tone[1:] - BLACK[1:])
    off = blur(np.linalg.norm(lab[..., 1:] - expected, axis=-1).astype(np.float32), 0.008 * width)
    unlikely = smooth_step(np.asarray((0.5 - skin) / 0.3, np.float32))
    foreign = unlikely * smooth_step(np.asarray((off - FOREIGN_CHROMA) / 4, np.float32))
    beard, lips = (fill_contour(points, contour, size) for contour in (BEARD, mesh.OUTER_LIPS))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    core = cv2.morphologyEx((foreign * beard * hull > 0.5).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    rim = (hull > 0.5) & (feather_inside(hull, 0.05 * width) < 0.9)
    joined = joined_to(core > 0, rim)
    if joined.sum() < 0.004 * width * width:
        return np.zeros(size, np.float32)
    spread = np.maximum(1.5 * lab[joined].std(axis=0), SKIN_SPREAD)
    away = np.linalg.norm((lab - np.median(lab[joined], axis=0)) / spread, axis=-1)
    alike = joined | ((away < 2.5) & (skin < 0.5) & (np.maximum(beard, widen(lips, 0.02 * width)) > 0.5))
    found = joined_to(alike, joined).astype(np.float32) * hull
    found = np.asarray(cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.float32)
    soft = blur(widen(found, 0.012 * width), 0.01 * width)
    return np.asarray(np.minimum(soft * np.float32(1.2), 1), np.float32)


def thread_mask(
    rgb: FloatArray, skin: FloatArray, points: FloatArray, hull: FloatArray, width: float
) -> FloatArray:
    """Thin dark things that come from the outline and run on where colour says nothing: a frame of glasses between brow
    and eye, strands. float32 [H, W] in [0, 1]; 0 between the lids, at the nostrils and where a beard grows.

    Where an occluder is dark, thin and surely no skin, its colour is learnt; what is alike, thin and joined is it too.
    On a dark brow no thread is seen. rgb float32 [H, W, 3] in [0, 1], `skin` its
    skin_likelihood [H, W].
    """
    size = (rgb.shape[0], rgb.shape[1])
    lab = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab), np.float32)
    inside, nothing = hull > 0.5, np.zeros(size, np.float32)
    known = cheek_mask(points, size) * hull > 0.5
    if not known.any():
        return nothing
    tone = float(np.median(lab[..., 0][known]))
    features = feature_mask(points, size, width) > 0.5
    hats = [_black_hat(lab[..., 0], share * width) for share in THREAD_RADII]
    below = np.where(features, hats[0], hats[1])  # a brow is wider than a thread over it
    spared = _spared(points, size, width) > 0.5
    deep = feather_inside(hull, 0.05 * width) > 0.9
    sure = joined_to(~spared & (skin < 0.5) & inside, inside & ~deep) & (below > 0.15 * tone) & deep
    if sure.sum() < THREAD_AREA * width * width:
        return nothing
    colour = np.median(lab[sure], axis=0)
    spread = np.maximum(1.5 * np.median(np.abs(lab[sure] - colour), axis=0), THREAD_SPREAD)
    away = np.linalg.norm((lab - colour) / spread, axis=-1)
    alike = (away < 4) & (below > 0.3 * (tone - colour[0])) & inside & (spared | (skin < 0.5))
    for contour in (*EYES, BEARD):
        alike &= fill_contour(points, contour, size) < 0.5
    alike &= widen(fill_contour(points, NOSTRILS, size), 0.06 * width) < 0.5
    near = cv2.dilate((alike | sure).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    found = (joined_to(near, sure) & (alike | sure)).astype(np.float32)
    return np.asarray(np.minimum(1.3 * blur(widen(found, 0.014 * width), 0.008 * width), 1), np.float32)


def uncovered_share(
    rgb: FloatArray, skin: FloatArray, points: FloatArray, hull: FloatArray, width: float
) -> FloatArray:
    """1 where a face lies bare, 0 where something of its picture is in front of it, float32 [H, W].

    rgb float32 [H, W, 3] in [0, 1], `skin` its skin_likelihood [H, W].
    """
    share = 1 - occluder_mask(skin, points, hull, width)
    share = share * (1 - foreign_mask(rgb, skin, points, hull, width))
    return share * (1 - thread_mask(rgb, skin, points, hull, width))


def _black_hat(lightness: FloatArray, radius_px: float) -> FloatArray:
    """How much darker each pixel is than both its sides, for what is narrower than a disc, float32 [h, w]."""
    closed = cv2.morphologyEx(lightness, cv2.MORPH_CLOSE, _disc(radius_px))
    return np.asarray(closed - lightness, np.float32)


def _spared(points: FloatArray, size: tuple[int, int], width: float) -> FloatArray:
    """Features, beard's place and sockets: not being skin means nothing here."""
    spared = feature_mask(points, size, width)
    for contour in (BEARD, *SOCKETS):
        spared = np.maximum(spared, fill_contour(points, contour, size))
    return spared


def _disc(radius_px: float) -> npt.NDArray[np.uint8]:
    size = 2 * max(1, round(radius_px)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def joined_to(region: npt.NDArray[np.bool_], seed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The connected parts of a region [H, W] that a seed touches."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8))
    joined = np.zeros(count, bool)
    joined[np.unique(labels[seed])] = True
    joined[0] = False
    return np.asarray(joined[labels])


EYES: Final = (mesh.LEFT_EYE, mesh.RIGHT_EYE)
NOSTRILS: Final[tuple[int, ...]] = (98, 97, 2, 326, 327, 358, 279, 1, 49, 129)
BARE: Final[tuple[tuple[int, ...], ...]] = (
    (117, 118, 101, 36, 205, 187, 123),
    (346, 347, 330, 266, 425, 411, 352),
    (6, 197, 195, 5, 275, 45),
)
# Brow to cheekbone: shadow and make-up here are the face's own.
SOCKETS: Final[tuple[tuple[int, ...], ...]] = (
    (70, 63, 105, 66, 107, 193, 244, 232, 231, 230, 229, 228, 31, 226),
    (336, 296, 334, 293, 300, 446, 261, 448, 449, 450, 451, 452, 464, 417),
)
# Where a beard grows: below the nose and along the jaw, up to the corners of the mouth's height.
BEARD: Final[tuple[int, ...]] = (
    *(2, 326, 436, 432, 434, 435, 288, 397, 365, 379, 378, 400, 377, 152),
    *(148, 176, 149, 150, 136, 172, 58, 215, 214, 212, 216, 97),
)
# Least spread of a face's skin in L, a, b: smaller measured spreads are noise of a smooth picture.
SKIN_SPREAD: Final[FloatArray] = np.array([6.0, 2.5, 3.0], np.float32)
# Least spread of a thread's L, a, b, and the least area in squares of the face's width that teaches its colour.
THREAD_SPREAD: Final[FloatArray] = np.array([5.0, 3.0, 3.0], np.float32)
THREAD_AREA: Final = 0.003
THREAD_RADII: Final = (0.022, 0.04)  # half the greatest width of a thread over a feature and elsewhere
# The bare forehead: along the oval from temple to temple, back along the brows.
FOREHEAD: Final[tuple[int, ...]] = (
    *(21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251),
    *(300, 293, 334, 296, 336, 9, 107, 66, 105, 63, 70),
)
BLACK: Final[FloatArray] = np.array([12.0, 2.0, 2.0], np.float32)  # L, a, b of the darkest hair
FOREIGN_CHROMA: Final = (
    10.0  # distance from the line of skin, shade and hair at which a colour begins to be foreign
)
