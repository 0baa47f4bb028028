"""Files that lie, bomb, or are not what they say, made in code; knows nothing of what reads them.

`HOSTILE` maps a name that says the flaw to (maker, code of the error that must come). `ACCEPTED` are odd but honest
pictures: (maker, words that must stand in the notes).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Maker = Callable[[], bytes]


def texture(height: int = 61, width: int = 83, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random colours: uint8 [H, W, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes Pillow writes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(**options: object) -> bytes:
    """A plain JPEG of 83 x 61."""
    return saved(Image.fromarray(texture()), "JPEG", **options)


def png(**options: object) -> bytes:
    """A plain PNG of 83 x 61."""
    return saved(Image.fromarray(texture()), "PNG", **options)


def webp(**options: object) -> bytes:
    """A plain WebP of 83 x 61."""
    return saved(Image.fromarray(texture()), "WEBP", **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its right checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(
    width: int,
    height: int,
    raw: bytes,
    *,
    bits: int = 8,
    colour: int = 2,
    interlace: int = 0,
    extra: bytes = b"",
) -> bytes:
    """A PNG of given header and zlib stream; `extra` chunks stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", raw) + chunk(b"IEND", b"")


def zeros_packed(num_bytes: int) -> bytes:
    """The zlib stream of that many zero bytes in a moment: one packed megabyte repeated, checksum by formula."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = pack.compress(bytes(1 << 20)) + pack.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = rest.compress(bytes(num_bytes & 0xFFFFF)) + rest.flush()
    adler = (num_bytes % 65521) << 16 | 1  # RFC 1950: of zeros, s1 stays 1 and s2 counts them
    return b"\x78\xda" + megabyte * (num_bytes >> 20) + last + struct.pack(">I", adler)


def png_bomb(side: int, bits: int = 8) -> bytes:
    """A whole, valid, black PNG of side x side: kilobytes that unpack to gigabytes."""
    return png_of(side, side, zeros_packed(side * (1 + side * 3 * bits // 8)), bits=bits)


def segment(marker: int, body: bytes) -> bytes:
    """One JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_soi(data: bytes, extra: bytes) -> bytes:
    """A JPEG with `extra` right after its first marker."""
    return data[:2] + extra + data[2:]


def jpeg_with_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header states another size."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def exif(orientation: int) -> bytes:
    """A TIFF block with the orientation tag only, without the "Exif" prefix."""
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)


def exif_loop() -> bytes:
    """A TIFF block whose directory claims 65 535 tags and points at itself."""
    return b"MM\0*" + struct.pack(">IH", 8, 0xFFFF) + b"\x01\x00\x00\x04\x7f\xff\xff\xff\x00\x00\x00\x08" * 40


def riff(body: bytes) -> bytes:
    """A WebP file around chunks."""
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    """The header chunk of an extended WebP."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size)


def vp8l_of(width: int, height: int) -> bytes:
    """A lossless WebP that states a size and holds next to nothing."""
    size = (width - 1) | (height - 1) << 14
    return riff(riff_chunk(b"VP8L", b"\x2f" + struct.pack("<I", size) + bytes(64)))


def gif_endless() -> bytes:
    """A GIF that shows frame after frame and never ends."""
    head = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    frame = b"!\xf9\x04\0\0\0\0\0" + b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x02\x02\x4c\x01\0"
    return head + b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0" + frame * 100_000


def animated(kind: str) -> bytes:
    """Three frames."""
    frames = [Image.fromarray(texture(seed=seed)) for seed in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def jpeg_zip_polyglot() -> bytes:
    """A JPEG and, from its end on, a ZIP archive: both readers are content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../escaped.sh", "echo no")
    return jpeg() + out.getvalue()


def jpeg_many_scans(num_scans: int, side: int = 2000) -> bytes:
    """A progressive JPEG that repeats one refinement over and over: little data, endless work."""
    data = saved(Image.fromarray(texture(side, side)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * num_scans + b"\xff\xd9"


def jpeg_of_components(num_components: int) -> bytes:
    """A frame of that many channels."""
    body = struct.pack(">BHHB", 8, 8, 8, num_components) + b"".join(
        bytes((i, 0x11, 0)) for i in range(num_components)
    )
    return b"\xff\xd8" + segment(0xC0, body) + segment(0xDA, b"\x01\0\0\0\x3f\0") + b"\0\0\xff\xd9"


def jpeg_without_tables() -> bytes:
    """A frame and a scan, no Huffman table: the decoder must give up."""
    frame = struct.pack(">BHHB", 8, 8, 8, 1) + b"\x01\x11\0"
    return (
        b"\xff\xd8" + segment(0xC0, frame) + segment(0xDA, b"\x01\x01\0\0\x3f\0") + b"\x55" * 8 + b"\xff\xd9"
    )


def half_with_end(data: bytes) -> bytes:
    """Cut in half, with the end marker put back: the header lies about what follows."""
    return data[: len(data) // 2] + b"\xff\xd9"


def svg() -> bytes:
    """A drawing with a script and an external entity."""
    return (
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><text>&x;</text></svg>'
    )


def profile_of(name: str) -> bytes:
    """An ICC profile that LittleCMS builds: "LAB", "XYZ" or "sRGB"."""
    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes())  # type: ignore[arg-type]


def profile_swapping_red_and_green() -> bytes:
    """sRGB with the red and green primaries exchanged and another name: a conversion cannot be overlooked."""
    profile = profile_of("sRGB")
    renamed = profile.replace("sRGB".encode("utf-16-be"), "odd1".encode("utf-16-be")).replace(
        b"sRGB b", b"odd1 b"
    )
    return renamed.replace(b"rXYZ", b"tmp_").replace(b"gXYZ", b"rXYZ").replace(b"tmp_", b"gXYZ")


def jpeg_profile_segments(profile: bytes) -> bytes:
    """The APP2 segments that carry a profile in pieces."""
    pieces = [profile[i : i + 65_000] for i in range(0, len(profile), 65_000)]
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, len(pieces))) + piece)
        for i, piece in enumerate(pieces)
    )


def png_text_bomb() -> bytes:
    """zTXt, iTXt and iCCP of 256 MB each once unpacked."""
    packed = zeros_packed(256 << 20)
    body = chunk(b"zTXt", b"Comment\0\0" + packed) + chunk(b"iTXt", b"XML:x\0\x01\0\0\0" + packed)
    return png_of(8, 8, zlib.compress(bytes(8 * 25)), extra=body + chunk(b"iCCP", b"bomb\0\0" + packed))


def png_of_chunks(count: int) -> bytes:
    """An army of empty chunks."""
    return png_of(8, 8, zlib.compress(bytes(8 * 25)), extra=chunk(b"tEXt", b"") * count)


def palette_png(**options: object) -> bytes:
    """256 colours."""
    return saved(Image.fromarray(texture()).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", **options)


def alpha_image() -> Image.Image:
    """Transparent in its left half."""
    image = Image.fromarray(texture()).convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, image.width // 2, image.height))
    return image


def png_16(colour: int) -> bytes:
    """16 bits per channel: grey (0), RGB (2), grey with alpha (4) or RGBA (6), values 0x0101 times the texture."""
    rgb = texture()
    channels = {0: rgb[..., :1], 2: rgb, 4: rgb[..., :2], 6: np.dstack([rgb, rgb[..., :1] | 0x80])}[colour]
    wide = (channels.astype(np.uint16) * 0x0101).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return png_of(rgb.shape[1], rgb.shape[0], zlib.compress(rows), bits=16, colour=colour)


HOSTILE: dict[str, tuple[Maker, str]] = {
    "empty": (lambda: b"", "media.empty"),
    "one_byte": (lambda: b"\xff", "media.format"),
    "zeros": (lambda: bytes(5000), "media.format"),
    "text": (lambda: b"Dear sir, please find attached\n", "media.format"),
    "text_named_jpeg": (lambda: b"JFIF but only in words", "media.format"),
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "media.format"),
    "svg_with_script_and_entity": (svg, "media.format"),
    "eps_ascii": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nrun", "media.format"),
    "eps_binary": (lambda: b"\xc5\xd0\xd3\xc6" + bytes(60), "media.format"),
    "tiff": (lambda: saved(Image.fromarray(texture()), "TIFF"), "media.format"),
    "bmp": (lambda: saved(Image.fromarray(texture()), "BMP"), "media.format"),
    "ico": (lambda: saved(Image.fromarray(texture()), "ICO", sizes=[(16, 16)]), "media.format"),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(100), "media.format"),
    "avif": (lambda: b"\0\0\0\x1cftypavif" + bytes(100), "media.format"),
    "mp4_with_hostile_box": (
        lambda: b"\0\0\0\x20ftypisom" + bytes(20) + b"\xff\xff\xff\xffmoov",
        "media.format",
    ),
    "zip": (lambda: b"PK\x03\x04" + bytes(200), "media.format"),
    "html_named_png": (lambda: b"<!doctype html><title>404</title>", "media.format"),
    "gif_still": (lambda: saved(Image.fromarray(texture()), "GIF"), "media.format"),
    "gif_cut_short": (lambda: gif_endless()[:30], "media.format"),
    "gif_endless": (gif_endless, "media.animated"),
    "gif_animated": (lambda: animated("GIF"), "media.animated"),
    "png_animated": (lambda: animated("PNG"), "media.animated"),
    "webp_animated": (lambda: animated("WEBP"), "media.animated"),
    "webp_animation_flag": (lambda: riff(vp8x(8, 8, 2) + webp()[12:]), "media.animated"),
    "png_30000": (lambda: png_bomb(30_000), "media.too_many_pixels"),
    "png_12000": (lambda: png_bomb(12_000), "media.too_many_pixels"),
    "png_header_20000": (lambda: png_of(20_000, 20_000, zlib.compress(b"\0")), "media.too_many_pixels"),
    "png_header_4_billion": (lambda: png_of(0xFFFFFFFF, 0xFFFFFFFF, b""), "media.too_many_pixels"),
    "png_one_row_of_40000": (
        lambda: png_of(40_000, 1, zlib.compress(bytes(120_001))),
        "media.too_many_pixels",
    ),
    "jpeg_header_65500": (lambda: jpeg_with_size(jpeg(), 65_500, 65_500), "media.too_many_pixels"),
    "webp_header_16384": (lambda: vp8l_of(16_384, 16_384), "media.too_many_pixels"),
    "webp_canvas_of_16_million": (
        lambda: riff(vp8x(1 << 24, 1 << 24) + webp()[12:]),
        "media.too_many_pixels",
    ),
    "too_many_bytes": (lambda: jpeg() + bytes(65 << 20), "media.too_many_bytes"),
    "jpeg_truncated": (lambda: jpeg()[:1500], "media.truncated"),
    "jpeg_header_only": (lambda: jpeg()[:40], "media.truncated"),
    "jpeg_half_with_end": (lambda: half_with_end(jpeg()), "media.truncated"),
    "jpeg_states_8000": (lambda: jpeg_with_size(jpeg(), 8000, 8000), "media.truncated"),
    "jpeg_states_twice_its_height": (lambda: jpeg_with_size(jpeg(), 83, 122), "media.truncated"),
    "jpeg_restarts_missing": (
        lambda: half_with_end(jpeg(quality=95, restart_marker_blocks=1)),
        "media.truncated",
    ),
    "jpeg_no_pixels": (lambda: b"\xff\xd8\xff\xd9", "media.truncated"),
    "jpeg_size_zero": (lambda: jpeg_with_size(jpeg(), 83, 0), "media.damaged"),
    "jpeg_size_twice": (
        lambda: jpeg().replace(b"\xff\xda", segment(0xC0, b"\x08\0\x08\0\x08\x01\x01\x11\0") + b"\xff\xda"),
        "media.damaged",
    ),
    "jpeg_segment_shorter_than_itself": (lambda: after_soi(jpeg(), b"\xff\xe1\0\x01"), "media.damaged"),
    "jpeg_second_start": (lambda: after_soi(jpeg(), b"\xff\xd8"), "media.damaged"),
    "jpeg_60000_comments": (lambda: after_soi(jpeg(), segment(0xFE, b"") * 60_000), "media.damaged"),
    "jpeg_600_scans": (lambda: jpeg_many_scans(600), "media.damaged"),
    "jpeg_without_tables": (jpeg_without_tables, "media.damaged"),
    "jpeg_sampling_zero": (
        lambda: jpeg(quality=95, subsampling=0).replace(b"\x03\x01\x11", b"\x03\x01\x00", 1),
        "media.damaged",
    ),
    "jpeg_arithmetic": (lambda: jpeg().replace(b"\xff\xc0", b"\xff\xc9", 1), "media.unsupported"),
    "jpeg_lossless": (lambda: jpeg().replace(b"\xff\xc0", b"\xff\xc3", 1), "media.unsupported"),
    "jpeg_12_bit": (
        lambda: jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1),
        "media.unsupported",
    ),
    "jpeg_of_2_channels": (lambda: jpeg_of_components(2), "media.unsupported"),
    "png_truncated": (lambda: png()[: len(png()) // 2], "media.truncated"),
    "png_signature_only": (lambda: PNG_SIGNATURE, "media.truncated"),
    "png_half_its_rows": (lambda: png_of(30, 20, zlib.compress(bytes(10 * 91))), "media.truncated"),
    "png_interlaced_half": (lambda: png_of(30, 21, zlib.compress(bytes(900)), interlace=1), "media.damaged"),
    "png_transparent_half": (lambda: png_of(30, 20, zlib.compress(bytes(1210)), colour=6), "media.truncated"),
    "png_no_pixels": (
        lambda: (
            PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
        ),
        "media.truncated",
    ),
    "png_palette_missing": (lambda: png_of(8, 8, zlib.compress(bytes(72)), colour=3), "media.truncated"),
    "png_flipped_bit": (lambda: png()[:2000] + bytes((png()[2000] ^ 1,)) + png()[2001:], "media.damaged"),
    "png_not_zlib": (lambda: png_of(8, 8, b"not packed at all"), "media.damaged"),
    "png_filter_9": (lambda: png_of(8, 8, zlib.compress(b"\x09" * 200)), "media.damaged"),
    "png_impossible_depth": (lambda: png_of(8, 8, b"", bits=3), "media.damaged"),
    "png_size_zero": (lambda: png_of(0, 8, b""), "media.damaged"),
    "png_header_twice": (
        lambda: png_of(8, 8, zlib.compress(bytes(200)), extra=png()[8:33]),
        "media.damaged",
    ),
    "png_unknown_critical_chunk": (
        lambda: png_of(8, 8, zlib.compress(bytes(200)), extra=chunk(b"EVIL", b"x")),
        "media.damaged",
    ),
    "png_60000_chunks": (lambda: png_of_chunks(60_000), "media.damaged"),
    "webp_truncated": (lambda: webp()[: len(webp()) // 2], "media.truncated"),
    "webp_no_pixels": (lambda: riff(vp8x(8, 8)), "media.truncated"),
    "webp_says_nothing": (lambda: riff(b""), "media.truncated"),
    "webp_canvas_differs": (lambda: riff(vp8x(4000, 4000) + webp()[12:]), "media.damaged"),
    "webp_size_without_pixels": (lambda: vp8l_of(4000, 4000), "media.damaged"),
    "webp_alpha_garbage": (
        lambda: riff(vp8x(83, 61, 0x10) + riff_chunk(b"ALPH", b"\xff" * 40) + webp()[12:]),
        "media.damaged",
    ),
}

ACCEPTED: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "jpeg": (jpeg, ()),
    "jpeg_progressive": (lambda: jpeg(progressive=True), ()),
    "jpeg_restarts": (lambda: jpeg(restart_marker_blocks=3), ()),
    "jpeg_flat": (lambda: saved(Image.new("RGB", (800, 600), "white"), "JPEG", optimize=True), ()),
    "jpeg_of_one_pixel": (lambda: saved(Image.new("RGB", (1, 1), "red"), "JPEG"), ()),
    "jpeg_grey": (lambda: saved(Image.fromarray(texture()).convert("L"), "JPEG"), ("greyscale",)),
    "jpeg_cmyk": (lambda: saved(Image.fromarray(texture()).convert("CMYK"), "JPEG"), ("CMYK",)),
    "jpeg_zip_polyglot": (jpeg_zip_polyglot, ("after the end",)),
    "jpeg_junk_between_segments": (lambda: jpeg().replace(b"\xff\xc0", b"\0junk\xff\xc0", 1), ()),
    "jpeg_filled_with_ff": (lambda: after_soi(jpeg(), b"\xff" * 5_000_000), ()),
    "jpeg_exif_loop": (lambda: after_soi(jpeg(), segment(0xE1, b"Exif\0\0" + exif_loop())), ()),
    "jpeg_exif_garbage": (lambda: after_soi(jpeg(), segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")), ()),
    "jpeg_profile_garbage": (
        lambda: after_soi(jpeg(), jpeg_profile_segments(b"\xff" * 200_000)),
        ("profile does not fit",),
    ),
    "jpeg_profile_of_another_space": (
        lambda: after_soi(jpeg(), jpeg_profile_segments(profile_of("LAB"))),
        ("profile",),
    ),
    "png": (png, ()),
    "png_interlaced": (lambda: png_of(5, 3, zlib.compress(bytes(54)), interlace=1), ()),
    "png_black": (lambda: png_bomb(500), ()),
    "png_palette": (palette_png, ()),
    "png_palette_transparent": (lambda: palette_png(transparency=0), ("white",)),
    "png_one_bit": (lambda: saved(Image.fromarray(texture()).convert("1"), "PNG"), ("greyscale",)),
    "png_grey": (lambda: saved(Image.fromarray(texture()).convert("L"), "PNG"), ("greyscale",)),
    "png_grey_alpha": (lambda: saved(alpha_image().convert("LA"), "PNG"), ("greyscale", "white")),
    "png_alpha": (lambda: saved(alpha_image(), "PNG"), ("white",)),
    "png_alpha_all_opaque": (lambda: saved(Image.fromarray(texture()).convert("RGBA"), "PNG"), ()),
    "png_16_grey": (lambda: png_16(0), ("16 bits", "greyscale")),
    "png_16_rgb": (lambda: png_16(2), ("16 bits",)),
    "png_16_grey_alpha": (lambda: png_16(4), ("16 bits", "white")),
    "png_16_rgba": (lambda: png_16(6), ("16 bits", "white")),
    "png_text_bomb": (png_text_bomb, ("profile is too large",)),
    "png_trailing_megabyte": (lambda: png() + bytes(1 << 20), ("after the end",)),
    "webp": (webp, ()),
    "webp_lossless": (lambda: webp(lossless=True), ()),
    "webp_alpha": (lambda: saved(alpha_image(), "WEBP"), ("white",)),
    "webp_lossless_alpha": (lambda: saved(alpha_image(), "WEBP", lossless=True), ("white",)),
    "webp_trailing": (lambda: webp() + b"more", ("after the end",)),
}
