"""What a manifest proves, and that nothing else is believed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from provenance.claim import (
    SWAP_SOURCE_TYPE,
    ConsentRecord,
    Ingredient,
    Production,
    manifest_for_swap,
)
from provenance.keys import SigningKeys, Trust, make_keys
from provenance.signing import read_manifest, sign

ASSET_ID = "0123456789abcdef"
FORMATS = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    directory: Path = tmp_path_factory.mktemp("home") / "keys"
    make_keys(directory, "Example Studio")
    return SigningKeys.load(directory)


def picture(mime: str, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
    ok, coded = cv2.imencode(FORMATS[mime], cv2.GaussianBlur(noise, (0, 0), 3))
    assert ok
    return coded.tobytes()


@pytest.mark.parametrize("mime", FORMATS)
def test_signed_swap_reads_valid_and_ours(mime: str, keys: SigningKeys) -> None:
    production = Production("0.1.0", "warp", datetime(2026, 1, 2, tzinfo=UTC))
    manifest = manifest_for_swap(ASSET_ID, mime, production, ConsentRecord("demo", "internal", "still"))
    inputs = [
        Ingredient(picture(mime, 1), mime, "parentOf"),
        Ingredient(picture(mime, 2), mime, "componentOf"),
    ]
    signed = sign(picture(mime), mime, manifest, keys, inputs)
    reading = read_manifest(signed, mime, keys.trust)
    assert (reading.state, reading.ours, reading.asset_id) == ("valid", True, ASSET_ID)
    assert (reading.signer, reading.source_type) == ("Example Studio", SWAP_SOURCE_TYPE)
    assert read_manifest(signed, mime, Trust()).state == "untrusted"
