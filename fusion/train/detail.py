"""Recipe of the detail network: tiles of portraits whose fine bands were spoilt, to the portraits; knows no swap.

Supervised: the truth is the portrait. The result given to the network is its spoilt copy after the rule of
fusion/detail.py; the target given is the portrait on skin and somebody else's face elsewhere, as in a swap.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fusion import mesh
from fusion.detail import (
    WEIGHT,
    DetailNet,
    DetailOptions,
    focus_map,
    haar,
    restore_bands,
    skin_gate,
)
from fusion.face import FloatArray, UInt8Array
from fusion.octaves import fine_bands
from fusion.train.augment import Rng, chance
from fusion.train.portraitset import PortraitSet, read_portraits
from fusion.weights import write_weights

TILE_PX = 64
BATCH = 6
OCTAVES = 2
LEARNING_RATE = 2e-3
TRAIN_PORTRAITS, VAL_PORTRAITS, SIZE_PX = 160, 24, 512
SHARP = 0.3  # of the results are as sharp as the portrait: an engine that warps needs nothing


@dataclass(frozen=True, eq=False)
class Example:
    """Tiles float32 [h, w, 3] and maps [h, w]: what the network is given, and the truth."""

    result: FloatArray
    target: FloatArray
    gate: FloatArray
    focus: FloatArray
    truth: FloatArray


class TileMaker:
    """Draws examples; state: the portraits and their maps, computed once."""

    def __init__(self, portraits: PortraitSet) -> None:
        self.portraits = portraits
        self.maps = [_maps(p, x) for p, x in zip(portraits.pictures, portraits.points, strict=True)]

    def draw(self, rng: Rng, size: int = TILE_PX) -> Example:
        """One tile around a random point of a random face."""
        index, other = rng.integers(len(self.portraits), size=2).tolist()
        picture, points = self.portraits.pictures[index], self.portraits.points[index]
        centre = points[rng.integers(mesh.NUM_LANDMARKS), :2] + rng.uniform(-size / 3, size / 3, 2)
        left, top = np.clip(np.rint(centre - size / 2), 0, picture.shape[0] - size).astype(int).tolist()
        cut = (slice(top, top + size), slice(left, left + size))
        truth = _unit(picture[cut])
        gate, focus = (_unit(one[cut]) for one in self.maps[index])
        stranger = _unit(self.portraits.pictures[other][cut])
        target = resampled(truth, rng)
        target = stranger + gate[..., None] * (target - stranger)
        spoilt = truth if chance(rng, SHARP) else spoil(truth, rng)
        result = restore_bands(spoilt, target, gate, OCTAVES, DetailOptions())
        return Example(
            np.clip(result, 0, 1).astype(np.float32), target.astype(np.float32), gate, focus, truth
        )


def _unit(part: UInt8Array) -> FloatArray:
    return np.asarray(part, np.float32) / np.float32(255)


def _maps(picture: UInt8Array, points: FloatArray) -> tuple[UInt8Array, UInt8Array]:
    """Gate and focus of a whole portrait, uint8 [S, S]."""
    size, width = (picture.shape[0], picture.shape[1]), mesh.face_width(points)
    gate = skin_gate(_unit(picture), np.ones(size, np.float32), points, width)
    focus = focus_map(points, size, width)
    return (gate * 255).astype(np.uint8), (focus * 255).astype(np.uint8)


def spoil(picture: FloatArray, rng: Rng) -> FloatArray:
    """A picture [h, w, 3] as soft as a small generator paints: reduced 1.5 to 4 times and enlarged, or blurred."""
    height, width = picture.shape[:2]
    if chance(rng, 0.7):
        factor = float(rng.uniform(1.5, 4.0))
        small = (max(4, round(width / factor)), max(4, round(height / factor)))
        reduced = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(reduced, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.7, 2.2))), np.float32)


def resampled(picture: FloatArray, rng: Rng) -> FloatArray:
    """A picture moved by a part of a pixel and back: what bending the target to a new shape costs."""
    height, width = picture.shape[:2]
    for sign in (1, -1) if chance(rng, 0.7) else ():
        x, y = sign * rng.uniform(-0.35, 0.35, 2)
        move = np.array([[1, 0, x], [0, 1, y]])
        moved = cv2.warpAffine(
            picture, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        picture = np.asarray(moved, np.float32)
    return picture


def to_batch(examples: list[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Result, target [N, 3, h, w], gate, focus [N, 1, h, w], truth [N, 3, h, w]."""
    pictures = [np.stack([getattr(e, name) for e in examples]) for name in ("result", "target", "truth")]
    maps = [np.stack([getattr(e, name) for e in examples]) for name in ("gate", "focus")]
    result, target, truth = (torch.from_numpy(p).permute(0, 3, 1, 2).contiguous() for p in pictures)
    gate, focus = (torch.from_numpy(m)[:, None] for m in maps)
    return result, target, gate, focus, truth


def detail_loss(painted: Tensor, truth: Tensor) -> Tensor:
    """L1 of the pixels and, doubly, of the Haar details of two levels."""
    loss = (painted - truth).abs().mean()
    for weight in (2.0, 1.0):
        mine, real = haar(painted), haar(truth)
        loss = loss + weight * (mine[:, 3:] - real[:, 3:]).abs().mean()
        painted, truth = mine[:, :3] / 2, real[:, :3] / 2
    return loss


@torch.inference_mode()
def measure(net: DetailNet, examples: list[Example]) -> dict[str, float]:
    """Energy ratio and correlation of the finest two octaves with the truth, on skin and beside it; rule and net."""
    result, target, gate, focus, _ = to_batch(examples)
    residual = net.eval()(result, target, gate, focus).permute(0, 2, 3, 1).numpy()
    found: dict[str, list[float]] = {}
    for example, extra in zip(examples, residual, strict=True):
        truth = fine_bands(example.truth, OCTAVES)
        for way, picture in (("rule", example.result), ("net", example.result + WEIGHT * extra)):
            bands = fine_bands(np.asarray(picture, np.float32), OCTAVES)
            for where, weight in (("skin", example.gate), ("rest", 1 - example.gate)):
                if weight.sum() < 200:
                    continue
                inner = [float((weight[..., None] * a * b).sum()) for a, b in _products(bands, truth)]
                found.setdefault(f"{way}_{where}_ratio", []).append(math.sqrt(inner[0] / inner[1]))
                found.setdefault(f"{way}_{where}_corr", []).append(inner[2] / math.sqrt(inner[0] * inner[1]))
    return {name: float(np.median(values)) for name, values in found.items()}


def _products(a: FloatArray, b: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    return [(a, a), (b, b), (a, b)]


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
    """Train for `minutes` (all slices together) or `steps` (if not 0); path of `run`/detail.safetensors."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.manual_seed(seed)
    run.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    maker = TileMaker(read_portraits(data, "train", SIZE_PX, TRAIN_PORTRAITS))
    held_out = TileMaker(read_portraits(data, "val", SIZE_PX, VAL_PORTRAITS))
    judge = np.random.default_rng(1)
    judged = [held_out.draw(judge) for _ in range(48)]
    net = DetailNet()
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=0.01)
    step, spent = 0, 0.0
    checkpoint = run / "checkpoint.pt"
    if resume and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        step, spent = int(saved["step"]), float(saved["spent"])
        rng = np.random.default_rng((seed, step))
    report(
        f"{len(maker.portraits)} portraits, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters"
    )
    begin, saved_at, losses = time.monotonic() - spent, spent, []
    while (spent := time.monotonic() - begin) < minutes * 60 and not 0 < steps <= step:
        rate = (
            LEARNING_RATE * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * spent / (minutes * 60)))
        )
        for group in optimiser.param_groups:
            group["lr"] = rate + 1e-6
        result, target, gate, focus, truth = to_batch([maker.draw(rng) for _ in range(BATCH)])
        loss = detail_loss(result + WEIGHT * net.train()(result, target, gate, focus), truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        step += 1
        if spent - saved_at > 120 or step in (20, steps):
            saved_at = spent
            found = " ".join(f"{name} {value:.3f}" for name, value in measure(net, judged).items())
            report(
                f"step {step} tiles {step * BATCH} minutes {spent / 60:.1f} loss {np.mean(losses[-100:]):.4f} {found}"
            )
            state = {"net": net.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "step": step, "spent": spent}, checkpoint)
    path = run / "detail.safetensors"
    digest = write_weights(path, net.state_dict(), {"tiles": str(step * BATCH)})
    found = " ".join(f"{name} {value:.3f}" for name, value in measure(net, judged).items())
    report(f"{step * BATCH} tiles, {spent / 60:.1f} minutes, {found}, {path.name} sha256 {digest}")
    return path
