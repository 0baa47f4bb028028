"""One identity across frames: faces linked into chains, chains counted as people, their points steadied over time.

Frames are shown one after the other and not kept. Knows no network's insides, no file's format and no policy.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import cv2
import numpy as np

from fusion import mesh
from fusion.align import five_points, landmarks_box
from fusion.detect import overlaps
from fusion.face import Face, FloatArray, UInt8Array
from provenance.errors import StoreError

CUT_DISTANCE = 0.45
"""Share of the colours that must change between two frames for a cut."""
OVERLAP = 0.3
"""Least intersection over union of a face's boxes in two frames that follow each other."""
LINK_COSINE = 0.75
"""Least likeness to the chain's mean: 99 of 100 pairs of strangers stay under it (fusion/weights/identity.md)."""
PIECE = 50
"""Frames of a chain whose embeddings are averaged: whoever is shown so long is looked at by themselves."""
AROUND = 4
"""Frames before and after one whose points steady its own."""
SLACK = 0.01
"""Of the face's width: points that a smooth path misses by less follow the path, others keep what they miss more."""
_POINTS = mesh.NUM_LANDMARKS * 2


@dataclass(frozen=True, eq=False)
class Sighting:
    """A face of one frame: the number of its chain, its landmarks float32 [478, 2] px."""

    chain: int
    landmarks_px: FloatArray


@dataclass(eq=False)
class Chain:
    """One face followed without a gap within one shot; sums of embeddings [512], a piece each."""

    number: int
    first: int
    last: int
    face: Face
    largest: Face
    sums: list[FloatArray] = field(default_factory=list)
    total: FloatArray = field(default_factory=lambda: np.zeros(512, np.float32))
    num_frames: int = 0

    def add(self, face: Face, frame: int) -> None:
        """The face of the next frame."""
        if self.num_frames % PIECE == 0:
            self.sums.append(np.zeros(512, np.float32))
        self.sums[-1] = self.sums[-1] + _embedding(face)
        self.total = self.total + _embedding(face)
        self.num_frames += 1
        self.face, self.last = face, frame
        if face.area_px > self.largest.area_px:
            self.largest = face

    @property
    def mean(self) -> FloatArray:
        """Of all frames, float32 [512], unit length."""
        return _unit(self.total)


@dataclass(eq=False)
class Person:
    """Chains that show one person, by the recogniser; `embedding` [512] is of the piece least like the rest.

    face: where the person is seen largest
    """

    chains: list[Chain]

    @property
    def mean(self) -> FloatArray:
        return _unit(np.sum([chain.total for chain in self.chains], axis=0))

    @property
    def embedding(self) -> FloatArray:
        pieces = [_unit(piece) for chain in self.chains for piece in chain.sums]
        return min(pieces, key=lambda piece: float(piece @ self.mean))

    @property
    def face(self) -> Face:
        return max((chain.largest for chain in self.chains), key=lambda face: face.area_px)


class Tracks:
    """Which faces were seen in which frame, kept in an open file; a few numbers a frame stay in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.times_s = array("d")
        self._starts, self._counts = array("q"), array("i")

    def __len__(self) -> int:
        return len(self.times_s)

    def append(self, time_s: float, sightings: Sequence[Sighting]) -> None:
        """The faces of the next frame. StoreError on a full disk."""
        self.times_s.append(time_s)
        self._starts.append(self._file.seek(0, 2))
        self._counts.append(len(sightings))
        try:
            for each in sightings:
                self._file.write(np.int32(each.chain).tobytes())
                self._file.write(np.ascontiguousarray(each.landmarks_px[:, :2], np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            raise StoreError(
                "store.disk_full", "No room is left for a working file.", "Free some."
            ) from error

    def read(self, frame: int) -> list[Sighting]:
        """The faces of a frame; none outside the video."""
        if not 0 <= frame < len(self):
            return []
        self._file.seek(self._starts[frame])
        rows = []
        for _ in range(self._counts[frame]):
            chain = int(np.frombuffer(self._file.read(4), np.int32)[0])
            points = np.frombuffer(self._file.read(4 * _POINTS), np.float32).reshape(-1, 2)
            rows.append(Sighting(chain, points))
        return rows

    def steadied(self, frame: int) -> list[Sighting]:
        """The faces of a frame with their points steadied by those of the frames around it."""
        around = {at: self.read(at) for at in range(frame - AROUND, frame + AROUND + 1)}
        steady = []
        for seen in around[frame]:
            same = [
                (self.times_s[at], other.landmarks_px)
                for at, others in around.items()
                for other in others
                if other.chain == seen.chain
            ]
            times, points = np.array([each[0] for each in same]), np.stack([each[1] for each in same])
            at = next(i for i, each in enumerate(times) if each == self.times_s[frame])
            steady.append(Sighting(seen.chain, steady_points(times, points, at)))
        return steady


class Tracker:
    """Finds the faces of frames shown in order and links them; `analyse`, `locate`, `embed` as Perception's.

    A face that the finder loses while its shot goes on is looked for where it was: the chain goes on if the
    recogniser knows it there.
    """

    def __init__(
        self,
        analyse: Callable[[UInt8Array], list[Face]],
        locate: Callable[[UInt8Array, Sequence[Face]], Sequence[FloatArray]],
        embed: Callable[[UInt8Array, Sequence[Face]], FloatArray],
        tracks: Tracks,
    ) -> None:
        self._analyse, self._locate, self._embed = analyse, locate, embed
        self.tracks = tracks
        self.chains: list[Chain] = []
        self._open: list[Chain] = []
        self._colours: FloatArray | None = None
        self.num_shots = 0

    def look(self, rgb: UInt8Array, time_s: float) -> None:
        """The next frame, uint8 [H, W, 3]."""
        colours, number = colours_of(rgb), len(self.tracks)
        if self._colours is None or is_cut(self._colours, colours):
            self._open, self.num_shots = [], self.num_shots + 1
        self._colours = colours
        found = self._link(self._analyse(rgb), number)
        found += self._hold([chain for chain in self._open if chain.last < number], rgb, number)
        self._open = [chain for chain in self._open if chain.last == number]
        self.tracks.append(time_s, found)

    def _link(self, faces: list[Face], number: int) -> list[Sighting]:
        """Each face to the open chain it overlaps and resembles most; a chain takes one; others begin a new one."""
        free = list(self._open)
        found = []
        for face in sorted(faces, key=lambda face: face.area_px, reverse=True):
            chain = max(free, key=lambda each: _overlap(each.face, face), default=None)
            if chain is None or _overlap(chain.face, face) < OVERLAP or not _resembles(chain, face):
                chain = Chain(len(self.chains), number, number, face, face)
                self.chains.append(chain)
                self._open.append(chain)
            else:
                free.remove(chain)
            chain.add(face, number)
            found.append(Sighting(chain.number, _landmarks(face)))
        return found

    def _hold(self, lost: list[Chain], rgb: UInt8Array, number: int) -> list[Sighting]:
        found = []
        for chain in lost:
            points = self._locate(rgb, [chain.face])[0]
            face = dataclasses.replace(
                chain.face,
                landmarks_px=points,
                points_px=five_points(points),
                box_xyxy=np.asarray(landmarks_box(points), np.float32),
            )
            face = dataclasses.replace(face, embedding=self._embed(rgb, [face])[0])
            if _overlap(chain.face, face) >= OVERLAP and _resembles(chain, face):
                chain.add(face, number)
                found.append(Sighting(chain.number, points))
        return found

    def people(self, same_cosine: float) -> list[Person]:
        """Who was seen, in the order of their first frames, in a frame from the left.

        Chains are one person's when their means reach `same_cosine` and they are never seen together.
        """
        people: list[Person] = []
        for chain in sorted(self.chains, key=lambda each: (each.first, float(each.face.box_xyxy[0]))):
            apart = [
                person
                for person in people
                if all(chain.first > other.last or other.first > chain.last for other in person.chains)
            ]
            best = max(apart, key=lambda person: float(person.mean @ chain.mean), default=None)
            if best is not None and float(best.mean @ chain.mean) >= same_cosine:
                best.chains.append(chain)
            else:
                people.append(Person([chain]))
        return people


def steady_points(times_s: FloatArray, points: FloatArray, at: int) -> FloatArray:
    """Points [478, 2] of frame `at` of [N, 478, 2], on a smooth path through the frames around it.

    A local polynomial with tricube weights (Cleveland 1979), of degree 2 where two frames or more lie on either side:
    it lags behind no motion. As many frames are taken after as before, for a path that ends at a frame shakes it; the
    first and last of a chain stay as they are. What a point is away from the path counts beyond SLACK of the face's
    width, so that a blink stays a blink.
    """
    raw: FloatArray = points[at]
    sides = min(at, len(points) - 1 - at)
    if sides == 0:
        return raw
    points, away = points[at - sides : at + sides + 1], times_s[at - sides : at + sides + 1] - times_s[at]
    reach = np.abs(away).max() * (1 + 1 / AROUND)
    weights = (1 - np.abs(away / reach) ** 3) ** 3
    degree = 2 if sides >= 2 else 1
    basis = (
        np.stack([(away / reach) ** power for power in range(degree + 1)], axis=1) * np.sqrt(weights)[:, None]
    )
    share = np.linalg.pinv(basis)[0] * np.sqrt(weights)  # of each frame in the path's value at time 0
    path = np.tensordot(share, points.astype(np.float64), 1)
    missed = raw - path
    length = np.linalg.norm(missed, axis=1, keepdims=True)
    kept = np.maximum(0.0, 1 - SLACK * mesh.face_width(raw) / np.maximum(length, 1e-9))
    return np.asarray(path + kept * missed, np.float32)


def colours_of(rgb: UInt8Array) -> FloatArray:
    """Shares of 8 x 8 x 8 colours of uint8 [H, W, 3], float32 [512]."""
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA)
    counts = cv2.calcHist([small], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    return np.asarray(counts.ravel() / counts.sum(), np.float32)


def is_cut(before: FloatArray, after: FloatArray) -> bool:
    """Whether the colours of two frames, by `colours_of`, lie so far apart that another shot has begun."""
    return float(np.abs(before - after).sum()) / 2 > CUT_DISTANCE


def _resembles(chain: Chain, face: Face) -> bool:
    return float(chain.mean @ _embedding(face)) >= LINK_COSINE


def _overlap(one: Face, other: Face) -> float:
    return float(overlaps(one.box_xyxy[None], other.box_xyxy[None])[0, 0])


def _embedding(face: Face) -> FloatArray:
    if face.embedding is None:
        raise ValueError("a face to be followed needs an embedding")
    return face.embedding


def _landmarks(face: Face) -> FloatArray:
    if face.landmarks_px is None:
        raise ValueError("a face to be followed needs landmarks")
    return face.landmarks_px


def _unit(vector: FloatArray) -> FloatArray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)
