"""Watches a generator for collapse to its target, by a recogniser that is not in its loss; trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.train.generator_losses import IDENTITY_HW, at_128, identity_from_crop, resample
from fusion.train.teacher import MobileFaceNet, load_teacher

Recognise = Callable[[Tensor], Tensor]  # crops [N, 3, S, S] in [0, 1] → unit vectors [N, D]


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


def cosines(made: Tensor, source: Tensor, target: Tensor) -> tuple[float, float]:
    """Mean cosine of unit vectors [N, D] to those of source and target."""
    return float((made * source).sum(1).mean()), float((made * target).sum(1).mean())


def recogniser_outside(teacher_file: Path, device: str = "cpu") -> Recognise:
    """A published recogniser that no loss uses, flip-averaged; WeightsError where its file is missing."""
    net: MobileFaceNet = load_teacher(teacher_file).to(device)

    @torch.inference_mode()
    def recognise(pictures: Tensor) -> Tensor:
        crops = resample(at_128(pictures), identity_from_crop(), IDENTITY_HW) * (255 / 128) - 127.5 / 128
        return F.normalize(torch.cat([net(crops), net(crops.flip(3))], dim=1))

    return recognise
