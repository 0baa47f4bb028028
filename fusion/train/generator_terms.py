"""What a generator is paid for: the settings of its recipe, and the loss of one batch, term by term; trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.hybrid import closed_trust
from fusion.train import generator_losses as losses
from fusion.train.generator_batches import Batch
from fusion.train.generator_losses import Judges


@dataclass(frozen=True)
class GeneratorRecipe:
    """Settings of one run; the defaults are those of the first slices of `hybrid`.

    engine         hybrid or style
    minutes        length of the whole run, slices before a resume included
    steps          if not 0, the run also ends after so many steps
    pairs, swaps   records with a truth and without one in a batch
    judged         records of a batch that the recognisers look at, swaps first
    judged_from    share of the run after which they look
    landmark_every steps between two looks of the landmark network
    epsilon        what Adam adds to its denominator
    allowed_leak   cosine to the target's identity that costs nothing
    wobble         how far crops are turned, scaled and shifted before the identity network sees them
    check_every    steps between two looks of the recogniser outside the loss
    """

    engine: str = "hybrid"
    minutes: float = 66.0
    steps: int = 0
    threads: int = 1
    device: str = "cpu"
    pairs: int = 4
    swaps: int = 8
    judged: int = 8
    judged_from: float = 0.0
    learning_rate: float = 1.5e-3
    epsilon: float = 1e-8
    pixel: float = 1.0
    slope: float = 0.5
    energy: float = 0.3
    anchor: float = 0.5
    tint: float = 4.0
    identity: float = 0.4
    retrieval: float = 0.06
    leak: float = 0.1
    teacher_identity: float = 0.4
    teacher_retrieval: float = 0.06
    teacher_leak: float = 0.1
    retrieval_scale: float = 24.0
    margin: float = 0.05
    feature: float = 0.05
    landmark: float = 0.1
    attribute: float = 0.02
    realism: float = 0.05
    landmark_every: int = 4
    allowed_leak: float = 0.3
    wobble: float = 0.04
    ema: float = 0.998
    check_every: int = 120
    save_every_s: float = 240.0
    seed: int = 7

    @classmethod
    def of(cls, engine: str, **settings: Any) -> GeneratorRecipe:
        """Recipe of an engine. `style` starts from nothing, is held to what `hybrid` makes, and needs no critic."""
        if engine != "style":
            return cls(engine, **settings)
        return cls(engine, **{**STYLE_SETTINGS, **settings})

    @classmethod
    def further(cls, engine: str, **settings: Any) -> GeneratorRecipe:
        """Recipe of a slice that begins with weights which know identity: both recognisers judge from its start."""
        return cls.of(engine, **{**FURTHER_SETTINGS.get(engine, {}), **settings})


STYLE_SETTINGS: Final[Mapping[str, Any]] = {
    "learning_rate": 2e-3,
    "epsilon": 1e-12,  # gradients of a fresh network's coarse layers are 1e-9
    "anchor": 2.0,
    "tint": 2.0,
    "identity": 0.05,  # more, and a fresh network paints what only the recogniser sees (docs/log.md)
    "retrieval": 0.001,
    "teacher_identity": 0.0,
    "teacher_retrieval": 0.0,
    "teacher_leak": 0.0,
    "realism": 0.0,
    "judged_from": 0.5,
    "landmark_every": 8,
    "ema": 0.995,
}

FURTHER_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "hybrid": {
        "learning_rate": 8e-4,
        "identity": 0.35,
        "retrieval": 0.05,
        "teacher_identity": 0.5,
        "teacher_retrieval": 0.07,
    },
    "style": {
        "judged_from": 0.0,
        "identity": 0.15,
        "retrieval": 0.01,
        "teacher_identity": 0.15,
        "teacher_retrieval": 0.01,
        "teacher_leak": 0.1,
    },
}


def face_weight(trust: Tensor) -> Tensor:
    """How much each pixel counts [N, 1, S, S]: ground 0.5, face 2, eyes and mouth 4."""
    closed, holes = closed_trust(trust)
    return F.interpolate(0.5 + 1.5 * closed + 2 * holes, scale_factor=4.0, mode="bilinear")


def terms(
    made: Tensor, shown: Tensor, batch: Batch, judges: Judges, recipe: GeneratorRecipe, step: int
) -> dict[str, Tensor]:
    """Every term of the loss that this step asks for, not weighted.

    `made` is what the network painted, `shown` what is handed out of it. Records with a truth come first in a batch,
    swaps without one last. Swaps are held to the composite by `anchor` and to the composite's landmarks; the identity
    terms see all of them and some of the rest.
    """
    n = batch.num_pairs
    weight = face_weight(batch.trust)
    found: dict[str, Tensor] = {}
    if n:
        found["pixel"] = losses.pixel_loss(made[:n], batch.truth, weight[:n])
        found["slope"] = losses.slope_loss(made[:n], batch.truth, weight[:n])
        found["energy"] = losses.energy_loss(made[:n], batch.truth, weight[:n])
    if n < len(made):
        near = losses.pixel_loss(made[n:], batch.composite[n:], weight[n:])
        found["anchor"] = near + losses.slope_loss(made[n:], batch.composite[n:], weight[n:])
        found["tint"] = losses.tint_loss(made[n:], batch.composite[n:], weight[n:])
    if recipe.judged:
        found |= recogniser_terms(shown, batch, judges, recipe)
    if step % recipe.landmark_every == 0:
        found |= landmark_terms(made, batch, judges)
    return found


def recogniser_terms(
    made: Tensor, batch: Batch, judges: Judges, recipe: GeneratorRecipe
) -> dict[str, Tensor]:
    """What the recognisers say of the last `judged` records; features where a truth is among them."""
    n = batch.num_pairs
    found: dict[str, Tensor] = {}
    chosen = slice(len(made) - min(recipe.judged, len(made)), len(made))
    embedding, _ = judges.look(made[chosen], recipe.wobble)
    found |= identity_terms(embedding, judges.gallery, batch, recipe)
    if judges.teacher is not None and judges.teacher_gallery is not None:
        taught = judges.look_as_teacher(made[chosen], recipe.wobble)
        terms_of_teacher = identity_terms(taught, judges.teacher_gallery, batch, recipe)
        found |= {f"teacher_{name}": term for name, term in terms_of_teacher.items()}
    seen = max(0, n - chosen.start)
    if seen:  # records with a truth among those judged: the truth's own maps are the perceptual target
        with torch.no_grad():
            _, wanted = judges.look(batch.truth[n - seen :])
        _, plain = judges.look(made[n - seen : n])
        found["feature"] = losses.feature_loss(plain[:2], wanted[:2])
    return found


def identity_terms(
    embedding: Tensor, gallery: Tensor, batch: Batch, recipe: GeneratorRecipe
) -> dict[str, Tensor]:
    """What one recogniser says of the last records of a batch, unit vectors [K, D]."""
    person, swaps = batch.person[-len(embedding) :], len(batch.leaving)
    found = {
        "identity": losses.identity_loss(embedding, gallery[person]),
        "retrieval": losses.retrieval_loss(embedding, gallery, person, recipe.retrieval_scale, recipe.margin),
    }
    if swaps:
        found["leak"] = losses.leak_loss(
            embedding[-swaps:], gallery[batch.leaving][-len(embedding) :], recipe.allowed_leak
        )
    return found


def landmark_terms(made: Tensor, batch: Batch, judges: Judges) -> dict[str, Tensor]:
    """Landmarks where truth or composite has them; features of the landmark network where the target has them."""
    n = batch.num_pairs
    few = slice(max(0, n - 3), min(len(made), n + 3))
    wanted = torch.cat([batch.truth[few.start :], batch.composite[n : few.stop]])
    with torch.no_grad():
        points, _ = judges.place(wanted)
        _, target_features = judges.place(batch.target[few])
    found, features = judges.place(made[few])
    return {
        "landmark": losses.landmark_loss(found, points),
        "attribute": losses.feature_loss([features], [target_features]),
    }


def total(found: dict[str, Tensor], recipe: GeneratorRecipe) -> Tensor:
    """Weighted sum; each term's weight is the recipe's field of the same name."""
    return torch.stack([float(getattr(recipe, name)) * term for name, term in found.items()]).sum()
