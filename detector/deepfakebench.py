"""Foreign sets in DeepfakeBench's JSON layout: dataset → label → split → [compression] → video → frames; scores none.

Reads the index (arXiv 2307.01426, `preprocessing/dataset_json`) and names frame files below a folder of yours.
Whoever holds FaceForensics++, Celeb-DF, DFDC or DF40 can measure on them; nothing of them is here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from provenance.errors import InputError

_REAL_WORDS = ("real", "original", "youtube", "actors", "pristine")


@dataclass(frozen=True)
class ForeignVideo:
    """One video: `label` as the set names it, `altered` what that means, frames in their order below the root."""

    dataset: str
    label: str
    name: str
    altered: bool
    frames: tuple[Path, ...]


def read_index(
    file: Path, root: Path, split: str = "test", compression: str | None = None, max_frames: int = 32
) -> list[ForeignVideo]:
    """The videos of one split, at most `max_frames` evenly spread frames each; files need not exist yet.

    `compression` (c23, c40) picks a level where the set has levels; None takes the first. InputError `foreign.index`
    for another layout, `foreign.path` for a frame outside `root`.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _no_index(file, str(error)) from error
    if not isinstance(content, dict):
        raise _no_index(file, "the top is no object of datasets")
    videos = []
    for dataset, labels in content.items():
        for label, splits in _items(labels, file, dataset):
            if not isinstance(splits, dict):
                raise _no_index(file, f"{dataset}/{label} holds no splits")
            videos += list(
                _videos(dataset, label, splits.get(split, {}), root, compression, max_frames, file)
            )
    if not videos:
        raise _no_index(file, f"it lists no video of the split {split!r}")
    return videos


def _videos(
    dataset: str, label: str, entries: Any, root: Path, compression: str | None, max_frames: int, file: Path
) -> Iterator[ForeignVideo]:
    for name, entry in _items(_level(entries, compression), file, f"{dataset}/{label}"):
        if not isinstance(entry, dict) or not isinstance(entry.get("frames"), list):
            raise _no_index(file, f"{dataset}/{label}/{name} lists no frames")
        stated = str(entry.get("label", label))
        kept = _spread([str(frame) for frame in entry["frames"]], max_frames)
        frames = tuple(_below(root, frame, file) for frame in kept)
        yield ForeignVideo(dataset, stated, name, not is_real(stated), frames)


def _level(entries: Any, compression: str | None) -> Any:
    """The videos below a compression level, where there is one; a video is an object with `frames`."""
    if not isinstance(entries, dict) or not entries:
        return entries
    if all(isinstance(value, dict) and "frames" in value for value in entries.values()):
        return entries
    return entries.get(compression, {}) if compression else next(iter(entries.values()))


def is_real(label: str) -> bool:
    """Whether a set's label means untouched: FF-real, CelebDFv2_real, YouTube-real, original…"""
    words = label.lower()
    return any(word in words for word in _REAL_WORDS) and "fake" not in words


def _spread(frames: list[str], count: int) -> list[str]:
    if len(frames) <= count:
        return frames
    return [frames[round(i * (len(frames) - 1) / max(count - 1, 1))] for i in range(count)]


def _below(root: Path, frame: str, file: Path) -> Path:
    """A frame's path below `root`; indexes made on Windows use backslashes."""
    parts = PureWindowsPath(frame).parts if "\\" in frame else PurePosixPath(frame).parts
    if ".." in parts or PurePosixPath(frame).is_absolute() or PureWindowsPath(frame).drive:
        raise InputError(
            "foreign.path",
            f"{file.name} names a frame outside the folder: {frame}",
            "Use an index whose frames are relative to --root.",
        )
    return root.joinpath(*parts)


def _items(value: Any, file: Path, where: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise _no_index(file, f"{where} is no object")
    return [(str(key), entry) for key, entry in value.items()]


def _no_index(file: Path, why: str) -> InputError:
    return InputError(
        "foreign.index",
        f"{file.name} is not in DeepfakeBench's layout: {why}",
        "Give the JSON that its rearrange.py writes, and a split that it has.",
    )
