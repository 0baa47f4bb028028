"""Embeds a 64-bit id imperceptibly into a picture and reads it back; knows no file, no ledger, no network.

Keyed spread spectrum in the luma's working frame (mark_signal), on Fourier carriers of a repeated tile
(mark_pattern), with informed strengths: bits that the picture opposes get more of the same budget (improved
spread spectrum, Malvar & Florencio 2003).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from provenance import codec
from provenance.errors import InputError, VerificationError
from provenance.mark_pattern import (
    ComplexArray,
    FloatArray,
    Pattern,
    pattern_for,
    tile_from_coefficients,
)
from provenance.mark_search import POSES_TRIED, Pose, View, carriers_at, find_poses, pilot_score, view_of
from provenance.mark_signal import (
    UInt8Array,
    hiding_room,
    normalised_band,
    resize,
    spread,
    working_luma,
)

MIN_SIDE_PX = 128
FALSE_ALARM = 1e-6
TARGET_PSNR_DB = 42.2
TARGET_SSIM = 0.9912
_STRENGTHS = (1.0, 1.3, 1.7, 2.2)  # tried in turn until the picture reads back
_CLEAN_ERRORS = 4  # hard bits that may differ in the picture as it leaves
_PILOT_GAIN = 1.0


@dataclass(frozen=True, eq=False)
class MarkReading:
    """What a picture says under one key.

    present: p_false < FALSE_ALARM; asset_id: 16 hex digits or None (present yet unreadable, or absent);
    bit_accuracy: share of the 128 hard bits that agree with the decoded word, None without one;
    p_false: bound on the chance that an unmarked picture reads like this or better;
    soft: float32 [128] logits of the coded bits (sum those of several frames, then `decode_logits`);
    pose: where it was found.
    """

    present: bool
    asset_id: str | None
    bit_accuracy: float | None
    p_false: float
    soft: npt.NDArray[np.float32]
    pose: Pose


def _check_picture(rgb: UInt8Array) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(
            "mark.not_rgb", f"expected uint8 [H, W, 3], got {rgb.dtype} {rgb.shape}", "pass 8-bit RGB"
        )
    if min(rgb.shape[:2]) < MIN_SIDE_PX:
        cause = f"the picture is {rgb.shape[1]}x{rgb.shape[0]}; a mark needs {MIN_SIDE_PX} pixels a side"
        raise InputError("mark.too_small", cause, "use a larger picture")


# ---------------------------------------------------------------- reading


def _soft_bits(pattern: Pattern, white: ComplexArray) -> FloatArray:
    """float32 [128]: matched filter per bit; each distance weighs as much as the pilot survived there."""
    agreement = (np.conj(pattern.phase) * white).real
    ring = np.minimum((pattern.radius / 3).astype(np.int64), 8)
    pilot = pattern.pilot
    hits = np.bincount(ring[pilot], agreement[pilot], 9)
    weight = (hits + 4.0) / (np.bincount(ring[pilot], minlength=9) + 8.0)
    weight = np.maximum(weight, 0.1)[ring[~pilot]]
    owner = pattern.owner[~pilot]
    power = np.bincount(owner, (weight * np.abs(white[~pilot])) ** 2, codec.CODED_BITS) / 2
    return np.asarray(
        np.bincount(owner, weight * agreement[~pilot], codec.CODED_BITS) / np.sqrt(power.mean() + 1e-12),
        np.float32,
    )


def _combined(p_pilot: float, p_code: float) -> float:
    """Fisher's bound for the product of two independent p-values: q (1 - ln q)."""
    q = max(min(1.0, p_pilot) * min(1.0, p_code), 1e-300)
    return q * (1 - math.log(q))


def decode_logits(
    soft: FloatArray, key: bytes, p_pilot: float = 1.0, tries: int = 1
) -> tuple[codec.Decoded, float]:
    """The likeliest id of 128 logits and its p_false, given the pilot's bound and the sets tried."""
    found = codec.decode_soft(soft, key)
    return found, _combined(p_pilot, tries * codec.chance_of_agreement(found.errors))


def _read_at(
    pattern: Pattern, key: bytes, view: View, pose: Pose, *, poses: float, tries: int
) -> MarkReading:
    white = carriers_at(pattern, view, pose)
    p_pilot = min(1.0, poses * math.exp(-(max(pilot_score(pattern, white), 0.0) ** 2) / 2))
    soft = _soft_bits(pattern, white)
    found, p_false = decode_logits(soft, key, p_pilot, tries)
    readable = p_false < FALSE_ALARM and tries * codec.chance_of_agreement(found.errors) < 1e-2
    best = p_false if readable else min(p_false, _combined(p_pilot, 1.0))
    return MarkReading(
        present=best < FALSE_ALARM,
        asset_id=found.asset_id.hex() if readable else None,
        bit_accuracy=1 - found.errors / codec.CODED_BITS if readable else None,
        p_false=best,
        soft=soft,
        pose=pose,
    )


def extract(rgb: UInt8Array, key: bytes, *, search: Literal["fast", "full"] = "full") -> MarkReading:
    """Read the mark of uint8 [H, W, 3] RGB.

    "fast" looks where an uncropped copy of any size has it, straight and mirrored; "full" then searches crops
    down to half the side and turns of 7.5 degrees. Raises InputError mark.not_rgb, mark.too_small,
    mark.key_length.
    """
    _check_picture(rgb)
    codec.keyed_mask(key)
    pattern = pattern_for(key)
    band = normalised_band(working_luma(rgb))
    view = view_of(band, 1)
    direct = [_read_at(pattern, key, view, Pose(mirrored=m), poses=2, tries=2) for m in (False, True)]
    best = min(direct, key=lambda r: r.p_false)
    if best.asset_id is not None or search == "fast":
        return best
    poses = find_poses(pattern, band)
    deep = [_read_at(pattern, key, view, p, poses=POSES_TRIED, tries=len(poses) + 2) for p in poses]
    return min([best, *deep], key=lambda r: r.p_false)


# ---------------------------------------------------------------- embedding


def _similarity(a: FloatArray, b: FloatArray) -> float:
    """Mean SSIM of two luma planes (Wang 2004, Gaussian window 11, sigma 1.5)."""

    def mean(x: FloatArray) -> FloatArray:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 6.5025) * (2 * cov + 58.5225)
    return float((top / ((mean_a**2 + mean_b**2 + 6.5025) * (var_a + var_b + 58.5225))).mean())


def _within_budget(luma: FloatArray, change: FloatArray, size: tuple[int, int]) -> float:
    """The factor that brings a working-frame change to the quality targets at a picture's (width, height)."""
    if size[0] < luma.shape[1]:
        luma, change = resize(luma, size), resize(change, size)
    mse = 255.0**2 / 10 ** (TARGET_PSNR_DB / 10)
    factor = math.sqrt(mse / (float((change**2).mean()) + 1e-9))
    for _ in range(2):
        loss = 1 - _similarity(luma, luma + factor * change)
        factor *= min(1.0, math.sqrt((1 - TARGET_SSIM) / (loss + 1e-9)))
    return factor


def _apply(rgb: UInt8Array, change: FloatArray) -> UInt8Array:
    """The picture with a working-frame luma change added to its three channels, rounded and saturated."""
    plane = resize(change, (rgb.shape[1], rgb.shape[0])) if change.shape != rgb.shape[:2] else change
    return np.asarray(cv2.add(rgb, cv2.merge([plane, plane, plane]), dtype=cv2.CV_8U), np.uint8)


def _agreements(pattern: Pattern, signs: FloatArray, band: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(mean whitened agreement per bit with its wanted sign [128], pilot's [1]) of a band at rest."""
    white = carriers_at(pattern, view_of(band, 1), Pose())
    agreement = (np.conj(pattern.phase) * white).real * signs
    owner = np.where(pattern.pilot, codec.CODED_BITS, pattern.owner)
    means = np.bincount(owner, agreement) / np.bincount(owner)
    return means[:-1].astype(np.float32), means[-1:].astype(np.float32)


def _strengths(host: FloatArray, gain: float) -> FloatArray:
    """[128] amplitudes of mean square one that lift every bit to one margin; none below a third."""
    wanted = -host / gain
    low, high = float(wanted.min()) - 3, float(-wanted.min()) + 3
    for _ in range(30):
        margin = (low + high) / 2
        level = np.maximum(wanted + margin, 0.35)
        low, high = (margin, high) if float((level**2).mean()) < 1 else (low, margin)
    return np.asarray(np.maximum(wanted + low, 0.35), np.float32)


def _change(pattern: Pattern, signs: FloatArray, level: FloatArray, room: FloatArray) -> FloatArray:
    """The luma change of the working frame for amplitudes [129], the pilot's last."""
    amplitude = level[np.where(pattern.pilot, codec.CODED_BITS, pattern.owner)] * pattern.radius**-0.5
    tile = tile_from_coefficients(pattern, (pattern.phase * signs * amplitude).astype(np.complex64))
    return spread(tile / (float(tile.std()) + 1e-9), *room.shape) * room


def _informed_change(
    pattern: Pattern, signs: FloatArray, luma: FloatArray, size: tuple[int, int]
) -> FloatArray:
    """The change within the quality budget whose weakest bits are as strong as the budget allows."""
    room = hiding_room(luma)
    host, _ = _agreements(pattern, signs, normalised_band(luma))
    level = np.ones(codec.CODED_BITS + 1, np.float32)
    level[-1] = _PILOT_GAIN
    change = _change(pattern, signs, level, room)
    factor = _within_budget(luma, change, size)
    for _ in range(2):
        seen, _ = _agreements(pattern, signs, normalised_band(luma + factor * change))
        gain = max(float((seen - host).mean() / level[:-1].mean()), 1e-3)
        level[:-1] = _strengths(seen - gain * level[:-1], gain)
        change = _change(pattern, signs, level, room)
    return change * _within_budget(luma, change, size)


def embed(rgb: UInt8Array, asset_id: bytes, key: bytes) -> UInt8Array:
    """A copy of uint8 [H, W, 3] RGB that carries the 8-byte id under the 32-byte key.

    Reads its own output back and strengthens the mark until it is there; raises VerificationError
    mark.not_embedded otherwise, InputError mark.not_rgb, mark.too_small, mark.id_length, mark.key_length.
    """
    _check_picture(rgb)
    bits = codec.encode(asset_id, key)
    pattern = pattern_for(key)
    coded = 2.0 * bits.astype(np.float32) - 1
    signs = np.where(pattern.pilot, np.float32(1), coded[np.maximum(pattern.owner, 0)])
    luma = working_luma(rgb)
    change = _informed_change(pattern, signs, luma, (rgb.shape[1], rgb.shape[0]))
    for strength in _STRENGTHS:
        marked = _apply(rgb, change * strength)
        reading = extract(marked, key, search="fast")
        clean = (
            reading.bit_accuracy is not None and reading.bit_accuracy >= 1 - _CLEAN_ERRORS / codec.CODED_BITS
        )
        if reading.asset_id == asset_id.hex() and clean:
            return marked
    raise VerificationError(
        "mark.not_embedded", "the picture does not hold the mark even at full strength", "use another picture"
    )
