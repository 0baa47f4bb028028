"""The code of the mark: against a published generator polynomial, brute-force syndromes and random errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance import codec
from provenance.errors import InputError

KEY = bytes(range(32))
ids = st.binary(min_size=8, max_size=8)
places = st.sets(st.integers(0, 127), max_size=codec.CORRECTABLE)


def test_generator_polynomial_is_the_published_one() -> None:
    # Lin & Costello, Error Control Coding, table 6.1: n = 127, k = 64, t = 10, in octal.
    assert codec.generator_polynomial() == int("1206534025570773100045", 8)


def _field_multiply(a: int, b: int) -> int:
    """Product in GF(2^7) modulo x^7 + x^3 + 1 by shift and reduce; shares no table with the code."""
    product = 0
    for _ in range(7):
        product ^= a if b & 1 else 0
        b >>= 1
        a = (a << 1) ^ (0b10001001 if a & 0x40 else 0)
    return product


def _value_at(word: list[int], point: int) -> int:
    total = 0
    for bit in word:  # Horner, highest power first
        total = _field_multiply(total, point) ^ bit
    return total


@settings(max_examples=25, deadline=None)
@given(ids)
def test_oracle_every_codeword_vanishes_at_twenty_powers_of_alpha(asset_id: bytes) -> None:
    word = [int(b) for b in codec.encode_word(asset_id)]
    point = 1
    for _ in range(2 * codec.CORRECTABLE):
        point = _field_multiply(point, 2)
        assert _value_at(word[:127], point) == 0
    assert sum(word) % 2 == 0


@given(ids)
def test_code_is_systematic_and_masked(asset_id: bytes) -> None:
    word = codec.encode_word(asset_id)
    assert np.packbits(word[:64]).tobytes() == asset_id
    assert np.array_equal(codec.encode(asset_id, KEY) ^ codec.keyed_mask(KEY), word)


@settings(deadline=None)
@given(ids, ids)
def test_code_is_linear_with_distance_of_at_least_22(a: bytes, b: bytes) -> None:
    difference = codec.encode_word(a) ^ codec.encode_word(b)
    summed = bytes(x ^ y for x, y in zip(a, b, strict=True))
    assert np.array_equal(difference, codec.encode_word(summed))
    assert a == b or difference.sum() >= 22


@settings(deadline=None)
@given(ids, places)
def test_up_to_ten_errors_are_corrected_and_counted(asset_id: bytes, wrong: set[int]) -> None:
    bits = codec.encode(asset_id, KEY)
    bits[list(wrong)] ^= 1
    found = codec.decode(bits, KEY)
    assert found is not None
    assert (found.asset_id, found.errors) == (asset_id, len(wrong))


@settings(deadline=None)
@given(ids, st.sets(st.integers(0, 127), min_size=11, max_size=11))
def test_eleven_errors_are_never_taken_for_another_id(asset_id: bytes, wrong: set[int]) -> None:
    bits = codec.encode(asset_id, KEY)
    bits[list(wrong)] ^= 1
    assert (
        codec.decode(bits, KEY) is None
    )  # distance 22: eleven away from one word is at least eleven from all


@settings(max_examples=20, deadline=None)
@given(ids, st.integers(0, 2**32 - 1))
def test_soft_decoding_agrees_with_hard_decoding_where_both_answer(asset_id: bytes, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=128)
    soft = ((2.0 * codec.encode(asset_id, KEY) - 1) * 1.9 + noise).astype(np.float32)
    hard = codec.decode((soft > 0).astype(np.uint8), KEY)
    if hard is not None:
        assert codec.decode_soft(soft, KEY).asset_id == hard.asset_id


def test_soft_decoding_reads_ids_that_hard_decoding_loses() -> None:
    rng = np.random.default_rng(5)
    hard = soft = 0
    for _ in range(60):
        asset_id = rng.bytes(8)
        logits = ((2.0 * codec.encode(asset_id, KEY) - 1) * 1.4 + rng.normal(size=128)).astype(np.float32)
        by_hard = codec.decode((logits > 0).astype(np.uint8), KEY)
        hard += by_hard is not None and by_hard.asset_id == asset_id
        soft += codec.decode_soft(logits, KEY).asset_id == asset_id
    assert soft >= 57
    assert hard < soft - 10


def test_another_key_does_not_read_the_id() -> None:
    bits = codec.encode(b"8 bytes!", KEY)
    found = codec.decode(bits, bytes(32))
    assert found is None or found.asset_id != b"8 bytes!"


def test_chance_of_agreement_counts_the_words_of_a_ball() -> None:
    assert codec.chance_of_agreement(0) == pytest.approx(2.0**-64)
    assert codec.chance_of_agreement(7) == pytest.approx(
        sum(math.comb(128, i) for i in range(8)) * 2.0**64 / 2.0**128
    )
    assert codec.chance_of_agreement(8) < 1e-6 < codec.chance_of_agreement(9)
    assert codec.chance_of_agreement(128) == 1.0


def test_chance_of_agreement_holds_for_random_words() -> None:
    rng = np.random.default_rng(1)
    hits = sum(codec.decode(rng.integers(0, 2, 128).astype(np.uint8), KEY) is not None for _ in range(600))
    assert hits <= 1  # expected 0.008 at 1.3e-5 each


@pytest.mark.parametrize(
    ("asset_id", "key", "code"),
    [(b"short", KEY, "mark.id_length"), (b"8 bytes!", b"short", "mark.key_length")],
)
def test_wrong_lengths_are_refused(asset_id: bytes, key: bytes, code: str) -> None:
    with pytest.raises(InputError) as caught:
        codec.encode(asset_id, key)
    assert caught.value.code == code


@settings(max_examples=25, deadline=None)
@given(ids, st.integers(0, 2**32 - 1))
def test_the_soft_bound_is_small_for_a_clean_word_and_large_for_noise(asset_id: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sent = codec.encode(asset_id, KEY)
    clean = ((2.0 * sent - 1) * rng.uniform(0.5, 2, 128)).astype(np.float32)
    assert codec.chance_of_correlation(clean, sent) < 1e-12
    noise = rng.normal(size=128).astype(np.float32)
    assert codec.chance_of_correlation(noise, codec.decode_soft(noise, KEY).bits) > 1e-4
    assert codec.chance_of_correlation(np.zeros(128, np.float32), sent) == 1.0


def test_the_soft_bound_lies_above_the_exact_chance_where_all_bits_weigh_alike() -> None:
    sent = codec.encode(bytes(8), KEY)
    for errors in range(0, 16):
        received = sent.copy()
        received[:errors] ^= 1
        logits = (2.0 * received - 1).astype(np.float32)
        exact = codec.chance_of_agreement(errors)
        assert exact <= codec.chance_of_correlation(logits, sent) <= max(1e-18, 40 * exact)


def test_the_deeper_search_reads_what_the_shallow_one_loses() -> None:
    rng = np.random.default_rng(8)
    shallow = deep = 0
    for _ in range(30):
        asset_id = rng.bytes(8)
        sent = 2.0 * codec.encode(asset_id, KEY) - 1
        logits = (sent * 1.25 + rng.normal(size=128)).astype(np.float32)
        shallow += codec.decode_soft(logits, KEY).asset_id == asset_id
        deep += codec.decode_soft(logits, KEY, order=3).asset_id == asset_id
    assert deep >= shallow
    assert deep >= 15
