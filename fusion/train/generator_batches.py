"""Records of generator_material.py as batches of tensors, coloured and mirrored anew each time; trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.align import five_points, landmarks_box, warp_crop
from fusion.face import Face, FloatArray
from fusion.identity import IdentityNet, crop_face, embed_crops
from fusion.native import generator_crop_from_image
from fusion.train.generator_material import CROP_PX, PICTURE_PX, Shard, read_shard
from fusion.train.portraitset import PortraitSet, read_portraits
from provenance.errors import InputError

Recognise = Callable[[Tensor], Tensor]  # crops [N, 3, S, S] in [0, 1] → unit vectors [N, D]
Recast = Callable[["Batch"], Tensor]  # a batch without truths → pictures [N, 3, S, S] in [0, 1]

EMBEDDING_NOISE = 0.2  # length of the random vector added to an identity


@dataclass(frozen=True, eq=False)
class Batch:
    """N records, those with a truth first; pictures float [N, 3, 128, 128] in [0, 1].

    target, composite  what the engine is given
    trust              float [N, 1, 128, 128], share of the source
    identity           what it is told, [N, 512], with noise
    person             int [N], whose face is wanted: a portrait of the split
    truth              [num_pairs, 3, 128, 128]
    leaving            int [N - num_pairs], the portraits that are the swaps' targets
    """

    target: Tensor
    composite: Tensor
    trust: Tensor
    identity: Tensor
    person: Tensor
    truth: Tensor
    leaving: Tensor

    @property
    def num_pairs(self) -> int:
        """How many records have a truth."""
        return len(self.truth)


class Supply:
    """Records of one split in memory, growing as shards are made, and the identity of every portrait."""

    def __init__(
        self, data: Path, out: Path, split: str, identity: IdentityNet, seed: int, device: str = "cpu"
    ) -> None:
        self.folder, self.device = out / split, device
        self.portraits = read_portraits(data, split, PICTURE_PX)
        self.identities = torch.from_numpy(embed_portraits(self.portraits, identity)).to(device)
        self.noise = torch.Generator().manual_seed(seed)
        self.shards: list[Shard] = []
        self.known: set[str] = set()
        self.places: list[tuple[int, int]] = []
        self.swap_places: list[tuple[int, int]] = []
        self.guide: Recast | None = None
        self.guided: set[tuple[int, int]] = set()
        self.grow()
        if not self.shards:
            cause = f"{self.folder} holds no pairs"
            raise InputError("train.pairs", cause, "Make them first: facsimile train generator --pairs N.")

    def __len__(self) -> int:
        return len(self.places)

    def grow(self) -> None:
        """Read shards that were made since."""
        for path in sorted(self.folder.glob("pairs_*.npz")):
            if path.name in self.known:
                continue
            shard, number = read_shard(path), len(self.shards)
            self.known.add(path.name)
            self.shards.append(shard)
            self.places += [(number, i) for i in range(len(shard))]
            plain = np.flatnonzero(~shard.same & ~shard.hidden)
            self.swap_places += [(number, int(i)) for i in plain]

    def draw(self, rng: np.random.Generator, pairs: int, swaps: int) -> Batch:
        """Random records, half of them mirrored, each in another colour."""
        chosen = [self.places[i] for i in rng.integers(len(self.places), size=pairs)]
        swapped = [self.swap_places[i] for i in rng.integers(len(self.swap_places), size=swaps)]
        batch = self.gather(chosen, swapped)
        gain = np.exp(
            rng.normal(0, 0.12, (len(batch.target), 1)) + rng.normal(0, 0.04, (len(batch.target), 3))
        )
        mirrored = torch.from_numpy(rng.random(len(batch.target)) < 0.5)
        return recolour(
            mirror(batch, mirrored.to(self.device)), torch.from_numpy(gain).float().to(self.device)
        )

    def gather(self, pairs: list[tuple[int, int]], swaps: list[tuple[int, int]]) -> Batch:
        """Records as they were written; identities with noise. Swaps as the guide makes them, where there is one."""
        if self.guide is not None:
            self._recast(sorted(set(swaps) - self.guided), self.guide)
        return self._gather(pairs, swaps)

    def _gather(self, pairs: list[tuple[int, int]], swaps: list[tuple[int, int]]) -> Batch:
        first = [(self.shards[s], i) for s, i in pairs]
        last = [(self.shards[s], i) for s, i in swaps]
        target = [s.target[i] for s, i in first] + [s.truth[i] for s, i in last]
        composite = [s.mended[i] for s, i in first] + [s.swapped[i] for s, i in last]
        trust = [s.regained[i] for s, i in first] + [s.trust[i] for s, i in last]
        people = [int(s.portrait[i]) for s, i in first] + [int(s.other[i]) for s, i in last]
        known = self.identities[people]
        noise = torch.randn(known.shape, generator=self.noise).to(self.device)
        told = F.normalize(known + EMBEDDING_NOISE * F.normalize(noise))
        return Batch(
            target=self._tensor(target),
            composite=self._tensor(composite),
            trust=self._tensor([t[..., None] for t in trust]),
            identity=told,
            person=torch.tensor(people, device=self.device),
            truth=self._tensor([s.truth[i] for s, i in first]),
            leaving=torch.tensor([int(s.portrait[i]) for s, i in last], device=self.device),
        )

    def _recast(self, places: list[tuple[int, int]], guide: Recast) -> None:
        """Put what `guide` makes of these swaps in their place, once and for all."""
        if not places:
            return
        shown = self._gather([], places)
        shown = replace(shown, identity=self.identities[shown.person])  # without noise
        with torch.inference_mode():
            made = guide(shown)
        made = (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
        for (shard, index), picture in zip(places, made.numpy(), strict=True):
            self.shards[shard].swapped[index] = picture
        self.guided.update(places)

    def held_out(self, pairs: int, swaps: int) -> Batch:
        """The first records, unchanged."""
        return self.gather(self.places[:pairs], self.swap_places[:swaps])

    def gallery(self, recognise: Recognise, slice_size: int = 32) -> Tensor:
        """Unit vectors [P, D] of every portrait of the split by another recogniser."""
        parts = []
        for start in range(0, len(self.portraits), slice_size):
            numbers = range(start, min(start + slice_size, len(self.portraits)))
            parts.append(recognise(self._tensor([self.portrait_crop(i) for i in numbers])))
        return torch.cat(parts)

    def portrait_crop(self, index: int) -> np.ndarray:
        """A portrait in the generator's crop, uint8 [128, 128, 3]."""
        crop = generator_crop_from_image(self.portraits.points[index], CROP_PX)
        return warp_crop(self.portraits.pictures[index], crop, CROP_PX, border="replicate")

    def _tensor(self, pictures: list[np.ndarray]) -> Tensor:
        if not pictures:
            return torch.zeros(0, 3, CROP_PX, CROP_PX, device=self.device)
        stacked = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2)
        return stacked.float().div_(255).contiguous(memory_format=torch.channels_last)


def mirror(batch: Batch, which: Tensor) -> Batch:
    """The chosen records [N] mirrored; identities stay."""
    parts = {name: getattr(batch, name) for name in ("target", "composite", "trust", "truth")}
    turned = {
        name: torch.where(which[: len(part), None, None, None], part.flip(3), part)
        for name, part in parts.items()
    }
    return Batch(**{**vars(batch), **turned})


def recolour(batch: Batch, gain: Tensor) -> Batch:
    """Every picture of a record times the same gain [N, 3]."""
    parts = {name: getattr(batch, name) for name in ("target", "composite", "truth")}
    tinted = {
        name: (part * gain[: len(part), :, None, None])
        .clamp(0, 1)
        .contiguous(memory_format=torch.channels_last)
        for name, part in parts.items()
    }
    return Batch(**{**vars(batch), **tinted})


def embed_portraits(portraits: PortraitSet, net: IdentityNet, slice_size: int = 64) -> FloatArray:
    """Identity of every portrait, float32 [N, 512]."""
    parts = []
    for start in range(0, len(portraits), slice_size):
        numbers = range(start, min(start + slice_size, len(portraits)))
        crops = [
            crop_face(
                portraits.pictures[i],
                Face(landmarks_box(portraits.points[i, :, :2]), five_points(portraits.points[i, :, :2]), 1.0),
            )
            for i in numbers
        ]
        parts.append(embed_crops(np.stack(crops), net))
    return np.concatenate(parts)
