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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.generator import STYLE_128, StyleGenerator
from fusion.hybrid import HybridNet, closed_trust, drawn_share, mend
from fusion.identity import load_identity
from fusion.landmark import load_landmarker
from fusion.native import face_window
from fusion.train import generator_losses as losses
from fusion.train.generator_batches import Batch, Supply
from fusion.train.generator_critic import PatchCritic, critic_loss
from fusion.train.generator_gate import CollapseGate, HeldOut, Verdict, centred, flip_averaged
from fusion.train.generator_losses import Judges
from fusion.train.generator_material import SHARD, make_shards
from fusion.train.generator_seam import close_seams
from fusion.train.generator_terms import GeneratorRecipe, face_weight, terms, total
from fusion.train.judge import find_judge
from fusion.train.teacher import load_teacher
from fusion.weights import HYBRID, load_weights, write_weights
from provenance.errors import UsageError


class Painter(Protocol):
    """A network that turns a batch into pictures [N, 3, S, S], not clipped."""

    def __call__(self, batch: Batch) -> Tensor: ...

    def finish(self, made: Tensor, batch: Batch) -> Tensor:
        """The pictures as recognisers are to see them: swaps as the engine hands them out."""
        ...


class HybridPainter(nn.Module):
    """`hybrid`: fields over the composite."""

    def __init__(self) -> None:
        super().__init__()
        self.net = HybridNet()

    def forward(self, batch: Batch) -> Tensor:
        fields = self.net(batch.target, batch.composite, batch.trust, batch.identity)
        share = drawn_share(batch.trust) * spared_holes(batch.trust)
        return mend(batch.target, batch.composite, fields.float() * share)

    def finish(self, made: Tensor, batch: Batch) -> Tensor:
        """Swaps without the colour step at their outline."""
        n = batch.num_pairs
        if n == len(made):
            return made
        return torch.cat([made[:n], close_seams(made[n:], batch.target[n:], batch.trust[n:])])


class StylePainter(nn.Module):
    """`style`: the face from the target and the identity vector; the composite is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.net = StyleGenerator(STYLE_128)

    def forward(self, batch: Batch) -> Tensor:
        change: Tensor = self.net(batch.target, batch.identity).float() - batch.target
        window = torch.tensor(face_window(change.shape[-1]), device=change.device)
        return batch.target + change * window * spared_holes(batch.trust)

    def finish(self, made: Tensor, batch: Batch) -> Tensor:
        """As they are: the window has no rim."""
        return made


PAINTERS: dict[str, Callable[[], HybridPainter | StylePainter]] = {
    "hybrid": HybridPainter,
    "style": StylePainter,
}


def spared_holes(trust: Tensor) -> Tensor:
    """1 but between the lids and between the lips, where the engine draws no fields [N, 1, S, S].

    Both are holes of the trust; the engine itself knows landmarks (fusion/native.py).
    """
    _, holes = closed_trust(trust)
    return 1 - (1.5 * F.interpolate(holes, scale_factor=4.0, mode="bilinear")).clamp(max=1)


class GeneratorRun:
    """State of one run: network, its running average, optimiser, gate and clock; `step` advances it."""

    def __init__(self, recipe: GeneratorRecipe, judges: Judges) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.judges = recipe, judges
        self.painter = PAINTERS[recipe.engine]().to(recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.painter).requires_grad_(False)
        self.optimiser = torch.optim.Adam(
            self.painter.parameters(), recipe.learning_rate, betas=(0.9, 0.99), eps=recipe.epsilon
        )
        self.critic = PatchCritic().to(recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), 4e-4, betas=(0.0, 0.99))
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
        early = self.share_done() < self.recipe.judged_from
        asked = replace(self.recipe, judged=0) if early else self.recipe
        shown = self.painter.finish(made, batch)
        found = terms(made, shown, batch, self.judges, asked, self.steps)
        swaps = slice(batch.num_pairs, None)
        if self.recipe.realism and len(made) > batch.num_pairs:
            found["realism"] = -self.critic(shown[swaps]).mean()
        self.optimiser.zero_grad(set_to_none=True)
        total(found, self.recipe).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.painter.parameters(), 1.0)
        self.optimiser.step()
        self._follow()
        if "realism" in found:
            found["critic"] = self._teach_critic(batch.target[swaps], shown[swaps].detach())
        self.steps, self.samples = self.steps + 1, self.samples + len(made)
        return {name: float(term.detach()) for name, term in found.items()}

    def _teach_critic(self, real: Tensor, made: Tensor) -> Tensor:
        loss = critic_loss(self.critic(real), self.critic(made))
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.recipe.ema, (1 + self.steps) / (10 + self.steps))
        for kept, new in zip(self.average.parameters(), self.painter.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)

    def start_from(self, path: Path) -> None:
        """Begin with the weights of a file that `export` wrote."""
        weights = {name: value.float() for name, value in safetensors.torch.load_file(path).items()}
        for painter in (self.painter, self.average):
            painter.net.load_state_dict(weights)

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all; moments and average in bfloat16, which the run itself goes on with.

        So a run that is resumed equals one that was not, and `hybrid` takes 10 bytes a parameter.
        """
        net = self.painter.state_dict()
        lag = {name: (value - net[name]).bfloat16() for name, value in self.average.state_dict().items()}
        optimiser, critic_optimiser = (
            _halved_moments(one.state_dict()) for one in (self.optimiser, self.critic_optimiser)
        )
        clock = {"steps": self.steps, "samples": self.samples, "elapsed_s": self.elapsed_s}
        state = {"net": net, "lag": lag, "optimiser": optimiser, "gate": asdict(self.gate), **clock}
        state |= {"critic": self.critic.state_dict(), "critic_optimiser": critic_optimiser}
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
        self.critic.load_state_dict(state["critic"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.gate = CollapseGate(**state["gate"])
        self.steps, self.samples = int(state["steps"]), int(state["samples"])
        self.elapsed_s = float(state["elapsed_s"])

    @torch.inference_mode()
    def look(self, held_out: HeldOut) -> dict[str, float]:
        """The average on held-out records: errors where a truth is known, what each recogniser says of the swaps."""
        batch = held_out.batch
        n = batch.num_pairs
        made = self.average(batch)
        shown, made = self.average.finish(made, batch).clamp(0, 1), made.clamp(0, 1)
        weight = face_weight(batch.trust)
        found = {
            "pixel": float(losses.pixel_loss(made[:n], batch.truth, weight[:n])),
            "pixel_composite": float(losses.pixel_loss(batch.composite[:n], batch.truth, weight[:n])),
        }
        return found | held_out.judge(shown[n:])


def _halved_moments(state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state with its moments in bfloat16."""
    moments = {
        key: {
            name: value.bfloat16() if name.startswith("exp_avg") else value for name, value in entry.items()
        }
        for key, entry in state["state"].items()
    }
    return state | {"state": moments}


def prepare(data: Path, out: Path, recipe: GeneratorRecipe) -> tuple[Supply, Judges, HeldOut]:
    """Records, the networks of the loss with their galleries, and what a run is watched on."""
    identity, landmarker = load_identity(recipe.device), load_landmarker(recipe.device).requires_grad_(False)
    supply = Supply(data, out, "train", identity, recipe.seed, recipe.device)
    judges = Judges(identity, landmarker, supply.identities)
    teacher = load_teacher(data.parent / "teachers" / "mobilefacenet_128d.safetensors").to(recipe.device)
    if recipe.teacher_identity or recipe.teacher_retrieval:
        judges = replace(judges, teacher=teacher)
        judges = replace(judges, teacher_gallery=supply.gallery(judges.look_as_teacher))
    kept = Supply(data, out, "val", identity, recipe.seed, recipe.device)
    recognisers = {"ours": judges.look_as_ours, "teacher": flip_averaged(teacher)}
    judge = find_judge()
    if judge is not None:
        recognisers["judge"] = centred(judge.embed_crops, kept.gallery(judge.embed_crops))
    galleries = {name: kept.gallery(recognise) for name, recognise in recognisers.items()}
    return supply, judges, HeldOut(kept.held_out(16, 48), recognisers, galleries)


def load_guide(device: str) -> HybridPainter:
    """The `hybrid` that ships, frozen; WeightsError when its file is missing or altered."""
    painter = HybridPainter()
    load_weights(painter.net, HYBRID)
    painter.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return painter.eval().requires_grad_(False)


def train(
    data: Path,
    out: Path,
    recipe: GeneratorRecipe | None = None,
    *,
    pairs: int = 0,
    resume: bool = False,
    start: Path | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Train in the folder `out` (pairs in train/ and val/, checkpoint.pt, curve.jsonl); the averaged weights' file.

    `data` holds the labelled portraits; the teacher lies beside it in teachers/. At least `pairs` training pairs are
    made first. A run that does not resume begins with the weights `start`, where they are given. dlib's recogniser
    (the extra `judge`) watches for collapse; where it is not installed the teacher does, though the loss may hold it.

    UsageError `train.engine`; InputError `train.data`, `train.pairs`; the teacher's WeightsErrors.
    """
    recipe = recipe or GeneratorRecipe.of("hybrid")
    if recipe.engine not in PAINTERS:
        known = ", ".join(PAINTERS)
        raise UsageError("train.engine", f"no generator is called {recipe.engine!r}", f"Use one of: {known}.")
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(recipe.threads)
    if pairs:
        make_shards(data, out / "train", "train", -(-pairs // SHARD), recipe.seed)
        make_shards(data, out / "val", "val", 2, recipe.seed)
    supply, judges, held_out = prepare(data, out, recipe)
    if recipe.engine == "style":
        supply.guide = load_guide(recipe.device)
    run, checkpoint, best = GeneratorRun(recipe, judges), out / "checkpoint.pt", out / "best.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    elif start is not None:
        run.start_from(start)
    before = held_out.judge(held_out.batch.composite[held_out.batch.num_pairs :])
    first = {"recipe": asdict(recipe), "step": run.steps, "records": len(supply)}
    report(json.dumps(first | {f"composite_{name}": value for name, value in _rounded(before).items()}))
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
            row = run.look(held_out)
            verdict = run.gate.judge(held_out.margin(row))
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
