"""What the detector learns by: mask, boundary, reliability and picture terms; knows no data and no schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.model import Evidence


@dataclass(frozen=True)
class LossWeights:
    """Share of each term; `picture` is raised once the mask is learnt (mask supervision first).

    `pair` asks that the altered member of a pair scores above its untouched one, where it was altered: what both share
    (person, light, codec) cancels.
    """

    mask: float = 1.0
    dice: float = 0.5
    boundary: float = 0.5
    reliability: float = 0.2
    picture: float = 1.0
    pair: float = 1.0


def detector_loss(found: Evidence, masks: Tensor, label: Tensor, weights: LossWeights) -> Tensor:
    """Scalar loss; masks float [N, H, W] in [0, 1], label float [N] with nan where the picture's label is not asked."""
    truth = F.adaptive_avg_pool2d(
        masks[:, None], (found.mask.shape[2], found.mask.shape[3])
    )  # [N, 1, H/4, W/4]
    each = F.binary_cross_entropy_with_logits(found.mask, truth, reduction="none")
    edge = boundary(truth)
    asked = ~label.isnan()
    loss = weights.mask * each.mean() + weights.boundary * (each * edge).sum() / edge.sum().clamp(min=1.0)
    loss = loss + weights.dice * dice_loss(found.mask, truth)
    right = (found.mask.detach().sigmoid() - truth).abs().lt(0.5).float()
    loss = loss + weights.reliability * F.binary_cross_entropy_with_logits(found.reliability, right)
    if bool(asked.any()):
        wanted = label[asked]
        for logit in (found.image, found.score):
            term = F.binary_cross_entropy_with_logits(logit[asked], wanted)
            loss = loss + 0.5 * weights.picture * term
    return loss + weights.pair * pair_loss(found, truth, label)


def pair_loss(found: Evidence, truth: Tensor, label: Tensor) -> Tensor:
    """softplus(untouched − altered) of both picture logits and of the mask where it is altered (RankNet, 2005, eq. 3).

    Pictures come in pairs (untouched, altered); pairs whose altered window shows no alteration are left out.
    """
    kept = label[1::2] == 1
    if not bool(kept.any()):
        return found.score.sum() * 0
    loss = found.score.new_zeros(())
    for logit in (found.image, found.score):
        loss = loss + 0.5 * F.softplus(logit[0::2][kept] - logit[1::2][kept]).mean()
    inside = (truth[1::2][kept] > 0.5).float()
    each = F.softplus(found.mask[0::2][kept] - found.mask[1::2][kept])
    return loss + (each * inside).sum() / inside.sum().clamp(min=1.0)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 − 2 |A ∩ B| / (|A| + |B|), mean over pictures with some truth (Milletari 2016, eq. 3, without squares)."""
    kept = truth.flatten(1).sum(1) > 1
    if not bool(kept.any()):
        return logits.sum() * 0
    chance, wanted = logits[kept].sigmoid().flatten(1), truth[kept].flatten(1)
    overlap = 2 * (chance * wanted).sum(1) / (chance.sum(1) + wanted.sum(1)).clamp(min=1e-6)
    return 1 - overlap.mean()


def boundary(truth: Tensor) -> Tensor:
    """1 where a mask [N, 1, h, w] changes by more than 0.05 within one position, else 0."""
    high = F.max_pool2d(truth, 3, 1, 1)
    low = -F.max_pool2d(-truth, 3, 1, 1)
    return (high - low > 0.05).to(torch.float32)
