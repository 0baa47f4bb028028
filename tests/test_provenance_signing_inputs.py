"""What inputs bring into a sealed file, and what hostile files do to a reader: nothing they should not."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import cv2
import numpy as np
import pytest
from seals import (
    ASSET_ID,
    FORMATS,
    camera_picture,
    picture,
    sealed_sample,
    sealed_swap,
    swap_manifest,
)

from provenance.certificates import Chain, make_chain
from provenance.claim import Ingredient
from provenance.container import c2pa_store, join_parts, png_chunk, split_parts, without_c2pa_store
from provenance.keys import SigningKeys, make_keys
from provenance.signing import ManifestReading, read_manifest, sign

JPEG = "image/jpeg"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    directory: Path = tmp_path_factory.mktemp("home") / "keys"
    make_keys(directory, "Example Studio")
    return SigningKeys.load(directory)


@pytest.fixture(scope="module")
def camera() -> Chain:
    return make_chain("Camera Works")


@pytest.fixture(scope="module")
def photo(camera: Chain) -> bytes:
    return camera_picture(camera)


def assertion_labels(data: bytes, mime: str = JPEG) -> dict[str, set[str]]:
    """Labels of all assertions in the store by their manifest, as the library decodes them."""
    with (
        c2pa.Context.from_dict({}) as context,
        c2pa.Reader(mime, io.BytesIO(data), context=context) as reader,
    ):
        manifests = json.loads(reader.detailed_json())["manifests"]
    return {label: set(content["assertion_store"]) for label, content in manifests.items()}


def ingredients(reading: ManifestReading) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reading.tree["manifests"][reading.label]["ingredients"]
    return found


def test_camera_really_brings_a_thumbnail_and_a_place(photo: bytes) -> None:
    (labels,) = assertion_labels(photo).values()
    assert {"c2pa.thumbnail.claim", "stds.exif"} < labels
    assert b"GPSLatitude" in photo


@pytest.mark.parametrize("role", ["target", "source"])
def test_store_of_an_input_is_kept_without_its_pictures_and_places(
    role: str, keys: SigningKeys, photo: bytes
) -> None:
    data = sealed_swap(keys, target=photo) if role == "target" else sealed_swap(keys, source=photo)
    reading = read_manifest(data, JPEG, keys.trust)
    assert (reading.state, reading.ours, reading.num_ingredients) == ("valid", True, 2)
    (name,) = assertion_labels(photo)
    labels = assertion_labels(data)
    assert labels[name] == {"c2pa.actions.v2", "c2pa.hash.data"}
    assert len(labels) == 2
    store = c2pa_store(split_parts(data))
    assert b"GPSLatitude" not in store
    assert b"\xff\xd8\xff" not in store
    assert (
        len(store) - len(c2pa_store(split_parts(sealed_swap(keys)))) < len(c2pa_store(split_parts(photo))) / 2
    )
    (index,) = (i for i, each in enumerate(ingredients(reading)) if each.get("active_manifest"))
    assert ingredients(reading)[index]["title"] == role
    assert "thumbnail" not in ingredients(reading)[index]


def test_inputs_without_manifest_leave_a_neutral_title_only(keys: SigningKeys) -> None:
    target, source = ingredients(read_manifest(sealed_swap(keys), JPEG, keys.trust))
    for each, title, relation in ((target, "target", "parentOf"), (source, "source", "componentOf")):
        assert (each["title"], each["relationship"]) == (title, relation)
        assert set(each) == {"title", "format", "instance_id", "relationship", "label"}
    assert target["instance_id"] != source["instance_id"]


def test_our_own_pictures_come_along_whole_through_generations(keys: SigningKeys) -> None:
    first = sealed_sample(keys)
    second = sealed_swap(keys, target=first, source=first)
    third = sealed_swap(keys, target=second, source=first)
    reading = read_manifest(third, JPEG, keys.trust)
    assert (reading.state, reading.ours) == ("valid", True)
    assert len(reading.tree["manifests"]) == 3
    (sample,) = assertion_labels(first)
    assert assertion_labels(third)[sample] == assertion_labels(first)[sample]


def test_several_sources_are_each_placed(keys: SigningKeys, photo: bytes) -> None:
    inputs = [Ingredient(picture(JPEG, 1), JPEG, "parentOf")]
    inputs += [Ingredient(data, JPEG, "componentOf") for data in (photo, picture(JPEG, 3), photo)]
    reading = read_manifest(
        sign(picture(JPEG), JPEG, swap_manifest(JPEG, num_sources=3), keys, inputs), JPEG, keys.trust
    )
    assert reading.state == "valid"
    assert [each["relationship"] for each in ingredients(reading)] == ["parentOf", *["componentOf"] * 3]


def test_tampered_input_is_recorded_as_such_and_spoils_nothing(keys: SigningKeys, photo: bytes) -> None:
    damaged = bytearray(photo)
    damaged[-40] ^= 1
    reading = read_manifest(sealed_swap(keys, target=bytes(damaged)), JPEG, keys.trust)
    assert (reading.state, reading.ours) == ("valid", True)
    failures = ingredients(reading)[0]["validation_results"]["activeManifest"]["failure"]
    assert "assertion.dataHash.mismatch" in {each["code"] for each in failures}


def test_changed_manifest_of_an_ingredient_reads_tampered(keys: SigningKeys, photo: bytes) -> None:
    data = bytearray(sealed_swap(keys, target=photo))
    data[data.index(b"IMG_0001.jpg")] ^= 1
    reading = read_manifest(bytes(data), JPEG, keys.trust)
    assert (reading.state, reading.ours) == ("tampered", False)


def test_input_with_an_undecodable_store_comes_without_it(keys: SigningKeys) -> None:
    parts = split_parts(picture("image/png"))
    parts.insert(2, png_chunk("caBX", b"\0\0\0\x40jumb" + bytes(56)))
    reading = read_manifest(sealed_swap(keys, "image/png", target=join_parts(parts)), "image/png", keys.trust)
    assert (reading.state, len(reading.tree["manifests"])) == ("valid", 1)


def test_damaged_stores_of_inputs_never_stop_a_seal(keys: SigningKeys, photo: bytes) -> None:
    rng = np.random.default_rng(5)
    start = photo.index(b"jumb")
    for _ in range(25):
        damaged = bytearray(photo)
        damaged[start + int(rng.integers(3000))] ^= 1 << int(rng.integers(8))
        reading = read_manifest(sealed_swap(keys, target=bytes(damaged)), JPEG, keys.trust)
        assert (reading.state, reading.ours) == ("valid", True)


@pytest.mark.parametrize("mime", FORMATS)
def test_truncated_file_is_never_valid_and_never_an_error(mime: str, keys: SigningKeys) -> None:
    data = sealed_sample(keys, mime)
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        assert read_manifest(data[:length], mime, keys.trust).state in ("none", "tampered")


@pytest.mark.parametrize("mime", FORMATS)
def test_damaged_file_is_never_an_error(mime: str, keys: SigningKeys) -> None:
    rng = np.random.default_rng(11)
    data = sealed_sample(keys, mime)
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            damaged[at] = rng.integers(256)
        reading = read_manifest(bytes(damaged), mime, keys.trust)
        if reading.state == "valid":  # only the unsigned padding was hit
            assert reading.asset_id == ASSET_ID


@pytest.mark.parametrize("mime", [*FORMATS, "video/mp4", "application/c2pa", "text/plain", ""])
@pytest.mark.parametrize("data", [b"", b"hello", b"jumbc2pa" * 9, b"<html>c2pa", b"\xff\xd8\xff\xe0\0\2"])
def test_junk_proves_nothing(data: bytes, mime: str, keys: SigningKeys) -> None:
    reading = read_manifest(data, mime, keys.trust)
    assert reading.state in ("none", "tampered")
    assert (reading.ours, reading.signer, reading.tree) == (False, None, {})


def test_wrong_type_is_put_right_by_the_bytes(keys: SigningKeys) -> None:
    data = sealed_sample(keys, "image/png")
    assert read_manifest(data, JPEG, keys.trust).ours


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 120))
    frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 5)
    for i in range(10):
        writer.write(np.roll(frame, i, 1))
    writer.release()
    data: bytes = path.read_bytes()
    if b"mdat" not in data:
        pytest.skip("this build of OpenCV writes no MP4")
    return data


def test_clip_is_sealed_and_its_frames_are_bound(keys: SigningKeys, clip: bytes) -> None:
    mime = "video/mp4"
    inputs = [Ingredient(clip, mime, "parentOf"), Ingredient(picture(JPEG), JPEG, "componentOf")]
    data = sign(clip, mime, swap_manifest(mime), keys, inputs)
    reading = read_manifest(data, mime, keys.trust)
    assert (reading.state, reading.ours, reading.asset_id) == ("valid", True, ASSET_ID)
    changed = bytearray(data)
    changed[data.index(b"mdat") + 300] ^= 1
    reading = read_manifest(bytes(changed), mime, keys.trust)
    assert (reading.state, "assertion.bmffHash.mismatch" in reading.codes) == ("tampered", True)
    free = (16).to_bytes(4, "big") + b"free" + b"smuggled"
    assert read_manifest(data + free, mime, keys.trust).state == "valid"  # why sha256(file) is no identity


def test_reading_hides_its_tree_from_logs(keys: SigningKeys) -> None:
    reading = read_manifest(sealed_sample(keys), JPEG, keys.trust)
    assert "manifests" not in repr(reading)
    assert replace(reading, tree={}).label == reading.label


def test_stripped_input_carries_no_store(photo: bytes) -> None:
    bare = join_parts(without_c2pa_store(split_parts(photo)))
    assert c2pa_store(split_parts(bare)) == b""
    assert c2pa_store(split_parts(photo))[4:8] == b"jumb"
