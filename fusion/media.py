"""Bytes to pixels and back: JPEG, PNG and WebP; knows no faces, no marks and no manifests.

`read_picture` turns the picture upright (EXIF), converts a colour profile to sRGB and lays transparency on
white, and says so in `notes`. What a file may cost is checked on its header by `fusion.headers`; the decoder
gets the bytes of the pixels only. `encode_picture` writes pixels and nothing else: no EXIF is ever copied.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from fusion.decode_child import read_picture_apart
from fusion.files import read_file, write_file_atomically
from fusion.formats import (
    LIMITS,
    Format,
    Header,
    Limits,
    Picture,
    damaged,
    sniff,
    too_costly,
    truncated,
    undecodable,
)
from fusion.headers import read_header
from provenance.errors import MediaError, UsageError

__all__ = [
    "LIMITS",
    "PICTURE_SUFFIXES",
    "Format",
    "Header",
    "Limits",
    "Picture",
    "encode_picture",
    "format_of_output",
    "read_file",
    "read_header",
    "read_picture",
    "sniff",
    "write_file_atomically",
]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SUFFIXES = {".jpg": Format.JPEG, ".jpeg": Format.JPEG, ".png": Format.PNG, ".webp": Format.WEBP}
PICTURE_SUFFIXES = frozenset(_SUFFIXES)
"""Endings, in lower case, of the names that pictures go by in a folder."""


def read_picture(data: bytes, limits: Limits = LIMITS) -> Picture:
    """Decode one still picture. MediaError `media.*` for all that is not one, whole and within `limits`.

    A picture of more than `limits.apart_above_pixels` is decoded in a child process held to memory and time.
    """
    header = read_header(data, limits)
    if header.num_pixels > limits.apart_above_pixels:
        return read_picture_apart(data, header, limits)
    try:
        return _read_pixels(header)
    except MemoryError as error:
        raise too_costly() from error


def read_picture_here(data: bytes, limits: Limits = LIMITS) -> Picture:
    """`read_picture` in this process whatever the size: what the child runs. MemoryError passes."""
    return _read_pixels(read_header(data, limits))


def _read_pixels(header: Header) -> Picture:
    image = _decode(header.format, header.pixel_stream)
    if image.size != (header.width, header.height):
        raise damaged("its header and its pixels differ in size")
    _check_whole(header, image)
    notes = list(header.notes)
    image = _to_rgb(image, header, notes)
    if header.orientation != 1:
        image = image.transpose(_TURNS[header.orientation])
        notes.append(f"turned upright (EXIF orientation {header.orientation})")
    return Picture(_to_array(image), header.format, tuple(notes))


def encode_picture(
    rgb: NDArray[np.uint8], format: Format | str, quality: int = 95, *, lossless: bool = False
) -> bytes:
    """Encode uint8 [H, W, 3] RGB; the same pixels give the same bytes.

    JPEG is written without chroma subsampling. `quality` is JPEG's and WebP's; `lossless` is WebP's.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"expected uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    kind = Format(format)
    options: dict[Format, dict[str, object]] = {
        Format.JPEG: {"quality": quality, "subsampling": 0},
        Format.PNG: {"compress_level": 1},
        Format.WEBP: {"quality": quality, "lossless": lossless, "method": 1},
    }
    image, out = Image.fromarray(np.ascontiguousarray(rgb)), io.BytesIO()
    try:
        image.save(out, kind.value.upper(), **options[kind])
    except (OSError, ValueError) as error:
        raise _too_large_to_write(rgb.shape[0], rgb.shape[1], kind) from error
    return out.getvalue()


def format_of_output(path: Path) -> Format:
    """The format that an output's name asks for: .jpg, .jpeg, .png or .webp, else UsageError."""
    if (kind := _SUFFIXES.get(path.suffix.lower())) is not None:
        return kind
    if path.suffix.lower() == ".mp4":
        raise UsageError(
            "usage.output_format",
            f"{path.name} names a video, and a picture is to be written.",
            "End the output's name in .jpg, .png or .webp, or name a video as the target.",
        )
    raise UsageError(
        "usage.output_format",
        f"{path.name} does not say which format to write.",
        "End the output's name in .jpg, .png or .webp.",
    )


def _too_large_to_write(height: int, width: int, kind: Format) -> MediaError:
    return MediaError(
        "media.too_large_to_write",
        f"A {kind.value} file cannot hold these {width} x {height} pixels.",
        "Write a .png instead, or scale the input down.",
    )


def _decode(kind: Format, stream: bytes, *, small: bool = False) -> Image.Image:
    """All of what Pillow raises on hostile bytes becomes one error: the list of types is open-ended.

    `small` decodes a JPEG at an eighth of its size.
    """
    try:
        image = Image.open(io.BytesIO(stream), formats=(kind.value.upper(),))
        if small:
            image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise undecodable(type(error).__name__) from error
    return image


# Completeness: Pillow fills what a short stream lacks with black (PNG) or the last colour (JPEG) in silence.
# A picture that ends in such a fill is suspicious; only then is the dearer proof made.


def _check_whole(header: Header, image: Image.Image) -> None:
    if header.format is Format.PNG and (
        header.interlaced or not image.crop(_last_row(header)).getbbox(alpha_only=False)
    ):
        _check_whole_png(header)
    if header.format is Format.JPEG and not header.interlaced:
        _check_whole_jpeg(header, image)


def _last_row(header: Header) -> tuple[int, int, int, int]:
    return 0, header.height - 1, header.width, header.height


def _check_whole_png(header: Header) -> None:
    wanted = _num_png_bytes(header)
    try:
        whole = _unpacks_to(header.pixel_stream, wanted)
    except zlib.error as error:
        raise undecodable("unpacking") from error
    if not whole:
        raise truncated(f"too little data for {header.width} x {header.height} pixels")


def _unpacks_to(stream: bytes, wanted: int) -> bool:
    """Whether the data chunks of a PNG hold that many bytes; unpacked in small pieces, none kept."""
    inflate, pos, got = zlib.decompressobj(), 8, 0
    while pos < len(stream):
        length, kind = int.from_bytes(stream[pos : pos + 4], "big"), stream[pos + 4 : pos + 8]
        for start in range(pos + 8, pos + 8 + length, 1 << 16) if kind == b"IDAT" else ():
            piece = stream[start : min(start + (1 << 16), pos + 8 + length)]
            while piece and not inflate.eof:
                got += len(inflate.decompress(piece, 1 << 20))
                if got >= wanted:
                    return True
                piece = inflate.unconsumed_tail
        pos += 12 + length
    return False


def _num_png_bytes(header: Header) -> int:
    """Bytes of the filtered rows, of all seven passes when interlaced (PNG, clauses 7.2 and 8)."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header.pixel_stream[25]]
    passes = (
        ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        if header.interlaced
        else ((0, 0, 1, 1),)
    )
    total = 0
    for x, y, step_x, step_y in passes:
        width, height = -(-(header.width - x) // step_x), -(-(header.height - y) // step_y)
        if width > 0 and height > 0:
            total += height * (1 + -(-width * channels * header.bits // 8))
    return total


def _check_whole_jpeg(header: Header, image: Image.Image) -> None:
    """If the last blocks are flat, decode again with noise appended: a stream that lacks data takes it in."""
    corner = image.crop((max(header.width - 32, 0), max(header.height - 8, 0), header.width, header.height))
    lows_highs = corner.getextrema()
    pairs = (lows_highs,) if image.mode == "L" else lows_highs
    if any(low != high for low, high in pairs):  # type: ignore[misc]
        return
    stream = header.pixel_stream
    noisy = stream[:-2] + b"\x55\xa3\x1e\x74" * 64 + b"\xff\xd9"
    if (
        _decode(Format.JPEG, noisy, small=True).tobytes()
        != _decode(Format.JPEG, stream, small=True).tobytes()
    ):
        raise truncated(f"too little data for {header.width} x {header.height} pixels")


def _to_rgb(image: Image.Image, header: Header, notes: list[str]) -> Image.Image:
    image = _to_eight_bits(image, header, notes)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None:
        image = image.convert(image.mode[:-1])
    if image.mode in ("1", "L"):
        notes.append("the picture is greyscale")
    if image.mode == "CMYK":
        notes.append("converted from CMYK")
    if header.profile is not None and image.mode in ("L", "RGB", "CMYK"):
        image = _to_srgb(image, header.profile, notes)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if alpha is None or alpha.getextrema()[0] == 255:
        return image
    notes.append("transparent parts were laid on white")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    """In strips: Pillow's own way holds the pixels four times over."""
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, 256):
        strip = image.crop((0, top, image.width, min(top + 256, image.height)))
        rgb[top : top + 256] = np.asarray(strip)
    return rgb


def _to_eight_bits(image: Image.Image, header: Header, notes: list[str]) -> Image.Image:
    if header.bits != 16:
        return image
    notes.append("16 bits per channel were reduced to 8")
    if image.info.pop("transparency", None) is not None:
        notes.append("the transparent colour of a 16-bit picture was not used")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = (ImageCms.getProfileDescription(source) or "").strip()[:60]
        if image.mode == "RGB" and "sRGB" in name:
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("the colour profile does not fit the picture and was not used")
        return image
    notes.append(f"colours converted from the profile {name!r} to sRGB")
    return converted if converted is not None else image
