"""Recipe of the generators `hybrid` and `style`: supervised pairs first, an identity term, no adversary.

Knows no run-time code but the networks. Resumes from its checkpoint, so that a budget may be spent in slices; the same
code runs on an accelerator. Pairs are made by fusion/train/generator_material.py, before or while this runs.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.generator import STYLE_128, StyleGenerator
from fusion.hybrid import HybridNet, mend
from fusion.identity import load_identity
from fusion.landmark import load_landmarker
from fusion.train import generator_losses as losses
from fusion.train.generator_batches import Batch, Supply
from fusion.train.generator_gate import CollapseGate, Recognise, Verdict, cosines, recogniser_outside
from fusion.train.generator_losses import Judges
from fusion.train.generator_material import SHARD, make_shards
from fusion.weights import write_weights
from provenance.errors import UsageError


@dataclass(frozen=True)
class GeneratorRecipe:
    """Settings of one run; the defaults made the shipped `hybrid`.

    engine         hybrid or style
    minutes        length of the whole run, slices before a resume included
    steps          if not 0, the run also ends after so many steps
    pairs, swaps   records with a truth and without one in a batch
    judged         records of a batch that the identity network looks at, swaps first
    landmark_every steps between two looks of the landmark network
    allowed_leak   cosine to the target's identity that costs nothing
    wobble         how far crops are turned, scaled and shifted before the identity network sees them
    check_every    steps between two looks of the recogniser outside the loss
    """

    engine: str = "hybrid"
    minutes: float = 45.0
    steps: int = 0
    threads: int = 1
    device: str = "cpu"
    pairs: int = 6
    swaps: int = 6
    judged: int = 7
    learning_rate: float = 1.5e-3
    pixel: float = 1.0
    slope: float = 0.5
    energy: float = 0.3
    anchor: float = 0.5
    tint: float = 4.0
    identity: float = 0.4
    leak: float = 0.1
    feature: float = 0.05
    landmark: float = 0.1
    attribute: float = 0.02
    landmark_every: int = 4
    allowed_leak: float = 0.3
    wobble: float = 0.04
    ema: float = 0.998
    check_every: int = 120
    save_every_s: float = 240.0
    seed: int = 7


class Painter(Protocol):
    """A network that turns a batch into pictures [N, 3, S, S], not clipped."""

    def __call__(self, batch: Batch) -> Tensor: ...


class HybridPainter(nn.Module):
    """`hybrid`: fields over the composite."""

    def __init__(self) -> None:
        super().__init__()
        self.net = HybridNet()

    def forward(self, batch: Batch) -> Tensor:
        fields = self.net(batch.target, batch.composite, batch.trust, batch.identity)
        return mend(batch.target, batch.composite, fields.float())


class StylePainter(nn.Module):
    """`style`: the whole face from the target and the identity vector; the composite is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.net = StyleGenerator(STYLE_128)

    def forward(self, batch: Batch) -> Tensor:
        picture: Tensor = self.net(batch.target, batch.identity)
        return picture.float()


PAINTERS: dict[str, Callable[[], HybridPainter | StylePainter]] = {
    "hybrid": HybridPainter,
    "style": StylePainter,
}


def face_weight(trust: Tensor) -> Tensor:
    """How much each pixel counts [N, 1, S, S]: ground 0.5, face 2, eyes and mouth (holes in the trust) 4."""
    small = F.avg_pool2d(trust, 4)
    closed = -F.max_pool2d(-F.max_pool2d(small, 7, 1, 3), 7, 1, 3)
    holes = (closed - small).clamp(min=0)
    return F.interpolate(0.5 + 1.5 * closed + 2 * holes, scale_factor=4.0, mode="bilinear")


def terms(
    made: Tensor, batch: Batch, judges: Judges, recipe: GeneratorRecipe, step: int
) -> dict[str, Tensor]:
    """Every term of the loss that this step asks for, not weighted.

    Records with a truth come first in a batch, swaps without one last. Swaps are held to the composite by `anchor` and
    to the composite's landmarks; the identity terms see all of them and some of the rest.
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
    chosen = slice(len(made) - min(recipe.judged, len(made)), len(made))
    embedding, _ = judges.look(made[chosen], recipe.wobble)
    found["identity"] = losses.identity_loss(embedding, batch.wanted[chosen])
    found["leak"] = losses.leak_loss(embedding[-recipe.swaps :], batch.target_identity, recipe.allowed_leak)
    seen = max(0, n - chosen.start)
    if seen:  # records with a truth among those judged: the truth's own maps are the perceptual target
        with torch.no_grad():
            _, wanted = judges.look(batch.truth[n - seen :])
        _, plain = judges.look(made[n - seen : n])
        found["feature"] = losses.feature_loss(plain[:2], wanted[:2])
    if step % recipe.landmark_every == 0:
        found |= landmark_terms(made, batch, judges)
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


class GeneratorRun:
    """State of one run: network, its running average, optimiser, gate and clock; `step` advances it."""

    def __init__(self, recipe: GeneratorRecipe, judges: Judges) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.judges = recipe, judges
        self.painter = PAINTERS[recipe.engine]().to(recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.painter).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.painter.parameters(), recipe.learning_rate, betas=(0.9, 0.99))
        self.gate = CollapseGate()
        self.steps, self.samples, self.elapsed_s = 0, 0, 0.0

    def share_done(self) -> float:
        """How much of the run is over, 1 at its end."""
        by_clock = self.elapsed_s / (self.recipe.minutes * 60)
        return max(by_clock, self.steps / self.recipe.steps) if self.recipe.steps else by_clock

    def rate(self) -> float:
        """Learning rate now: 60 steps of warm-up, then a cosine to 3 %."""
        falling = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.share_done())))
        return self.recipe.learning_rate * min(1.0, (self.steps + 1) / 60) * falling

    def step(self, batch: Batch) -> dict[str, float]:
        """One update; the values of the terms."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        on_cuda = self.recipe.device.startswith("cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=on_cuda):
            made = self.painter(batch)
        found = terms(made, batch, self.judges, self.recipe, self.steps)
        self.optimiser.zero_grad(set_to_none=True)
        total(found, self.recipe).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.painter.parameters(), 1.0)
        self.optimiser.step()
        self._follow()
        self.steps, self.samples = self.steps + 1, self.samples + len(made)
        return {name: float(term.detach()) for name, term in found.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.recipe.ema, (1 + self.steps) / (10 + self.steps))
        for kept, new in zip(self.average.parameters(), self.painter.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all; moments and average in bfloat16, which the run itself goes on with.

        So a run that is resumed equals one that was not, and `hybrid` fits into 16 MiB.
        """
        net = self.painter.state_dict()
        lag = {name: (value - net[name]).bfloat16() for name, value in self.average.state_dict().items()}
        optimiser = self.optimiser.state_dict()
        optimiser["state"] = {
            key: {name: _halved(name, value) for name, value in entry.items()}
            for key, entry in optimiser["state"].items()
        }
        clock = {"steps": self.steps, "samples": self.samples, "elapsed_s": self.elapsed_s}
        state = {"net": net, "lag": lag, "optimiser": optimiser, "gate": asdict(self.gate), **clock}
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)
        self.load(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.recipe.device)
        self.painter.load_state_dict(state["net"])
        self.average.load_state_dict({k: v + state["lag"][k].float() for k, v in state["net"].items()})
        self.optimiser.load_state_dict(state["optimiser"])
        self.gate = CollapseGate(**state["gate"])
        self.steps, self.samples = int(state["steps"]), int(state["samples"])
        self.elapsed_s = float(state["elapsed_s"])

    @torch.inference_mode()
    def look(self, held_out: Batch, recognise: Recognise) -> dict[str, float]:
        """The average on held-out records: errors where a truth is known, cosines of the swaps."""
        n = held_out.num_pairs
        made = self.average(held_out).clamp(0, 1)
        weight = face_weight(held_out.trust)
        kept = losses.pixel_loss(held_out.composite[:n], held_out.truth, weight[:n])
        swapped = recognise(made[n:])
        to_source, to_target = cosines(swapped, held_out.judged_source, recognise(held_out.target[n:]))
        before = recognise(held_out.composite[n:])
        was_source, was_target = cosines(before, held_out.judged_source, recognise(held_out.target[n:]))
        ours, _ = self.judges.look(made[n:])
        return {
            "pixel": float(losses.pixel_loss(made[:n], held_out.truth, weight[:n])),
            "pixel_composite": float(kept),
            "cos_source": to_source,
            "cos_target": to_target,
            "cos_source_composite": was_source,
            "cos_target_composite": was_target,
            "cos_source_ours": float((ours * held_out.wanted[n:]).sum(1).mean()),
        }


def _halved(name: str, value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and name.startswith("exp_avg") else value


def train(
    data: Path,
    out: Path,
    recipe: GeneratorRecipe | None = None,
    *,
    pairs: int = 0,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Train in the folder `out` (pairs in train/ and val/, checkpoint.pt, curve.jsonl); the averaged weights' file.

    `data` holds the labelled portraits; the recogniser outside the loss lies beside it in teachers/. At least `pairs`
    training pairs are made first. UsageError `train.engine`; InputError `train.data`, `train.pairs`; the teacher's
    WeightsErrors.
    """
    recipe = recipe or GeneratorRecipe()
    if recipe.engine not in PAINTERS:
        known = ", ".join(PAINTERS)
        raise UsageError("train.engine", f"no generator is called {recipe.engine!r}", f"Use one of: {known}.")
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(recipe.threads)
    if pairs:
        make_shards(data, out / "train", "train", -(-pairs // SHARD), recipe.seed)
        make_shards(data, out / "val", "val", 2, recipe.seed)
    identity = load_identity(recipe.device)
    judges = Judges(identity, load_landmarker(recipe.device).requires_grad_(False))
    recognise = recogniser_outside(data.parent / "teachers" / "mobilefacenet_128d.safetensors", recipe.device)
    supply = Supply(data, out, "train", identity, recipe.seed, recipe.device)
    held_out = Supply(data, out, "val", identity, recipe.seed, recipe.device).held_out(16, 32, recognise)
    run, checkpoint, best = GeneratorRun(recipe, judges), out / "checkpoint.pt", out / "best.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    report(json.dumps({"recipe": asdict(recipe), "step": run.steps, "records": len(supply)}))
    rng = np.random.default_rng([recipe.seed, 1, run.steps])
    last = saved = time.monotonic()
    sums: dict[str, list[float]] = {}
    while run.share_done() < 1:
        batch = supply.draw(rng, recipe.pairs, recipe.swaps)
        for name, value in run.step(batch).items():
            sums.setdefault(name, []).append(value)
        now = time.monotonic()
        run.elapsed_s, last = run.elapsed_s + now - last, now
        if run.steps % recipe.check_every == 0:
            row = run.look(held_out, recognise)
            verdict = run.gate.judge(row["cos_source"] - row["cos_target"])
            means = {name: sum(values) / len(values) for name, values in sums.items()}
            note = {"step": run.steps, "samples": run.samples, "minutes": run.elapsed_s / 60, "gate": verdict}
            note |= {"records": len(supply)}
            line = json.dumps(note | _rounded(means) | {f"val_{k}": v for k, v in _rounded(row).items()})
            report(line)
            with (out / "curve.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
            sums = {}
            if verdict is Verdict.BEST:
                run.save(best)
            elif verdict is Verdict.ROLL_BACK and best.exists():
                clock = (run.steps, run.samples, run.elapsed_s)
                run.load(best)
                run.steps, run.samples, run.elapsed_s = clock
            supply.grow()
        if now - saved > recipe.save_every_s:
            saved = now
            run.save(checkpoint)
            export(run, out)
    run.save(checkpoint)
    path, sha256 = export(run, out)
    report(f"{path.name} sha256 {sha256}")
    return path


def export(run: GeneratorRun, out: Path) -> tuple[Path, str]:
    """The average as float16, and the sha256 of its file."""
    path = out / f"{run.recipe.engine}.safetensors"
    return path, write_weights(path, run.average.net.state_dict(), {"samples": str(run.samples)})


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
