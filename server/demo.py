"""The demonstration: two nobodies, one fusion, five checks, one page; uses only what every user has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusion.media import encode_picture, read_picture, write_file_atomically
from provenance.errors import UsageError
from server.report import LIMITS, evidence_table, page

if TYPE_CHECKING:
    from detector.check import Report
    from fusion.face import UInt8Array
    from fusion.seal import Sealed

SEED = 7
SIZE_PX = 512
MARKER = ".facsimile-demo"


@dataclass(frozen=True)
class Shown:
    """One checked file of the demonstration and what was done to it."""

    path: Path
    title: str
    report: Report


def run(out: Path, tell: Callable[[str], None]) -> list[Shown]:
    """Make the demonstration in `out` (emptied first if it is an earlier one) and return what was checked."""
    from detector.check import Checker, shipped_scorer
    from fusion.pipeline import fuse, sample
    from fusion.request import FuseRequest, SampleRequest
    from fusion.swap import load_perception
    from provenance.home import Home

    _prepare(out)
    with Home.create(out / "home", "Facsimile demonstration") as home:
        tell("Made a home with its keys and ledger.")
        people = sample(SampleRequest(count=2, seed=SEED, size_px=SIZE_PX), home, out)
        tell("Made two people who don't exist, sealed as synthetic.")
        fused = fuse(
            FuseRequest(
                sources=(people[0].path.read_bytes(),),
                target=people[1].path.read_bytes(),
                purpose="demonstration",
            ),
            home,
            load_perception("cpu"),
            out / "fused.jpg",
        )
        tell("Fused the first onto the second, sealed and recorded.")
        copies = _copies(fused, out)
        checker = Checker(home, shipped_scorer())
        shown = [
            Shown(path, title, checker.check(path.read_bytes(), path.name)) for path, title in copies.items()
        ]
    write_file_atomically(out / "index.html", _page(people, fused, shown).encode())
    return shown


def _prepare(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise UsageError(
            "demo.folder_in_use",
            f"{out} exists and is not an earlier demonstration.",
            "Name another folder with --out.",
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).touch()


def _copies(fused: Sealed, out: Path) -> dict[Path, str]:
    data = fused.path.read_bytes()
    rgb = read_picture(data).rgb
    made = {
        "stripped.png": (encode_picture(rgb, "png"), "stripped: same pixels, metadata gone"),
        "recompressed.jpg": (encode_picture(rgb, "jpeg", 60), "compressed again at quality 60"),
        "tampered.jpg": (_tamper(data), "tampered: one byte of the picture changed"),
        "unrelated.png": (
            encode_picture(draw_hills(SIZE_PX), "png"),
            "unrelated: a drawing never seen before",
        ),
    }
    for name, (content, _) in made.items():
        write_file_atomically(out / name, content)
    return {fused.path: "the output, as released"} | {out / name: title for name, (_, title) in made.items()}


def _tamper(data: bytes) -> bytes:
    position = len(data) - 400
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


def draw_hills(size_px: int) -> UInt8Array:
    """Draw hills under a sky, uint8 [size, size, 3] RGB; a picture without faces and without a mark."""
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    rgb = np.stack([0.55 + 0.35 * y, 0.7 + 0.2 * y, np.full_like(y, 0.92)], axis=-1)
    for depth in range(4):
        ridge = 0.45 + 0.13 * depth + 0.06 * np.sin(2 * np.pi * (x * (1.3 + depth) + 0.37 * depth**2))
        colour = np.array([0.24, 0.42, 0.35]) * (1.25 - 0.22 * depth)
        rgb[y > ridge] = colour
    return (rgb.clip(0, 1) * 255).round().astype(np.uint8)


def _page(people: list[Sealed], fused: Sealed, shown: list[Shown]) -> str:
    makers = [(people[0], "source: gives the identity"), (people[1], "target: is altered"), (fused, "fused")]
    cards = "".join(_figure(sealed.path, title) for sealed, title in makers)
    checks = "".join(
        f"<section><h2>{escape(item.path.name)}</h2>{_figure(item.path, item.title)}"
        f"{evidence_table(item.report)}</section>"
        for item in shown
    )
    intro = "<p>Two people who don't exist, one fusion, and what can be proven about five files.</p>"
    return page(
        "facsimile: a copy that declares itself",
        f'{intro}<div class="cards">{cards}</div>{checks}<p>{escape(LIMITS)}</p>',
    )


def _figure(path: Path, title: str) -> str:
    return (
        f'<figure><img src="{escape(path.name)}" width="320" alt="{escape(title)}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
