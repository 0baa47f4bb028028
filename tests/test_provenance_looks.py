"""Looks of frames: hashes that stand for every frame, few and bounded; copies near, other frames far."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from provenance.hashes import PERCEPTUAL_OTHER, PERCEPTUAL_SAME, perceptual_hash
from provenance.looks import FIELD, FRAME_BITS, MOST, RADIUS, VIDEO_OTHER, WIDEST, FrameHasher, Look, compare

UInt8Array = NDArray[np.uint8]


def noise(seed: int, side: int = 96) -> UInt8Array:
    """Soft shapes, other ones for each seed."""
    values = np.random.default_rng(seed).normal(128, 300, (side, side, 3))
    return np.asarray(cv2.GaussianBlur(values, (0, 0), 6).clip(0, 255), np.uint8)


def hashed(frames: Sequence[UInt8Array]) -> dict[str, object]:
    hasher = FrameHasher()
    for rgb in frames:
        hasher.look(rgb)
    return {FIELD: hasher.record()}


def apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_a_look_hashes_as_its_picture_does() -> None:
    rgb = noise(1)
    assert Look.of(rgb).picture_hash == perceptual_hash(rgb)
    assert len(Look.of(rgb).frame_hash) * 4 == FRAME_BITS
    mirrored = np.ascontiguousarray(rgb[:, ::-1])
    assert apart(Look.of(mirrored).mirrored.frame_hash, Look.of(rgb).frame_hash) <= 2


def test_a_still_scene_needs_one_hash_and_every_frame_is_near_one() -> None:
    still = [np.asarray((noise(1).astype(int) + step).clip(0, 255), np.uint8) for step in range(5)]
    assert len(hashed(still)[FIELD]["frames"]) == 1  # type: ignore[index]
    pan = [np.ascontiguousarray(noise(2, 160)[:, x : x + 96]) for x in range(0, 60, 2)]
    record = hashed(pan)[FIELD]
    kept = record["frames"]  # type: ignore[index]
    assert 1 < len(kept) <= len(pan)
    assert all(min(apart(Look.of(rgb).frame_hash, each) for each in kept) <= RADIUS for rgb in pan)


def test_the_number_of_hashes_is_bounded_and_the_radius_tells() -> None:
    hasher = FrameHasher()
    for seed in range(MOST + 40):
        hasher.look(noise(seed, 48))
    record = hasher.record()
    assert len(record["frames"]) <= MOST
    assert record["radius"] > RADIUS
    likeness = compare({FIELD: record}, [Look.of(noise(0, 48))])
    assert (likeness is None) == (record["radius"] > WIDEST)


def test_a_copy_is_near_and_other_frames_are_far() -> None:
    recorded = hashed([noise(seed) for seed in range(6)])
    small = [cv2.resize(noise(seed), (64, 64), interpolation=cv2.INTER_AREA) for seed in (3, 4)]
    cut = [Look.of(np.asarray(rgb, np.uint8)) for rgb in small]
    near, far = compare(recorded, cut), compare(recorded, [Look.of(noise(seed)) for seed in (70, 71, 72)])
    assert near is not None
    assert far is not None
    assert (near.same, far.same, near.other_from) == (True, False, VIDEO_OTHER)
    assert near.distance <= PERCEPTUAL_SAME < VIDEO_OTHER <= far.distance


def test_a_picture_is_compared_by_its_own_hash() -> None:
    recorded = {"perceptual_hash": perceptual_hash(noise(1))}
    own, other = compare(recorded, [Look.of(noise(1))]), compare(recorded, [Look.of(noise(9))])
    assert own is not None
    assert other is not None
    assert (own.distance, own.same, own.other_from) == (0, True, PERCEPTUAL_OTHER)
    assert other.distance == apart(perceptual_hash(noise(1)), perceptual_hash(noise(9)))


@pytest.mark.parametrize(("entry", "seen"), [({}, [Look.of(noise(1))]), (hashed([noise(1)]), [])])
def test_without_hashes_or_frames_nothing_is_said(entry: dict[str, object], seen: list[Look]) -> None:
    assert compare(entry, seen) is None
