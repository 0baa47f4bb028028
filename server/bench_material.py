"""What a fusion bench is run with: ways to swap, labelled portraits, recognisers, finder; measures nothing itself."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.errors import InputError

if TYPE_CHECKING:
    from fusion.evaluate import Bench, Embed, Locate, Portrait
    from fusion.face import Face, FloatArray, UInt8Array
    from fusion.swap import Engine
    from fusion.train.teacher import MobileFaceNet

QUICK_PORTRAITS = 40


@dataclass(frozen=True)
class Material:
    """Where a bench's portraits and its second recogniser lie; small enough to travel to other processes."""

    data: Path
    split: str
    teacher_file: Path
    quick: bool = False

    def names(self) -> list[str]:
        """Portraits that pairs are made of, in the table's order."""
        names = list_portraits(self.data, self.split)
        return names[:QUICK_PORTRAITS] if self.quick else names


@lru_cache(maxsize=1)
def find_bench(material: Material) -> Bench:
    """The bench of a material: its portraits read, its networks loaded, once a process."""
    from fusion.evaluate import Bench

    portraits = {one.name: one for one in read_portraits(material.data, material.names())}
    return Bench(portraits, recognisers(material.teacher_file), _landmark_finder(), _features())


def all_ways() -> dict[str, Engine]:
    """The shipped preset, it without its branches, every engine without its finish, and the baseline."""
    from fusion.evaluate import preset_engine
    from fusion.paste import paste_face
    from fusion.swap import ENGINES

    ways: dict[str, Engine] = {
        "default": preset_engine(),
        "mobile": preset_engine("mobile"),
        "no_detail": preset_engine(detail=False),
        "with_eyes": preset_engine(eyes=True),
    }
    return {**ways, **ENGINES, "paste": paste_face}


def engine_of(way: str) -> str:
    """The engine that a way paints with."""
    from fusion.swap import DEFAULT_PRESET, ENGINES, PRESETS

    if way in ENGINES or way == "paste":
        return way
    return PRESETS[way if way in PRESETS else DEFAULT_PRESET].engine


def find_groups(data: Path) -> dict[str, str]:
    """The group label of each portrait, '' where the table has none."""
    with (data / "portraits.csv").open(newline="") as file:
        return {row["file"]: row.get("group_label", "") or "" for row in csv.DictReader(file)}


def list_portraits(data: Path, split: str | None) -> list[str]:
    """Names of a split's portraits (None: of all), in the table's order; InputError `bench.data`."""
    try:
        with (data / "portraits.csv").open(newline="") as file:
            return [row["file"] for row in csv.DictReader(file) if split in (None, row["split"])]
    except (OSError, KeyError, ValueError) as error:
        raise _no_data(data, error) from error


def read_portraits(data: Path, names: Sequence[str]) -> Iterator[Portrait]:
    """The named portraits with their landmarks, one after the other; InputError `bench.data`."""
    import numpy as np

    from fusion.evaluate import Portrait
    from fusion.media import LIMITS, read_file, read_picture

    try:
        with np.load(data / "portraits_landmarks478.npz") as archive:
            labelled = (str(name) for name in archive["name"])
            points: dict[str, FloatArray] = dict(
                zip(labelled, archive["points"][..., :2].astype(np.float32), strict=True)
            )
    except (OSError, KeyError, ValueError) as error:
        raise _no_data(data, error) from error
    for name in names:
        picture = read_picture(read_file(data / "portraits" / name, LIMITS.max_bytes))
        yield Portrait(name, picture.rgb, points[name])


def _no_data(data: Path, error: Exception) -> InputError:
    return InputError(
        "bench.data", f"{data} holds no labelled portraits: {error}.", "See docs/cli.md for its form."
    )


@lru_cache(maxsize=1)
def recognisers(teacher_file: Path) -> dict[str, Embed]:
    """Our own network, a published one where its file is, and one outside every loss where it is installed."""
    from fusion.evaluate import five_point_embed
    from fusion.identity import embed_face, load_identity
    from fusion.train.judge import JUDGE, find_judge
    from fusion.train.teacher import load_teacher

    ours = load_identity("cpu")
    found = {"ours": five_point_embed(lambda rgb, points_px: embed_face(rgb, _face_at(points_px), ours))}
    if teacher_file.exists():
        teacher = load_teacher(teacher_file)
        found["teacher"] = five_point_embed(lambda rgb, points_px: _embed_by(teacher, rgb, points_px))
    if (judge := find_judge()) is not None:
        found[JUDGE] = judge.embed
    return found


def _features() -> Embed:
    """What `kid` compares: the deepest maps of our identity network, averaged over the face."""
    import torch

    from fusion.evaluate import five_point_embed
    from fusion.identity import SIDE_PX, crop_face, load_identity

    net = load_identity("cpu")

    def describe(rgb: UInt8Array, points_px: FloatArray) -> FloatArray:
        crop = torch.from_numpy(crop_face(rgb, _face_at(points_px)))[None, :, SIDE_PX:-SIDE_PX]
        with torch.inference_mode():
            found: FloatArray = net.maps(crop.permute(0, 3, 1, 2).float() / 255)[-1].mean((2, 3))[0].numpy()
        return found

    return five_point_embed(describe)


def _embed_by(teacher: MobileFaceNet, rgb: UInt8Array, points_px: FloatArray) -> FloatArray:
    import numpy as np

    from fusion.align import similarity_from_points, warp_crop
    from fusion.train.teacher import TEACHER_POINTS_112X96, embed_teacher

    crop_from_image = similarity_from_points(points_px, TEACHER_POINTS_112X96)
    crop = warp_crop(rgb, crop_from_image, (96, 112), border="replicate")
    return np.asarray(embed_teacher(teacher, crop[None])[0], np.float32)


def _landmark_finder() -> Locate:
    from fusion.align import five_points
    from fusion.landmark import find_landmarks, load_landmarker

    net = load_landmarker("cpu")
    return lambda rgb, near: find_landmarks(rgb, _face_at(five_points(near)), net)


def _face_at(points_px: FloatArray) -> Face:
    import numpy as np

    from fusion.face import Face

    box_xyxy = np.concatenate([points_px.min(axis=0), points_px.max(axis=0)])
    return Face(box_xyxy.astype(np.float32), points_px, 1.0)
