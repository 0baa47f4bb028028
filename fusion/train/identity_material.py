"""What the identity recipe learns from: portraits, people blended out of two, swapped portraits, all labelled.

Knows no student: it asks the teacher, keeps the answers on disk and draws views from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fusion.train.identity_crops import Blender, Portraits, centre_crop, read_portraits
from fusion.train.identity_swaps import Swapper
from fusion.train.identity_views import expose, move, worsen
from fusion.train.teacher import MobileFaceNet, embed_teacher

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

TEACHER_SIZE = 256


@dataclass(frozen=True)
class IdentityRecipe:
    """Settings of one run.

    readout_views  views on which the last layer is solved in the end
    minutes        length of the whole run, slices before a resume included; the learning rate ends there
    steps          if not 0, the run also ends after so many steps
    blends         people made out of two portraits, in shards of `shard`
    swap_every     each so manieth shard holds swapped portraits instead
    real_share     part of every batch that are untouched portraits
    mild_share     part of the views that are only moved, at the beginning and from the middle of the run on
    hint_share     part of every batch whose maps are compared with the teacher's, until 70 % of the run
    """

    minutes: float = 80.0
    steps: int = 0
    threads: int = 1
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    blends: int = 9_216
    swap_every: int = 2
    shard: int = 512
    shard_every: int = 40
    real_share: float = 0.4
    mild_share: tuple[float, float] = (0.8, 0.3)
    hint_share: float = 0.5
    relation_weight: float = 10.0
    hint_weight: float = 0.5
    ema: float = 0.998
    check_every_s: float = 180.0
    readout_views: int = 5_000
    seed: int = 7

    @classmethod
    def further(cls, minutes: float, threads: int = 1) -> IdentityRecipe:
        """Settings of a run that begins with an earlier one's networks: other people, no hints, milder views."""
        return cls(
            minutes=minutes,
            threads=threads,
            learning_rate=1.2e-3,
            blends=60_000,
            shard_every=150,
            real_share=0.3,
            mild_share=(0.5, 0.5),
            hint_weight=0.0,
            ema=0.999,
            readout_views=12_000,
            seed=11,
        )


@dataclass(eq=False)
class Labelled:
    """Crops uint8 [N, 136, 120, 3] RGB with the teacher's embeddings of them [N, 256]."""

    crops: UInt8Array
    embeddings: FloatArray


def label_crops(teacher: MobileFaceNet, crops: UInt8Array) -> Labelled:
    """Ask the teacher, 32 crops at a time."""
    parts = [embed_teacher(teacher, centre_crop(crops[at : at + 32])) for at in range(0, len(crops), 32)]
    return Labelled(crops, np.concatenate(parts))


def stored(path: Path, make: Callable[[], Labelled]) -> Labelled:
    """The labelled crops in `path`, made by `make()` and written there if they are not yet."""
    if not path.exists():
        labelled = make()
        part = path.with_name(f".{path.stem}.part.npz")
        np.savez(part, crops=labelled.crops, embeddings=labelled.embeddings)
        part.replace(path)
    with np.load(path, allow_pickle=False) as archive:
        return Labelled(archive["crops"], archive["embeddings"])


def blend_shard(
    portraits: Portraits, teacher: MobileFaceNet, recipe: IdentityRecipe, number: int
) -> Labelled:
    """Shard `number` of new people; the same for the same seed."""
    rng = np.random.default_rng([recipe.seed, number])
    blender = Blender(portraits)
    return label_crops(teacher, np.stack([blender.draw(rng) for _ in range(recipe.shard)]))


def swap_shard(data: Path, teacher: MobileFaceNet, recipe: IdentityRecipe, number: int) -> Labelled:
    """Shard `number` of swapped portraits of split train; the same for the same seed."""
    rng = np.random.default_rng([recipe.seed, number])
    swapper = Swapper(data, "train")
    return label_crops(teacher, np.stack([swapper.draw(rng) for _ in range(recipe.shard)]))


class Material:
    """Labelled crops on disk and in memory: portraits first, blends as they are made."""

    def __init__(self, data: Path, folder: Path, teacher: MobileFaceNet, recipe: IdentityRecipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data, self.folder, self.teacher, self.recipe = data, folder, teacher, recipe
        self.portraits = read_portraits(data, "train")
        self.shards = [stored(folder / "portraits.npz", lambda: label_crops(teacher, self.portraits.crops))]
        counts = {g: self.portraits.groups.count(g) for g in set(self.portraits.groups)}
        weights = np.array([counts[g] ** -0.5 for g in self.portraits.groups])
        self.portrait_odds = weights / weights.sum()
        self.planned = recipe.blends // recipe.shard

    def grow(self) -> bool:
        """Add one shard of blends or swaps; False once all are there."""
        number = len(self.shards) - 1
        if number >= self.planned:
            return False
        self.shards.append(stored(self._path(number), lambda: self._make(number)))
        return True

    def _path(self, number: int) -> Path:
        return self.folder / f"shard_{number:03d}.npz"

    def _make(self, number: int) -> Labelled:
        if number % self.recipe.swap_every == 0:
            return swap_shard(self.data, self.teacher, self.recipe, number)
        return blend_shard(self.portraits, self.teacher, self.recipe, number)

    def next_is_ready(self) -> bool:
        """Whether the next shard lies on disk already."""
        return self._path(len(self.shards) - 1).exists()

    def draw(self, rng: np.random.Generator, mild_share: float) -> tuple[UInt8Array, UInt8Array, FloatArray]:
        """A view and the same view undamaged, both [112, 96, 3], and the teacher's embedding [256] of the crop."""
        if len(self.shards) == 1 or rng.random() < self.recipe.real_share:
            shard = self.shards[0]
            at = int(rng.choice(len(shard.crops), p=self.portrait_odds))
        else:
            shard = self.shards[int(rng.integers(1, len(self.shards)))]
            at = int(rng.integers(len(shard.crops)))
        moved, embedding = move(shard.crops[at], rng), shard.embeddings[at]
        view = expose(moved, rng) if rng.random() < mild_share else worsen(moved, rng)
        if rng.random() < 0.5:  # the mirror image swaps the halves of the teacher's embedding
            half = TEACHER_SIZE // 2
            return view[:, ::-1], moved[:, ::-1], np.concatenate([embedding[half:], embedding[:half]])
        return view, moved, embedding
