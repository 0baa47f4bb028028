"""Pairs of an untouched and an altered face crop, made from portraits and kept as arrays; knows no network.

Both members come from one picture by one window, so that place, size and identity say nothing. Pictures are
taken from the swap itself: before any mark, encoding or manifest. Both identities of a pair are of one split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from detector.crop import cut, face_window, reduce_square
from fusion import align, mask, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.paste import paste_face
from fusion.swap import ENGINES, Engine
from fusion.warp import WarpOptions
from provenance.errors import FaceError, UsageError

Rng = np.random.Generator
Mark = Callable[[UInt8Array], UInt8Array]

STORED_PX: Final = 320
"""Side of a stored crop; a face window larger than that is reduced to it."""
IDENTITY_PASS: Final = "identity_pass"
"""Name of an engine's pass with the source = the target: resampled and pasted, but not swapped; label real."""
TAUGHT: Final = ("warp", "hybrid")
SHARD: Final = 64


def taught_engines() -> dict[str, Engine]:
    """Engines by name that the shipped detector learnt from; `style` came later (detector/cases.py judges it)."""
    return {name: ENGINES[name] for name in TAUGHT}


def pair_engines(names: Sequence[str] = ()) -> dict[str, Engine]:
    """Engines that pairs are made by, in turn: all of fusion/swap.py and `paste`; or those of `names`.

    UsageError `pairs.engine` for a name that is none of them; the held-out engines are none.
    """
    known = {**ENGINES, "paste": paste_face}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            "pairs.engine",
            f"No pairs are made by {unknown[0]!r}.",
            f"Use one of: {', '.join(sorted(known))}.",
        )
    return {name: known[name] for name in names or known}


@dataclass(frozen=True, eq=False)
class Person:
    """One portrait uint8 [H, W, 3] and its landmarks float32 [478, 2] in its pixels; one identity each."""

    name: str
    rgb: UInt8Array
    landmarks_px: FloatArray

    @property
    def box_xyxy(self) -> FloatArray:
        """Box of the mesh [4], as fusion.detect gives it."""
        return align.landmarks_box(self.landmarks_px)


@dataclass(frozen=True)
class Recipe:
    """How an altered picture was made: `engine` is a name, or IDENTITY_PASS; `setting` names what was held out."""

    target: str
    source: str
    engine: str
    setting: str
    options: WarpOptions


@dataclass(frozen=True, eq=False)
class Altered:
    """rgb uint8 [H, W, 3] and share float32 [H, W] of the source, 0 everywhere for an identity pass."""

    rgb: UInt8Array
    share: FloatArray
    recipe: Recipe


def draw_options(rng: Rng, setting: str = "seen") -> WarpOptions:
    """Random settings of the engine; `setting` is `seen` or one of HELD_OUT.settings."""
    soft = rng.uniform(0.11, 0.16) if setting == "soft_seam" else rng.uniform(0.015, 0.10)
    return WarpOptions(
        shape_blend=float(rng.uniform(0, 1)),
        gain_cap=float(rng.uniform(1.4, 3.0)),
        light_scale=float(np.exp(rng.uniform(np.log(0.08), np.log(0.5)))),
        feather=float(soft),
        bands=int(rng.integers(1, 7)),
        keep_mouth=bool(rng.random() < 0.75),
        keep_eyes=setting != "source_eyes",
        mirror=bool(rng.random() < 0.5),
        lips_match=float(rng.uniform(0, 1)),
        iris_match=float(rng.uniform(0, 1)),
        ring=float(rng.uniform(1.08, 1.5)),
        rim_scale=float(np.exp(rng.uniform(np.log(0.04), np.log(0.2)))),
        rim=float(rng.uniform(0.1, 0.3)),
    )


def swap_pair(target: Person, source: Person, engine: Engine, recipe: Recipe) -> Altered:
    """One swap as the pipeline would make it before marking; FaceError of the engine."""
    result = engine(target.rgb, target.landmarks_px, source.rgb, source.landmarks_px, recipe.options)
    share = np.zeros(target.rgb.shape[:2], np.float32)
    x0, y0, x1, y1 = result.roi_xyxy
    share[y0:y1, x0:x1] = result.mask
    return Altered(result.rgb, share, recipe)


def pass_through(target: Person, rng: Rng, recipe: Recipe) -> Altered:
    """The target through an aligned crop and back: warped, pasted with a feather, nothing swapped; label real.

    The crop is turned, scaled and shifted at random, resampled by one of three kernels both ways.
    """
    height, width = target.rgb.shape[:2]
    x0, y0, x1, y1 = target.box_xyxy
    side = int(rng.uniform(0.7, 1.3) * max(x1 - x0, y1 - y0))
    turn = np.radians(rng.uniform(-20, 20))
    scale = side / (rng.uniform(1.05, 1.5) * max(x1 - x0, y1 - y0))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    crop_from_image = np.concatenate([linear, (side / 2 - linear @ centre)[:, None]], axis=1)
    kernel = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4]))
    crop = cv2.warpAffine(target.rgb, crop_from_image, (side, side), flags=kernel)
    back = cv2.warpAffine(crop, align.invert_matrix(crop_from_image), (width, height), flags=kernel)
    outline = target.landmarks_px[list(mesh.OVAL), :2].astype(np.float32)
    hull = np.zeros((height, width), np.float32)
    cv2.fillPoly(hull, [np.rint(outline).astype(np.int32)], 1)
    share = mask.feather_inside(hull, recipe.options.feather * mesh.face_width(target.landmarks_px))
    mixed = target.rgb + share[..., None] * (np.asarray(back, np.float32) - target.rgb)
    return Altered(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), np.zeros_like(share), recipe)


def draw_recipes(
    names: Sequence[str], engines: Sequence[str], rng: Rng, count: int, passes: float = 0.25
) -> Iterator[Recipe]:
    """`count` recipes: every target in turn, sources at random, engines in turn, a share of identity passes."""
    order = rng.permutation(len(names))
    for index in range(count):
        target = names[order[index % len(names)]]
        source = target
        while source == target and len(names) > 1:
            source = names[int(rng.integers(len(names)))]
        options = draw_options(rng)
        if rng.random() < passes:
            yield Recipe(target, target, IDENTITY_PASS, "seen", options)
        else:
            yield Recipe(target, source, engines[index % len(engines)], "seen", options)


def make_altered(recipe: Recipe, people: dict[str, Person], engines: dict[str, Engine], rng: Rng) -> Altered:
    """Carry out one recipe; half of the identity passes go through an engine with source = target."""
    target = people[recipe.target]
    if recipe.engine != IDENTITY_PASS:
        return swap_pair(target, people[recipe.source], engines[recipe.engine], recipe)
    if rng.random() < 0.5 or "warp" not in engines:
        return pass_through(target, rng, recipe)
    own = replace(recipe, options=replace(recipe.options, shape_blend=0.0))
    done = swap_pair(target, target, engines["warp"], own)
    return Altered(done.rgb, np.zeros_like(done.share), recipe)


def stack_pair(target: Person, altered: Altered) -> UInt8Array:
    """Untouched RGB, altered RGB and share by one window, uint8 [S, S, 7], S = STORED_PX."""
    window = face_window(target.rgb.shape[:2], target.box_xyxy)
    share = np.rint(255 * altered.share).astype(np.uint8)
    planes = (target.rgb, altered.rgb, share)
    reduced = [reduce_square(np.ascontiguousarray(cut(plane, window)), STORED_PX) for plane in planes]
    return np.dstack(reduced)


def points_in_crop(target: Person) -> FloatArray:
    """The landmarks in the stored crop's pixels, float32 [478, 2]."""
    window = face_window(target.rgb.shape[:2], target.box_xyxy)
    ratio = min(1.0, STORED_PX / window.side)
    corner = np.array([window.left, window.top], np.float32)
    return np.asarray((target.landmarks_px[:, :2] - corner + 0.5) * ratio - 0.5, np.float32)


def write_shards(
    people: dict[str, Person],
    engines: dict[str, Engine],
    folder: Path,
    count: int,
    seed: int,
    mark: Mark | None = None,
) -> Iterator[int]:
    """Make `count` pairs into `folder` as shards of SHARD, those already there are left alone; yields pairs done.

    A shard depends on its number, `seed` and the engines only, so the work may stop and go on after any of them. The
    suite's own engines get two turns for each one of `paste`.
    `mark` is put into each member with chance ½, whatever its label, so that it tells nothing.

    A shard is `NNNN.npy` uint8 [64, 320, 320, 7], `NNNN.points.npy` float32 [64, 478, 2] and `NNNN.json`.
    Portraits whose window is under STORED_PX are left out, so are pairs that an engine refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    able = sorted(n for n, p in people.items() if face_window(p.rgb.shape[:2], p.box_xyxy).side >= STORED_PX)
    for shard in range(count // SHARD):
        if not (folder / f"{shard:04d}.json").exists():
            _write_shard(
                folder / f"{shard:04d}", people, able, engines, np.random.default_rng((seed, shard)), mark
            )
        yield (shard + 1) * SHARD


def _write_shard(
    path: Path,
    people: dict[str, Person],
    able: Sequence[str],
    engines: dict[str, Engine],
    rng: Rng,
    mark: Mark | None = None,
) -> None:
    planes, points, made = [], [], []
    own = sorted(name for name in engines if name != "paste")
    turns = [*own, *own, *(name for name in engines if name == "paste")]
    for recipe in draw_recipes(able, turns, rng, 2 * SHARD):
        try:
            altered = make_altered(recipe, people, engines, rng)
        except FaceError:
            continue
        target = people[recipe.target]
        shown = target
        if mark is not None:
            shown = replace(target, rgb=mark(target.rgb)) if rng.random() < 0.5 else target
            altered = replace(altered, rgb=mark(altered.rgb)) if rng.random() < 0.5 else altered
        planes.append(stack_pair(shown, altered))
        points.append(points_in_crop(target))
        made.append(asdict(recipe))
        if len(made) == SHARD:
            break
    np.save(path.with_suffix(".npy"), np.stack(planes))
    np.save(path.with_suffix(".points.npy"), np.stack(points))
    path.with_suffix(".json").write_text(json.dumps(made))


@dataclass(frozen=True, eq=False)
class StoredPairs:
    """Shards on disk, memory-mapped: `planes[i][k]` uint8 [320, 320, 7], `points[i][k]` float32 [478, 2]."""

    planes: list[npt.NDArray[np.uint8]]
    points: list[npt.NDArray[np.float32]]
    recipes: list[list[dict[str, object]]]

    @classmethod
    def open(cls, folder: Path) -> StoredPairs:
        """Every finished shard of a folder; it may be empty."""
        done = sorted(folder.glob("*.json"))
        return cls(
            [np.load(path.with_suffix(".npy"), mmap_mode="r") for path in done],
            [np.load(path.with_suffix(".points.npy")) for path in done],
            [json.loads(path.read_text()) for path in done],
        )

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.planes)
