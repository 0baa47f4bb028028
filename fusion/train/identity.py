"""Recipe of the identity network: a small plain network learns a teacher's view of people who do not exist.

Knows no run-time code but the network itself. The student sees a worse view of a crop and must say what the
teacher says of the clean one; most people are blends of two portraits, labelled by the teacher as well.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fusion.identity import EMBEDDING_SIZE, WIDTHS, IdentityNet
from fusion.train.identity_crops import centre_crop, read_portraits
from fusion.train.identity_head import choose_readout, install, project, read_features, refresh_norms
from fusion.train.identity_material import (
    TEACHER_SIZE,
    IdentityRecipe,
    Labelled,
    Material,
    label_crops,
    stored,
)
from fusion.train.identity_report import quantile_threshold, rank_agreement, roc_auc, verification_scores
from fusion.train.identity_views import strong_view
from fusion.train.teacher import load_teacher, teacher_input

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


class Student(nn.Module):
    """The network with what only training needs: readings of the teacher's embedding and of its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = IdentityNet(norms=True)
        self.reader = nn.Linear(EMBEDDING_SIZE, TEACHER_SIZE)
        self.hints = nn.ModuleList(
            nn.Conv2d(i, o, 1) for i, o in zip(WIDTHS[1:], (64, 128, 128), strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """[N, 3, 112, 96] in [0, 1] → unit embedding [N, 512], unit reading [N, 256], maps at 28, 14 and 7 rows."""
        maps = self.net.maps(x)
        raw = self.net.head(maps[-1])
        return F.normalize(raw), F.normalize(self.reader(raw)), maps


def to_input(views: UInt8Array) -> Tensor:
    """uint8 [N, 112, 96, 3] → float32 [N, 3, 112, 96] in [0, 1], channels last."""
    x = torch.from_numpy(np.ascontiguousarray(views)).permute(0, 3, 1, 2)
    return x.float().div_(255).contiguous(memory_format=torch.channels_last)


def losses(
    student: Student, x: Tensor, wanted: Tensor, wanted_maps: Sequence[Tensor], bank: Tensor
) -> dict[str, Tensor]:
    """The four terms, each a mean over its own entries.

    x [N, 3, 112, 96]; wanted [N, 256] and bank [M, 256] unit; maps of the teacher for the first views of x, none
    of them to leave the hint out.
    """
    embedding, reading, maps = student(x)
    off = ~torch.eye(len(x), dtype=torch.bool)
    terms = {
        "cosine": (1 - (reading * wanted).sum(1)).mean(),
        "relation": F.mse_loss((embedding @ embedding.T)[off], (wanted @ wanted.T)[off]),
        "bank": F.mse_loss(reading @ bank.T, wanted @ bank.T),
    }
    hints = []
    for layer, ours, theirs in zip(student.hints, maps, wanted_maps, strict=False):
        scale = theirs.std(dim=(0, 2, 3), keepdim=True) + 1e-4
        hints.append(F.mse_loss(layer(ours[: len(theirs)]) / scale, theirs / scale))
    return terms | ({"hint": torch.stack(hints).mean()} if hints else {})


def share_done(recipe: IdentityRecipe, spent_s: float, step: int) -> float:
    """How much of the run is over, 1 at its end: by the clock or by the steps, whichever is further."""
    by_clock = spent_s / (recipe.minutes * 60)
    return max(by_clock, step / recipe.steps) if recipe.steps else by_clock


def rate_at(recipe: IdentityRecipe, done: float, step: int) -> float:
    """Learning rate after the share `done` of the run: 200 steps of warm-up, then a cosine to 1 %."""
    return (
        recipe.learning_rate
        * min(1.0, (step + 1) / 200)
        * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
    )


@torch.no_grad()
def follow(average: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights towards the current ones; statistics of the norms are copied."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), student.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for statistic, latest in zip(average.buffers(), student.buffers(), strict=True):
        statistic.copy_(latest)


def fold(net: IdentityNet) -> IdentityNet:
    """The form that ships: batch norms of a trained network multiplied into the convolutions before them."""
    folded, plain = copy.deepcopy(net).eval(), IdentityNet(norms=False).eval()
    for name, module in list(folded.named_modules()):
        if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.BatchNorm2d):
            assert isinstance(module[0], nn.Conv2d)
            folded.set_submodule(name, nn.Sequential(fuse_conv_bn_eval(module[0], module[1])))
    plain.load_state_dict(folded.state_dict(), strict=True)
    return plain.requires_grad_(False)


@torch.inference_mode()
def embed_views(net: IdentityNet, views: UInt8Array) -> FloatArray:
    """uint8 [N, 112, 96, 3] → float32 [N, 512] unit, with a network in evaluation mode."""
    parts = [
        F.normalize(net.head(net.maps(to_input(views[at : at + 32]))[-1])) for at in range(0, len(views), 32)
    ]
    return torch.cat(parts).numpy()


def two_views(crops: UInt8Array, seed: int) -> tuple[UInt8Array, UInt8Array]:
    """Two strong views of every crop, the same for the same seed."""
    rng = np.random.default_rng(seed)
    first, second = (np.stack([strong_view(crop, rng) for crop in crops]) for _ in range(2))
    return first, second


def measure(net: IdentityNet, labelled: Labelled, seed: int = 0) -> dict[str, float]:
    """Rank agreement with the teacher on clean crops; verification between two strong views of each."""
    net.eval()
    clean = embed_views(net, centre_crop(labelled.crops))
    first, second = (embed_views(net, views) for views in two_views(labelled.crops, seed))
    genuine, impostor = verification_scores(first, second)
    return {
        "spearman": rank_agreement(clean, labelled.embeddings),
        "auc_strong": roc_auc(genuine, impostor),
        "tar_strong_fmr1e-3": float((genuine > quantile_threshold(impostor, 1e-3)).mean()),
        "cos_clean_strong": float((clean * first).sum(1).mean()),
        "cos_impostor": float(impostor.mean()),
    }


def train_identity(
    data: Path,
    out: Path,
    teacher_file: Path,
    recipe: IdentityRecipe | None = None,
    resume: bool = False,
    start: Path | None = None,
) -> IdentityNet:
    """Train into the folder `out` (crops, checkpoint.pt, curve.jsonl), return the folded network.

    `start` is the checkpoint of an earlier run whose networks this one begins with, on a schedule of its own
    (`IdentityRecipe.further`); a run that resumes has its own already.

    data holds portraits.csv, portraits/ and portraits_landmarks478.npz; split train is learnt from, val is
    measured while training, test never opened. InputError `train.data` and the teacher's WeightsErrors.
    """
    recipe = recipe or IdentityRecipe()
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(recipe.threads)
    torch.manual_seed(recipe.seed)
    teacher = load_teacher(teacher_file)
    material = Material(data, out / "crops", teacher, recipe)
    val = stored(out / "crops" / "val.npz", lambda: label_crops(teacher, read_portraits(data, "val").crops))

    student = Student().to(memory_format=torch.channels_last)
    average = copy.deepcopy(student).requires_grad_(False)
    decayed = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    step, spent_s = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent_s = int(state["step"]), float(state["spent_s"])
    elif start is not None:
        state = torch.load(start, weights_only=True)
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
    rng = np.random.default_rng([recipe.seed, 1_000_000 + step])
    begun = last = time.monotonic()
    sums: dict[str, float] = {}
    counted = 0
    print(json.dumps({"recipe": asdict(recipe), "step": step, "spent_s": round(spent_s)}), flush=True)

    while (done := share_done(recipe, spent := spent_s + time.monotonic() - begun, step)) < 1:
        if material.next_is_ready() or step % recipe.shard_every == recipe.shard_every - 1:
            material.grow()
        for group in optimiser.param_groups:
            group["lr"] = rate_at(recipe, done, step)
        first, last_share = recipe.mild_share
        mild = last_share + (first - last_share) * max(0.0, 1 - 2 * done)
        views, moved, wanted = (
            np.stack(c) for c in zip(*(material.draw(rng, mild) for _ in range(recipe.batch)), strict=True)
        )
        some = material.shards[int(rng.integers(len(material.shards)))].embeddings
        bank = torch.from_numpy(some[rng.integers(len(some), size=256)])
        student.train()
        hint_weight = recipe.hint_weight * max(0.0, 1 - done / 0.7)
        hinted = round(recipe.batch * recipe.hint_share) if hint_weight else 0
        with torch.no_grad():
            maps = teacher.maps(teacher_input(moved[:hinted])) if hinted else ()
        terms = losses(student, to_input(views), torch.from_numpy(wanted), maps, bank)
        relations = recipe.relation_weight * (terms["relation"] + terms["bank"])
        loss = terms["cosine"] + relations + hint_weight * terms.get("hint", torch.zeros(()))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        follow(average, student, recipe.ema, step)
        step += 1
        counted += 1
        sums = {name: sums.get(name, 0.0) + term.item() for name, term in terms.items()}
        if time.monotonic() - last > recipe.check_every_s:
            row = {
                "step": step,
                "minutes": round(spent / 60, 1),
                "crops": sum(len(s.crops) for s in material.shards),
            }
            row |= {name: round(total / counted, 4) for name, total in sums.items()}
            row |= {f"val_{k}": round(v, 4) for k, v in measure(average.net, val).items()}
            print(json.dumps(row), flush=True)
            with (out / "curve.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            save(checkpoint, student, average, optimiser, step=step, spent_s=spent)
            last, sums, counted = time.monotonic(), {}, 0
    save(checkpoint, student, average, optimiser, step=step, spent_s=spent_s + time.monotonic() - begun)
    finish(average.net, material, val)
    return fold(average.net)


def finish(net: IdentityNet, material: Material, val: Labelled) -> None:
    """Measure the norms again; solve the last layer on fresh views or keep it, as the people of `val` prefer."""
    recipe = material.recipe
    rng = np.random.default_rng([recipe.seed, 2])
    views, _, wanted = (
        np.stack(c) for c in zip(*(material.draw(rng, 0.6) for _ in range(recipe.readout_views)), strict=True)
    )
    batches = [to_input(views[at : at + 32]) for at in range(0, len(views), 32)]
    refresh_norms(net, batches[:32])
    looks = [centre_crop(val.crops), *two_views(val.crops, seed=1)]
    clean, first, second = (read_features(net, [to_input(look)]) for look in looks)

    def score(read: Callable[[FloatArray], FloatArray]) -> float:
        genuine, impostor = verification_scores(read(first), read(second))
        accepted = float((genuine > quantile_threshold(impostor, 1e-3)).mean())
        return rank_agreement(read(clean), val.embeddings) + accepted

    before = measure(net, val)
    readout = choose_readout(read_features(net, batches), wanted, lambda one: score(one.read))
    kept = score(lambda features: project(net, features)) >= score(readout.read)
    if not kept:
        install(net, readout)
    chosen = {"kept": 1.0} if kept else readout.settings()
    print(json.dumps({"finish": chosen, "before": before, "after": measure(net, val)}), flush=True)


def save(
    path: Path,
    student: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    step: int,
    spent_s: float,
) -> None:
    """Write a checkpoint, whole or not at all."""
    part = path.with_suffix(".part")
    state = {
        "student": student.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state | {"step": step, "spent_s": spent_s}, part)
    part.replace(path)
