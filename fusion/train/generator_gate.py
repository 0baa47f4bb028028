"""Watches a generator for collapse to its target; trains nothing.

The watch is a recogniser outside the loss, where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.train.generator_batches import Batch, Recognise
from fusion.train.generator_losses import recogniser_crops, teacher_input
from fusion.train.teacher import MobileFaceNet


class Verdict(StrEnum):
    """What to do after a look."""

    BEST = "best"
    GO_ON = "go on"
    ROLL_BACK = "roll back"


@dataclass
class CollapseGate:
    """Counts falls of the margin cos(out, source) - cos(out, target); three in a row mean: back to the best state.

    A fall smaller than `tolerance` is noise: it neither counts nor ends a row.
    """

    patience: int = 3
    tolerance: float = 0.002
    best: float = -2.0
    last: float = -2.0
    falls: int = 0

    def judge(self, margin: float) -> Verdict:
        """Verdict on a new margin; not a number counts as collapse."""
        if math.isnan(margin):
            return self._back()
        if margin < self.last - self.tolerance:
            self.falls += 1
        elif margin > self.last:
            self.falls = 0
        self.last = margin
        if self.falls >= self.patience:
            return self._back()
        if margin > self.best:
            self.best = margin
            return Verdict.BEST
        return Verdict.GO_ON

    def _back(self) -> Verdict:
        self.last, self.falls = self.best, 0
        return Verdict.ROLL_BACK


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Records that nothing is trained on, and who judges them.

    batch        those with a truth first, swaps last     recognisers  name → function, a fair watch last
    galleries    name → unit vectors [P, D] of the split's portraits by that recogniser
    """

    batch: Batch
    recognisers: Mapping[str, Recognise]
    galleries: Mapping[str, Tensor]

    def judge(self, swaps: Tensor) -> dict[str, float]:
        """Mean cosine to source and target and share found first, of the swaps [N, 3, S, S], per recogniser."""
        person, found = self.batch.person[self.batch.num_pairs :], {}
        rows = torch.arange(len(swaps))
        for name, recognise in self.recognisers.items():
            cosines = recognise(swaps) @ self.galleries[name].T
            found[f"cos_source_{name}"] = float(cosines[rows, person].mean())
            found[f"cos_target_{name}"] = float(cosines[rows, self.batch.leaving].mean())
            found[f"top1_{name}"] = float((cosines.argmax(1) == person).float().mean())
        return found

    def margin(self, row: Mapping[str, float]) -> float:
        """What the gate judges, of a row that holds `judge`'s values: cosine to source less cosine to target."""
        watch = list(self.recognisers)[-1]
        return row[f"cos_source_{watch}"] - row[f"cos_target_{watch}"]


def centred(recognise: Recognise, gallery: Tensor) -> Recognise:
    """The same recogniser seen from the middle of its gallery [P, D]: strangers who were all alike are 0 alike."""
    middle = gallery.mean(0)
    return lambda pictures: F.normalize(recognise(pictures) - middle)


def flip_averaged(teacher: MobileFaceNet) -> Recognise:
    """The published recogniser over a picture and its mirror image."""

    @torch.inference_mode()
    def recognise(pictures: Tensor) -> Tensor:
        x = teacher_input(recogniser_crops(pictures))
        return F.normalize(torch.cat([teacher(x), teacher(x.flip(3))], dim=1))

    return recognise
