"""Pictures in and out: what is accepted, what is refused, what it may cost."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest
from PIL import Image, ImageOps

from fusion.media import Format, Limits, encode_picture, format_of_output, read_header, read_picture, sniff
from provenance.errors import FacsimileError, MediaError, UsageError

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", hostile.HOSTILE)
def test_hostile_file_is_refused_by_its_code(name: str) -> None:
    make, code = hostile.HOSTILE[name]
    with pytest.raises(MediaError) as caught:
        read_picture(make())
    assert caught.value.code == code
    assert len(str(caught.value)) > len(code) + 20
    assert caught.value.next_step.endswith(".")


@pytest.mark.parametrize("name", hostile.ACCEPTED)
def test_odd_but_honest_file_is_read_and_its_oddness_noted(name: str) -> None:
    make, words = hostile.ACCEPTED[name]
    picture = read_picture(make())
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.shape[2] == 3
    assert picture.rgb.flags.writeable
    assert picture.rgb.flags.c_contiguous
    assert len(picture.notes) == len(words)
    assert all(word in note for word, note in zip(words, picture.notes, strict=True))


_PLAIN = [name for name in hostile.ACCEPTED if not any(word in name for word in ("exif", "filled", "bomb"))]


@pytest.mark.parametrize("name", _PLAIN)
def test_decoded_pixels_agree_with_the_plain_way(name: str) -> None:
    data = hostile.ACCEPTED[name][0]()
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I"):
        plain = np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    elif image.mode == "RGB" and "transparency" not in image.info:
        plain = np.asarray(image)
    else:
        rgba = image.convert("RGBA")
        plain = np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
    assert np.abs(read_picture(data).rgb.astype(int) - plain).max() <= 1


def test_palette_transparency_and_wrong_extension_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(hostile.webp())
    assert read_picture(path.read_bytes()).format is Format.WEBP
    assert sniff(hostile.jpeg()) is Format.JPEG


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", list(Format))
def test_exif_orientation_turns_the_picture_upright(kind: Format, orientation: int) -> None:
    image = Image.fromarray(hostile.texture())
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = hostile.saved(image, kind.value.upper(), exif=tag.tobytes())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    picture = read_picture(data)
    assert np.array_equal(picture.rgb, upright)
    assert bool(picture.notes) == (orientation > 1)
    assert read_header(data).orientation == orientation


def test_a_picture_decoded_apart_is_the_same_picture() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = hostile.saved(Image.fromarray(hostile.texture()).convert("L"), "WEBP", exif=turned.tobytes())
    here, apart = read_picture(data), read_picture(data, Limits(apart_above_pixels=-1))
    assert np.array_equal(apart.rgb, here.rgb)
    assert apart.rgb.shape == (83, 61, 3)
    assert (apart.notes, apart.format) == (here.notes, here.format)


def test_wide_gamut_profile_is_converted() -> None:
    profile = hostile.profile_swapping_red_and_green()
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    picture = read_picture(hostile.saved(red, "PNG", icc_profile=profile))
    assert "profile 'odd1" in picture.notes[0]
    assert picture.rgb[8, 8, 1] > 150
    assert picture.rgb[8, 8, 0] < 80
    plain = read_picture(hostile.saved(red, "PNG", icc_profile=hostile.profile_of("sRGB")))
    assert plain.notes == ()
    assert plain.rgb[8, 8].tolist() == [200, 30, 30]


@pytest.mark.parametrize("kind", list(Format))
def test_encoding_is_deterministic_bare_and_faithful(kind: Format) -> None:
    rgb = hostile.texture(200, 300)
    data = encode_picture(rgb, kind)
    assert data == encode_picture(rgb, kind.value)
    assert not any(word in data for word in (b"Exif", b"ICC_PROFILE", b"iCCP", b"eXIf", b"http"))
    assert sniff(data) is kind
    difference = np.abs(read_picture(data).rgb.astype(int) - rgb)
    assert difference.max() <= {Format.JPEG: 8, Format.PNG: 0, Format.WEBP: 40}[kind]
    assert difference.mean() < 2


def test_jpeg_is_written_without_chroma_subsampling_and_webp_without_loss_on_request() -> None:
    rgb = hostile.texture()
    assert Image.open(io.BytesIO(encode_picture(rgb, "jpeg"))).layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]
    assert np.array_equal(read_picture(encode_picture(rgb, "webp", lossless=True)).rgb, rgb)


def test_what_cannot_be_encoded_is_named() -> None:
    with pytest.raises(MediaError) as caught:
        encode_picture(np.zeros((1, 16_384, 3), np.uint8), Format.WEBP)
    assert caught.value.code == "media.too_large_to_write"
    with pytest.raises(ValueError, match="expected uint8"):
        encode_picture(np.zeros((4, 4), np.uint8), Format.PNG)
    with pytest.raises(UsageError) as usage:
        format_of_output(Path("out.tiff"))
    assert usage.value.code == "usage.output_format"
    assert format_of_output(Path("a.b/OUT.JPEG")) is Format.JPEG
    assert (Format.WEBP.mime, Format.JPEG.suffix) == ("image/webp", ".jpg")


# --- ceilings ---------------------------------------------------------------------------------------------------------

_MEASURE = """
import json, sys, time
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
import hostile
from fusion.media import read_picture
from provenance.errors import FacsimileError

def peak_mib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

def measure(make):
    data = make()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak_mib(), time.process_time()
    try:
        answer = list(read_picture(data).rgb.shape)
    except FacsimileError as error:
        answer = error.code
    return answer, time.process_time() - start, peak_mib() - before, len(data) / 2**20

read_picture(hostile.jpeg())
makers = {name: make for name, (make, _) in {**hostile.HOSTILE, **hostile.ACCEPTED}.items()}
makers["flat_16_bit"] = lambda: hostile.png_bomb(4096, bits=16)
print(json.dumps({name: measure(make) for name, make in makers.items()}))
"""


def measured() -> dict[str, tuple[object, float, float, float]]:
    """Name → (answer, CPU seconds, peak of memory in MiB above the start, MiB of the file), in a fresh process."""
    paths = json.dumps([str(ROOT), str(ROOT / "tests")])
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _MEASURE, paths],
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert run.stderr == b""
    return dict(json.loads(run.stdout))


def test_a_refused_file_costs_little_memory_and_time() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc/self/clear_refs here: peaks of memory cannot be reset, so not measured")
    for name, (answer, cpu_s, peak_mib, file_mib) in measured().items():
        if name in hostile.HOSTILE:
            assert answer == hostile.HOSTILE[name][1], name
        if name != "flat_16_bit":
            assert cpu_s < 1.0, f"{name} took {cpu_s:.2f} s"
            assert peak_mib < 100 + 3 * file_mib, f"{name} took {peak_mib:.0f} MiB"
        else:
            assert answer == [4096, 4096, 3]
            assert cpu_s < 5.0
            assert peak_mib < 350


COST_OF_CHILDREN = """
import resource, sys
from pathlib import Path
from fusion.media import read_picture
read_picture(Path(sys.argv[1]).read_bytes())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_large_picture_is_decoded_apart_and_leaves_no_memory_behind(tmp_path: Path) -> None:
    data = hostile.saved(Image.new("RGB", (5000, 4000), (250, 240, 230)), "JPEG")
    assert read_header(data).num_pixels > Limits().apart_above_pixels
    picture = read_picture(data)
    assert picture.rgb.shape == (4000, 5000, 3)
    assert picture.rgb[0, 0].tolist() == picture.rgb[-1, -1].tolist() == [250, 240, 230]
    (tmp_path / "large.jpg").write_bytes(data)
    # In a process of its own: the kernel keeps the greatest of all children that a process ever had.
    told = subprocess.run(
        [sys.executable, "-c", COST_OF_CHILDREN, str(tmp_path / "large.jpg")],
        capture_output=True,
        text=True,
        check=True,
    )
    children_mib = int(told.stdout) / 1024
    assert 3 * 5000 * 4000 / 2**20 < children_mib < Limits().child_bytes / 2**20


@pytest.mark.parametrize(("side", "limits"), [(4200, {"child_bytes": 180 << 20}), (5600, {"child_cpu_s": 1})])
def test_the_child_is_held_to_its_limits(side: int, limits: dict[str, int]) -> None:
    with pytest.raises(MediaError) as caught:
        read_picture(hostile.png_bomb(side, bits=16), Limits(**limits))
    assert caught.value.code == "media.too_costly"


@pytest.mark.parametrize(
    "name", ["jpeg_without_tables", "png_not_zlib", "jpeg_half_with_end", "png_half_its_rows"]
)
def test_errors_of_the_child_come_through_whole(name: str) -> None:
    make, code = hostile.HOSTILE[name]
    with pytest.raises(MediaError) as here:
        read_picture(make())
    with pytest.raises(MediaError) as apart:
        read_picture(make(), Limits(apart_above_pixels=-1))
    assert apart.value.code == code
    assert (str(apart.value), apart.value.next_step) == (str(here.value), here.value.next_step)


def test_a_child_that_dies_is_an_error_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MediaError) as caught:
        read_picture(hostile.jpeg(), Limits(apart_above_pixels=-1))
    assert caught.value.code == "media.damaged"


def test_running_out_of_memory_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fusion.media._to_array", explode)
    with pytest.raises(MediaError) as caught:
        read_picture(hostile.jpeg())
    assert caught.value.code == "media.too_costly"


def test_no_other_file_opens_pictures() -> None:
    """Limits hold only where this module is the way in. Recipes read what their user owns, benches their own bytes."""
    openers = {"imread", "imdecode", "imdecodemulti", "imreadmulti", "VideoCapture"}
    for package in ("fusion", "detector", "provenance", "server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name in ("media.py", "mark_attacks.py", "delivery.py") or "train" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    assert node.attr not in openers, f"{path} calls {node.attr}"
                    assert (node.value.id, node.attr) != ("Image", "open"), f"{path} calls Image.open"


def test_hostile_list_covers_every_code_of_the_reader() -> None:
    codes = {code for _, code in hostile.HOSTILE.values()}
    assert codes == {
        "media.empty",
        "media.format",
        "media.animated",
        "media.too_many_pixels",
        "media.too_many_bytes",
        "media.truncated",
        "media.damaged",
        "media.unsupported",
    }
    assert issubclass(MediaError, FacsimileError)
