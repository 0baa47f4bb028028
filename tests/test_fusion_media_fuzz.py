"""Whatever is done to the bytes of a picture, reading it ends soon, in pixels or in an error of ours."""

from __future__ import annotations

import struct
import time
import zlib
from contextlib import suppress

import hostile
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fusion.media import Format, Limits, Picture, encode_picture, read_picture, sniff
from provenance.errors import MediaError

SEEDS = [
    *(
        make()
        for name, (make, _) in hostile.ACCEPTED.items()
        if not any(w in name for w in ("filled", "bomb", "mega"))
    ),
    hostile.jpeg(subsampling=2, restart_marker_blocks=1),
    hostile.jpeg(icc_profile=hostile.profile_swapping_red_and_green()),
    hostile.saved(Image.fromarray(hostile.texture()).convert("CMYK"), "JPEG", progressive=True),
    hostile.webp(icc_profile=hostile.profile_swapping_red_and_green()),
]
# a place is a fraction of the file, or one of its first bytes: headers are where it hurts
PLACES = st.one_of(st.floats(0, 1), st.integers(0, 120))
EDITS = st.one_of(
    st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("set"), PLACES, st.sampled_from([0, 1, 127, 128, 255])),
    st.tuples(st.just("cut"), PLACES, st.integers(1, 64)),
    st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("splice"), PLACES, st.sampled_from(SEEDS)),
    st.tuples(st.just("end"), PLACES, st.none()),
)
HERE = Limits(apart_above_pixels=1 << 26)


def edited(data: bytes, edits: list[tuple[str, float | int, object]]) -> bytes:
    """The bytes after flips, cuts, insertions, splices and truncations."""
    for kind, place, value in edits:
        at = min(place if isinstance(place, int) else int(place * len(data)), len(data))
        head, tail = data[:at], data[at:]
        match kind, value:
            case "flip", int(bit):
                tail = bytes([tail[0] ^ 1 << bit]) + tail[1:] if tail else tail
            case "set", int(byte):
                tail = bytes([byte]) + tail[1:]
            case "cut", int(length):
                tail = tail[length:]
            case "insert", bytes(more):
                tail = more + tail
            case "splice", bytes(other):
                tail = other[at : at + 100] + tail[100:]
            case "end", None:
                tail = b""
        data = head + tail
    return data


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks check out again: otherwise no edit would get past the checksums."""
    out, pos = [data[:8]], 8
    while pos + 12 <= len(data):
        end = pos + 12 + int.from_bytes(data[pos : pos + 4], "big")
        if end > len(data):
            break
        body = data[pos + 4 : end - 4]
        out.append(data[pos : pos + 4] + body + struct.pack(">I", zlib.crc32(body)))
        pos = end
    return b"".join(out) + data[pos:]


def read_or_refuse(data: bytes) -> Picture | None:
    """The picture, or None when it was refused; any other exception, or 10 s of CPU, fails the test."""
    start = time.process_time()
    picture = None
    with suppress(MediaError):
        picture = read_picture(data, HERE)
    assert time.process_time() - start < 10
    return picture


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(SEEDS), st.lists(EDITS, min_size=1, max_size=6), st.booleans())
def test_edited_pictures_are_read_or_refused(
    data: bytes, edits: list[tuple[str, float | int, object]], repair: bool
) -> None:
    data = edited(data, edits)
    if repair and data[:8] == hostile.PNG_SIGNATURE:
        data = with_right_checksums(data)
    picture = read_or_refuse(data)
    if picture is not None:
        assert picture.rgb.dtype == np.uint8
        assert picture.rgb.ndim == 3
        assert picture.rgb.shape[2] == 3


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", hostile.PNG_SIGNATURE, b"RIFF\xff\0\0\0WEBP", b"GIF89a"]),
    st.binary(),
)
def test_noise_is_refused(magic: bytes, noise: bytes) -> None:
    assert read_or_refuse(magic + noise) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(list(Format)), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_size_makes_the_round_trip(kind: Format, height: int, width: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = encode_picture(rgb, kind)
    assert sniff(data) is kind
    picture = read_picture(data)
    assert picture.rgb.shape == rgb.shape
    assert kind is not Format.PNG or np.array_equal(picture.rgb, rgb)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(["jpeg", "png", "webp"]), st.floats(0, 1, exclude_max=True))
def test_no_truncated_picture_is_accepted(kind: str, part: float) -> None:
    data = encode_picture(hostile.texture(), kind)
    assert read_or_refuse(data[: int(part * len(data))]) is None
