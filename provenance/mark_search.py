"""Finds where, how large, how turned and whether mirrored the pilot lies in a picture; knows no payload.

Pose: a picture's working frame -> the frame it was marked in. Coarse: every size and turn of a grid at half
the resolution, all shifts at once by one inverse transform. Fine: the best few are improved at full
resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy import fft

from provenance.mark_pattern import PILOT_EDGE, TILE, ComplexArray, FloatArray, Pattern
from provenance.mark_signal import fold

SCALES = np.exp(np.arange(math.log(0.48), math.log(1.16), 0.028))
FINE_SCALES = np.exp(np.arange(math.log(0.48), math.log(1.16), 0.009))
TURNS_DEG = np.arange(-7.5, 7.6, 1.5)
FINE_TURNS_DEG = np.arange(-7.5, 7.6, 0.5)
_COARSE = 2  # working pixels per pixel of the coarse search
_KEPT, _FINAL, _STAGES = 12, 4, 4
CANDIDATES = _FINAL + _STAGES * _KEPT  # poses that compete before one is read
PROMISING = 1e-5
# Steps of size and turn, and the carriers (cycles per tile) that are still in phase within such a step.
_STEPS = ((0.014, 0.75, PILOT_EDGE), (0.007, 0.4, 20.0), (0.0035, 0.2, 30.0), (0.0017, 0.1, 99.0))
# Poses the search can end at, for the union bound: every size and turn it starts from, with four ends of size and four
# of turn for each step, shifts of a quarter pixel, mirror.
_STARTS = len(SCALES) * len(TURNS_DEG) + 2 * len(FINE_SCALES) + len(FINE_TURNS_DEG)
POSES_TRIED = _STARTS * 16.0 ** len(_STEPS) * (4.0 * TILE) ** 2 * 2.0
_CLIP = 1.5
_Step = tuple[float, float, Pattern]
Promise = Callable[[ComplexArray], float]


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
    """A normalised band at 1/step of the working resolution: plane, its centre (x, y), its mirror image."""

    plane: FloatArray
    mirrored: FloatArray
    centre: tuple[float, float]
    step: int

    @property
    def size(self) -> int:
        """Pixels of one tile side in this view."""
        return TILE // self.step


def view_of(band: FloatArray, step: int) -> View:
    """A band [h, w] shrunk by a whole step."""

    def shrunk(plane: FloatArray) -> FloatArray:
        if step == 1:
            return np.ascontiguousarray(plane)
        small = cv2.resize(plane, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)

    middle_x, middle_y = ((n // 2 + 0.5) / step - 0.5 for n in (band.shape[1], band.shape[0]))
    return View(shrunk(band), shrunk(np.ascontiguousarray(band[:, ::-1])), (middle_x, middle_y), step)


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


def _tile_at(view: View, pose: Pose) -> FloatArray:
    """float32 [size, size]: the view at the marked size and turn, folded; shift left alone."""
    plane = view.mirrored if pose.mirrored else view.plane
    if view.step == 1 and pose.scale == 1.0 and pose.turn_deg == 0.0:
        return fold(plane, view.size)
    height, width = (max(2, math.ceil(n * pose.scale * 1.04)) for n in plane.shape)
    turn = math.radians(pose.turn_deg)
    c, s = math.cos(turn) / pose.scale, math.sin(turn) / pose.scale
    x, y = width // 2, height // 2
    seen_from_marked = np.array(
        [[c, s, view.centre[0] - c * x - s * y], [-s, c, view.centre[1] + s * x - c * y]], np.float32
    )
    mode = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(plane, seen_from_marked, (width, height), flags=mode)
    return fold(np.asarray(warped, np.float32), view.size)


def shifted(pattern: Pattern, values: ComplexArray, shift_px: tuple[float, float]) -> ComplexArray:
    """Carriers of a tile moved back by shift_px (Fourier shift theorem)."""
    angle = 2 * np.pi / TILE * (pattern.kx * shift_px[0] + pattern.ky * shift_px[1])
    return np.asarray(values * np.exp(1j * angle), np.complex64)


def _carriers(pattern: Pattern, tiles: FloatArray) -> ComplexArray:
    """complex64 [..., K]: whitened carriers of tiles [..., size, size]."""
    spectra = fft.rfft2(tiles)
    return whitened(pattern, np.asarray(spectra[..., pattern.ky % tiles.shape[-1], pattern.kx], np.complex64))


def carriers_at(pattern: Pattern, view: View, pose: Pose) -> ComplexArray:
    """complex64 [K]: whitened carriers of a view at a pose."""
    return shifted(pattern, _carriers(pattern, _tile_at(view, pose)), pose.shift_px)


def _best_shifts(pattern: Pattern, white: ComplexArray, poses: Sequence[Pose], size: int) -> list[Pose]:
    """Each pose with the shift, on the view's pixel grid, where its pilot correlates best."""
    pilot = pattern.pilot
    kx, ky = pattern.kx[pilot], pattern.ky[pilot]
    values = np.conj(pattern.phase[pilot]) * white[:, pilot]
    spectra = np.zeros((len(poses), size, size // 2 + 1), np.complex64)
    spectra[:, ky % size, kx] = np.conj(values)  # conjugate: a picture moved by +t has phases turned by -kt
    axis = kx == 0
    spectra[:, -ky[axis] % size, 0] = values[:, axis]
    surface = np.fft.irfft2(spectra, (size, size)).reshape(len(poses), -1)
    at = surface.argmax(1)
    norm = size * size / 2 / np.sqrt((np.abs(values) ** 2).sum(-1) / 2 + 1e-12)
    top = surface[np.arange(len(poses)), at] * norm
    unit = TILE / size
    return [
        replace(p, shift_px=(-float(a % size) * unit, -float(a // size) * unit), score=float(t))
        for p, a, t in zip(poses, at, top, strict=True)
    ]


def _coarse_poses(part: Pattern, view: View, poses: Sequence[Pose]) -> list[Pose]:
    """The best shift of every one of these sizes and turns, straight and mirrored, best first."""
    spectra = fft.rfft2(np.stack([_tile_at(view, p) for p in poses]))
    size = view.size
    white = whitened(part, np.asarray(spectra[:, part.ky % size, part.kx], np.complex64))
    flipped = whitened(part, np.asarray(np.conj(spectra[:, -part.ky % size, part.kx]), np.complex64))
    mirrored = [replace(p, turn_deg=-p.turn_deg, mirrored=True) for p in poses]  # x -> -x, within a pixel
    found = _best_shifts(part, white, poses, size) + _best_shifts(part, flipped, mirrored, size)
    return sorted(found, key=lambda p: -p.score)


def _at_best_shift(pattern: Pattern, view: View, pose: Pose) -> Pose:
    """The pose with its shift found anew, to a quarter of the view's pixel."""
    white = _carriers(pattern, _tile_at(view, pose))
    best = _best_shifts(pattern, white[None], [pose], view.size)[0]
    pilot = pattern.pilot
    values = np.conj(pattern.phase[pilot]) * white[pilot]
    values /= math.sqrt(float((np.abs(values) ** 2).sum()) / 2 + 1e-12)
    waves = 2j * np.pi / TILE * np.stack([pattern.kx[pilot], pattern.ky[pilot]])
    for step in (view.step / 2, view.step / 4):
        near = np.array(best.shift_px) + step * np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])
        scores = (np.exp(near @ waves) @ values).real
        at = int(scores.argmax())
        best = replace(best, shift_px=(float(near[at, 0]), float(near[at, 1])), score=float(scores[at]))
    return best


def _improved(steps: Sequence[_Step], view: View, pose: Pose) -> Pose:
    """Pattern search over size and turn with ever smaller steps and, from long waves on, ever more carriers."""
    best = pose
    for scale_step, turn_step, part in steps:
        best = _at_best_shift(part, view, best)
        for growth, turn in ((scale_step, 0.0), (-scale_step, 0.0), (0.0, turn_step), (0.0, -turn_step)):
            moved = replace(best, scale=best.scale * (1 + growth), turn_deg=best.turn_deg + turn)
            best = max(best, _at_best_shift(part, view, moved), key=lambda p: p.score)
    return best


def _stages(pattern: Pattern, low: Pattern, band: FloatArray) -> Iterator[tuple[Pattern, list[Pose]]]:
    """Poses by the pilot's score, best first, and by which carriers: straight by long waves, straight by all, turned in
    place by all, everything by long waves.

    Most copies are not turned. Long waves survive blur and shrinking; in a textured picture they drown, and short ones,
    which want a finer grid at full resolution, do not.
    """
    small, view = view_of(band, _COARSE), view_of(band, 1)
    straight = [Pose(float(s)) for s in FINE_SCALES]
    yield low, _coarse_poses(low, small, straight)
    yield pattern, _coarse_poses(pattern, view, straight)
    yield pattern, _coarse_poses(pattern, view, [Pose(turn_deg=float(t)) for t in FINE_TURNS_DEG])
    yield low, _coarse_poses(low, small, [Pose(float(s), float(t)) for s in SCALES for t in TURNS_DEG])


def find_poses(pattern: Pattern, band: FloatArray, promise: Promise) -> Iterator[Pose]:
    """At most CANDIDATES poses of the pilot in a normalised band [h, w], likeliest first; bounded work.

    promise: carriers [K] at a rough pose → chance of what else is seen there; under PROMISING it is improved at once.
    """
    view = view_of(band, 1)
    by_low = [(scale, turn, pattern.within(radius)) for scale, turn, radius in _STEPS]
    by_all = [(scale, turn, pattern) for scale, turn, _ in _STEPS[2:]]
    rest = list[tuple[Pose, Sequence[_Step]]]()
    for part, poses in _stages(pattern, by_low[0][2], band):
        steps: Sequence[_Step] = by_all if part is pattern else by_low
        rough = [_at_best_shift(part, view, p) for p in poses[:_KEPT]]
        chances = [promise(carriers_at(pattern, view, p)) for p in rough]
        at = int(np.argmin(chances))
        if chances[at] < PROMISING:
            yield _improved(steps, view, rough.pop(at))
        rest += [(pose, steps) for pose in rough]
    for pose, chosen in sorted(rest, key=lambda each: -each[0].score)[:_FINAL]:
        yield _improved(chosen, view, pose)
