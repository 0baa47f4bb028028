"""XMP and the C2PA store in MP4 files: found, appended, and told when a file is cut."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import pytest

from provenance import mp4
from provenance.errors import MediaError


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


FILE = box(b"ftyp", b"isom\0\0\0\0") + box(b"mdat", b"samples") + box(b"moov", b"")


def test_a_packet_is_appended_once_and_moves_nothing() -> None:
    file = io.BytesIO(FILE)
    mp4.append_xmp(file, b"<x:xmpmeta/>")
    assert file.getvalue().startswith(FILE)
    assert mp4.read_packets(file) == (b"<x:xmpmeta/>",)
    with pytest.raises(MediaError) as raised:
        mp4.append_xmp(file, b"<again/>")
    assert raised.value.code == "media.xmp"


def test_the_store_is_found_among_other_boxes() -> None:
    store = b"\0\0\0\x0cjumbdata"
    body = mp4.C2PA_UUID + bytes(4) + b"manifest\0" + bytes(8) + store
    other = mp4.C2PA_UUID + bytes(4) + b"merkle\0" + store
    file = io.BytesIO(FILE + box(b"uuid", other) + box(b"uuid", body) + box(b"uuid", b"short"))
    assert mp4.c2pa_store(file) == store
    assert mp4.c2pa_store(io.BytesIO(FILE)) == b""


def test_large_and_open_ended_boxes_are_walked() -> None:
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 5) + b"abcde"
    last = struct.pack(">I4s", 0, b"uuid") + mp4.XMP_UUID + b"<x/>"
    assert mp4.read_packets(io.BytesIO(large + last)) == (b"<x/>",)


@pytest.mark.parametrize("data", [FILE[:-10], struct.pack(">I4s", 4, b"free") + bytes(8)])
def test_a_cut_file_is_told(data: bytes) -> None:
    with pytest.raises(MediaError) as raised:
        mp4.read_packets(io.BytesIO(data))
    assert raised.value.code == "media.truncated"


def keyed(names: list[bytes], values: list[tuple[int, bytes]], version: bytes = bytes(4)) -> bytes:
    """The `moov` of an MP4 with metadata keys; values by the number of their key, from 1."""
    listed = struct.pack(">II", 0, len(names)) + b"".join(box(b"mdta", name) for name in names)
    items = [
        box(number.to_bytes(4, "big"), box(b"data", struct.pack(">II", 1, 0) + text))
        for number, text in values
    ]
    meta = version + box(b"hdlr", bytes(24)) + box(b"keys", listed) + box(b"ilst", b"".join(items))
    return box(b"moov", box(b"mvhd", bytes(100)) + box(b"udta", box(b"meta", meta)))


def test_keys_are_read_and_unsound_ones_tell_nothing() -> None:
    good = keyed(
        [b"AIGC", b"encoder"], [(1, "标".encode()), (2, b"x"), (1, b"again"), (9, b"no"), (0, b"no")]
    )
    assert mp4.read_keys(io.BytesIO(box(b"ftyp", b"isom") + good)) == {"AIGC": "标", "encoder": "x"}
    assert mp4.read_keys(io.BytesIO(keyed([b"a"], [(1, b"b")], version=b""))) == {"a": "b"}
    assert mp4.read_keys(io.BytesIO(box(b"moov", b""))) == {}
    for at in range(len(good)):
        broken = bytearray(good)
        broken[at] ^= 0xFF
        with suppress(MediaError):
            assert isinstance(mp4.read_keys(io.BytesIO(broken)), dict)
