"""Measures attacks by somebody who means it: averaging, copying, regenerating; knows no file and no key.

They are expected to hurt. The pilot is the same in every picture of one key, so whoever holds many outputs can estimate
it and take it away; a mark can be lifted with the noise around it and laid onto another picture; and an autoencoder
draws a picture anew from fewer numbers than it has pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from provenance import codec
from provenance.hashes import PERCEPTUAL_OTHER, hamming_distance, perceptual_hash
from provenance.mark_attacks import crop
from provenance.mark_bench import Found, Scheme, psnr_db, reading_figures
from provenance.mark_pattern import FloatArray
from provenance.mark_signal import UInt8Array, luma_of

SIDE = 512


def residual_of(rgb: UInt8Array) -> FloatArray:
    """float32 [512, 512]: what a smoother takes away, where a mark would be."""
    luma = cv2.resize(luma_of(rgb), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(luma - cv2.GaussianBlur(luma, (0, 0), 3), -12, 12), np.float32)


def common_residual(marked: Sequence[UInt8Array]) -> FloatArray:
    """The mean residual of many outputs: their pictures average out, what all share stays."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for rgb in marked:
        total += residual_of(rgb)
    return np.asarray(total / max(1, len(marked)), np.float32)


def without(rgb: UInt8Array, common: FloatArray) -> UInt8Array:
    """The picture with the common part taken off, as strongly as it correlates with it (at least once)."""
    own = residual_of(rgb)
    gain = max(1.0, float((own * common).sum() / (float((common**2).sum()) + 1e-9)))
    change = cv2.resize(gain * common, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(np.rint(rgb - change[..., None]), 0, 255), np.uint8)


def copied(marked: UInt8Array, other: UInt8Array) -> UInt8Array:
    """Another picture with this one's residual laid onto it."""
    size = (other.shape[1], other.shape[0])
    change = cv2.resize(residual_of(marked), size, interpolation=cv2.INTER_CUBIC)
    smooth = cv2.bilateralFilter(other, 7, 25, 3).astype(np.float32)
    return np.asarray(np.clip(np.rint(smooth + change[..., None]), 0, 255), np.uint8)


@dataclass(frozen=True, eq=False)
class Regenerator:
    """A linear autoencoder of square patches (Bourlard & Kamp 1988: its best weights are principal components).

    parts: float32 [K, n * n], orthonormal: the K numbers that a patch is drawn from, beside its mean.
    """

    parts: FloatArray

    @classmethod
    def learn(
        cls, pictures: Sequence[UInt8Array], side: int = 16, kept: int = 32, seed: int = 0
    ) -> Regenerator:
        """From 400 random patches of each uint8 [H, W, 3] picture."""
        rng, patches = np.random.default_rng(seed), list[FloatArray]()
        for rgb in pictures:
            luma = luma_of(rgb)
            tops, lefts = (rng.integers(0, n - side + 1, 400) for n in luma.shape)
            patches += [luma[y : y + side, x : x + side].ravel() for y, x in zip(tops, lefts, strict=True)]
        centred = np.stack(patches)
        centred = centred - centred.mean(1, keepdims=True)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        return cls(np.asarray(vectors[:, : -kept - 1 : -1].T, np.float32))

    def draw(self, rgb: UInt8Array) -> UInt8Array:
        """The picture drawn anew: every patch on a grid of a quarter patch, averaged; colours stay."""
        side = math.isqrt(self.parts.shape[1])
        luma = luma_of(rgb)
        height, width = luma.shape
        padded = np.pad(luma, ((side, side + -height % side), (side, side + -width % side)), "reflect")
        total, step = np.zeros_like(padded), side // 4
        for top in range(0, side, step):
            for left in range(0, side, step):
                part = padded[top : padded.shape[0] - side + top, left : padded.shape[1] - side + left]
                rows, columns = (n // side for n in part.shape)
                blocks = part.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side * side)
                mean = blocks.mean(1, keepdims=True)
                blocks = mean + (blocks - mean) @ self.parts.T @ self.parts
                drawn = blocks.reshape(rows, columns, side, side).swapaxes(1, 2).reshape(part.shape)
                total[top : top + part.shape[0], left : left + part.shape[1]] += drawn
        drawn = total[side : side + height, side : side + width] / 16
        return np.asarray(np.clip(np.rint(rgb + (drawn - luma)[..., None]), 0, 255), np.uint8)


def measure_copies(
    scheme: Scheme,
    rgb: UInt8Array,
    other: UInt8Array,
    common: FloatArray,
    artist: Regenerator,
    seed: Sequence[int],
) -> Found:
    """Cases adversary_average, adversary_average_crop, adversary_regenerate and adversary_copy of one uint8 [H, W, 3]
    picture.

    common: what the attacker made of the outputs that he collected (`common_residual`). For adversary_copy `present`
    is the attack's success on the other picture, and `transplant_told` says that the perceptual hash gives it away.
    """
    rng = np.random.default_rng(list(seed))
    asset_id = rng.bytes(codec.ID_BYTES)
    marked = scheme.embed(rgb, asset_id)
    cleaned, forged = without(marked, common), copied(marked, other)
    distance = hamming_distance(perceptual_hash(marked), perceptual_hash(forged))
    redrawn = artist.draw(marked)
    seen = {
        "adversary_regenerate": redrawn,
        "adversary_average": cleaned,
        "adversary_average_crop": crop(0.1)(cleaned, rng),
        "adversary_copy": forged,
    }
    found = {case: reading_figures(scheme.extract(each), asset_id, scheme.key) for case, each in seen.items()}
    found["adversary_average"]["psnr_db"] = psnr_db(marked, cleaned)
    found["adversary_regenerate"]["psnr_db"] = psnr_db(marked, redrawn)
    found["adversary_copy"]["transplant_told"] = float(distance >= PERCEPTUAL_OTHER)
    return found
