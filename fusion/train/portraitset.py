"""The labelled portraits of a data folder, decoded once and kept small; knows no network.

The folder holds portraits.csv (file, split, group and gender labels), portraits_landmarks478.npz (name,
points, score) and portraits/*.jpg. Coordinates are those of the reduced pictures; pixel centres lie on
integers.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fusion.face import FloatArray, UInt8Array
from provenance.errors import InputError

MIN_SCORE = 0.9  # teacher's presence score below which a label is not believed


@dataclass(frozen=True, eq=False)
class PortraitSet:
    """Portraits of one split.

    pictures  uint8 [N, S, S, 3] RGB        points  float32 [N, 478, 3], x, y in px, relative depth z in px
    names     [N] file names                weights float64 [N], sums to 1, evens out the labelled groups
    """

    names: tuple[str, ...]
    pictures: UInt8Array
    points: FloatArray
    weights: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.names)


def read_portraits(data: Path, split: str, size: int = 256, limit: int | None = None) -> PortraitSet:
    """Pictures of a split ("train", "val", "test") at `size` px, the first `limit` by name; InputError on another
    folder."""
    try:
        with (data / "portraits.csv").open(newline="") as stream:
            rows = {row["file"]: row for row in csv.DictReader(stream) if row["split"] == split}
        labels = np.load(data / "portraits_landmarks478.npz")
        known = {
            str(name): index
            for index, (name, score) in enumerate(zip(labels["name"], labels["score"], strict=True))
            if str(name) in rows and score >= MIN_SCORE
        }
        all_points = labels["points"].astype(np.float32)
    except (OSError, KeyError, ValueError) as error:
        cause = f"{data.name} does not hold a labelled portrait set: {error}"
        raise InputError("train.data", cause, "Give --data the folder with portraits.csv.") from error
    names = tuple(sorted(known))[:limit]
    pictures, points = [], []
    for name in names:
        picture, ratio = _read_reduced(data / "portraits" / name, size)
        pictures.append(picture)
        xyz = all_points[known[name]] * ratio
        xyz[:, :2] += 0.5 * ratio - 0.5
        points.append(xyz)
    return PortraitSet(names, np.stack(pictures), np.stack(points), _even_weights(rows, names))


def _read_reduced(path: Path, size: int) -> tuple[UInt8Array, float]:
    """Square picture of `size` px and the factor it was reduced by."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None or bgr.shape[0] != bgr.shape[1]:
        raise InputError(
            "train.data", f"{path.name} is no square picture", "Give --data the portrait folder."
        )
    ratio = size / bgr.shape[0]
    if ratio != 1:
        bgr = cv2.resize(bgr, (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(bgr[..., ::-1]), ratio


def _even_weights(rows: dict[str, dict[str, str]], names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Chance of each portrait, by the inverse square root of its labelled group's size."""
    groups = [(rows[name].get("gender_label", ""), rows[name].get("group_label", "")) for name in names]
    sizes = Counter(groups)
    weights = np.array([sizes[group] ** -0.5 for group in groups], np.float64)
    return np.asarray(weights / weights.sum(), np.float64)
