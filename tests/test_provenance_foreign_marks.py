"""Marks of other tools are read where they are, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from provenance.foreign_marks import (
    KNOWN,
    RIVA_BITS,
    STEP,
    Payload,
    UInt8Array,
    chance_of,
    decode_round_robin,
    dwt_dct_votes,
    read_foreign_marks,
)
from provenance.mark_attacks import jpeg
from provenance.mark_bench import drawn_picture


def written(rgb: UInt8Array, payload: Payload) -> UInt8Array:
    """The scheme's writer, from its published description: the largest coefficient moves to a quarter of its step."""
    yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV)
    height, width = (n // 8 * 8 for n in rgb.shape[:2])
    quads = yuv[:height, :width, 1].astype(np.float64).reshape(height // 2, 2, width // 2, 2)
    low = quads.sum(axis=(1, 3)) / 2
    blocks = low.reshape(height // 8, 4, width // 8, 4).transpose(0, 2, 1, 3).reshape(-1, 16).copy()
    for number, block in enumerate(blocks):
        at = 1 + int(np.abs(block[1:]).argmax())
        block[at] = (block[at] // STEP + 0.25 + 0.5 * payload.bits[number % len(payload.bits)]) * STEP
    new = blocks.reshape(height // 8, width // 8, 4, 4).transpose(0, 2, 1, 3).reshape(low.shape)
    quads += ((new - low) / 2)[:, None, :, None]
    yuv[:height, :width, 1] = np.clip(np.rint(quads.reshape(height, width)), 0, 255)
    return np.asarray(cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB), np.uint8)


def soft_drawing(seed: int) -> UInt8Array:
    """Pale colours, in which no value saturates."""
    return np.asarray(cv2.GaussianBlur(drawn_picture(seed, 320, 400), (0, 0), 2) // 3 + 100, np.uint8)


@pytest.mark.parametrize("payload", KNOWN, ids=lambda payload: payload.writer)
def test_known_payloads_are_read_and_told_apart(payload: Payload) -> None:
    found = read_foreign_marks(written(soft_drawing(1), payload))
    assert [mark.writer for mark in found] == [payload.writer]
    assert (found[0].agreement or 0) > 0.95
    assert (found[0].p_chance or 1) < 1e-8


def test_an_unknown_payload_is_not_taken_for_a_known_one() -> None:
    other = Payload("nobody", tuple(int(bit) for bit in np.random.default_rng(5).integers(0, 2, 48)))
    assert read_foreign_marks(written(soft_drawing(2), other)) == ()


def test_unmarked_flat_and_small_pictures_carry_none() -> None:
    pictures = [drawn_picture(seed, 256, 300) for seed in range(30)]
    pictures += [np.full((300, 300, 3), value, np.uint8) for value in (0, 90, 255)]
    assert [read_foreign_marks(each) for each in pictures] == [()] * 33
    assert read_foreign_marks(written(soft_drawing(3), KNOWN[0])[:200, :200]) == ()


def test_recoding_removes_it() -> None:
    marked = written(soft_drawing(4), KNOWN[2])
    assert read_foreign_marks(marked)
    assert read_foreign_marks(jpeg(50)(marked, np.random.default_rng(0))) == ()


def test_votes_and_bits_of_a_hand_made_plane() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    assert dwt_dct_votes(rgb).shape == (4,)
    np.testing.assert_array_equal(decode_round_robin(np.array([1, 0, 1, 1, 0, 0], np.uint8), 3), [1, 0, 1])


def test_chances_are_those_of_a_fair_coin() -> None:
    assert chance_of(0, 48) == 1.0
    assert chance_of(48, 48) == 2.0**-48
    assert chance_of(1, 2) == 0.75


def test_riva_is_read_by_the_decoder_that_is_given_and_only_where_it_is_sure() -> None:
    rgb = drawn_picture(6, 256, 256)
    wanted = np.random.default_rng(6).integers(0, 2, RIVA_BITS)
    seen: list[tuple[int, ...]] = []

    def decoder(strength: float):  # type: ignore[no-untyped-def]
        def decode(frame):  # type: ignore[no-untyped-def]
            seen.append(frame.shape)
            assert (frame.min() >= -1, frame.max() <= 1) == (True, True)
            return ((wanted * 2 - 1) * strength)[None].astype(np.float32)

        return decode

    (mark,) = read_foreign_marks(rgb, decoder(15.0))
    assert (mark.scheme, mark.writer) == ("invisible-watermark rivaGan", None)
    assert mark.payload == np.packbits(wanted.astype(np.uint8)).tobytes().hex()
    assert read_foreign_marks(rgb, decoder(2.0)) == ()
    assert seen[0] == (1, 3, 1, 256, 256)


def test_pictures_marked_by_the_package_itself_are_read() -> None:
    package = pytest.importorskip("imwatermark.maxDct", reason="invisible-watermark is not installed")
    for payload in KNOWN:
        bgr = np.ascontiguousarray(soft_drawing(7)[..., ::-1])
        marked = package.EmbedMaxDct(list(payload.bits), wmLen=len(payload.bits)).encode(bgr)
        found = read_foreign_marks(np.ascontiguousarray(marked[..., ::-1]))
        assert payload.writer in [mark.writer for mark in found]
