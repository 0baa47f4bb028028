"""What a manifest proves, and that nothing else is believed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from seals import ASSET_ID, FORMATS, assertions, picture, sealed_sample, sealed_swap

from provenance.claim import (
    CONSENT_LABEL,
    PRODUCTION_LABEL,
    SAMPLE_SOURCE_TYPE,
    SWAP_SOURCE_TYPE,
    xmp_packet,
)
from provenance.container import Part, c2pa_store, join_parts, png_chunk, split_parts, without_c2pa_store
from provenance.hashes import content_sha256, sha256_hex
from provenance.keys import SigningKeys, make_keys
from provenance.signing import ManifestReading, read_manifest
from provenance.xmp import embed_xmp, read_declaration


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    directory: Path = tmp_path_factory.mktemp("home") / "keys"
    make_keys(directory, "Example Studio")
    return SigningKeys.load(directory)


@pytest.fixture(scope="module")
def swaps(keys: SigningKeys) -> dict[str, bytes]:
    return {mime: sealed_swap(keys, mime) for mime in FORMATS}


@pytest.mark.parametrize("mime", FORMATS)
def test_sealed_swap_tells_everything_it_was_given(
    mime: str, keys: SigningKeys, swaps: dict[str, bytes]
) -> None:
    reading = read_manifest(swaps[mime], mime, keys.trust)
    assert (reading.state, reading.ours, reading.asset_id) == ("valid", True, ASSET_ID)
    assert (reading.signer, reading.source_type) == ("Example Studio", SWAP_SOURCE_TYPE)
    assert (reading.generator, reading.num_ingredients) == ("facsimile 0.1.0", 2)
    assert (reading.timestamp, reading.timestamp_trusted) == (None, False)
    assert {"signingCredential.trusted", "claimSignature.validated", "assertion.dataHash.match"} <= set(
        reading.codes
    )
    told = assertions(reading)
    assert told[CONSENT_LABEL]["grants"] == ["ab" * 16, "cd" * 16]
    assert told[CONSENT_LABEL]["ledger_index"] == "12"
    assert told[PRODUCTION_LABEL] == {"engine": "warp", "models": {"identity": "a" * 64}}
    assert len(told["cawg.training-mining"]["entries"]) == 4
    assert [each["action"] for each in told["c2pa.actions.v2"]["actions"]] == [
        "c2pa.opened",
        "c2pa.placed",
        "c2pa.edited",
        "c2pa.watermarked.bound",
    ]
    assert read_declaration(swaps[mime]).digital_source_type == reading.source_type


@pytest.mark.parametrize("mime", FORMATS)
def test_sealing_changes_no_pixel_and_no_content_hash(mime: str, swaps: dict[str, bytes]) -> None:
    before = picture(mime)
    one, two = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (before, swaps[mime])
    )
    np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    assert content_sha256(before) == content_sha256(swaps[mime])


def test_signer_vouches_for_every_assertion(keys: SigningKeys, swaps: dict[str, bytes]) -> None:
    reading = read_manifest(swaps["image/png"], "image/png", keys.trust)
    manifest = reading.tree["manifests"][reading.label]
    assert all(each["created"] for each in manifest["assertions"])
    assert manifest["claim_version"] == 2


def test_sample_is_declared_wholly_synthetic(keys: SigningKeys) -> None:
    signed = sealed_sample(keys)
    reading = read_manifest(signed, "image/jpeg", keys.trust)
    assert (reading.state, reading.ours, reading.source_type) == ("valid", True, SAMPLE_SOURCE_TYPE)
    assert reading.num_ingredients == 0


def test_nothing_private_is_in_a_sealed_file(swaps: dict[str, bytes]) -> None:
    for mime, data in swaps.items():
        assert not re.search(
            rb"/(home|root|tmp|work|usr)/|[A-Za-z]:\\\\|[\w.]+@[\w.]+\.\w", c2pa_store(split_parts(data))
        )
        assert b"thumbnail" not in data
        assert len(data) - len(picture(mime)) < 8_000


Change = Callable[[bytes, list[Part]], bytes]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def largest(parts: list[Part]) -> Part:
    return max(without_c2pa_store(parts), key=lambda part: len(part.raw))


TAMPER: dict[str, tuple[str, Change]] = {
    "pixel byte": (
        "assertion.dataHash.mismatch",
        lambda data, parts: flip(data, data.index(largest(parts).raw) + len(largest(parts).raw) // 2),
    ),
    "appended byte": ("assertion.dataHash.mismatch", lambda data, parts: data + b"\0"),
    "XMP edit": (
        "assertion.dataHash.mismatch",
        lambda data, parts: flip(data, data.index(b"Iptc4xmpExt:DigitalSourceType") + 60),
    ),
    "assertion byte": (
        "assertion.hashedURI.mismatch",
        lambda data, parts: flip(data, data.index(b"notAllowed")),
    ),
    "consent byte": ("assertion.hashedURI.mismatch", lambda data, parts: flip(data, data.index(b"ab" * 16))),
    "claim byte": (
        "claimSignature.mismatch",
        lambda data, parts: flip(data, data.index(b"facsimile " + ASSET_ID.encode())),
    ),
    "signature byte": (
        "claimSignature.mismatch",
        lambda data, parts: flip(data, data.rindex(b"\xf6\x58\x40") + 9),
    ),
}


@pytest.mark.parametrize("mime", FORMATS)
@pytest.mark.parametrize("row", TAMPER)
def test_tampered_file_reads_tampered(
    row: str, mime: str, keys: SigningKeys, swaps: dict[str, bytes]
) -> None:
    code, change = TAMPER[row]
    changed = change(swaps[mime], split_parts(swaps[mime]))
    assert changed != swaps[mime]
    reading = read_manifest(changed, mime, keys.trust)
    assert (reading.state, reading.ours) == ("tampered", False)
    assert code in reading.codes


@pytest.mark.parametrize("mime", FORMATS)
def test_transplanted_manifest_reads_tampered(mime: str, keys: SigningKeys, swaps: dict[str, bytes]) -> None:
    donor = split_parts(swaps[mime])
    kept = without_c2pa_store(donor)
    at = next(i for i, part in enumerate(donor) if part not in kept)
    packet = xmp_packet(ASSET_ID, SWAP_SOURCE_TYPE, keys.organisation)
    other = split_parts(embed_xmp(picture(mime, seed=9), mime, packet))
    store = [part for part in donor if part not in kept]
    reading = read_manifest(join_parts([*other[:at], *store, *other[at:]]), mime, keys.trust)
    assert (reading.state, reading.ours) == ("tampered", False)
    assert "assertion.dataHash.mismatch" in reading.codes


@pytest.mark.parametrize("mime", FORMATS)
def test_stripped_or_recoded_file_has_no_manifest(
    mime: str, keys: SigningKeys, swaps: dict[str, bytes]
) -> None:
    stripped = join_parts(without_c2pa_store(split_parts(swaps[mime])))
    _, coded = cv2.imencode(FORMATS[mime], np.asarray(cv2.imdecode(np.frombuffer(swaps[mime], np.uint8), 1)))
    for data in (stripped, coded.tobytes(), picture(mime)):
        assert read_manifest(data, mime, keys.trust) == ManifestReading("none")
    assert content_sha256(stripped) == content_sha256(swaps[mime])


def test_padding_of_a_signature_is_malleable_and_the_content_hash_is_not(
    keys: SigningKeys, swaps: dict[str, bytes]
) -> None:
    data = swaps["image/png"]
    start = data.index(b"\xa1cpadY") + 200
    assert data[start : start + 50] == bytes(50)
    parts = split_parts(data[:start] + b"smuggled" + data[start + 8 :])
    changed = join_parts(  # with the check sum of the PNG chunk made right again
        [png_chunk("caBX", part.data) if part.name == "caBX" else part for part in parts]
    )
    reading = read_manifest(changed, "image/png", keys.trust)
    assert (reading.state, reading.ours) == ("valid", True)
    assert sha256_hex(changed) != sha256_hex(data)
    assert content_sha256(changed) == content_sha256(data)
