"""`check` names marks that invisible-watermark itself wrote into a drawn picture: its dwtDct, and its rivaGan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from detector.check import Checker
from detector.verdict import Verdict
from fusion.guests import add_guest
from fusion.media import encode_picture
from provenance.home import Home
from provenance.mark_bench import drawn_picture
from provenance.mark_signal import UInt8Array

RIVA_BITS = np.unpackbits(np.frombuffer(b"riva", np.uint8))


@pytest.fixture(scope="module")
def package() -> ModuleType:
    """invisible-watermark as its authors publish it, with rivaGan's two networks."""
    return pytest.importorskip("imwatermark", reason="invisible-watermark is not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Home.create(tmp_path_factory.mktemp("foreign") / "home", "Facsimile tests") as made:
        yield made


def plain() -> UInt8Array:
    """512 x 512, pale colours, in which no value saturates."""
    return np.asarray(cv2.GaussianBlur(drawn_picture(21, 512, 512), (0, 0), 2) // 3 + 100, np.uint8)


def marked(package: ModuleType, method: str, bits: np.ndarray) -> UInt8Array:
    """What the package's own encoder makes of the picture."""
    encoder = package.WatermarkEncoder()
    encoder.set_watermark("bits", [int(bit) for bit in bits])
    bgr = encoder.encode(np.ascontiguousarray(plain()[..., ::-1]), method)
    return np.ascontiguousarray(np.asarray(bgr, np.uint8)[..., ::-1])


def foreign_marks(home: Home, rgb: UInt8Array) -> list[dict[str, object]]:
    """What a check of the picture as a PNG states; somebody else's mark proves nothing, so the verdict stays open."""
    report = Checker(home).check(encode_picture(rgb, "png"), "picture.png")
    assert report.verdict in (Verdict.INCONCLUSIVE, Verdict.NO_EVIDENCE)
    assert not report.mark.present
    return [mark.as_dict() for mark in report.foreign_marks]


def test_stable_diffusions_own_payload_is_named(package: ModuleType, home: Home) -> None:
    payload = b"StableDiffusionV1"
    (found,) = foreign_marks(home, marked(package, "dwtDct", np.unpackbits(np.frombuffer(payload, np.uint8))))
    assert found["scheme"] == "invisible-watermark dwtDct"
    assert found["writer"] == "Stable Diffusion 1 and 2 (StableDiffusionV1)"
    assert found["agreement"] == 1.0
    assert bytes.fromhex(str(found["payload"])) == payload


def test_a_riva_payload_is_named_once_its_decoder_was_brought_along(package: ModuleType, home: Home) -> None:
    package.WatermarkEncoder.loadModel()
    picture = marked(package, "rivaGan", RIVA_BITS)
    assert foreign_marks(home, picture) == []  # unknown, not guessed, without the decoder
    decoder = Path(str(package.__file__)).parent / "rivagan_decoder.onnx"
    assert add_guest(home.path / "models", decoder, "riva", "MIT").kind == "rivagan"
    (found,) = foreign_marks(home, picture)
    assert found["scheme"] == "invisible-watermark rivaGan"
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(str(found["payload"])), np.uint8))
    assert (bits == RIVA_BITS).sum() >= 29  # by chance once in 800 000; the scheme corrects no errors
    own = package.WatermarkDecoder("bits", 32).decode(np.ascontiguousarray(picture[..., ::-1]), "rivaGan")
    np.testing.assert_array_equal(bits, own)
    assert (found["writer"], found["p_chance"]) == (None, None)
    assert foreign_marks(home, plain()) == []
