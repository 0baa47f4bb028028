"""Pictures marked by each embedder there was stay readable, and today's still gives the newest of them.

The stored pictures are drawn by code. A change of the embedder, wanted or not, shows here; a wanted one stores a new
picture beside this one, which must stay readable for as long as pictures marked like it are about.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from fusion.media import read_picture
from provenance import watermark
from provenance.mark_signal import UInt8Array

KEY = hashlib.sha256(b"the key of the pinned picture").digest()
ID = bytes.fromhex("f00dfacecafe0123")
FIRST, NEWEST = (ROOT / "tests" / "assets" / name for name in ("mark_2026_11.webp", "mark_2026_11_2.webp"))
PLAIN_SHA256 = "0c82b6bf97c3cb5d2d43c5d151d33cd5f5e21d263f4d3ff437e5b9274b3ed053"
FIRST_SHA256 = "fd7c07a4b861ea1cf4548814c5324df1c2da99979dfc8f93608bf277001bf0d7"
NEWEST_SHA256 = "4c10c948d05af892f9bd3f69b76a35479980913be687c39a4c89a8051dc93d80"
MOST_UNEQUAL = 0.001  # share of values a grey level off: another processor rounds a sum otherwise


def drawn() -> UInt8Array:
    """256 x 256, by whole numbers alone, so that no library or processor draws it otherwise."""
    y, x = np.mgrid[0:256, 0:256]
    stream = np.frombuffer(hashlib.shake_256(b"grain").digest(256 * 256), np.uint8).astype(np.int64)
    grain = stream.reshape(256, 256) % 13
    grain = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1) + np.roll(grain, (1, 1), (0, 1))) // 2 - 12
    base = 60 + (2 * x + y) // 6 + grain
    picture = np.stack([base, base - 10, base + y // 16], axis=2)
    for cx, cy, radius, level in (
        (80, 90, 50, 30),
        (180, 60, 34, -40),
        (150, 190, 46, 55),
        (40, 215, 22, -25),
    ):
        picture[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] += level
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def stored() -> UInt8Array:
    return read(NEWEST)


def read(path: Path) -> UInt8Array:
    return np.asarray(read_picture(path.read_bytes()).rgb, np.uint8)


def sha256_of(rgb: UInt8Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()


def test_the_drawing_and_the_stored_pictures_are_those_of_that_day() -> None:
    found = (sha256_of(drawn()), sha256_of(read(FIRST)), sha256_of(read(NEWEST)))
    assert found == (PLAIN_SHA256, FIRST_SHA256, NEWEST_SHA256)


def test_todays_embedder_gives_the_stored_picture(stored: UInt8Array) -> None:
    apart = np.abs(watermark.embed(drawn(), ID, KEY).astype(np.int64) - stored)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= MOST_UNEQUAL


def test_an_embedder_a_fiftieth_weaker_would_not(stored: UInt8Array, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = watermark._apply
    monkeypatch.setattr(watermark, "_apply", lambda rgb, change: apply(rgb, change * np.float32(0.98)))
    assert (watermark.embed(drawn(), ID, KEY) != stored).mean() > 5 * MOST_UNEQUAL


@pytest.mark.parametrize("path", [FIRST, NEWEST])
@pytest.mark.parametrize("copy", ["whole", "crop_10", "jpeg_75", "crop_10_jpeg_75"])
def test_the_stored_pictures_are_read(path: Path, copy: str) -> None:
    side, stored = round(256 * 0.9), read(path)
    seen = stored[7 : 7 + side, 4 : 4 + side] if "crop" in copy else stored
    if "jpeg" in copy:
        data = cv2.imencode(".jpg", seen[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
        seen = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], np.uint8)
    reading = watermark.extract(np.ascontiguousarray(seen), KEY)
    assert (reading.present, reading.asset_id) == (True, ID.hex())
