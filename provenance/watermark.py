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
    TILE,
    ComplexArray,
    FloatArray,
    Pattern,
    pattern_for,
    tile_from_coefficients,
)
from provenance.mark_search import (
    CANDIDATES,
    POSES_TRIED,
    Pose,
    View,
    carriers_at,
    find_poses,
    pilot_score,
    view_of,
)
from provenance.mark_signal import (
    DRAWN,
    UInt8Array,
    hiding_room,
    luma_of,
    normalised_band,
    resize,
    spread,
    working_band,
    working_size,
)

Search = Literal["fast", "full"]

MIN_SIDE_PX = 128
STRAIGHT = Pose()
FALSE_ALARM = 1e-6
READABLE = 1e-3  # the code's own bound, below which an id is stated
WORDS = 3  # straight, mirrored, and the best that a search finds
_REACHES = (21.0, 30.0, 99.0)  # cycles a tile
_CERTAIN = 1e-12  # no better pose is looked for
TARGET_PSNR_DB = 42.12
TARGET_SSIM = 0.9901
_ROUNDED = 1 / 12  # variance of what rounding to whole grey levels adds
_TILT = (0.2, 44.5, -0.3, 0.45)  # an octave's amplitudes per dB, the dB without, least and most
_STRENGTHS = (1.0, 1.3, 1.7, 2.2)  # tried in turn until the picture reads back
_CLEAN_ERRORS = 4  # hard bits that may differ in the picture as it leaves
_PILOT_LEVELS = (0.8, 2.0)  # of the pilot's waves, of the mean amplitude of a bit: least and most
_PILOT_AIM = 20.0  # standard deviations of chance that it reaches; the search needs about six


@dataclass(frozen=True, eq=False)
class MarkReading:
    """What a picture says under one key.

    present: p_false < FALSE_ALARM; asset_id: 16 hex digits or None (present yet unreadable, or absent);
    bit_accuracy: share of the 128 hard bits that agree with the decoded word, None without one;
    p_false: bound on the chance that an unmarked picture reads like this or better;
    soft: float32 [128] logits of the coded bits (those of many frames: `provenance.mark_frames`);
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
    """float32 [128]: matched filter per bit; carriers weigh as much as those of their radius agree with each
    other.

    The weights don't change when a bit's sign does, so an unmarked picture's bits stay uniform under the
    keyed mask.
    """
    payload = ~pattern.pilot
    owner, ring = pattern.owner[payload], (pattern.radius[payload] / 4).astype(np.int64)
    agreement = (np.conj(pattern.phase[payload]) * white[payload]).real
    weight = np.ones(len(owner))
    for _ in range(2):
        total = np.bincount(owner, weight * agreement, codec.CODED_BITS)[owner] - weight * agreement
        kept = np.bincount(ring, agreement * np.sign(total)) / np.maximum(np.bincount(ring), 1)
        weight = np.maximum(kept, 0.05)[ring]
    power = np.bincount(owner, (weight * np.abs(white[payload])) ** 2, codec.CODED_BITS).mean() / 2
    soft = np.bincount(owner, weight * agreement, codec.CODED_BITS) / math.sqrt(power + 1e-12)
    return np.asarray(soft, np.float32)


def _chances_of_energy(pattern: Pattern, white: ComplexArray) -> FloatArray:
    """Bounds on P(the bits' carriers [..., K] agree this much among themselves), whatever picture and signs.

    Over uniform keyed phases each bit's normalised sum X is sub-Gaussian with proxy 1 (as the pilot's, mark_search),
    so E exp(l X^2) <= (1 - 2l)^-1/2 and P(sum of n X^2 >= s) <= exp((n - s + n ln(s/n)) / 2). The search moves by
    the pilot alone, whose phases are others; energy then chooses among at most CANDIDATES poses (`tries`), and here
    among the radii that a blur left.
    """
    rounds, count = pattern.rounds, float(codec.CODED_BITS)
    values = white[..., rounds]
    along = np.cumsum((np.conj(pattern.phase[rounds]) * values).real, axis=-2)
    power = np.cumsum(values.real**2 + values.imag**2, axis=-2) / 2
    exponents = [np.zeros(white.shape[:-1])]
    for reach in _REACHES:
        last = max(int((pattern.radius[rounds[:, -1]] < reach).sum()) - 1, 0)
        energy = (along[..., last, :] ** 2 / (power[..., last, :] + 1e-12)).sum(-1, dtype=np.float64)
        ratio = np.maximum(energy / count, 1.0)
        exponents.append(count * (1 - ratio + np.log(ratio)) / 2)
    return np.asarray(np.minimum(1.0, len(_REACHES) * np.exp(np.min(exponents, axis=0))))


def _combined(p_one: float, p_other: float) -> float:
    """Fisher's bound for the product of two independent p-values: q (1 - ln q)."""
    q = max(min(1.0, p_one) * min(1.0, p_other), 1e-300)
    return q * (1 - math.log(q))


def decode_logits(
    soft: FloatArray, key: bytes, p_signal: float = 1.0, tries: int = 1
) -> tuple[codec.Decoded, float]:
    """The likeliest id of 128 logits and the code's own bound, over the sets tried.

    Where the signal is certain and the word far off, a deeper search is worth its time.
    """
    found = codec.decode_soft(soft, key)
    p_code = _chance_of_code(soft, found, tries)
    if p_code >= READABLE and p_signal < FALSE_ALARM:
        found = codec.decode_soft(soft, key, order=3)
        p_code = _chance_of_code(soft, found, tries)
    return found, p_code


def _chance_of_code(soft: FloatArray, found: codec.Decoded, tries: int) -> float:
    """Bound on the chance that noise decodes this well: by hard errors or by soft agreement, whichever says less."""
    hard, weighted = codec.chance_of_agreement(found.errors), codec.chance_of_correlation(soft, found.bits)
    return min(1.0, 2 * tries * min(hard, weighted))


@dataclass(frozen=True, eq=False)
class Signal:
    """What lies at one pose: whitened carriers and the bound from pilot and energy, which no bit's sign touches."""

    pose: Pose
    white: ComplexArray
    p_signal: float


def signal_of(pattern: Pattern, white: ComplexArray, pose: Pose, *, poses: float, tries: float) -> Signal:
    """Two witnesses of carriers [K], independent for whoever lacks the key: the pilot, and the energy of the bits.

    poses and tries: among how many each was chosen.
    """
    p_pilot = min(1.0, poses * math.exp(-(max(pilot_score(pattern, white), 0.0) ** 2) / 2))
    return Signal(
        pose, white, _combined(p_pilot, min(1.0, tries * float(_chances_of_energy(pattern, white))))
    )


def _signal_at(pattern: Pattern, view: View, pose: Pose, *, poses: float, tries: int) -> Signal:
    return signal_of(pattern, carriers_at(pattern, view, pose), pose, poses=poses, tries=tries)


def read_signal(pattern: Pattern, key: bytes, signal: Signal, words: int = WORDS) -> MarkReading:
    """The third witness: the bits' signs. At most `words` signals are read, chosen without looking at signs."""
    soft = _soft_bits(pattern, signal.white)
    found, p_code = decode_logits(soft, key, signal.p_signal, words)
    p_false = _combined(signal.p_signal, p_code)
    readable = p_false < FALSE_ALARM and p_code < READABLE
    return MarkReading(
        present=p_false < FALSE_ALARM,
        asset_id=found.asset_id.hex() if readable else None,
        bit_accuracy=1 - found.errors / codec.CODED_BITS if readable else None,
        p_false=p_false,
        soft=soft,
        pose=signal.pose,
    )


def extract(rgb: UInt8Array, key: bytes, *, search: Search = "full") -> MarkReading:
    """Read the mark of uint8 [H, W, 3] RGB.

    "fast" looks where an uncropped copy of any size has it, straight and mirrored; "full" then searches crops
    down to half the side and turns of 7.5 degrees. Raises InputError mark.not_rgb, mark.too_small,
    mark.key_length.
    """
    _check_picture(rgb)
    codec.keyed_mask(key)
    pattern = pattern_for(key)
    view = view_of(working_band(rgb))
    best: MarkReading | None = None
    for mirrored in (False, True):
        signal = _signal_at(pattern, view, Pose(mirrored=mirrored), poses=2, tries=2)
        found = read_signal(pattern, key, signal)
        best = found if best is None or found.p_false < best.p_false else best
        if best.asset_id is not None:
            return best
    assert best is not None
    if search == "fast":
        return best
    found = read_signal(pattern, key, strongest_signal(pattern, view))
    return found if found.p_false < best.p_false else best


def strongest_signal(pattern: Pattern, view: View) -> Signal:
    """The strongest signal among the poses that the pilot suggests."""
    best: Signal | None = None
    for pose in find_poses(pattern, view, _chances_of_energy):
        signal = _signal_at(pattern, view, pose, poses=POSES_TRIED, tries=CANDIDATES)
        best = signal if best is None or signal.p_signal < best.p_signal else best
        if best.p_signal < _CERTAIN:
            break
    assert best is not None
    return best


# ---------------------------------------------------------------- embedding


class _Budget:
    """The quality targets for changes of one luma plane: SSIM (Wang 2004, window 11, sigma 1.5) in closed form."""

    def __init__(self, luma: FloatArray, size: tuple[int, int]) -> None:
        self._size = (min(size[0], luma.shape[1]), min(size[1], luma.shape[0]))
        self._rounded = _ROUNDED if self._size == size else 0.0
        self._luma = resize(luma, self._size)
        self._mean = _window(self._luma)
        self._variance = _window(self._luma**2) - self._mean**2

    def factor(self, change: FloatArray) -> float:
        """What to multiply a change by so that it just meets the targets."""
        change = resize(change, self._size)
        power = float((change**2).mean()) + 1e-9
        mean = _window(change)
        variance, cross = _window(change**2) - mean**2, _window(self._luma * change) - self._mean * mean
        factor = 255.0 / 10 ** (TARGET_PSNR_DB / 20) / math.sqrt(power)
        for _ in range(3):
            seen = self._mean + factor * mean
            extra = 2 * factor * cross + factor**2 * variance + self._rounded
            top = (2 * self._mean * seen + 6.5025) * (2 * (self._variance + factor * cross) + 58.5225)
            bottom = (self._mean**2 + seen**2 + 6.5025) * (2 * self._variance + extra + 58.5225)
            factor *= min(1.0, math.sqrt((1 - TARGET_SSIM) / (1 - float((top / bottom).mean()) + 1e-9)))
        return factor


def _window(plane: FloatArray) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5), np.float32)


def _apply(rgb: UInt8Array, change: FloatArray) -> UInt8Array:
    """The picture with a luma change, drawn in the working frame, added to its three channels; saturates."""
    plane = resize(change, (rgb.shape[1], rgb.shape[0]))
    return np.asarray(cv2.add(rgb, cv2.merge([plane, plane, plane]), dtype=cv2.CV_8U), np.uint8)


def _agreements(pattern: Pattern, signs: FloatArray, luma: FloatArray) -> FloatArray:
    """float32 [130]: mean agreement of each group's carriers with their wanted signs."""
    white = carriers_at(pattern, view_of(normalised_band(luma)), Pose())
    agreement = (np.conj(pattern.phase) * white).real * signs
    return np.asarray(np.bincount(pattern.group, agreement) / np.bincount(pattern.group), np.float32)


def _strengths(host: FloatArray, gain: float) -> FloatArray:
    """[128] amplitudes of mean square one that lift every bit to one margin; none below a third."""
    wanted = -host / gain
    low, high = float(wanted.min()) - 3, float(-wanted.min()) + 3
    for _ in range(30):
        margin = (low + high) / 2
        level = np.maximum(wanted + margin, 0.35)
        low, high = (margin, high) if float((level**2).mean()) < 1 else (low, margin)
    return np.asarray(np.maximum(wanted + low, 0.35), np.float32)


def _pilot_levels(pattern: Pattern, host: FloatArray, gain: FloatArray) -> FloatArray:
    """float32 [2]: amplitudes of the pilot's long and short waves, in the ratio of what they gain (maximum ratio
    combining), that bring its score to the aim."""
    count = np.bincount(pattern.group, minlength=codec.CODED_BITS + 2)[codec.CODED_BITS :]
    gain = np.maximum(gain, np.float32(1e-3))
    wanted = _PILOT_AIM * math.sqrt(float(count.sum()) / 2) - float((count * host).sum())
    level = gain * max(wanted, 0.0) / float((count * gain**2).sum())
    return np.asarray(np.clip(level, *_PILOT_LEVELS), np.float32)


def _change(pattern: Pattern, signs: FloatArray, level: FloatArray, room: FloatArray) -> FloatArray:
    """The luma change for signs [K] and the carriers' amplitudes [K] in the room [h, w] there is."""
    values = (pattern.phase * signs * level).astype(np.complex64)
    tile = tile_from_coefficients(pattern, values, DRAWN * TILE)
    return spread(tile / (float(tile.std()) + 1e-9), *room.shape) * room


def _tilted(pattern: Pattern, room: FloatArray) -> FloatArray:
    """float32 [K]: the carriers' share by their radius, from the room [h, w] that the budget leaves.

    Where the picture's own texture disturbs, it does so by long waves, and PSNR binds: short waves get more. Where it
    is smooth, SSIM binds, which hardly sees long waves, and codecs drop faint short ones: long waves get more.
    """
    slope, pivot, least, most = _TILT
    psnr_db = 20 * math.log10(255.0 / math.sqrt(float((room**2).mean()) + 1e-9))
    tilt = min(max(slope * (psnr_db - pivot), least), most)
    return np.asarray((np.maximum(pattern.radius, 6) / 15) ** -tilt, np.float32)


def _informed_change(pattern: Pattern, signs: FloatArray, rgb: UInt8Array) -> FloatArray:
    """The change within the quality budget whose weakest bits are as strong as the budget allows."""
    height, width = rgb.shape[:2]
    full = luma_of(rgb)
    luma, drawn = (resize(full, working_size(width, height, times)) for times in (1, DRAWN))
    (room, most), budget = hiding_room(drawn), _Budget(drawn, (width, height))
    host = _agreements(pattern, signs, luma)
    bits, pilot = slice(0, codec.CODED_BITS), slice(codec.CODED_BITS, None)
    level = np.ones(codec.CODED_BITS + 2, np.float32)
    level[pilot] = 2.0, 1.0
    tilted = np.ones(len(pattern.kx), np.float32)
    change = _change(pattern, signs, level[pattern.group], room)
    for last in (False, True):
        room = np.minimum(room * np.float32(budget.factor(change)), most)
        tilted = tilted if last else _tilted(pattern, room)
        change = _change(pattern, signs, level[pattern.group] * tilted, room)
        seen = _agreements(pattern, signs, luma + resize(change, luma.shape[::-1]))
        gain = max(float((seen - host)[bits].mean() / level[bits].mean()), 1e-3)
        level[bits] = _strengths(seen[bits] - gain * level[bits], gain)
        level[pilot] = _pilot_levels(pattern, host[pilot], (seen - host)[pilot] / level[pilot])
        change = _change(pattern, signs, level[pattern.group] * tilted, room)
    return change * np.float32(min(1.0, budget.factor(change)))


def _read_back(rgb: UInt8Array, key: bytes, pose: Pose) -> MarkReading:
    """What is read where the mark was drawn."""
    if pose == STRAIGHT:
        return extract(rgb, key, search="fast")
    pattern, view = pattern_for(key), view_of(working_band(rgb))
    return read_signal(pattern, key, _signal_at(pattern, view, pose, poses=1, tries=1))


def embed(
    rgb: UInt8Array, asset_id: bytes, key: bytes, *, shift_px: tuple[float, float] = STRAIGHT.shift_px
) -> UInt8Array:
    """A copy of uint8 [H, W, 3] RGB that carries the 8-byte id under the 32-byte key.

    shift_px: (x, y) of the mark in the working frame, for a frame whose scene has moved (`provenance.mark_frames`).
    Reads its own output back and strengthens the mark until it is there; raises VerificationError
    mark.not_embedded otherwise, InputError mark.not_rgb, mark.too_small, mark.id_length, mark.key_length.
    """
    _check_picture(rgb)
    bits = codec.encode(asset_id, key)
    pattern = pattern_for(key) if shift_px == STRAIGHT.shift_px else pattern_for(key).moved(shift_px)
    coded = 2.0 * bits.astype(np.float32) - 1
    signs = np.where(pattern.pilot, np.float32(1), coded[np.maximum(pattern.owner, 0)])
    change = _informed_change(pattern, signs, rgb)
    for strength in _STRENGTHS:
        marked = _apply(rgb, change * np.float32(strength))
        reading = _read_back(marked, key, Pose(shift_px=shift_px))
        clean = (
            reading.bit_accuracy is not None and reading.bit_accuracy >= 1 - _CLEAN_ERRORS / codec.CODED_BITS
        )
        if reading.asset_id == asset_id.hex() and clean:
            return marked
    raise VerificationError(
        "mark.not_embedded", "the picture does not hold the mark even at full strength", "use another picture"
    )
