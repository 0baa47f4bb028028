"""The visible label is as large as asked, can be read against any ground, and leaves the rest of the picture alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fusion.visible_label import LEAST_SHARE, LINES, draw_label, label_masks
from provenance import watermark
from provenance.mark_bench import drawn_picture

SIZES = [(1080, 1920), (1920, 1080), (512, 512), (128, 128), (3000, 400), (300, 2400), (2160, 3840)]


def heights(ink: np.ndarray) -> list[tuple[int, int]]:  # type: ignore[type-arg]
    """(top, height) of each line of letters, from the rows that hold ink."""
    rows = (ink > 0.5).any(axis=1).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rows, [0]])))
    return [(int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_letters_are_at_least_five_per_cent_of_the_shortest_side(height: int, width: int) -> None:
    ink, ground = label_masks(height, width)
    lines = heights(ink)
    assert len(lines) == len(LINES)
    assert min(each for _, each in lines) >= LEAST_SHARE * min(height, width)
    assert (ink[ground == 0] == 0).all()
    assert ground.mean() < 0.2
    assert (ground[0].any(), ground[:, -1].any()) == (False, False)


def test_the_letters_are_those_of_the_label() -> None:
    """Each letter is a piece of its own: 生 and 成 are joined strokes, Latin letters stand apart."""
    ink, _ = label_masks(1000, 1000)
    (first, tall), (second, small) = heights(ink)
    for top, size, text in ((first, tall, LINES[0]), (second, small, LINES[1])):
        columns = (ink[top : top + size] > 0.5).any(axis=0).astype(int)
        runs = np.flatnonzero(np.diff(np.concatenate([[0], columns, [0]]))).reshape(-1, 2)
        assert len(runs) == len(text.replace(" ", ""))
    pieces, _ = cv2.connectedComponents((ink[first : first + tall] > 0.5).astype(np.uint8))
    assert pieces - 1 in (4, 5)  # A, I, 生, 成, and the dot of 成 where it stands apart


@pytest.mark.parametrize("value", [0, 90, 255])
def test_it_stands_out_from_any_ground(value: int) -> None:
    plain = np.full((600, 800, 3), value, np.uint8)
    shown = draw_label(plain).astype(float)
    ink, ground = label_masks(600, 800)
    letters, box = shown[ink > 0.95].mean(), shown[(ground == 1) & (ink == 0)].mean()
    contrast = ((letters / 255) ** 2.2 + 0.05) / ((box / 255) ** 2.2 + 0.05)
    assert contrast > 4.5  # WCAG 2.2, 1.4.3
    np.testing.assert_array_equal(shown[ground == 0], plain[ground == 0])


def test_a_labelled_picture_still_carries_the_mark() -> None:
    key = bytes(range(32))
    marked = watermark.embed(draw_label(drawn_picture(3)), b"\1" * 8, key)
    assert watermark.extract(marked, key).asset_id == "01" * 8
