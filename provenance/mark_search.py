"""Finds where, how large, how turned and whether mirrored the pilot lies in a picture; knows no payload.

Pose: a picture's working frame -> the frame it was marked in. Coarse: every size and turn of a grid, looked up in one
spectrum (mark_spectrum), all shifts at once by one inverse transform. Fine: the best few are improved.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from provenance.mark_pattern import PILOT_EDGE, TILE, ComplexArray, FloatArray, Pattern
from provenance.mark_signal import fold
from provenance.mark_spectrum import Poses, Spectrum, looked_up, loudness_at, spectrum_of

SCALES = np.exp(np.arange(math.log(0.48), math.log(1.16), 0.028))
FINE_SCALES = np.exp(np.arange(math.log(0.48), math.log(1.16), 0.009))
TURNS_DEG = np.arange(-7.5, 7.6, 1.5)
FINE_TURNS_DEG = np.arange(-7.5, 7.6, 0.5)
_KEPT, _FINAL, _STAGES = 12, 4, 4
CANDIDATES = _FINAL + _STAGES * _KEPT  # poses that compete before one is read
PROMISING = 1e-5
# Steps of size and turn, and the carriers (cycles per tile) that are still in phase within such a step.
_STEPS = ((0.014, 0.75, PILOT_EDGE), (0.007, 0.4, 20.0), (0.0035, 0.2, 30.0), (0.0017, 0.1, 99.0))
_GRIDS = {
    PILOT_EDGE: 48,
    20.0: 64,
    30.0: 80,
    99.0: 96,
}  # shifts a side, by the reach of carriers
_SHORT_FROM = 2  # the first step for poses found by all carriers
_HALVINGS = 3  # of the shift, from the grid's step on
# Poses the search can end at, for the union bound: every size and turn it starts from, with three ends of size and
# three of turn for each step, the shifts of the last step's grid halved, mirror.
_STARTS = len(SCALES) * len(TURNS_DEG) + 2 * len(FINE_SCALES) + len(FINE_TURNS_DEG)
POSES_TRIED = _STARTS * 9.0 ** len(_STEPS) * (_GRIDS[99.0] * 2.0**_HALVINGS) ** 2 * 2.0
_CLIP = 1.5
_PROMISE_EDGE = 30.0  # cycles a tile: bits' carriers within are asked what a rough pose promises
Promise = Callable[[Pattern, ComplexArray], FloatArray]


@dataclass(frozen=True)
class Pose:
    """How a working frame lies in the frame it was marked in.

    scale: marked pixels per seen pixel; turn_deg: counter-clockwise; shift_px: (x, y), marked pixels;
    mirrored: the picture was flipped left-right after marking; score: pilot correlation in standard
    deviations of chance.
    """

    scale: float = 1.0
    turn_deg: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False
    score: float = 0.0


@dataclass(frozen=True, eq=False)
class View:
    """A normalised band [h, w] and, once it is asked for, its spectrum."""

    band: FloatArray

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """The band's, for poses that are not straight."""
        return spectrum_of(self.band)


@dataclass(frozen=True, eq=False)
class _Part:
    """The pilot's carriers nearer than a radius, and the square grid on which their shifts are looked for."""

    kx: npt.NDArray[np.int64]
    ky: npt.NDArray[np.int64]
    radius: FloatArray
    conjugate: ComplexArray
    grid: int

    @property
    def unit(self) -> float:
        """Marked pixels from one shift of the grid to the next."""
        return TILE / self.grid

    @functools.cached_property
    def near(self) -> list[tuple[FloatArray, ComplexArray]]:
        """Per halving: nine shifts [9, 2] about none, and what they do to the carriers [K, 9]."""
        about, found = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)], np.float32), []
        for halving in range(1, _HALVINGS + 1):
            moves = about * np.float32(self.unit / 2**halving)
            angle = 2 * np.pi / TILE * (np.outer(self.kx, moves[:, 0]) + np.outer(self.ky, moves[:, 1]))
            found.append((moves, np.exp(1j * angle).astype(np.complex64)))
        return found


def _part(pattern: Pattern, reach: float) -> _Part:
    own = pattern.pilot & (pattern.radius < reach)
    phase = np.conj(pattern.phase[own])
    return _Part(pattern.kx[own], pattern.ky[own], pattern.radius[own], phase, _GRIDS[reach])


@dataclass(frozen=True, eq=False)
class _Found:
    """Poses [P, 3] with their shifts [P, 2] and the pilot's scores [P]."""

    poses: Poses
    shifts: FloatArray
    scores: FloatArray

    def at(self, chosen: npt.NDArray[np.int64]) -> _Found:
        return _Found(self.poses[chosen], self.shifts[chosen], self.scores[chosen])

    def best(self, count: int) -> _Found:
        """The best few, best first."""
        return self.at(np.argsort(-self.scores, kind="stable")[:count])

    def pose(self, number: int) -> Pose:
        scale, turn, mirrored = (float(v) for v in self.poses[number])
        x, y = (float(v) for v in self.shifts[number])
        return Pose(scale, turn, (x, y), mirrored > 0, float(self.scores[number]))


def _joined(several: Sequence[_Found]) -> _Found:
    return _Found(*(np.concatenate([getattr(f, n) for f in several]) for n in ("poses", "shifts", "scores")))


# ---------------------------------------------------------------- carriers


def view_of(band: FloatArray) -> View:
    """What is looked at of a normalised band [h, w]."""
    return View(np.ascontiguousarray(band))


def whitened(pattern: Pattern, values: ComplexArray) -> ComplexArray:
    """complex64 [..., K]: carriers over the rms of those at about their radius, clipped; uses magnitudes only."""
    size = np.abs(values)
    rms = np.sqrt((size**2) @ pattern.ring_mean + 1e-20)[..., pattern.ring]
    return np.asarray(values / np.maximum(rms, size / _CLIP), np.complex64)


def pilot_score(pattern: Pattern, white: ComplexArray) -> float:
    """Pilot correlation T; P(T > t) <= exp(-t^2/2) over uniform keyed phases, whatever the picture.

    Chernoff's bound with E exp(l cos(phase)) = I0(l) <= exp(l^2/4) for every carrier.
    """
    pilot = pattern.pilot
    energy = float((np.abs(white[pilot]) ** 2).sum()) / 2
    return float((np.conj(pattern.phase[pilot]) * white[pilot]).real.sum() / math.sqrt(energy + 1e-12))


def shifted(pattern: Pattern, values: ComplexArray, shift_px: tuple[float, float]) -> ComplexArray:
    """Carriers of a tile moved back by shift_px (Fourier shift theorem)."""
    angle = 2 * np.pi / TILE * (pattern.kx * shift_px[0] + pattern.ky * shift_px[1])
    return np.asarray(values * np.exp(1j * angle), np.complex64)


def carriers_at(pattern: Pattern, view: View, pose: Pose) -> ComplexArray:
    """complex64 [K]: whitened carriers of a view at a pose; an uncropped copy's are exact."""
    if pose.scale == 1.0 and pose.turn_deg == 0.0:
        tile = fold(np.ascontiguousarray(view.band[:, ::-1]) if pose.mirrored else view.band)
        values = np.asarray(fft.rfft2(tile)[pattern.ky % TILE, pattern.kx], np.complex64)
    else:
        one = np.array([[pose.scale, pose.turn_deg, pose.mirrored]], np.float32)
        values = looked_up(view.spectrum, pattern.kx, pattern.ky, one)[0]
    return shifted(pattern, whitened(pattern, values), pose.shift_px)


# ---------------------------------------------------------------- search


def _pilot_at(part: _Part, spectrum: Spectrum, poses: Poses) -> ComplexArray:
    """complex64 [P, K]: the pilot at poses, against its phases, whitened by the band's loudness, of energy two."""
    values = looked_up(spectrum, part.kx, part.ky, poses)
    size = np.abs(values)
    values /= np.maximum(
        loudness_at(spectrum, part.radius, poses[:, 0]), size / np.float32(_CLIP)
    ) + np.float32(1e-9)
    values *= part.conjugate
    values /= np.sqrt((values.real**2 + values.imag**2).sum(1, keepdims=True) / 2 + np.float32(1e-12))
    return np.asarray(values, np.complex64)


def _on_grid(part: _Part, values: ComplexArray) -> tuple[FloatArray, FloatArray]:
    """The shift [P, 2] on the part's grid where pilots [P, K] correlate best, and how well [P]."""
    size = part.grid
    columns = int(part.kx.max()) + 1
    spectra = np.zeros((len(values), size * columns), np.complex64)
    spectra[:, part.ky % size * columns + part.kx] = np.conj(values)  # moved by +t: phases turned by -kt
    axis = part.kx == 0
    spectra[:, -part.ky[axis] % size * columns] = values[:, axis]
    lines = fft.ifft(spectra.reshape(-1, size, columns), axis=1, overwrite_x=True)
    surface = fft.irfft(lines, size, axis=2, overwrite_x=True).reshape(len(values), -1)
    at = surface.argmax(1)
    shifts = np.stack([-(at % size), -(at // size)], 1) * np.float32(part.unit)
    return shifts.astype(np.float32), surface[np.arange(len(at)), at] * np.float32(size * size / 2)


def _coarse(part: _Part, spectrum: Spectrum, poses: Poses) -> _Found:
    """The best of these poses, each with its best shift on the grid."""
    return _Found(poses, *_on_grid(part, _pilot_at(part, spectrum, poses))).best(_KEPT)


def _finer(part: _Part, spectrum: Spectrum, poses: Poses) -> _Found:
    """Each pose with its best shift, to an eighth of the grid's step."""
    values = _pilot_at(part, spectrum, poses)
    shifts, scores = _on_grid(part, values)
    angle = np.float32(2 * np.pi / TILE) * (shifts[:, :1] * part.kx + shifts[:, 1:] * part.ky)
    values = values * np.exp(1j * angle.astype(np.float32))
    for moves, turned in part.near:
        surface = (values @ turned).real
        at = surface.argmax(1)
        shifts, scores = shifts + moves[at], surface[np.arange(len(at)), at]
        values = values * turned[:, at].T
    return _Found(poses, shifts, np.asarray(scores, np.float32))


def _moved(found: _Found, scale_step: float, turn_step: float) -> list[Poses]:
    """The poses a step to either side."""
    several = list[Poses]()
    for way in (-1, 1):
        poses = found.poses.copy()
        poses[:, 0] *= np.float32(1 + way * scale_step)
        poses[:, 1] += np.float32(way * turn_step)
        several.append(poses)
    return several


def _improved(parts: Sequence[tuple[float, float, _Part]], spectrum: Spectrum, found: _Found) -> _Found:
    """Pattern search over size and turn with ever smaller steps and, from long waves on, ever more carriers."""
    count = len(found.poses)
    for scale_step, turn_step, part in parts:
        best = _finer(part, spectrum, np.concatenate([found.poses, *_moved(found, scale_step, 0.0)]))
        found = _best_of_each(best, count)
        best = _joined([found, _finer(part, spectrum, np.concatenate(_moved(found, 0.0, turn_step)))])
        found = _best_of_each(best, count)
    return found


def _best_of_each(several: _Found, count: int) -> _Found:
    """The best of poses [n * count] in their places modulo count."""
    at = several.scores.reshape(-1, count).argmax(0)
    return several.at(at * count + np.arange(count))


def _grid(scales: npt.NDArray[np.float64], turns: npt.NDArray[np.float64]) -> Poses:
    each = [(s, t, m) for m in (0.0, 1.0) for s in scales for t in turns]
    return np.array(each, np.float32)


_STRAIGHT = _grid(FINE_SCALES, np.zeros(1))
_IN_PLACE = _grid(np.ones(1), FINE_TURNS_DEG)
_ALL = _grid(SCALES, TURNS_DEG)


@functools.lru_cache(maxsize=8)
def _parts(pattern: Pattern) -> tuple[list[_Part], Pattern]:
    """The pilot by the reach of each step; what is asked for promise."""
    return [_part(pattern, reach) for _, _, reach in _STEPS], pattern.payload_within(_PROMISE_EDGE)


def find_poses(pattern: Pattern, view: View, promise: Promise) -> Iterator[Pose]:
    """At most CANDIDATES poses of the pilot in a view, likeliest first; bounded work.

    Stages: straight by long waves, straight by all, turned in place by all, everything by long waves. Most copies are
    not turned. Long waves survive blur and shrinking; in a textured picture they drown, and short ones, which want a
    finer grid, do not. promise: carriers of bits [P, K] at rough poses → chances [P] of what is seen there; under
    PROMISING the best is improved at once.
    """
    parts, payload = _parts(pattern)
    low, every, spectrum = parts[0], parts[-1], view.spectrum
    steps = [(scale, turn, part) for (scale, turn, _), part in zip(_STEPS, parts, strict=True)]
    rest = list[_Found]()
    for part, poses in ((low, _STRAIGHT), (every, _STRAIGHT), (every, _IN_PLACE), (low, _ALL)):
        start = 0 if part is low else _SHORT_FROM
        rough = _finer(part, spectrum, _coarse(part, spectrum, poses).poses)
        chances = promise(payload, _carriers_of(payload, spectrum, rough))
        at = int(np.argmin(chances))
        if chances[at] < PROMISING:
            yield _improved(steps[start:], spectrum, rough.at(np.array([at]))).pose(0)
            rough = rough.at(np.delete(np.arange(len(rough.scores)), at))
        rest.append(rough)
    for start, several in ((_SHORT_FROM, rest[1:3]), (0, [rest[0], *rest[3:]])):
        best = _improved(steps[start:], spectrum, _joined(several).best(_FINAL // 2))
        yield from (best.pose(number) for number in range(len(best.scores)))


def _carriers_of(pattern: Pattern, spectrum: Spectrum, found: _Found) -> ComplexArray:
    """complex64 [P, K]: whitened carriers at several poses."""
    white = whitened(pattern, looked_up(spectrum, pattern.kx, pattern.ky, found.poses))
    waves = 2 * np.pi / TILE * np.stack([pattern.kx, pattern.ky]).astype(np.float32)
    return np.asarray(white * np.exp(1j * (found.shifts @ waves).astype(np.float32)), np.complex64)
