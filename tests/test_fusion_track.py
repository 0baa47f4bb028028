"""Faces followed through frames: who is one person, what a cut ends, and points that no longer tremble."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from clips import filmed, hills
from conftest import Studio

from fusion import mesh
from fusion.clip import steady_colour
from fusion.face import Face, FloatArray, UInt8Array
from fusion.identity import MATCH_THRESHOLD
from fusion.media import read_picture
from fusion.track import AROUND, Sighting, Tracker, Tracks, steady_points
from fusion.warp import WarpResult


@pytest.fixture(scope="module")
def portraits(studio: Studio) -> list[UInt8Array]:
    return [read_picture(person.path.read_bytes()).rgb for person in studio.people]


def tracker_of(studio: Studio, analyse: Callable[[UInt8Array], list[Face]] | None = None) -> Tracker:
    seen = studio.perception
    return Tracker(analyse or seen.analyse, seen.locate, seen.embed, Tracks(io.BytesIO()))


def test_a_person_who_comes_back_after_a_cut_is_the_same_one(
    studio: Studio, portraits: list[UInt8Array]
) -> None:
    tracker = tracker_of(studio)
    frames = [filmed(portraits[1], k) for k in range(3)] + [hills(0)]
    frames += [filmed(portraits[2], 0), filmed(portraits[1], 4)]
    for number, rgb in enumerate(frames):
        tracker.look(rgb, number / 25)
    people = tracker.people(MATCH_THRESHOLD)
    assert [[(chain.first, chain.last) for chain in person.chains] for person in people] == [
        [(0, 2), (5, 5)],
        [(4, 4)],
    ]
    assert [len(tracker.tracks.read(number)) for number in range(6)] == [1, 1, 1, 0, 1, 1]
    alone = studio.perception.analyse(portraits[2])[0].embedding
    assert alone is not None
    assert float(people[1].embedding @ alone) > 0.9


def test_a_face_that_the_finder_loses_is_held_where_it_was(
    studio: Studio, portraits: list[UInt8Array]
) -> None:
    """The finder looks away in frame 1: the face is still there in 1, and gone in 2."""
    frames = [filmed(portraits[1], 0), filmed(portraits[1], 1), filmed(portraits[1], 1)]
    frames[2][:] = frames[2].mean((0, 1)).astype(np.uint8)
    shown = iter([True, False, False])
    tracker = tracker_of(studio, lambda rgb: studio.perception.analyse(rgb) if next(shown) else [])
    for number, rgb in enumerate(frames):
        tracker.look(rgb, number / 25)
    held = tracker.tracks.read(1)
    assert len(held) == 1
    found = studio.perception.analyse(frames[1])[0].landmarks_px
    assert found is not None
    assert np.linalg.norm(held[0].landmarks_px - found, axis=1).mean() < 0.02 * mesh.face_width(found)
    assert tracker.tracks.read(2) == []


def path_of(rng: np.random.Generator, noise: float) -> tuple[FloatArray, FloatArray]:
    """(true, seen) points [9, 478, 2] of a face 100 px wide that moves evenly faster."""
    shape = rng.uniform(0, 1, (478, 2))
    shape *= 100 / mesh.face_width(shape.astype(np.float32))
    time = np.arange(9)
    true = shape + np.stack([3.0 * time + 0.2 * time**2, -time], axis=1)[:, None]
    seen = true + rng.normal(0, noise, true.shape)
    return true.astype(np.float32), seen.astype(np.float32)


def test_trembling_points_are_steadied_without_lag_and_a_blink_stays() -> None:
    rng = np.random.default_rng(0)
    true, seen = path_of(rng, 0.3)
    times = (np.arange(9) / 25).astype(np.float32)
    steady = steady_points(times, seen, AROUND)
    assert np.std(steady - true[AROUND]) < 0.6 * np.std(seen[AROUND] - true[AROUND])
    assert np.abs((steady - true[AROUND]).mean(0)).max() < 0.05
    blink = seen.copy()
    blink[AROUND, :20, 1] += 6.0
    moved = steady_points(times, blink, AROUND)[:20, 1] - steady_points(times, seen, AROUND)[:20, 1]
    assert moved.min() > 3.5
    assert np.array_equal(steady_points(times[:2], seen[:2], 0), seen[0])


def test_what_was_seen_is_read_back_from_its_file_and_a_cut_is_no_neighbour() -> None:
    tracks, rng = Tracks(io.BytesIO()), np.random.default_rng(1)
    _, seen = path_of(rng, 0.3)
    for number in range(9):
        tracks.append(number / 25, [Sighting(number // 5, seen[number])])
    assert np.array_equal(tracks.read(7)[0].landmarks_px, seen[7])
    alone = steady_points((np.arange(5, 9) / 25).astype(np.float32), seen[5:], 0)
    assert np.allclose(tracks.steadied(5)[0].landmarks_px, alone, atol=1e-3)
    assert tracks.read(9) == tracks.read(-1) == []


def test_a_flickering_colour_is_eased_and_the_rest_of_the_frame_left() -> None:
    before = np.full((40, 40, 3), 100, np.uint8)
    share, altered = np.zeros((20, 20), np.float32), np.zeros((20, 20), bool)
    share[5:15, 5:15], altered[5:15, 5:15] = 1, True
    mean, levels = None, []
    for flicker in (10, 13, 10, 13, 10, 13):
        rgb = before.copy()
        rgb[15:25, 15:25] += np.uint8(flicker)
        drawn, mean = steady_colour(before, WarpResult(rgb, share, (10, 10, 30, 30), altered), mean)
        levels.append(int(drawn[20, 20, 0]))
        assert (drawn != before).any(axis=2).sum() == 100
    assert max(levels[2:]) - min(levels[2:]) <= 1
