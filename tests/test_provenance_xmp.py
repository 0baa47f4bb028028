"""XMP goes in once, is read back, and leaves every other byte alone."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from provenance.claim import SAMPLE_SOURCE_TYPE, SWAP_SOURCE_TYPE, xmp_packet
from provenance.container import Part, join_parts, jpeg_segment, png_chunk, split_parts, webp_chunk
from provenance.errors import MediaError
from provenance.xmp import (
    JPEG_EXTENSION_HEADER,
    JPEG_HEADER,
    PNG_KEYWORD,
    XmpDeclaration,
    embed_xmp,
    read_declaration,
    read_xmp,
)

FORMATS = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
PACKET = xmp_packet("0123456789abcdef", SWAP_SOURCE_TYPE, "Example Studio")


def picture(mime: str, alpha: bool = False) -> bytes:
    noise = np.random.default_rng(3).integers(0, 256, (41, 57, 4 if alpha else 3), np.uint8)
    ok, coded = cv2.imencode(FORMATS[mime], noise)
    assert ok
    return coded.tobytes()


def is_xmp(part: Part) -> bool:
    return part.data.startswith((JPEG_HEADER, PNG_KEYWORD)) or part.name == "XMP "


@pytest.mark.parametrize("mime", FORMATS)
def test_declaration_is_read_back_and_pixels_stay(mime: str) -> None:
    before = picture(mime)
    after = embed_xmp(before, mime, PACKET)
    assert read_xmp(after) == (PACKET,)
    aigc = {
        "Label": "1",
        "ContentProducer": "Example Studio",
        "ProduceID": "0123456789abcdef",
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    assert read_declaration(after) == XmpDeclaration(SWAP_SOURCE_TYPE, aigc, 1)
    assert list(read_declaration(after).aigc or {}) == list(aigc)
    one, two = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (before, after))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("mime", FORMATS)
def test_independent_reader_finds_the_packet(mime: str) -> None:
    with Image.open(io.BytesIO(embed_xmp(picture(mime), mime, PACKET))) as image:
        image.load()
        found = image.info["xmp"]
    assert (found.encode() if isinstance(found, str) else found) == PACKET


@pytest.mark.parametrize("mime", FORMATS)
def test_other_parts_stay_byte_by_byte(mime: str) -> None:
    before = picture(mime)
    after = [part.raw for part in split_parts(embed_xmp(before, mime, PACKET)) if not is_xmp(part)]
    unlike = [part for part in split_parts(before) if part.raw not in after]
    assert {part.name for part in unlike} <= {"RIFF"}


@pytest.mark.parametrize("mime", FORMATS)
def test_second_embedding_replaces_the_first(mime: str) -> None:
    once = embed_xmp(picture(mime), mime, PACKET)
    other = xmp_packet("fedcba9876543210", SAMPLE_SOURCE_TYPE, "Example Studio")
    assert embed_xmp(embed_xmp(once, mime, other), mime, PACKET) == once
    assert read_declaration(embed_xmp(once, mime, other)).digital_source_type == SAMPLE_SOURCE_TYPE


def test_foreign_packets_of_every_kind_give_way() -> None:
    jpeg = split_parts(picture("image/jpeg"))
    rest = jpeg_segment(0xE1, JPEG_EXTENSION_HEADER + b"guid" * 8 + b"rest of a long packet")
    jpeg[1:1] = [jpeg_segment(0xE1, JPEG_HEADER + b"<old/>"), rest, jpeg_segment(0xE1, b"Exif\0\0data")]
    data = embed_xmp(join_parts(jpeg), "image/jpeg", PACKET)
    assert read_xmp(data) == (PACKET,)
    assert b"rest of a long packet" not in data
    assert b"Exif\0\0data" in data


def test_jpeg_packet_stands_behind_the_first_application_segments() -> None:
    names = [part.name for part in split_parts(embed_xmp(picture("image/jpeg"), "image/jpeg", PACKET))]
    assert names[:3] == ["SOI", "FFE0", "FFE1"]


def test_webp_with_alpha_keeps_its_flag_and_size() -> None:
    data = embed_xmp(picture("image/webp", alpha=True), "image/webp", PACKET)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.mode) == ((57, 41), "RGBA")


def test_lossy_webp_is_extended_with_its_size() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (301, 203), (9, 90, 200)).save(buffer, "WEBP", quality=80)
    data = embed_xmp(buffer.getvalue(), "image/webp", PACKET)
    header = split_parts(data)[1]
    assert header.name == "VP8X"
    assert header.data == bytes([4, 0, 0, 0]) + (300).to_bytes(3, "little") + (202).to_bytes(3, "little")
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (301, 203)


def test_compressed_png_packet_is_read() -> None:
    parts = split_parts(picture("image/png"))
    parts.insert(2, png_chunk("iTXt", PNG_KEYWORD + b"\1\0\0\0" + zlib.compress(PACKET)))
    assert read_xmp(join_parts(parts)) == (PACKET,)


def test_png_packet_bomb_is_cut_off() -> None:
    parts = split_parts(picture("image/png"))
    parts.insert(2, png_chunk("iTXt", PNG_KEYWORD + b"\1\0\0\0" + zlib.compress(bytes(50 << 20))))
    assert len(read_xmp(join_parts(parts))[0]) == 1 << 20
    assert read_declaration(join_parts(parts)).digital_source_type is None


@pytest.mark.parametrize(
    "packet",
    [
        b"<broken",
        b"\xff\xfe\x00",
        b'<!DOCTYPE a [<!ENTITY x "xxxx">]><a>&x;</a>',
        b"<a " * 5000,
        b'<?xml version="1.0" encoding="unknown"?><a/>',
        PACKET.replace(b'{"Label', b'[["Label'),
    ],
)
def test_unsound_packet_declares_no_label(packet: bytes) -> None:
    data = join_parts([*split_parts(picture("image/webp")), webp_chunk("XMP ", packet)])
    declaration = read_declaration(data)
    assert declaration.aigc is None
    assert declaration.num_packets == 1


def test_properties_as_elements_are_read_too() -> None:
    text = PACKET.decode().replace(f' Iptc4xmpExt:DigitalSourceType="{SWAP_SOURCE_TYPE}"', "")
    element = f"<Iptc4xmpExt:DigitalSourceType>{SWAP_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
    text = text.replace("/></rdf:RDF>", f">{element}</rdf:Description></rdf:RDF>")
    data = embed_xmp(picture("image/png"), "image/png", text.encode())
    assert read_declaration(data).digital_source_type == SWAP_SOURCE_TYPE


def test_picture_without_xmp_declares_nothing() -> None:
    assert read_declaration(picture("image/jpeg")) == XmpDeclaration(None, None, 0)


def test_wrong_type_is_refused() -> None:
    with pytest.raises(MediaError, match=r"media\.format"):
        embed_xmp(picture("image/png"), "image/jpeg", PACKET)


def test_packet_too_long_for_jpeg_is_refused() -> None:
    with pytest.raises(MediaError, match=r"media\.segment"):
        embed_xmp(picture("image/jpeg"), "image/jpeg", PACKET + b" " * 65536)


def test_producer_with_markup_stays_one_attribute() -> None:
    producer = "A\"&<B> 'C' 工作室"
    data = embed_xmp(picture("image/png"), "image/png", xmp_packet("0" * 16, SWAP_SOURCE_TYPE, producer))
    assert (read_declaration(data).aigc or {})["ContentProducer"] == producer
