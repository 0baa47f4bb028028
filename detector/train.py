"""Recipe of the detector: stored pairs and blends made on the fly, mask first, easy to hard; knows no test set.

One thread of a CPU is enough for size `narrow`. The schedule follows the clock and a run resumes from its checkpoint,
so a budget can be spent in slices. On an accelerator the same recipe runs under bfloat16 autocast with larger batches.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detector.batches import Batch, BatchMaker
from detector.crop import reduce_square
from detector.delivery import Delivery, deliver
from detector.held_out import HELD_OUT
from detector.losses import LossWeights, detector_loss
from detector.model import SIZES, EvidenceNet
from detector.pairs import IDENTITY_PASS, Mark, Person, StoredPairs, pair_engines, write_shards
from detector.weights import load_pretrained
from fusion.face import UInt8Array
from fusion.train.portraitset import read_portraits
from fusion.weights import file_sha256, write_weights
from provenance.errors import InputError, UsageError

Report = Callable[[str], None]
REPORT_EVERY_S = 240.0


@dataclass(frozen=True)
class DetectorRecipe:
    """pairs: stored training pairs; pairs_per_batch: half of a batch's pictures; whole_face: share of the time, at the
    end, in which windows hold nearly whole faces (`whole_px`), as at run time: 0.2 of it took the held-out AUC from
    0.984 to 0.972, for such windows are fewer and more alike, in batches of half the size."""

    size: str = "narrow"
    pairs: int = 10240
    held_out_pairs: int = 128
    pairs_per_batch: int = 12
    window_px: int = 128
    whole_px: int = 192
    whole_face: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    average: float = 0.998
    mask_first: float = 0.25
    hardest_at: float = 0.6

    @classmethod
    def of_size(cls, size: str, device: str) -> DetectorRecipe:
        """The recipe of a size; on an accelerator batches are ten times as large. UsageError `train.size`."""
        if size not in SIZES:
            known = ", ".join(SIZES)
            raise UsageError("train.size", f"the detector has no size {size!r}", f"Use one of: {known}.")
        return cls(size=size) if device == "cpu" else cls(size=size, pairs_per_batch=128, pairs=20480)

    def further(self) -> DetectorRecipe:
        """For a network that can already see: nothing easy at the beginning, half the learning rate."""
        return replace(self, learning_rate=self.learning_rate / 2, mask_first=0.0, hardest_at=0.0)


def make_pairs(
    data: Path,
    folder: Path,
    split: str,
    count: int,
    seed: int = 1,
    report: Report = print,
    mark: Mark | None = None,
    engines: Sequence[str] = (),
    minutes: float = math.inf,
) -> int:
    """Write `count` pairs of a split's portraits into `folder`, by `engines` or all of `pair_engines`; pairs there.

    Shards that are there are kept, and none is begun after `minutes`: run it again, it goes on. UsageError
    `pairs.engine`.
    """
    made_by = pair_engines(engines)
    portraits = read_portraits(data, split, 512)
    people = {
        name: Person(name, portraits.pictures[i], np.ascontiguousarray(portraits.points[i, :, :2]))
        for i, name in enumerate(portraits.names)
    }
    begun, done = time.monotonic(), 0
    for done in write_shards(people, made_by, folder, count, seed, mark):
        report(f"{split}: {done} of {count} pairs")
        if time.monotonic() - begun > minutes * 60:
            break
    return done


def train(
    data: Path,
    run: Path,
    *,
    minutes: float = 60,
    steps: int = 0,
    threads: int = 1,
    device: str = "cpu",
    resume: bool = False,
    start: Path | None = None,
    seed: int = 0,
    recipe: DetectorRecipe | None = None,
    pretrained: tuple[Path, str] | None = None,
    mark: Mark | None = None,
    report: Report = print,
) -> Path:
    """Train for `minutes` (all slices together) or `steps` (if not 0); path of `run`/detector.safetensors.

    What is written is the best running average by the AUC on held-out pairs (people of the split val), not the last.
    `start` is a checkpoint whose network this run begins with, on a schedule of its own (`DetectorRecipe.further`).
    Pairs are made first where they are missing, each member marked by `mark` with chance ½.
    `pretrained` is a local safetensors file of the backbone and its
    sha256; WeightsError of `detector.weights.load_pretrained`.
    """
    recipe = recipe or DetectorRecipe()
    path = run / "detector.safetensors"
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.manual_seed(seed)
    run.mkdir(parents=True, exist_ok=True)
    train_pairs, held_out = _open_pairs(data, run, recipe, report, mark)
    learner = Learner(recipe, device)
    if pretrained is not None:
        load_pretrained(learner.net.backbone, *pretrained)
        learner.average.module.load_state_dict(learner.net.state_dict())
    if resume and (run / "checkpoint.pt").exists():
        learner.load(run / "checkpoint.pt")
    elif start is not None:
        learner.begin_with(start)
    rng = np.random.default_rng((seed, learner.step))
    maker = BatchMaker(train_pairs)
    report(
        f"{len(train_pairs)} pairs, {sum(p.numel() for p in learner.net.parameters()) / 1e6:.2f} M parameters"
    )
    begin, reported, losses = time.monotonic() - learner.spent_s, learner.spent_s, []
    while learner.spent_s < minutes * 60 and not 0 < steps <= learner.step:
        part = learner.step / steps if steps else learner.spent_s / (minutes * 60)
        losses.append(learner.learn(maker, rng, part))
        learner.spent_s = time.monotonic() - begin
        if learner.spent_s - reported > REPORT_EVERY_S:
            reported = learner.spent_s
            maker.stored = StoredPairs.open(run / "pairs_train")
            figures = _keep_best(learner, held_out, path, seed)
            learner.save(run / "checkpoint.pt")
            report(_line(learner, losses[-100:], figures, part))
    figures = _keep_best(learner, held_out, path, seed)
    learner.save(run / "checkpoint.pt")
    report(f"{_line(learner, losses[-100:], figures, 1.0)} {path.name} sha256 {file_sha256(path)}")
    return path


def _keep_best(learner: Learner, held_out: StoredPairs, path: Path, seed: int) -> dict[str, float]:
    """Measure the running average and write it to `path` where it is the best so far; what was measured."""
    figures = measure(learner.average, held_out, str(learner.device), learner.recipe.held_out_pairs)
    mean = float(np.mean(list(figures.values())))
    if mean <= learner.best and path.exists():
        return figures
    learner.best = mean
    note = {
        "config": SIZES[learner.recipe.size].as_dict(),
        "pictures": learner.seen,
        "seed": seed,
        "held_out": HELD_OUT.as_dict(),
    }
    told = {name: json.dumps(value) for name, value in note.items()}
    write_weights(path, _plain(learner.average).state_dict(), told)
    return figures


def _open_pairs(
    data: Path, run: Path, recipe: DetectorRecipe, report: Report, mark: Mark | None
) -> tuple[StoredPairs, StoredPairs]:
    stored = []
    for split, count in (("train", recipe.pairs), ("val", recipe.held_out_pairs)):
        folder = run / f"pairs_{split}"
        if not len(StoredPairs.open(folder)):
            make_pairs(data, folder, split, count, report=report, mark=mark)
        stored.append(StoredPairs.open(folder))
        if not len(stored[-1]):
            raise InputError(
                "train.data",
                f"no pairs could be made of the {split} split",
                "Give --data the portrait folder.",
            )
    return stored[0], stored[1]


class Learner:
    """Network, running average, optimiser and how far they are; one device."""

    def __init__(self, recipe: DetectorRecipe, device: str) -> None:
        self.recipe, self.further, self.device = recipe, False, torch.device(device)
        self.net = EvidenceNet(SIZES[recipe.size]).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        decay = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.net, multi_avg_fn=decay, use_buffers=True)
        learning = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(learning, recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.step, self.seen, self.spent_s, self.best = 0, 0, 0.0, -math.inf

    def learn(self, maker: BatchMaker, rng: np.random.Generator, part: float) -> float:
        """One step at `part` (0 to 1) of the schedule; the loss."""
        recipe = self.recipe
        whole = part > 1 - recipe.whole_face
        maker.window_px = recipe.whole_px if whole else recipe.window_px
        pairs = max(2, recipe.pairs_per_batch // 2) if whole else recipe.pairs_per_batch
        hard = min(1.0, part / recipe.hardest_at) if recipe.hardest_at else 1.0
        batch = maker.draw(rng, pairs, 0.1 + 0.9 * hard)
        pictures, masks, label = _to_device(batch, self.device)
        warm = min(1.0, (self.step + 1) / 150)
        for group in self.optimiser.param_groups:
            group["lr"] = (
                recipe.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(part, 1.0))) + 1e-6
            )
        weights = LossWeights(picture=0.2 if part < recipe.mask_first else 1.0)
        with self._precision():
            found = self.net.train()(pictures)
        found = type(found)(*(tensor.float() for tensor in found))
        loss = detector_loss(found, masks, label, weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        self.average.update_parameters(self.net)
        self.step, self.seen = self.step + 1, self.seen + len(pictures)
        return float(loss.detach())

    def _precision(self) -> AbstractContextManager[Any]:
        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def save(self, path: Path) -> None:
        """Everything a later slice needs, optimiser and average in half precision (≤ 16 MiB if narrow)."""
        state = {
            "net": self.net.state_dict(),
            "average": _as_type(self.average.state_dict(), torch.float16),
            "optimiser": _as_type(self.optimiser.state_dict(), torch.bfloat16),
            "step": self.step,
            "seen": self.seen,
            "spent_s": self.spent_s,
            "best": self.best,
            "further": self.further,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(_as_type(state["average"], torch.float32))
        self.optimiser.load_state_dict(_as_type(state["optimiser"], torch.float32))
        self.step, self.seen, self.spent_s = int(state["step"]), int(state["seen"]), float(state["spent_s"])
        self.best = float(state.get("best", -math.inf))
        if state.get("further"):
            self._go_further()

    def begin_with(self, path: Path) -> None:
        """Network and average of a checkpoint; optimiser, clock and schedule begin anew, pictures count on."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        average = _as_type(state["average"], torch.float32)
        self.average.load_state_dict(average)
        self.net.load_state_dict(_plain(self.average).state_dict())
        self.seen = int(state["seen"])
        self._go_further()

    def _go_further(self) -> None:
        self.recipe, self.further = self.recipe.further(), True


def _as_type(state: Any, kind: torch.dtype) -> Any:
    """A nested state with its large floating tensors in another precision."""
    if isinstance(state, Tensor):
        return state.to(kind) if state.is_floating_point() and state.numel() > 1 else state
    if isinstance(state, dict):
        return {key: _as_type(value, kind) for key, value in state.items()}
    return state


def _to_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    pictures = torch.from_numpy(batch.pictures).to(device).permute(0, 3, 1, 2).float() / 255
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    return pictures, torch.from_numpy(batch.masks).to(device), torch.from_numpy(batch.label).to(device)


def _plain(net: nn.Module) -> nn.Module:
    return net.module if isinstance(net, AveragedModel) else net


def measure(net: nn.Module, stored: StoredPairs, device: str = "cpu", least: int = 64) -> dict[str, float]:
    """AUC on stored pairs, clean and at JPEG q60 after a reduction to 3/4; identity passes are real."""
    reals: dict[str, list[float]] = {"clean": [], "q60": []}
    fakes: dict[str, list[float]] = {"clean": [], "q60": []}
    deliveries = {"clean": Delivery(), "q60": Delivery(jpeg=60, resize=0.75)}
    plain = _plain(net)
    px = plain.config.working_px if isinstance(plain, EvidenceNet) else 192
    seen = 0
    for planes, recipes in zip(stored.planes, stored.recipes, strict=True):
        for pair, recipe in zip(planes, recipes, strict=True):
            if seen >= least:
                break
            seen += 1
            altered = reals if recipe["engine"] == IDENTITY_PASS else fakes
            for name, delivery in deliveries.items():
                crops = [np.ascontiguousarray(pair[..., :3]), np.ascontiguousarray(pair[..., 3:6])]
                scores = score_crops([reduce_square(deliver(c, delivery), px) for c in crops], plain, device)
                reals[name].append(scores[0])
                altered[name].append(scores[1])
    return {
        f"auc_{name}": float(
            roc_auc_score([0] * len(reals[name]) + [1] * len(fakes[name]), reals[name] + fakes[name])
        )
        for name in deliveries
    }


@torch.inference_mode()
def score_crops(crops: list[UInt8Array], net: nn.Module, device: str) -> list[float]:
    """Score logits of crops uint8 [S, S, 3] of one size."""
    pictures = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2).float() / 255
    found = net.eval()(pictures.contiguous(memory_format=torch.channels_last))
    return [float(value) for value in found.score]


def _line(learner: Learner, losses: list[float], figures: dict[str, float], part: float) -> str:
    measured = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
    return (
        f"step {learner.step} pictures {learner.seen} minutes {learner.spent_s / 60:.1f} part {part:.2f} "
        f"loss {np.mean(losses):.3f} val {measured}"
    )
