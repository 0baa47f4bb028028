"""The pictures that a bench of the mark measures: folders, labelled portraits, drawings, nobodies; measures nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from provenance.errors import InputError

if TYPE_CHECKING:
    from provenance.mark_signal import UInt8Array

T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """One picture of a bench: group/name, and how it is had (uint8 [H, W, 3] RGB)."""

    name: str
    read: Callable[[], UInt8Array]

    @property
    def group(self) -> str:
        return self.name.split("/")[0]

    def seed(self, seed: int) -> tuple[int, int]:
        """Of what is done to it: its name's, whatever else is measured."""
        return seed, int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:6], "big")


def listed(
    folders: Sequence[Path], data: Path | None, most: int, drawn: int, nobodies: int, seed: int
) -> list[Shown]:
    """Pictures of all groups, taking turns, so that a part of a run has them all."""
    groups = [
        [Shown(f"{folder.name}/{path.name}", _reader(path)) for path in _files(folder, most)]
        for folder in folders
    ]
    if data is not None:
        groups.append(
            [Shown(f"portraits/{path.name}", _reader(path)) for path in _test_portraits(data, most)]
        )
    groups.append([Shown(f"drawn/{seed + i}", partial(_drawing, seed + i)) for i in range(drawn)])
    groups.append([Shown(f"nobodies/{seed}-{i}", partial(_nobody, seed, i)) for i in range(nobodies)])
    places = [((i + 0.5) / len(group), each) for group in groups for i, each in enumerate(group)]
    if not places:
        raise InputError("bench.data", "there is nothing to measure.", "Give --images, --data or --drawn.")
    return [each for _, each in sorted(places, key=lambda at: at[0])]


def _files(folder: Path, most: int) -> list[Path]:
    from fusion.media import PICTURE_SUFFIXES

    if not folder.is_dir():
        raise InputError("bench.data", f"{folder} is no folder.", "Give --images a folder of pictures.")
    return _evenly([p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURE_SUFFIXES], most)


def _test_portraits(data: Path, most: int) -> list[Path]:
    import csv

    try:
        with (data / "portraits.csv").open(newline="") as file:
            names = sorted(row["file"] for row in csv.DictReader(file) if row["split"] == "test")
    except (OSError, KeyError) as error:
        cause = f"{data} holds no labelled portraits: {error}."
        raise InputError("bench.data", cause, "See docs/cli.md for its form.") from error
    return [data / "portraits" / name for name in _evenly(names, most)]


def _evenly(values: Sequence[T], most: int) -> list[T]:
    count = min(most, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def _reader(path: Path) -> Callable[[], UInt8Array]:
    from fusion.media import LIMITS, read_file, read_picture

    def read() -> UInt8Array:
        return read_picture(read_file(path, LIMITS.max_bytes)).rgb

    return read


def _drawing(seed: int) -> UInt8Array:
    from provenance.mark_bench import drawn_picture

    return drawn_picture(seed)


def _nobody(seed: int, index: int) -> UInt8Array:
    from facesets.portraits import PortraitModel

    model = PortraitModel.load()
    return model.render(model.draw_one(seed, index), size=512).rgb
