"""Which spatial frequencies carry which bit, drawn from the key; knows no picture.

The mark is periodic: one square tile of TILE working pixels repeats over the plane. Its carriers are Fourier
coefficients of the tile in a ring of frequencies: some are a pilot (known to the holder of the key; position,
size and turn are found with it), the rest are dealt to the 128 coded bits.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from provenance.codec import CODED_BITS

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
ComplexArray = npt.NDArray[np.complex64]

TILE = 128
RING = (4.5, 42.0)  # cycles per tile; up to a wave of six pixels in a picture of 512 x 512
PILOT_EDGE = 14.0  # below it the pilot takes the larger share: long waves forgive a rough pose
_PILOT_SHARE = (0.8, 0.06)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Carriers of one key: K coefficients of a TILE x TILE real transform, half plane, row `ky`, column `kx`.

    kx, ky int [K]; radius float32 [K], cycles a tile; phase complex64 [K], unit; owner int [K], bit or -1 (pilot)
    """

    kx: IntArray
    ky: IntArray
    radius: FloatArray
    phase: ComplexArray
    owner: IntArray

    @functools.cached_property
    def pilot(self) -> npt.NDArray[np.bool_]:
        """bool [K], which carriers are pilot."""
        return self.owner < 0

    @functools.cached_property
    def ring(self) -> IntArray:
        """int [K], which carriers are whitened together: those of about one radius."""
        return (self.radius / 2).astype(np.int64)

    @functools.cached_property
    def ring_mean(self) -> FloatArray:
        """float32 [K, rings], the matrix that averages carriers over their rings."""
        member = (self.ring[:, None] == np.arange(self.ring.max() + 1)).astype(np.float32)
        return np.asarray(member / np.maximum(member.sum(0), 1), np.float32)

    @functools.cached_property
    def rounds(self) -> IntArray:
        """int [R, 128]: the carriers of the bits, nearest first, each bit once in every round."""
        payload = np.flatnonzero(~self.pilot).reshape(-1, CODED_BITS)
        return np.asarray(
            np.take_along_axis(payload, np.argsort(self.owner[payload], axis=1), axis=1), np.int64
        )

    def payload_within(self, radius: float) -> Pattern:
        """The carriers of the bits alone, in whole rounds, nearer than a radius, cycles a tile."""
        own = np.sort(self.rounds[self.radius[self.rounds].max(1) < radius].ravel())
        return Pattern(self.kx[own], self.ky[own], self.radius[own], self.phase[own], self.owner[own])

    def moved(self, shift_px: tuple[float, float]) -> Pattern:
        """The same carriers, to be read at this shift (x, y), marked pixels (Fourier shift theorem)."""
        angle = -2 * np.pi / TILE * (self.kx * shift_px[0] + self.ky * shift_px[1])
        phase = (self.phase * np.exp(1j * angle)).astype(np.complex64)
        return Pattern(self.kx, self.ky, self.radius, phase, self.owner)

    @functools.cached_property
    def group(self) -> IntArray:
        """int [K], which carriers share one strength: 0-127 the bits, 128 the pilot's long waves, 129 its short."""
        long = self.radius < PILOT_EDGE
        return np.where(self.pilot, np.where(long, CODED_BITS, CODED_BITS + 1), self.owner)


def _keyed_uniform(key: bytes, label: bytes, count: int) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1) from SHAKE-256 of key and label; the same on every machine and version."""
    raw = hashlib.shake_256(b"facsimile mark 1 " + label + b"\0" + key).digest(4 * count)
    return np.frombuffer(raw, "<u4").astype(np.float64) / 2.0**32


def _ring_coefficients() -> tuple[IntArray, IntArray, FloatArray]:
    """One of each conjugate pair inside the ring, nearest first."""
    reach = int(RING[1]) + 1
    ky, kx = np.mgrid[-reach : reach + 1, 0 : reach + 1].reshape(2, -1)
    radius = np.hypot(kx, ky)
    keep = (radius >= RING[0]) & (radius < RING[1]) & ((kx > 0) | (ky > 0))
    order = np.lexsort((ky[keep], kx[keep], radius[keep]))
    return kx[keep][order], ky[keep][order], radius[keep][order].astype(np.float32)


@functools.lru_cache(maxsize=8)
def pattern_for(key: bytes) -> Pattern:
    """The carriers of a key. Bits get equal numbers of carriers at every radius."""
    kx, ky, radius = _ring_coefficients()
    count = len(kx)
    share = np.where(radius < PILOT_EDGE, *_PILOT_SHARE)
    owner = np.where(_keyed_uniform(key, b"pilot", count) < share, -1, 0)
    payload = np.flatnonzero(owner == 0)
    payload = payload[: len(payload) // CODED_BITS * CODED_BITS]
    rounds = np.argsort(_keyed_uniform(key, b"deal", len(payload)).reshape(-1, CODED_BITS), axis=1)
    owner[owner == 0] = -1
    owner[payload] = rounds.ravel()
    phase = np.exp(2j * np.pi * _keyed_uniform(key, b"phase", count)).astype(np.complex64)
    return Pattern(kx, ky, radius, phase, owner.astype(np.int64))


def tile_from_coefficients(pattern: Pattern, values: ComplexArray, size: int = TILE) -> FloatArray:
    """float32 [size, size], one period with half-plane coefficients `values` [K]: a sum of cosines."""
    spectrum = np.zeros((size, size // 2 + 1), np.complex64)
    spectrum[pattern.ky % size, pattern.kx] = values
    own = pattern.kx == 0  # the real transform wants both members of a pair in its first column
    spectrum[-pattern.ky[own] % size, 0] = np.conj(values[own])
    return (np.fft.irfft2(spectrum, (size, size)) * (size * size / 2)).astype(np.float32)
