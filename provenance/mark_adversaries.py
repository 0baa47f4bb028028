"""Measures attacks by somebody who means it: averaging outputs, copying the mark; knows no file and no key.

They are expected to hurt. The pilot is the same in every picture of one key, so whoever holds many outputs can estimate
it and take it away; a mark can be lifted with the noise around it and laid onto another picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from provenance import codec, watermark
from provenance.hashes import PERCEPTUAL_OTHER, hamming_distance, perceptual_hash
from provenance.mark_bench import Row, crop, row_of
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


def measure_adversaries(
    pictures: Sequence[UInt8Array], key: bytes, *, victims: int = 20, seed: int = 0
) -> list[Row]:
    """Cases adversary_average, adversary_average_crop and adversary_copy over uint8 [H, W, 3] pictures.

    All but the last `victims` pictures are the outputs that the attacker collected. For adversary_copy `id_recovered`
    is the attack's success, and `transplant_told` the share that the perceptual hash gives away.
    """
    rng = np.random.default_rng(seed)
    ids = [rng.bytes(codec.ID_BYTES) for _ in pictures]
    marked = [watermark.embed(rgb, each, key) for rgb, each in zip(pictures, ids, strict=True)]
    common = common_residual(marked[:-victims])
    found: dict[tuple[str, str], list[float]] = {}

    def note(case: str, metric: str, value: float) -> None:
        found.setdefault((case, metric), []).append(value)

    for number in range(len(pictures) - victims, len(pictures)):
        cleaned, wanted = without(marked[number], common), ids[number].hex()
        seen = {"adversary_average": cleaned, "adversary_average_crop": crop(0.1)(cleaned, rng)}
        for case, rgb in seen.items():
            note(case, "id_recovered", float(watermark.extract(rgb, key).asset_id == wanted))
        other = pictures[(number + 1) % len(pictures)]
        forged = copied(marked[number], other)
        reading = watermark.extract(forged, key)
        distance = hamming_distance(perceptual_hash(marked[number]), perceptual_hash(forged))
        note("adversary_copy", "id_recovered", float(reading.asset_id == wanted))
        note("adversary_copy", "transplant_told", float(distance >= PERCEPTUAL_OTHER))
    return [row_of(case, metric, values) for (case, metric), values in found.items()]
