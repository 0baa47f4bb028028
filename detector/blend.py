"""Self-blended images: one face crop blended with an altered copy of itself; knows no network and no file.

Written from the description in Shiohara and Yamasaki 2022 (arXiv 2204.08376), section 3: a copy is changed in colour,
sharpness or place, and laid back through a mask. Label fake; the mask is the truth. Families differ in mask and seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from detector.held_out import HELD_OUT
from fusion import mesh
from fusion.face import FloatArray, UInt8Array
from fusion.paste import membrane

Rng = np.random.Generator

FAMILIES: Final[tuple[str, ...]] = ("hull", "inner", "parts", "irregular", "poisson")
"""Learnt from. The seam of `poisson` is solved for, so that no colour step is left."""
ALL_FAMILIES: Final = (*FAMILIES, *HELD_OUT.families)
"""With `pyramid`, never learnt from: blended octave by octave (Burt and Adelson 1983), so that no edge is left."""
_OUTLINES: Final = ("hull", "inner", "parts", "irregular")
_PARTS: Final[tuple[tuple[int, ...], ...]] = (
    (*mesh.LEFT_BROW, 226, 31, 228, 229, 230, 231, 232, 244),
    (*mesh.RIGHT_BROW, 446, 261, 448, 449, 450, 451, 452, 464),
    (*mesh.OUTER_LIPS, 164, 18),
    (168, 193, 129, 64, 98, 97, 2, 326, 327, 294, 358, 417),
)
_INNER: Final[tuple[int, ...]] = (
    70,
    63,
    105,
    66,
    107,
    336,
    296,
    334,
    293,
    300,
    352,
    411,
    432,
    262,
    32,
    212,
    187,
    123,
)


def self_blend(
    rgb: UInt8Array, points: FloatArray, rng: Rng, family: str, strength: float = 1.0
) -> tuple[UInt8Array, FloatArray]:
    """A self-blended crop uint8 [S, S, 3] and its mask float32 [S, S], of a crop and its landmarks [478, 2] in px.

    `family` is one of ALL_FAMILIES. `strength` 1 is as in the paper; 2 is easy to see.
    """
    width = mesh.face_width(points)
    copy = _change_look(rgb, rng, strength)
    copy, shift = _misplace(copy, rng, width, strength)
    outline = family if family in _OUTLINES else "hull"
    mask = draw_mask(points + shift / np.float32(2), rgb.shape[0], rng, outline)
    if family == "poisson":
        return _poisson(rgb, copy, mask)
    if family == "pyramid":
        return _pyramid(rgb, copy, mask, int(rng.integers(3, 6)))
    share = mask * np.float32(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0]))
    mixed = rgb + share[..., None] * (copy.astype(np.float32) - rgb)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), mask


def draw_mask(points: FloatArray, side: int, rng: Rng, family: str) -> FloatArray:
    """Soft mask float32 [S, S] in [0, 1] of a family, deformed and feathered at random, highest value 1."""
    width = mesh.face_width(points)
    mask = np.zeros((side, side), np.float32)
    for contour in _contours(rng, family):
        outline = points[list(contour)] + rng.normal(0, 0.015 * width, (len(contour), 2))
        cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(outline).astype(np.int32)), 1)
    if family == "irregular":
        noise = cv2.resize(rng.random((6, 6), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        mask *= noise > np.quantile(noise, rng.uniform(0.2, 0.6))
    mask = _deform(mask, rng, 0.03 * width)
    reach = max(1, int(rng.uniform(0, 0.06) * width))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    moved = cv2.erode(mask, kernel) if rng.random() < 0.6 else cv2.dilate(mask, kernel)
    sigma = float(np.exp(rng.uniform(np.log(0.005), np.log(0.06)))) * width
    soft = np.asarray(cv2.GaussianBlur(moved, (0, 0), max(sigma, 0.4)), np.float32)
    peak = float(soft.max())
    return soft / np.float32(peak) if peak > 0.05 else soft


def _contours(rng: Rng, family: str) -> Sequence[tuple[int, ...]]:
    if family == "inner":
        return (_INNER,)
    if family == "parts":
        chosen = np.flatnonzero(rng.random(len(_PARTS)) < 0.5)
        return [_PARTS[i] for i in (chosen if len(chosen) else [int(rng.integers(len(_PARTS)))])]
    return (mesh.OVAL,)


def _deform(mask: FloatArray, rng: Rng, amplitude_px: float) -> FloatArray:
    """Elastic deformation by a smooth random field."""
    side = mask.shape[0]
    field = [
        cv2.resize(
            rng.normal(0, amplitude_px, (5, 5)).astype(np.float32),
            (side, side),
            interpolation=cv2.INTER_CUBIC,
        )
        for _ in range(2)
    ]
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    return np.asarray(cv2.remap(mask, x + field[0], y + field[1], cv2.INTER_LINEAR), np.float32)


def _change_look(rgb: UInt8Array, rng: Rng, strength: float) -> UInt8Array:
    """Colour, light and sharpness of the copy: one to three of them, so that never all stay."""
    kinds = rng.permutation(4)[: int(rng.integers(1, 4))]
    look = rgb.astype(np.float32)
    for kind in kinds:
        if kind == 0:
            look = look + np.float32(strength) * rng.uniform(-20, 20, 3).astype(np.float32)
        elif kind == 1:
            gain = 1 + strength * rng.uniform(-0.15, 0.15)
            look = (look - 128) * np.float32(gain) + 128 + np.float32(strength * rng.uniform(-18, 18))
        elif kind == 2:
            look = _soften_or_sharpen(look, rng, strength)
        else:
            grey = look @ np.array([0.299, 0.587, 0.114], np.float32)
            look = grey[..., None] + np.float32(1 + strength * rng.uniform(-0.3, 0.3)) * (
                look - grey[..., None]
            )
    return np.clip(np.rint(look), 0, 255).astype(np.uint8)


def _soften_or_sharpen(look: FloatArray, rng: Rng, strength: float) -> FloatArray:
    side = look.shape[0]
    if rng.random() < 0.5:
        small = max(8, round(side / rng.uniform(1.3, 1 + 1.5 * strength)))
        down = cv2.resize(look, (small, small), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(down, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)
    soft = cv2.GaussianBlur(look, (0, 0), 1.2)
    return np.asarray(look + np.float32(rng.uniform(0.3, 0.8) * strength) * (look - soft), np.float32)


def _misplace(rgb: UInt8Array, rng: Rng, width: float, strength: float) -> tuple[UInt8Array, FloatArray]:
    """The copy moved by up to 3 % of the face's width and scaled by up to 5 %; its shift [2] in px."""
    side = rgb.shape[0]
    shift = (strength * rng.uniform(-0.03, 0.03, 2) * width).astype(np.float32)
    scale = 1 + strength * rng.uniform(-0.05, 0.05, 2)
    matrix = np.array(
        [
            [scale[0], 0, shift[0] + (1 - scale[0]) * side / 2],
            [0, scale[1], shift[1] + (1 - scale[1]) * side / 2],
        ]
    )
    moved = cv2.warpAffine(
        rgb, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, np.uint8), shift


def _poisson(rgb: UInt8Array, copy: UInt8Array, mask: FloatArray) -> tuple[UInt8Array, FloatArray]:
    """Seam by the Poisson equation (Pérez 2003): the copy plus the membrane of the difference at the rim."""
    inside = mask > 0.5
    inside[[0, -1]] = False
    inside[:, [0, -1]] = False
    if not inside.any():
        return rgb, inside.astype(np.float32)
    x, y, width, height = cv2.boundingRect(inside.astype(np.uint8))
    part = np.s_[y - 1 : y + height + 1, x - 1 : x + width + 1]  # the rim is known, nothing beyond it matters
    difference = rgb[part].astype(np.float32) - copy[part].astype(np.float32)
    solved = np.clip(np.rint(copy[part] + membrane(difference, inside[part])), 0, 255).astype(np.uint8)
    mixed = rgb.copy()
    mixed[part] = np.where(inside[part][..., None], solved, rgb[part])
    return mixed, inside.astype(np.float32)


def _pyramid(
    rgb: UInt8Array, copy: UInt8Array, mask: FloatArray, levels: int
) -> tuple[UInt8Array, FloatArray]:
    """Octave by octave, each with the mask at its own scale (Burt and Adelson 1983, section 3); truth: the widest."""
    shares, first, second = [mask], [rgb.astype(np.float32)], [copy.astype(np.float32)]
    for level in range(levels):
        for stack in (shares, first, second):
            stack.append(np.asarray(cv2.pyrDown(stack[level]), np.float32))
    truth, mixed = shares[-1], first[-1] + shares[-1][..., None] * (second[-1] - first[-1])
    for level in range(levels - 1, -1, -1):
        size = (shares[level].shape[1], shares[level].shape[0])
        detail = [stack[level] - cv2.pyrUp(stack[level + 1], dstsize=size) for stack in (first, second)]
        mixed = (
            cv2.pyrUp(mixed, dstsize=size) + detail[0] + shares[level][..., None] * (detail[1] - detail[0])
        )
        truth = np.maximum(cv2.pyrUp(truth, dstsize=size), shares[level])
    peak = max(float(truth.max()), 1e-6)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), np.asarray(truth / peak, np.float32)
