"""Recipe of the occlusion network: portraits with drawn hands and things, and bare ones, to a map; knows no engine.

One thread of a CPU is enough; a run resumes from its last checkpoint, and its schedule follows the clock.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from fusion import mesh
from fusion.align import apply_matrix, warp_crop
from fusion.covers import draw_cover
from fusion.face import FloatArray, UInt8Array
from fusion.layers import folded_form
from fusion.native import generator_crop_from_image
from fusion.occlusion import MAP_PX, OCCLUSION_PX, OcclusionNet, predict_cover
from fusion.train.augment import Rng
from fusion.train.occlusion_material import CoverMaker, face_weight
from fusion.train.portraitset import PortraitSet, read_portraits
from fusion.weights import write_weights

Batch = tuple[Tensor, Tensor, Tensor]  # crops, covered share, weight

BATCH: Final = 32
LEARNING_RATE: Final = 3e-3
NORM_BATCHES: Final = 24
LOOK_S: Final = 300  # between two looks at held-out portraits
JUDGED: Final = ("fingers", "microphone")  # of fusion/covers.py, which draws nothing of the material
ALARM: Final = (0.5, 0.01)  # answer that counts, and the share of a bare face that makes a false alarm


def cover_loss(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy, and over the covered portraits of the batch soft Dice (arXiv 1606.04797); all [N, 1, S, S]."""
    cross = F.binary_cross_entropy_with_logits(logits, label, weight, reduction="sum") / weight.sum()
    some = (label * weight).sum((1, 2, 3)) > 4
    if not bool(some.any()):
        return cross
    found, wanted = (torch.sigmoid(logits) * weight)[some], (label * weight)[some]
    both = (found * label[some]).sum((1, 2, 3))
    dice = 1 - (2 * both + 1) / (found.sum((1, 2, 3)) + wanted.sum((1, 2, 3)) + 1)
    return cross + 0.3 * dice.mean()


def make_batch(maker: CoverMaker, rng: Rng, count: int) -> Batch:
    """Crops float [N, 3, 128, 128] in [0, 1], covered share and weight [N, 1, 64, 64]."""
    crops, labels, weights = (
        np.stack(part) for part in zip(*(maker.draw(rng) for _ in range(count)), strict=True)
    )
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    x = x.contiguous(memory_format=torch.channels_last)
    return x, torch.from_numpy(labels)[:, None], torch.from_numpy(weights)[:, None]


@dataclass(frozen=True, eq=False)
class Held:
    """Portraits of another split: crops uint8 [N, 128, 128, 3], the face [N, 64, 64] bool, and where a cover is."""

    crops: UInt8Array
    face: npt.NDArray[np.bool_]
    label: FloatArray


def bare_crops(portraits: PortraitSet) -> Held:
    """The portraits as they are; labels are zero."""
    crops = [
        warp_crop(rgb, generator_crop_from_image(points), OCCLUSION_PX, border="replicate")
        for rgb, points in zip(portraits.pictures, portraits.points, strict=True)
    ]
    face = faces(portraits)
    return Held(np.stack(crops), face, np.zeros(face.shape, np.float32))


def faces(portraits: PortraitSet) -> npt.NDArray[np.bool_]:
    """Where each portrait's face lies on the map, [N, 64, 64]."""
    places = [apply_matrix(generator_crop_from_image(p), p[: mesh.NUM_MESH, :2]) for p in portraits.points]
    return np.stack([face_weight(points) == 1 for points in places])


def covered_crops(portraits: PortraitSet, kind: str) -> Held:
    """The portraits with a cover of `covers.COVERS` drawn before them, by another renderer than the material's."""
    crops, labels = [], []
    for seed, (rgb, points) in enumerate(zip(portraits.pictures, portraits.points, strict=True)):
        drawn, cover = draw_cover(rgb, points[:, :2], kind, seed)
        matrix = generator_crop_from_image(points)
        crops.append(warp_crop(drawn, matrix, OCCLUSION_PX, border="replicate"))
        as_picture = np.rint(np.repeat(cover[..., None], 3, 2) * 255).astype(np.uint8)
        labels.append(warp_crop(as_picture, generator_crop_from_image(points, MAP_PX), MAP_PX)[..., 0] / 255)
    return Held(np.stack(crops), faces(portraits), np.stack(labels).astype(np.float32))


def measure(net: OcclusionNet, held: Held) -> dict[str, float]:
    """Within the face: IoU and recall of the covers at 0.5, or `alarms`, the share of bare faces with a false one."""
    found = np.concatenate(
        [predict_cover(part, net) for part in np.array_split(held.crops, len(held.crops) // 32 + 1)]
    )
    seen, wanted = (found > ALARM[0]) & held.face, (held.label > 0.5) & held.face
    if not wanted.any():
        return {"alarms": float((seen.sum((1, 2)) > ALARM[1] * held.face.sum((1, 2))).mean())}
    both = (seen & wanted).sum((1, 2))
    union, whole = (seen | wanted).sum((1, 2)), np.maximum(wanted.sum((1, 2)), 1)
    return {"iou": float((both / np.maximum(union, 1)).mean()), "recall": float((both / whole).mean())}


def inference_form(net: nn.Module) -> OcclusionNet:
    """Folded copy of a network (or of its running average) under training."""
    return folded_form(net, OcclusionNet(folded=True))


class Course:
    """Network, its running average, the optimiser, and where the schedule stands."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.seed, self.step, self.spent = seed, 0, 0.0
        self.drawn: Batch | None = None
        self.net = OcclusionNet().to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.995))  # type: ignore[no-untyped-call]
        self.optimiser = torch.optim.AdamW(self.net.parameters(), LEARNING_RATE, weight_decay=0.02)

    def _batch(self, maker: CoverMaker) -> Batch:
        """A batch drawn by the number of the step; every second one is the last, mirrored: drawing costs most."""
        number, again = divmod(self.step, 2)
        if self.drawn is None or not again:
            self.drawn = make_batch(maker, np.random.default_rng((self.seed, number)), BATCH)
        crops, label, weight = self.drawn
        return (crops.flip(3), label.flip(3), weight.flip(3)) if again else self.drawn

    def learn(self, maker: CoverMaker, part: float) -> float:
        """One step; `part` of the budget is spent."""
        rate = LEARNING_RATE * min(1, (self.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * part)) + 1e-6
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        crops, label, weight = self._batch(maker)
        loss = cover_loss(self.net.train()(crops), label, weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        self.average.update_parameters(self.net)
        self.step += 1
        return float(loss.detach())

    def answer(self, maker: CoverMaker, batches: int) -> OcclusionNet:
        """The running average, its normalisations measured anew: averaged ones lag behind and fire everywhere."""
        seeds = ((self.seed, 1, number) for number in range(batches))
        crops = [make_batch(maker, np.random.default_rng(seed), BATCH)[0] for seed in seeds]
        average = copy.deepcopy(self.average)
        update_bn(crops, average)
        return inference_form(average)

    def save(self, path: Path) -> None:
        """Everything that `load` needs."""
        state = {"net": self.net.state_dict(), "average": self.average.state_dict()}
        place = {"step": self.step, "spent": self.spent}
        torch.save({**state, "optimiser": self.optimiser.state_dict(), **place}, path)

    def load(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.step, self.spent = int(saved["step"]), float(saved["spent"])


def train(
    data: Path,
    run: Path,
    *,
    minutes: float = 25,
    steps: int = 0,
    threads: int = 1,
    resume: bool = False,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Path:
    """Train for `minutes` (all slices together) or `steps` (if not 0); path of `run`/occlusion.safetensors.

    With `steps` the rate does not fall, so that a run in slices equals one that went on.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    run.mkdir(parents=True, exist_ok=True)
    maker, held_out = CoverMaker(read_portraits(data, "train")), read_portraits(data, "val")
    held = {"bare": bare_crops(held_out)} | {kind: covered_crops(held_out, kind) for kind in JUDGED}
    course = Course(seed)
    if resume and (run / "checkpoint.pt").exists():
        course.load(run / "checkpoint.pt")
    size = sum(p.numel() for p in course.net.parameters())
    report(f"{len(maker)} portraits, {size / 1e3:.1f} k parameters, from step {course.step}")
    begin, looked_at, losses = time.monotonic() - course.spent, course.spent, []
    while course.spent < minutes * 60 and not 0 < steps <= course.step:
        losses.append(course.learn(maker, 0.0 if steps else course.spent / (minutes * 60)))
        course.spent = time.monotonic() - begin
        if course.spent - looked_at > LOOK_S or course.step == 100:
            looked_at = course.spent
            net = course.answer(maker, NORM_BATCHES // 4)
            _look(course, net, held, float(np.mean(losses[-200:])), run, report)
            course.save(run / "checkpoint.pt")
    course.save(run / "checkpoint.pt")
    net = course.answer(maker, NORM_BATCHES)
    _look(course, net, held, float(np.mean(losses[-200:] or [math.nan])), run, report)
    path = run / "occlusion.safetensors"
    digest = write_weights(path, net.state_dict(), {"samples": str(course.step * BATCH)})
    report(f"{course.step * BATCH} samples, {path.name} sha256 {digest}")
    return path


def _look(
    course: Course,
    net: OcclusionNet,
    held: dict[str, Held],
    loss: float,
    run: Path,
    report: Callable[[str], None],
) -> None:
    row: dict[str, float] = {
        "step": course.step,
        "samples": course.step * BATCH,
        "minutes": round(course.spent / 60, 2),
        "loss": round(loss, 4),
    }
    for name, each in held.items():
        row |= {f"{name}_{metric}": round(value, 4) for metric, value in measure(net, each).items()}
    report(" ".join(f"{name} {value}" for name, value in row.items()))
    with (run / "curve.jsonl").open("a", encoding="utf-8") as curve:
        curve.write(json.dumps(row) + "\n")
