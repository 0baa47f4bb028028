"""Measures attacks by somebody who means it: averaging outputs, copying the mark; knows no file and no key.

They are expected to hurt. The pilot is the same in every picture of one key, so whoever holds many outputs can estimate
it and take it away; a mark can be lifted with the noise around it and laid onto another picture.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def measure_copies(
    scheme: Scheme, rgb: UInt8Array, other: UInt8Array, common: FloatArray, seed: Sequence[int]
) -> Found:
    """Cases adversary_average, adversary_average_crop and adversary_copy of one uint8 [H, W, 3] picture.

    common: what the attacker made of the outputs that he collected (`common_residual`). For adversary_copy `present`
    is the attack's success on the other picture, and `transplant_told` says that the perceptual hash gives it away.
    """
    rng = np.random.default_rng(list(seed))
    asset_id = rng.bytes(codec.ID_BYTES)
    marked = scheme.embed(rgb, asset_id)
    cleaned, forged = without(marked, common), copied(marked, other)
    distance = hamming_distance(perceptual_hash(marked), perceptual_hash(forged))
    seen = {
        "adversary_average": cleaned,
        "adversary_average_crop": crop(0.1)(cleaned, rng),
        "adversary_copy": forged,
    }
    found = {case: reading_figures(scheme.extract(each), asset_id, scheme.key) for case, each in seen.items()}
    found["adversary_average"]["psnr_db"] = psnr_db(marked, cleaned)
    found["adversary_copy"]["transplant_told"] = float(distance >= PERCEPTUAL_OTHER)
    return found
