"""Hashes: content survives metadata and signing, the perceptual hash survives ordinary edits."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.container import Part, join_parts, jpeg_segment, png_chunk, split_parts, webp_chunk
from provenance.errors import MediaError
from provenance.hashes import (
    PERCEPTUAL_OTHER,
    PERCEPTUAL_SAME,
    content_sha256,
    hamming_distance,
    perceptual_hash,
    sha256_hex,
)

Rgb = npt.NDArray[np.uint8]
EXTENSIONS = (".jpg", ".png", ".webp")


def blobs(seed: int = 0, size: tuple[int, int] = (240, 320)) -> Rgb:
    noise = np.random.default_rng(seed).normal(size=(*size, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 18)
    scaled = (soft - soft.min()) / (soft.max() - soft.min()) * 255
    return np.asarray(scaled, np.uint8)


def coded(rgb: Rgb, extension: str) -> bytes:
    ok, data = cv2.imencode(extension, rgb[..., ::-1])
    assert ok
    return data.tobytes()


def test_sha256_is_the_published_vector() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_parts_join_to_the_same_bytes(extension: str) -> None:
    data = coded(blobs(), extension)
    assert join_parts(split_parts(data)) == data
    assert join_parts(split_parts(data + b"tail")) == data + b"tail"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_content_hash_ignores_metadata_and_trailing_bytes(extension: str) -> None:
    data = coded(blobs(), extension)
    parts = split_parts(data)
    extra = {
        ".jpg": (1, [jpeg_segment(0xE1, b"Exif\0\0secret"), jpeg_segment(0xFE, b"a comment")]),
        ".png": (2, [png_chunk("tEXt", b"Comment\0secret"), png_chunk("caBX", b"store")]),
        ".webp": (len(parts), [webp_chunk("EXIF", b"odd"), webp_chunk("C2PA", b"store")]),
    }
    at, inserted = extra[extension]
    changed = join_parts([*parts[:at], *inserted, *parts[at:]])
    assert len(changed) > len(data)
    assert content_sha256(changed) == content_sha256(data + b"tail") == content_sha256(data)
    assert sha256_hex(changed) != sha256_hex(data)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_content_hash_changes_with_one_byte_of_the_picture(extension: str) -> None:
    data = bytearray(coded(blobs(), extension))
    before = content_sha256(bytes(data))
    data[len(data) * 3 // 4] ^= 1
    assert content_sha256(bytes(data)) != before


def test_content_hash_of_a_png_does_not_depend_on_how_its_stream_is_cut() -> None:
    data = coded(blobs(), ".png")
    parts = split_parts(data)
    stream = b"".join(part.data for part in parts if part.name == "IDAT")
    others = [part for part in parts if part.name != "IDAT"]
    again = [*others[:-1], png_chunk("IDAT", stream[:100]), png_chunk("IDAT", stream[100:]), others[-1]]
    assert content_sha256(join_parts(again)) == content_sha256(data)


def test_content_hash_tells_a_part_from_its_neighbour() -> None:
    data = split_parts(coded(blobs(), ".jpg"))
    one = join_parts([data[0], jpeg_segment(0xDB, b"ab"), jpeg_segment(0xDB, b"c"), *data[1:]])
    two = join_parts([data[0], jpeg_segment(0xDB, b"a"), jpeg_segment(0xDB, b"bc"), *data[1:]])
    assert content_sha256(one) != content_sha256(two)


def test_adobe_colour_marker_belongs_to_the_content() -> None:
    parts = split_parts(coded(blobs(), ".jpg"))
    adobe = jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    assert content_sha256(join_parts([parts[0], adobe, *parts[1:]])) != content_sha256(join_parts(parts))


def test_no_false_end_hides_bytes_that_a_decoder_reads() -> None:
    parts = split_parts(coded(blobs(), ".jpg"))
    scan = parts[-1].raw
    middle = len(scan) // 2
    lure = b"\xff\x01\x00\x08" + b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"  # TEM has no length: the comment is one
    for end in (scan[middle:], scan[middle:-3] + b"\x55\xff\xd9"):
        crafted = join_parts([*parts[:-1], Part("scan", scan[:middle] + lure + end, b"")])
        assert [part.name for part in split_parts(crafted)][-1] == "scan"


@pytest.mark.parametrize("marker", [0x01, 0xD0, 0xD8, 0xD9])
def test_marker_out_of_place_is_a_media_error(marker: int) -> None:
    data = coded(blobs(), ".jpg")
    with pytest.raises(MediaError, match=r"media\.truncated"):
        split_parts(data[:2] + bytes([0xFF, marker]) + data[2:])


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("kept", [4, 13, 21, 30])
def test_file_cut_in_its_headers_is_a_media_error(extension: str, kept: int) -> None:
    with pytest.raises(MediaError):
        content_sha256(coded(blobs(), extension)[:kept])


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(40), b"RIFF\0\0\0\0AVI ", b"%PDF-1.7", bytes(64)])
def test_foreign_bytes_are_a_media_error(data: bytes) -> None:
    with pytest.raises(MediaError, match=r"media\.format"):
        content_sha256(data)


@given(
    st.lists(st.tuples(st.sampled_from(["tEXt", "IDAT", "caBX", "zzZz"]), st.binary(max_size=40)), max_size=8)
)
def test_any_png_chunks_split_and_join(chunks: list[tuple[str, bytes]]) -> None:
    head = split_parts(coded(np.zeros((2, 2, 3), np.uint8), ".png"))[:2]
    parts = [*head, *(png_chunk(name, data) for name, data in chunks), png_chunk("IEND", b"")]
    assert split_parts(join_parts(parts)) == parts


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["VP8L", "XMP ", "C2PA"]), st.binary(max_size=41)), max_size=8))
def test_any_webp_chunks_split_and_join(chunks: list[tuple[str, bytes]]) -> None:
    riff = split_parts(coded(np.zeros((2, 2, 3), np.uint8), ".webp"))[0]
    parts = [webp_chunk(name, data) for name, data in chunks]
    assert split_parts(join_parts([riff, *parts]))[1:] == parts


def test_png_of_endless_chunks_is_refused() -> None:
    chunks = png_chunk("tEXt", b"").raw * 70000
    with pytest.raises(MediaError, match=r"media\.parts"):
        split_parts(coded(blobs(), ".png")[:33] + chunks)


def test_random_damage_only_ever_raises_media_error() -> None:
    rng = np.random.default_rng(7)
    for extension in EXTENSIONS:
        data = coded(blobs(size=(48, 64)), extension)
        for _ in range(150):
            broken = bytearray(data[: rng.integers(1, len(data) + 1)])
            for at in rng.integers(0, len(broken), 3):
                broken[at] = rng.integers(256)
            with contextlib.suppress(MediaError):
                assert len(content_sha256(bytes(broken))) == 64


@pytest.mark.parametrize("seed", range(5))
def test_perceptual_hash_survives_ordinary_edits(seed: int) -> None:
    rgb = blobs(seed)
    original = perceptual_hash(rgb)
    assert len(original) == 16
    _, jpeg = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 30])
    edits: list[npt.NDArray[np.generic]] = [
        np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)),
        np.asarray(cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
        np.asarray(cv2.GaussianBlur(rgb, (0, 0), 2)),
        np.clip(rgb * 0.8, 0, 255).astype(np.uint8),
    ]
    distances = [hamming_distance(original, perceptual_hash(np.asarray(each, np.uint8))) for each in edits]
    assert max(distances) <= PERCEPTUAL_SAME


def test_perceptual_hashes_of_unlike_pictures_are_far_apart() -> None:
    hashes = [perceptual_hash(blobs(seed)) for seed in range(20)]
    distances = [hamming_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > PERCEPTUAL_SAME
    assert np.median(distances) >= PERCEPTUAL_OTHER


def test_perceptual_hash_of_flat_and_tiny_pictures_is_defined() -> None:
    assert perceptual_hash(np.full((9, 9, 3), 80, np.uint8)) == perceptual_hash(np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_perceptual_hash_asks_for_rgb(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        perceptual_hash(np.zeros(shape, np.uint8))


def test_hamming_distance_counts_bits() -> None:
    assert hamming_distance("00ff", "0ff0") == 8
    assert hamming_distance("f" * 16, "0" * 16) == 64
    with pytest.raises(ValueError, match="digits"):
        hamming_distance("00", "0000")
