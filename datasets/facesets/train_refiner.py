"""Second half of `facsimile train sample`: trains the refiner on rebuilt portraits; fits no statistics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import Tensor

from facesets.appearance import coverage, unpack_texture
from facesets.matting import ground_terms
from facesets.portraits import EXPRESSIONS, LIGHTS, REFINER_FILE, PortraitModel
from facesets.refiner import Critic, Refiner, place_grid
from facesets.template import CANVAS_PX, sample

FloatArray = npt.NDArray[np.float32]
PLACE_UNIT = 64.0  # maps are kept as int16 in 1/64 px
PARTS = {  # mesh points whose hull matters, growth in px, weight in the loss
    "face": ((10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148,
              176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109), 0, 1.6),
    "left_eye": ((33, 160, 159, 158, 133, 153, 145, 144), 5, 4.0),
    "right_eye": ((263, 387, 386, 385, 362, 380, 374, 373), 5, 4.0),
    "mouth": ((61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91), 3, 3.0),
}  # fmt: skip


@dataclass(frozen=True)
class RefinerTraining:
    """Settings of the refiner's run; the defaults made the shipped weights."""

    batch: int = 3
    nobodies: int = 1
    pool: int = 150
    fewest_components: int = 60
    jitter: float = 0.15
    lr: float = 6e-4
    critic_lr: float = 4e-4
    critic_after: float = 0.3
    adversarial: float = 0.03
    matching: float = 0.2
    ema: float = 0.997
    seed: int = 7
    save_every_s: float = 240.0


@dataclass(frozen=True, eq=False)
class Material:
    """Portraits uint8 [N, 256, 256, 3], maps int16 [N, 256, 256, 2], coefficients [N, D], grounds [N, 6, 3]."""

    portraits: npt.NDArray[np.uint8]
    places: npt.NDArray[np.int16]
    coefficients: FloatArray
    grounds: FloatArray


def as_int(place: FloatArray) -> npt.NDArray[np.int16]:
    return np.round(place * PLACE_UNIT).astype(np.int16)


def as_float(place: npt.NDArray[np.int16]) -> FloatArray:
    return place.astype(np.float32) / np.float32(PLACE_UNIT)


def importance(mean_shape: FloatArray) -> FloatArray:
    """Loss weights float32 [256, 256] on the mean face: eyes and mouth count most."""
    weights = np.ones((CANVAS_PX, CANVAS_PX), np.float32)
    for points, grow, weight in PARTS.values():
        mask = np.zeros(weights.shape, np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(mean_shape[list(points)]).astype(np.int32), 1)
        grown = cv2.dilate(mask, np.ones((2 * grow + 1, 2 * grow + 1), np.uint8))
        weights = np.where(np.asarray(grown) > 0, np.maximum(weights, weight), weights)
    return np.asarray(cv2.GaussianBlur(weights, (0, 0), 2.0), np.float32)


def rebuild(model: PortraitModel, texture: FloatArray, place: FloatArray, ground: FloatArray) -> FloatArray:
    """Statistical picture [256, 256, 3] of texture coefficients, at a known map and ground [6, 3]."""
    layers = sample(unpack_texture(model.tensors["texture.mean"] + texture @ model.components), place)
    cover = coverage(layers[..., 3:])
    behind = np.clip(ground_terms(CANVAS_PX) @ ground, 0, 1)
    return np.asarray(np.clip(layers[..., :3], 0, 1) * cover + behind * (1 - cover), np.float32)


def pool_of_nobodies(model: PortraitModel, count: int, seed: int) -> Material:
    """Statistical pictures of drawn nobodies in random poses, without coefficients or grounds."""
    rng = np.random.default_rng(seed)
    pictures, places = [], []
    for nobody in model.draw(1_000_000 + seed, count):
        expression, light = str(rng.choice(list(EXPRESSIONS))), str(rng.choice(list(LIGHTS)))
        picture, place, _ = model.statistical(nobody, expression, light)
        pictures.append(np.round(picture * 255).astype(np.uint8))
        places.append(as_int(place))
    empty = np.zeros((count, 0), np.float32)
    return Material(np.stack(pictures), np.stack(places), empty, empty)


def to_tensor(pictures: list[FloatArray]) -> Tensor:
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs first, nobodies last: inputs [B, 3, H, W], maps [B, 2, 64, 64], truths and loss weights of the pairs."""

    inputs: Tensor
    places: Tensor
    truths: Tensor
    weights: Tensor


def make_batch(
    model: PortraitModel, data: Material, pool: Material, weights: FloatArray, rng: np.random.Generator,
    settings: RefinerTraining, nobodies: int,
) -> Batch:  # fmt: skip
    """One batch; a random half of it is mirrored."""
    inputs, places, truths, weighing = [], [], [], []
    for i in rng.choice(len(data.portraits), settings.batch, replace=False):
        texture = data.coefficients[i, : len(model.components)].copy()
        texture[rng.integers(settings.fewest_components, len(texture) + 1) :] = 0
        texture *= 1 + settings.jitter * rng.standard_normal(len(texture)).astype(np.float32)
        place = as_float(data.places[i])
        inputs.append(rebuild(model, texture, place, data.grounds[i]))
        truths.append(data.portraits[i].astype(np.float32) / 255)
        weighing.append(sample(weights, place)[..., None])
        places.append(place)
    for i in rng.choice(len(pool.portraits), nobodies, replace=False):
        inputs.append(pool.portraits[i].astype(np.float32) / 255)
        places.append(as_float(pool.places[i]))
    maps = place_grid(torch.from_numpy(np.stack(places)))
    batch = Batch(to_tensor(inputs), maps, to_tensor(truths), to_tensor(weighing))
    if rng.random() < 0.5:
        return batch
    flipped = maps.flip(3) * torch.tensor([-1.0, 1.0])[:, None, None]
    return Batch(batch.inputs.flip(3), flipped, batch.truths.flip(3), batch.weights.flip(3))


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def pair_loss(made: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted 0.6 L1 + 0.5 gradient L1 + 0.5 difference of local gradient energy.

    The last asks for detail where it cannot be told where exactly.
    """
    total = 0.6 * (weight * (made - truth).abs()).mean()
    for a, b, w in zip(slopes(made), slopes(truth), (weight[..., 1:], weight[..., 1:, :]), strict=True):
        total = total + 0.25 * (w * (a - b).abs()).mean()
        total = total + 0.25 * (F.avg_pool2d(a.abs() * w, 8) - F.avg_pool2d(b.abs() * w, 8)).abs().mean()
    return total


def hinge(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Discriminator hinge loss over scales (Lim & Ye 2017, eq. 6)."""
    return torch.stack(
        [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    ).sum()


class RefinerRun:
    """State of one training run: networks, optimisers, averages and the clock; `step` advances it."""

    def __init__(self, settings: RefinerTraining) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.net = Refiner().to(memory_format=torch.channels_last)
        self.critic = Critic().to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.net.parameters(), settings.lr, betas=(0.5, 0.99))
        self.critic_optimiser = torch.optim.Adam(
            self.critic.parameters(), settings.critic_lr, betas=(0.0, 0.99)
        )
        self.steps, self.samples, self.elapsed_s = 0, 0, 0.0

    def step(self, batch: Batch, done: float) -> dict[str, float]:
        """One update of the refiner and, once it is its turn, of the critic; `done` is the share of the run passed."""
        settings, pairs = self.settings, len(batch.truths)
        rate = min(1.0, self.steps / 30) * min(1.0, max(0.05, (1 - done) / 0.3))
        self.optimiser.param_groups[0]["lr"] = settings.lr * rate
        self.critic_optimiser.param_groups[0]["lr"] = settings.critic_lr * rate
        noise = torch.randn(len(batch.inputs), 1, 64, 64)
        made = self.net(batch.inputs, batch.places, noise)
        paired = pair_loss(made[:pairs], batch.truths, batch.weights)
        losses, loss = {"pair": paired.item()}, paired
        if done >= settings.critic_after:
            loss = loss + self._adversarial(made, batch, losses)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        decay = min(settings.ema, (1 + self.steps) / (10 + self.steps))
        for name, value in self.net.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)
        self.steps, self.samples = self.steps + 1, self.samples + len(batch.inputs)
        return losses

    def _adversarial(self, made: Tensor, batch: Batch, losses: dict[str, float]) -> Tensor:
        real, real_features = self.critic(batch.truths)
        fake, _ = self.critic(made.detach())
        critic_loss = hinge(real, fake)
        self.critic_optimiser.zero_grad(set_to_none=True)
        critic_loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimiser.step()
        self.critic.requires_grad_(False)
        judged, features = self.critic(made)
        self.critic.requires_grad_(True)
        pairs = len(batch.truths)
        match = torch.stack(
            [F.l1_loss(f[:pairs], r.detach()) for f, r in zip(features, real_features, strict=True)]
        ).sum()
        anchor = F.l1_loss(F.avg_pool2d(made[pairs:], 8), F.avg_pool2d(batch.inputs[pairs:], 8))
        fooled = torch.stack([-j.mean() for j in judged]).sum()
        losses |= {
            "critic": critic_loss.item(),
            "fooled": fooled.item(),
            "match": match.item(),
            "anchor": anchor.item(),
        }
        return self.settings.adversarial * fooled + self.settings.matching * match + anchor

    def save(self, path: Path) -> None:
        """Write the whole state, whole or not at all."""
        state = {
            name: getattr(self, name).state_dict()
            for name in ("net", "critic", "optimiser", "critic_optimiser")
        }
        state |= {name: getattr(self, name) for name in ("average", "steps", "samples", "elapsed_s")}
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, weights_only=True)
        for name in ("net", "critic", "optimiser", "critic_optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.average, self.steps, self.samples = state["average"], state["steps"], state["samples"]
        self.elapsed_s = state["elapsed_s"]


def export(average: dict[str, Tensor], path: Path) -> None:
    """The averaged refiner in fp16."""
    save_file(
        {k: np.ascontiguousarray(v.numpy().astype(np.float16)) for k, v in average.items()},
        path.with_suffix(".part"),
    )
    os.replace(path.with_suffix(".part"), path)


def train_refiner(
    data: Material, run: Path, *, minutes: float, threads: int, resume: bool,
    report: Callable[[str], None], settings: RefinerTraining | None = None,
) -> Path:  # fmt: skip
    """Train for `minutes` of wall clock in all (earlier tries count), saving state and weights into `run`."""
    settings = settings or RefinerTraining()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    model, state, weights_path = PortraitModel.load(run), run / "refiner.pt", run / REFINER_FILE
    pool = pool_of_nobodies(model, settings.pool, settings.seed)
    weights, trainer = importance(model.template.mean_shape), RefinerRun(settings)
    if resume and state.exists():
        trainer.load(state)
        report(f"resumed at step {trainer.steps}, {trainer.elapsed_s / 60:.1f} min")
    rng = np.random.default_rng([settings.seed, trainer.steps])
    last = saved = time.monotonic()
    while trainer.elapsed_s < minutes * 60:
        done = trainer.elapsed_s / (minutes * 60)
        nobodies = settings.nobodies if done >= settings.critic_after else 0
        losses = trainer.step(make_batch(model, data, pool, weights, rng, settings, nobodies), done)
        now = time.monotonic()
        trainer.elapsed_s, last = trainer.elapsed_s + now - last, now
        if trainer.steps % 25 == 0:
            shown = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
            report(
                f"{trainer.elapsed_s / 60:6.1f} min  step {trainer.steps}  samples {trainer.samples}  {shown}"
            )
        if now - saved > settings.save_every_s:
            saved = now
            trainer.save(state)
            export(trainer.average, weights_path)
    trainer.save(state)
    export(trainer.average, weights_path)
    return weights_path
