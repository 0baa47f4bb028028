"""The mark: what it costs a picture, what it survives, and that nothing unmarked reads as marked."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from provenance import watermark
from provenance.codec import encode
from provenance.errors import InputError
from provenance.mark_signal import UInt8Array

KEY = bytes(range(32))
ID = bytes.fromhex("0123456789abcdef")


def drawn_picture(seed: int, height: int = 480, width: int = 512) -> UInt8Array:
    """Shapes, gradients and soft texture, as a person might draw: nobody's pixels."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), 3) * 60
    ramp = np.linspace(60, 190, width, dtype=np.float32)[None, :, None] + np.zeros((height, 1, 3), np.float32)
    picture = np.clip(ramp + grain, 0, 255).astype(np.uint8)
    for _ in range(12):
        colour = tuple(int(c) for c in rng.integers(20, 235, 3))
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(picture, centre, int(rng.integers(15, 80)), colour, -1, cv2.LINE_AA)
    return np.asarray(np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255), np.uint8)


@pytest.fixture(scope="module")
def pair() -> tuple[UInt8Array, UInt8Array]:
    plain = drawn_picture(1)
    return plain, watermark.embed(plain, ID, KEY)


def psnr_db(a: UInt8Array, b: UInt8Array) -> float:
    return 10 * math.log10(255**2 / float(((a.astype(float) - b) ** 2).mean()))


def recoded(rgb: UInt8Array, extension: str, flag: int, quality: int) -> UInt8Array:
    return np.asarray(cv2.imdecode(cv2.imencode(extension, rgb, [flag, quality])[1], cv2.IMREAD_UNCHANGED))


def test_the_mark_is_small_and_reads_back(pair: tuple[UInt8Array, UInt8Array]) -> None:
    plain, marked = pair
    assert marked.shape == plain.shape
    assert psnr_db(plain, marked) >= 42
    reading = watermark.extract(marked, KEY)
    assert reading.present
    assert reading.asset_id == ID.hex()
    assert reading.p_false < 1e-12
    assert reading.bit_accuracy is not None
    assert reading.bit_accuracy > 0.98
    assert reading.soft.shape == (128,)
    assert np.array_equal(reading.soft > 0, encode(ID, KEY) == 1)


@pytest.mark.parametrize(
    "name",
    [
        *("jpeg_q50", "webp_q60", "resize_0.5", "enlarge", "blur_2", "brightness_up", "brightness_down"),
        *("mirror", "grey", "crop_10", "crop_10_back", "rotate_5"),
    ],
)
def test_the_id_survives(pair: tuple[UInt8Array, UInt8Array], name: str) -> None:
    marked = pair[1]
    height, width = marked.shape[:2]
    cropped = marked[30 : 30 + int(0.9 * height), 12 : 12 + int(0.9 * width)]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 5, 1)
    attacked = {
        "jpeg_q50": recoded(marked, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 50),
        "webp_q60": recoded(marked, ".webp", cv2.IMWRITE_WEBP_QUALITY, 60),
        "resize_0.5": cv2.resize(marked, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "enlarge": cv2.resize(marked, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
        "blur_2": cv2.GaussianBlur(marked, (0, 0), 2),
        "brightness_up": np.clip(marked * 1.2, 0, 255).astype(np.uint8),
        "brightness_down": (marked * 0.8).astype(np.uint8),
        "mirror": np.ascontiguousarray(marked[:, ::-1]),
        "grey": cv2.cvtColor(cv2.cvtColor(marked, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        "crop_10": np.ascontiguousarray(cropped),
        "crop_10_back": cv2.resize(cropped, (width, height), interpolation=cv2.INTER_CUBIC),
        "rotate_5": cv2.warpAffine(marked, turn, (width, height), borderMode=cv2.BORDER_REFLECT),
    }[name]
    reading = watermark.extract(np.asarray(attacked, np.uint8), KEY)
    assert reading.asset_id == ID.hex()
    assert reading.p_false < 1e-6


@pytest.mark.parametrize("level", [0, 3, 128, 252, 255])
def test_a_flat_picture_carries_the_mark(level: int) -> None:
    flat = np.full((256, 320, 3), level, np.uint8)
    marked = watermark.embed(flat, ID, KEY)
    assert psnr_db(flat, marked) >= 42
    assert watermark.extract(marked, KEY).asset_id == ID.hex()


@pytest.mark.parametrize(("height", "width"), [(128, 128), (129, 400), (1080, 1920), (700, 333)])
def test_any_size_from_128_pixels(height: int, width: int) -> None:
    marked = watermark.embed(drawn_picture(3, height, width), ID, KEY)
    assert marked.shape == (height, width, 3)
    assert watermark.extract(marked, KEY, search="fast").asset_id == ID.hex()


def test_unmarked_pictures_and_other_keys_read_as_absent(pair: tuple[UInt8Array, UInt8Array]) -> None:
    plain, marked = pair
    for picture, key in ((plain, KEY), (marked, bytes(32)), (np.zeros((200, 200, 3), np.uint8), KEY)):
        reading = watermark.extract(picture, key)
        assert not reading.present
        assert reading.asset_id is None
        assert reading.bit_accuracy is None
        assert reading.p_false >= 1e-6


def test_the_bound_on_false_alarms_holds_for_one_picture_under_many_keys() -> None:
    rng = np.random.default_rng(2)
    plain = drawn_picture(4, 256, 256)
    lowest = min(watermark.extract(plain, rng.bytes(32), search="fast").p_false for _ in range(100))
    assert lowest > 1e-4  # a p-value: 100 draws go below 1e-4 one time in a hundred


def test_logits_of_frames_add_up(pair: tuple[UInt8Array, UInt8Array]) -> None:
    rng = np.random.default_rng(3)
    marked = pair[1]
    total = np.zeros(128, np.float32)
    for _ in range(4):
        noisy = np.clip(marked + rng.normal(0, 25, marked.shape), 0, 255).astype(np.uint8)
        total += watermark.extract(noisy, KEY, search="fast").soft
    found, p_false = watermark.decode_logits(total, KEY)
    assert found.asset_id == ID
    assert p_false < 1e-6


def test_too_small_or_not_rgb_is_refused() -> None:
    for picture, code in (
        (np.zeros((127, 500, 3), np.uint8), "mark.too_small"),
        (np.zeros((200, 200), np.uint8), "mark.not_rgb"),
        (np.zeros((200, 200, 3), np.float32), "mark.not_rgb"),
    ):
        for call in (lambda p: watermark.extract(p, KEY), lambda p: watermark.embed(p, ID, KEY)):
            with pytest.raises(InputError) as caught:
                call(picture)
            assert caught.value.code == code
