"""Drawn covers, what is measured of them, and what the rule of occlusion keeps of them."""

import dataclasses

import cv2
import numpy as np
import pytest
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion import covers, mask, mesh, tables
from fusion.face import FloatArray, UInt8Array
from fusion.warp import WarpResult, warp_face

POINTS = landmarks(40, (200, 190), 90)
SOURCE_POINTS = landmarks(41, (200, 190), 90)
RGB = picture(POINTS, (400, 400), PALE, 5)
SOURCE = picture(SOURCE_POINTS, (400, 400), BROWN, 6)


def painted(rgb: UInt8Array, spared: FloatArray) -> WarpResult:
    """A result that greys the face's oval except where `spared`."""
    share = mask.fill_contour(POINTS[: mesh.NUM_MESH], mesh.OVAL, (400, 400)) * (1 - spared)
    new = np.rint(rgb + share[..., None] * (128.0 - rgb)).astype(np.uint8)
    return WarpResult(new, share.astype(np.float32), (0, 0, 400, 400), share > 0)


@pytest.mark.parametrize("kind", covers.COVERS)
def test_a_cover_is_drawn_where_its_mask_says_and_the_same_again(kind: str) -> None:
    drawn, cover = covers.draw_cover(RGB, POINTS, kind, seed=1)
    again, _ = covers.draw_cover(RGB, POINTS, kind, seed=1)
    assert (drawn == again).all()
    width = mesh.face_width(POINTS)
    on_face = mask.fill_contour(POINTS[: mesh.NUM_MESH], mesh.OVAL, (400, 400)) * cover
    assert 0.01 * width**2 < on_face.sum() < 0.35 * width**2
    far = mask.widen(cover, 0.06 * width) == 0
    assert (drawn[far] == RGB[far]).all()
    core = cover > 0.95
    assert np.abs(drawn.astype(float) - RGB)[core].mean() > 10


@pytest.mark.parametrize("kind", covers.COVERS)
def test_a_cover_kept_and_a_cover_painted_over_are_told_apart(kind: str) -> None:
    drawn, cover = covers.draw_cover(RGB, POINTS, kind, seed=1)
    nothing = np.zeros((400, 400), np.float32)
    plain = painted(RGB, nothing)
    kept = covers.cover_measures(painted(drawn, cover), drawn, cover, plain, POINTS)
    over = covers.cover_measures(painted(drawn, nothing), drawn, cover, plain, POINTS)
    timid = covers.cover_measures(painted(drawn, nothing + 1), drawn, cover, plain, POINTS)
    assert kept["cover_kept"] == 1
    assert kept["beside_painted"] == pytest.approx(1, abs=0.02)
    assert over["cover_kept"] < 0.2
    assert over["cover_error"] > 20
    assert timid["cover_kept"] == 1
    assert timid["beside_painted"] == 0  # who paints nothing keeps every cover, and is found out


def test_a_cover_beside_the_face_is_not_measured() -> None:
    plain = painted(RGB, np.zeros((400, 400), np.float32))
    aside = np.zeros((400, 400), np.float32)
    aside[:10, :10] = 1
    assert np.isnan(list(covers.cover_measures(plain, RGB, aside, plain, POINTS).values())).all()


def test_a_microphone_stays_before_the_chin_and_a_bare_chin_is_painted() -> None:
    drawn, cover = covers.draw_cover(RGB, POINTS, "microphone", seed=2)
    plain, swapped = (warp_face(each, POINTS, SOURCE, SOURCE_POINTS) for each in (RGB, drawn))
    found = covers.cover_measures(swapped, drawn, cover, plain, POINTS)
    assert found["cover_kept"] > 0.9
    assert found["beside_painted"] > 0.4  # lips and a rim around it stay the target's
    same = dataclasses.replace(plain)
    assert covers.cover_measures(same, drawn, cover, plain, POINTS)["cover_kept"] < 0.2


def test_every_kind_of_cover_gets_its_rows() -> None:
    found = covers.measure_covers(warp_face, RGB, POINTS, SOURCE, SOURCE_POINTS, seed=3)
    rows = tables.cover_rows([found, found])
    assert {row.case for row in rows} == {f"cover_{kind}" for kind in covers.COVERS}
    assert {row.metric for row in rows} == {"cover_kept", "cover_error", "beside_painted"}
    assert all(row.unit and row.n == 2 for row in rows)


@pytest.mark.parametrize(("kind", "least"), [("glasses", 0.65), ("strands", 0.5)])
def test_most_of_frames_and_strands_stays_on_top(kind: str, least: float) -> None:
    """Three of each: over ten, frames were kept to 0.76 to 0.81, strands to 0.38 to 0.95 (mean 0.70)."""
    plain, found = warp_face(RGB, POINTS, SOURCE, SOURCE_POINTS), []
    for seed in range(3):
        drawn, cover = covers.draw_cover(RGB, POINTS, kind, seed=seed)
        swapped = warp_face(drawn, POINTS, SOURCE, SOURCE_POINTS)
        found.append(covers.cover_measures(swapped, drawn, cover, plain, POINTS))
    assert np.mean([one["cover_kept"] for one in found]) > least
    assert np.mean([one["beside_painted"] for one in found]) > 0.6


def test_a_bare_face_shows_no_thread() -> None:
    points = POINTS[: mesh.NUM_MESH, :2]
    hull = mask.fill_contour(points, mesh.OVAL, (400, 400))
    width = mesh.face_width(POINTS)
    bare = RGB.astype(np.float32) / 255
    skin = mask.skin_likelihood(bare, points, hull, width)
    assert mask.thread_mask(bare, skin, points, hull, width).max() == 0


def test_a_thread_from_the_outline_is_followed_between_brow_and_eye_and_no_other_is() -> None:
    points = POINTS[: mesh.NUM_MESH, :2]
    hull = mask.fill_contour(points, mesh.OVAL, (400, 400))
    width = mesh.face_width(POINTS)
    brow, eye = points[list(mesh.LEFT_BROW)].mean(0), points[list(mesh.LEFT_EYE)].mean(0)
    between = (brow + eye) / 2

    def seen(begin: FloatArray) -> float:
        drawn = RGB.copy()
        first, last = (tuple(int(v) for v in np.rint(each)) for each in (begin, between))
        cv2.line(drawn, first, last, (30, 22, 18), max(2, round(0.03 * width)), cv2.LINE_AA)
        rgb = drawn.astype(np.float32) / 255
        skin = mask.skin_likelihood(rgb, points, hull, width)
        x, y = np.rint(between).astype(int)
        return float(mask.thread_mask(rgb, skin, points, hull, width)[y, x])

    outside = points[234] + 0.1 * (points[234] - between)
    assert seen(outside) > 0.9
    assert seen(between + 0.12 * width * np.array([-1.0, 0.0])) == 0  # a fold of the lid reaches no outline
