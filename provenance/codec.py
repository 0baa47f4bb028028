"""Turns a 64-bit id into 128 keyed coded bits and back, and counts what chance could do; knows no picture.

Code: primitive binary BCH(127, 64), t = 10 (Lin & Costello, Error Control Coding, table 6.1), plus one parity
bit: extended distance 22. Bits are uint8 arrays of 0/1; word position i is the coefficient of x^(126-i), so
the message bits come first; position 127 is the parity bit.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from provenance.errors import InputError

Bits = npt.NDArray[np.uint8]

ID_BYTES = 8
KEY_BYTES = 32
CODED_BITS = 128
CORRECTABLE = 10
_N, _K = 127, 64
_PRIMITIVE = 0b10001001  # x^7 + x^3 + 1


@dataclass(frozen=True)
class Decoded:
    """A codeword near the received word: its id, its 128 masked bits, how many hard bits differ."""

    asset_id: bytes
    bits: Bits
    errors: int


def _field() -> tuple[npt.NDArray[np.int64], list[int]]:
    exp, log, value = np.zeros(2 * _N, np.int64), [0] * 128, 1
    for i in range(_N):
        exp[i], log[value] = value, i
        value <<= 1
        if value & 0x80:
            value ^= _PRIMITIVE
    exp[_N:] = exp[:_N]
    return exp, log


_EXP, _LOG = _field()
_POW = [int(v) for v in _EXP]


def _mul(a: int, b: int) -> int:
    return _POW[_LOG[a] + _LOG[b]] if a and b else 0


def _minimal_polynomial(i: int) -> int:
    """The minimal polynomial over GF(2) of alpha^i, from its cyclotomic coset, as an int (bit j = x^j)."""
    coset = {i * 2**j % _N for j in range(7)}
    poly = [1]  # lowest power first
    for root in coset:
        shifted = [0, *poly]
        for j, c in enumerate(poly):
            shifted[j] ^= _mul(c, _POW[root])
        poly = shifted
    return sum(c << j for j, c in enumerate(poly))


def _multiply_gf2(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = a << 1, b >> 1
    return product


@functools.cache
def generator_polynomial() -> int:
    """Least common multiple of the minimal polynomials of alpha^1 .. alpha^20; degree 63; bit j = x^j."""
    factors = {_minimal_polynomial(i) for i in range(1, 2 * CORRECTABLE + 1)}
    return functools.reduce(_multiply_gf2, sorted(factors), 1)


def _remainder(value: int, divisor: int) -> int:
    top = divisor.bit_length()
    while value.bit_length() >= top:
        value ^= divisor << (value.bit_length() - top)
    return value


def _to_bits(value: int, count: int) -> Bits:
    raw = np.frombuffer(value.to_bytes((count + 7) // 8, "big"), np.uint8)
    return np.unpackbits(raw)[-count:]


def _to_int(bits: Bits) -> int:
    return int("".join("1" if b else "0" for b in bits), 2)


def encode_word(asset_id: bytes) -> Bits:
    """The unmasked extended codeword [128] of an 8-byte id; InputError mark.id_length otherwise."""
    if len(asset_id) != ID_BYTES:
        raise InputError("mark.id_length", f"an id has {ID_BYTES} bytes, got {len(asset_id)}", "pass 8 bytes")
    shifted = int.from_bytes(asset_id, "big") << (_N - _K)
    word = _to_bits(shifted ^ _remainder(shifted, generator_polynomial()), _N)
    return np.append(word, np.uint8(word.sum() % 2))


def keyed_mask(key: bytes) -> Bits:
    """The 128 secret bits added to every codeword (HMAC-SHA256); InputError mark.key_length otherwise."""
    if len(key) != KEY_BYTES:
        raise InputError(
            "mark.key_length", f"a mark key has {KEY_BYTES} bytes, got {len(key)}", "pass the mark key"
        )
    digest = hmac.new(key, b"facsimile mark mask 1", hashlib.sha256).digest()
    return np.unpackbits(np.frombuffer(digest[: CODED_BITS // 8], np.uint8))


def encode(asset_id: bytes, key: bytes) -> Bits:
    """The 128 bits that go into a picture: codeword xor keyed mask."""
    return encode_word(asset_id) ^ keyed_mask(key)


def _syndromes(word: Bits) -> list[int]:
    powers = _N - 1 - np.flatnonzero(word)
    return [
        int(np.bitwise_xor.reduce(_EXP[powers * j % _N], initial=0)) for j in range(1, 2 * CORRECTABLE + 1)
    ]


def _locator(syndromes: list[int]) -> list[int]:
    """Berlekamp-Massey over GF(2^7): the error locator, lowest power first (Massey 1969, algorithm 2)."""
    current, previous, length, gap, last = [1], [1], 0, 1, 1
    for step, syndrome in enumerate(syndromes):
        delta = syndrome
        for i in range(1, min(length, len(current) - 1) + 1):
            delta ^= _mul(current[i], syndromes[step - i])
        if not delta:
            gap += 1
            continue
        scale = _POW[(_LOG[delta] - _LOG[last]) % _N]
        grown = current + [0] * (len(previous) + gap - len(current))
        for i, c in enumerate(previous):
            grown[i + gap] ^= _mul(scale, c)
        if 2 * length <= step:
            previous, length, last, gap = current, step + 1 - length, delta, 1
        else:
            gap += 1
        current = grown
    while len(current) > 1 and not current[-1]:
        current.pop()
    return current


def _correct(word: Bits) -> Bits | None:
    """The codeword [127] within ten errors of the word [127], or None (Chien search over all positions)."""
    syndromes = _syndromes(word)
    if not any(syndromes):
        return word.copy()
    locator = _locator(syndromes)
    degree = len(locator) - 1
    if degree > CORRECTABLE:
        return None
    values = np.zeros(_N, np.int64)
    for i, c in enumerate(locator):
        if c:
            values ^= _EXP[(_LOG[c] - i * np.arange(_N)) % _N]  # locator at alpha^-power
    powers = np.flatnonzero(values == 0)
    if len(powers) != degree:
        return None
    fixed = word.copy()
    fixed[_N - 1 - powers] ^= 1
    return fixed


def decode(bits: Bits, key: bytes) -> Decoded | None:
    """The id whose 128 masked bits differ from `bits` in at most ten places, or None (bounded distance)."""
    mask = keyed_mask(key)
    word = bits ^ mask
    fixed = _correct(word[:_N])
    if fixed is None:
        return None
    return _decoded(np.append(fixed, np.uint8(fixed.sum() % 2)), word, mask, CORRECTABLE)


def _decoded(codeword: Bits, word: Bits, mask: Bits, limit: int) -> Decoded | None:
    errors = int((codeword != word).sum())
    if errors > limit:
        return None
    return Decoded(_to_int(codeword[:_K]).to_bytes(ID_BYTES, "big"), codeword ^ mask, errors)


@functools.cache
def _generator_rows() -> tuple[int, ...]:
    return tuple(_to_int(encode_word((1 << (_K - 1 - i)).to_bytes(ID_BYTES, "big"))) for i in range(_K))


def _systematic_on(order: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Rows of the generator reduced so that its most reliable independent positions form an identity."""
    rows = list(_generator_rows())
    positions: list[int] = []
    for position in order:
        bit = 1 << (CODED_BITS - 1 - int(position))
        pivot = next((i for i in range(len(positions), _K) if rows[i] & bit), None)
        if pivot is None:
            continue
        at = len(positions)
        rows[at], rows[pivot] = rows[pivot], rows[at]
        chosen = rows[at]
        rows = [r ^ chosen if i != at and r & bit else r for i, r in enumerate(rows)]
        positions.append(int(position))
        if len(positions) == _K:
            break
    return rows, positions


@functools.cache
def _flips(order: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Every choice of exactly `order` of the 64 basis positions, as index arrays."""
    chosen = np.array(list(itertools.combinations(range(_K), order)), np.int64).reshape(-1, order)
    return tuple(chosen.T)


def decode_soft(logits: npt.NDArray[np.float32], key: bytes, order: int = 2) -> Decoded:
    """The likeliest codeword by ordered-statistics decoding (Fossorier & Lin 1995), always one.

    logits: float [128], positive = bit 1. Order 2 tries 2 081 codewords, order 3 43 745 (about 1 dB nearer to maximum
    likelihood). `chance_of_agreement(errors)` and `chance_of_correlation` say what the answer is worth.
    """
    mask = keyed_mask(key)
    soft = np.asarray(logits, np.float32) * np.where(mask == 1, np.float32(-1), np.float32(1))
    word = (np.asarray(logits) > 0).astype(np.uint8) ^ mask
    rows, positions = _systematic_on(np.argsort(-np.abs(soft), kind="stable"))
    matrix = np.stack([_to_bits(r, CODED_BITS) for r in rows])
    base = (word[positions] @ matrix % 2).astype(np.uint8)
    best, best_score = base, float(base @ soft)
    for flipped in range(1, order + 1):
        first, *others = _flips(flipped)
        words = matrix[first] ^ base
        for each in others:
            words ^= matrix[each]
        scores = words.astype(np.float32) @ soft
        at = int(np.argmax(scores))
        if float(scores[at]) > best_score:
            best, best_score = words[at], float(scores[at])
    found = _decoded(best, word, mask, CODED_BITS)
    assert found is not None
    return found


def chance_of_agreement(errors: int) -> float:
    """Bound on P(a uniformly random 128-bit word lies within `errors` of any of the 2^64 codewords).

    The keyed mask makes received bits uniform for whoever does not hold the key, whatever the picture. Exact
    up to ten errors (balls of radius ten are disjoint at distance 22), a union bound above.
    """
    ball = sum(math.comb(CODED_BITS, i) for i in range(errors + 1))
    return min(1.0, ball / 2.0 ** (CODED_BITS - _K))


def chance_of_correlation(logits: npt.NDArray[np.float32], bits: Bits) -> float:
    """Bound on P(some of the 2^64 codewords agrees this well, weighted by |logit|, with signs drawn at random).

    The keyed mask makes the 128 signs uniform given the magnitudes a. For one codeword the weighted agreement C is
    a sum of independent +-a, so P(C >= c) <= exp(-l c) prod cosh(l a) for every l > 0 (Chernoff); then a union bound.
    """
    weights = np.abs(np.asarray(logits, np.float64))
    total = float(weights.sum())
    if total <= 0:
        return 1.0
    weights *= CODED_BITS / total
    agreement = float(np.where((np.asarray(logits) > 0) == (bits == 1), weights, -weights).sum())
    slopes = np.geomspace(0.05, 8.0, 60)[:, None] * weights
    log_cosh = np.logaddexp(slopes, -slopes).sum(1) - CODED_BITS * math.log(2)
    exponent = float((log_cosh - np.geomspace(0.05, 8.0, 60) * agreement).min())
    return math.exp(min(0.0, exponent + _K * math.log(2)))
