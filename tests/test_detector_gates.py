"""Gates: heavy compression, hidden grids, small faces and drawings are told; ordinary photographs pass."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from conftest import Studio

from detector import gates
from fusion.face import Face, UInt8Array
from fusion.headers import jpeg_luma_table, read_header
from fusion.media import encode_picture, read_picture


def grain(height: int = 240, width: int = 320, seed: int = 0) -> UInt8Array:
    """Soft shapes with camera noise."""
    random = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(random.uniform(0, 255, (height, width, 3)).astype(np.float32), (0, 0), 12)
    soft = (soft - soft.min()) / np.ptp(soft) * 200 + 20
    return (soft + random.normal(0, 3, soft.shape)).clip(0, 255).astype(np.uint8)


def drawing(size_px: int = 200) -> UInt8Array:
    """A face of three colours."""
    rgb = np.full((size_px, size_px, 3), (250, 230, 200), np.uint8)
    cv2.circle(rgb, (size_px // 3, size_px // 3), 12, (20, 20, 20), -1)
    cv2.circle(rgb, (2 * size_px // 3, size_px // 3), 12, (20, 20, 20), -1)
    cv2.ellipse(rgb, (size_px // 2, 2 * size_px // 3), (40, 15), 0, 0, 180, (180, 30, 40), -1)
    return rgb


def face(left: float, top: float, right: float, bottom: float) -> Face:
    box = np.array([left, top, right, bottom], np.float32)
    return Face(box, np.zeros((5, 2), np.float32), 0.9)


@pytest.mark.parametrize("quality", [20, 34, 50, 75, 90, 98])
def test_the_quality_of_a_jpeg_is_read_from_its_table(quality: int) -> None:
    data = encode_picture(grain(), "jpeg", quality)
    table = jpeg_luma_table(read_header(data).pixel_stream)
    assert table is not None
    assert len(table) == 64
    assert gates.jpeg_quality(table) == pytest.approx(quality, abs=2)


def test_other_formats_have_no_table() -> None:
    assert jpeg_luma_table(read_header(encode_picture(grain(), "png")).pixel_stream) is None
    assert jpeg_luma_table(read_header(encode_picture(grain(), "webp")).pixel_stream) is None


@pytest.mark.parametrize(
    ("quality", "code"), [(20, "gate.compression"), (34, "gate.compression"), (40, None), (95, None)]
)
def test_a_heavily_compressed_jpeg_is_not_judged(quality: int, code: str | None) -> None:
    data = encode_picture(grain(), "jpeg", quality)
    found = gates.judge_picture(read_picture(data).rgb, jpeg_luma_table(read_header(data).pixel_stream))
    assert (found.reason.code if found.reason else None) == code


@pytest.mark.parametrize("shift", [0, 3])
def test_an_earlier_compression_shows_by_its_grid_in_a_png(shift: int) -> None:
    old = read_picture(encode_picture(grain(), "jpeg", 5)).rgb[shift:, shift:]
    found = gates.judge_picture(np.ascontiguousarray(old))
    assert found.reason is not None
    assert found.reason.code == "gate.blocks"
    assert gates.judge_picture(grain()).reason is None


def test_small_faces_and_drawings_are_not_judged_photographs_are() -> None:
    small = gates.judge_face(grain(), face(10, 10, 60, 80))
    assert small is not None
    assert small.code == "gate.face_small"
    assert "59 px" in small
    drawn = gates.judge_face(drawing(), face(0, 0, 200, 200))
    assert drawn is not None
    assert drawn.code == "gate.drawing"
    assert gates.judge_face(grain(), face(40, 40, 140, 150)) is None


def test_people_who_do_not_exist_pass_every_gate_at_ordinary_qualities(studio: Studio) -> None:
    for person in studio.people[:2]:
        rgb = read_picture(person.path.read_bytes()).rgb
        for quality in (60, 90):
            data = encode_picture(rgb, "jpeg", quality)
            table = jpeg_luma_table(read_header(data).pixel_stream)
            copy = read_picture(data).rgb
            assert gates.judge_picture(copy, table).reason is None
            assert [gates.judge_face(copy, each) for each in studio.perception.find(copy)] == [None]


def test_no_gate_fails_on_a_picture_of_one_pixel() -> None:
    tiny = np.zeros((1, 1, 3), np.uint8)
    assert gates.judge_picture(tiny).reason is None
    assert gates.judge_face(tiny, face(0, 0, 1, 1)) is not None
