"""Names the formats that a finished set can also be had in, and what each needs; each format has a file of its own.

A format is a function from a SetView to (path below the set's folder, bytes). It changes no
picture: the sealed bytes go in as they are, so that signatures hold in every format.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from facesets.card import Card
from facesets.errors import FacesetError
from facesets.record import SampleRecord

Files = Iterator[tuple[str, bytes]]


@dataclass(frozen=True)
class SetView:
    """A finished set as the formats see it: its card, its records, its files by their path below the folder."""

    card: Card
    records: tuple[SampleRecord, ...]
    read: Callable[[str], bytes]

    def by_shard(self) -> Iterator[tuple[str, list[SampleRecord]]]:
        """(split-shard, its records), in order."""
        groups: dict[str, list[SampleRecord]] = {}
        for record in self.records:
            groups.setdefault(f"{record.split}-{record.shard}", []).append(record)
        yield from sorted(groups.items())

    def by_split(self) -> Iterator[tuple[str, list[SampleRecord]]]:
        """(split, its records), in order."""
        for split in sorted({record.split for record in self.records}):
            yield split, [record for record in self.records if record.split == split]


LIBRARIES: Final[Mapping[str, str | None]] = {
    "parquet": "pyarrow",
    "coco": "pycocotools",
    "deepfakebench": None,
    "webdataset": None,
    "croissant": None,
}
"""Format → the package that writes it; they are the extra `facesets`."""


def require_libraries(formats: Iterable[str]) -> None:
    """FacesetError `faceset.library` where the package of a format is not installed."""
    missing = [
        library
        for name in formats
        if (library := LIBRARIES[name]) is not None and importlib.util.find_spec(library) is None
    ]
    if missing:
        raise FacesetError(
            "faceset.library",
            f"{', '.join(missing)} is not installed, which writes a format that the spec names",
            f"pip install {' '.join(missing)}, or leave the format out",
        )


def write_format(name: str, view: SetView) -> Files:
    """The files of one format."""
    module = importlib.import_module(f"facesets.format_{name}")
    files: Files = module.write(view)
    return files
