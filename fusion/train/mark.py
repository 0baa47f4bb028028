"""Recipe of a learned mark: embedder and extractor trained against attacks; nothing at run time uses the result yet.

Schedule (after VideoSeal, Fernandez 2024): bits first, at full strength and without attacks, until 95 % are right; then
attacks ramp up; then strength falls on a cosine while the picture's loss gains; at the end the extractor learns alone.
Codecs are straight-through: the real JPEG or WebP forwards, the identity backwards. Half of the pictures are unmarked.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.face import UInt8Array
from fusion.train.mark_nets import BITS, SIDE, MarkEmbedder, MarkExtractor, room
from fusion.train.portraitset import read_portraits
from fusion.weights import write_weights

Attack = Callable[[Tensor, np.random.Generator], Tensor]
Pictures = Callable[[int, np.random.Generator], UInt8Array]
"""(how many, generator) → uint8 [N, S, S] luma."""


@dataclass(frozen=True)
class MarkRecipe:
    """Budget and schedule; shares are of the steps."""

    steps: int = 60_000
    minutes: float = 600.0
    batch: int = 16
    side: int = SIDE
    rate: float = 5e-4
    device: str = "cpu"
    threads: int = 2
    seed: int = 0
    bits_first: float = 0.95
    ramp: float = 0.15
    last_alone: float = 0.1
    strengths: tuple[float, float] = (10.0, 2.2)  # grey levels rms, at the start and at the end
    picture_weight: float = 0.5


# ---------------------------------------------------------------- attacks


def _coded(extension: str, flag: int, low: int, high: int) -> Attack:
    """A real codec as x + (coded(x) - x), which has the identity's gradient."""

    def attack(x: Tensor, rng: np.random.Generator) -> Tensor:
        flat = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        quality = int(rng.integers(low, high + 1))
        coded = [
            np.asarray(cv2.imdecode(cv2.imencode(extension, each[0], [flag, quality])[1], 0), np.uint8)
            for each in flat
        ]
        real = torch.from_numpy(np.stack(coded)[:, None].astype(np.float32) / 255).to(x.device)
        return x + (real - x).detach()

    return attack


def _resized(x: Tensor, rng: np.random.Generator) -> Tensor:
    side = max(32, round(x.shape[-1] * float(rng.uniform(0.4, 0.9))))
    small = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _placed(x: Tensor, matrix: list[list[float]]) -> Tensor:
    theta = torch.tensor(matrix, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _cropped(x: Tensor, rng: np.random.Generator) -> Tensor:
    """A window of 55 to 95 % of the side, back at full size."""
    kept = float(rng.uniform(0.55, 0.95))
    dx, dy = (float(v) for v in rng.uniform(kept - 1, 1 - kept, 2))
    return _placed(x, [[kept, 0, dx], [0, kept, dy]])


def _turned(x: Tensor, rng: np.random.Generator) -> Tensor:
    angle = math.radians(float(rng.uniform(-10, 10)))
    return _placed(x, [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])


def _blurred(x: Tensor, rng: np.random.Generator) -> Tensor:
    sigma = float(rng.uniform(0.5, 2.2))
    axis = torch.arange(-6, 7, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-(axis**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    return F.conv2d(
        F.conv2d(x, kernel.view(1, 1, 1, -1), padding=(0, 6)), kernel.view(1, 1, -1, 1), padding=(6, 0)
    )


def _noisy(x: Tensor, rng: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(rng.normal(0, rng.uniform(0.005, 0.03), x.shape).astype(np.float32))
    return x + noise.to(x.device)


def _relit(x: Tensor, rng: np.random.Generator) -> Tensor:
    return (x - 0.5) * float(rng.uniform(0.75, 1.25)) + 0.5 + float(rng.uniform(-0.1, 0.1))


ATTACKS: dict[str, Attack] = {
    "jpeg": _coded(".jpg", cv2.IMWRITE_JPEG_QUALITY, 30, 90),
    "webp": _coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 40, 90),
    "resize": _resized,
    "crop": _cropped,
    "turn": _turned,
    "mirror": lambda x, rng: x.flip(-1),
    "blur": _blurred,
    "noise": _noisy,
    "light": _relit,
}


def attacked(x: Tensor, ramp: float, rng: np.random.Generator) -> Tensor:
    """One to three attacks in a row with probability `ramp`, then what a picture holds: [0, 1]."""
    if rng.random() < ramp:
        for name in rng.choice(list(ATTACKS), int(rng.integers(1, 4)), replace=False):
            x = ATTACKS[str(name)](x, rng)
    return x + (x.clamp(0, 1) - x).detach()


# ---------------------------------------------------------------- pictures


def portraits_and_drawings(data: Path, side: int) -> Pictures:
    """Random windows of the train split's portraits, and one drawn picture in four."""
    portraits = read_portraits(data, "train", size=max(side, 256)).pictures

    def pick(count: int, rng: np.random.Generator) -> UInt8Array:
        found = []
        for _ in range(count):
            if rng.random() < 0.25:
                found.append(drawn(side, rng))
                continue
            rgb = portraits[int(rng.integers(len(portraits)))]
            kept = int(rng.integers(min(side, rgb.shape[0]) * 3 // 4, rgb.shape[0] + 1))
            top, left = (int(v) for v in rng.integers(0, rgb.shape[0] - kept + 1, 2))
            grey = cv2.cvtColor(rgb[top : top + kept, left : left + kept], cv2.COLOR_RGB2GRAY)
            found.append(np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), np.uint8))
        return np.stack(found)

    return pick


def drawn(side: int, rng: np.random.Generator) -> UInt8Array:
    """uint8 [side, side]: a ramp, grain of a random size, a few discs; flat where fortune wills."""
    grain = cv2.GaussianBlur(
        rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), float(rng.uniform(0.6, 6))
    )
    grain = np.asarray(grain * (rng.uniform(0, 30) / (float(grain.std()) + 1e-6)), np.float32)
    dark, light = (float(v) for v in rng.uniform(20, 235, 2))
    ramp = np.linspace(dark, light, side)[None, :] + grain
    picture = np.asarray(np.clip(ramp, 0, 255), np.uint8)
    for _ in range(int(rng.integers(0, 8))):
        x, y = (int(v) for v in rng.integers(0, side, 2))
        cv2.circle(
            picture, (x, y), int(rng.integers(4, side // 4)), int(rng.integers(0, 256)), -1, cv2.LINE_AA
        )
    return picture


# ---------------------------------------------------------------- training


class Course:
    """Networks, optimiser and where the schedule stands."""

    def __init__(self, recipe: MarkRecipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.step, self.attacks_from = recipe, 0, -1
        self.embedder = MarkEmbedder().to(recipe.device)
        self.extractor = MarkExtractor().to(recipe.device)
        both = [*self.embedder.parameters(), *self.extractor.parameters()]
        self.optimiser = torch.optim.AdamW(both, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.right = 0.5

    @property
    def ramp(self) -> float:
        """Chance of an attack: 0 until the bits are learnt, then up to 1 over `ramp` of the steps."""
        if self.attacks_from < 0:
            return 0.0
        return min(1.0, (self.step - self.attacks_from) / max(1.0, self.recipe.ramp * self.recipe.steps))

    @property
    def strength(self) -> float:
        """Grey levels rms: a cosine from the first to the last, begun when all attacks are there."""
        high, low = self.recipe.strengths
        begun = self.attacks_from + self.recipe.ramp * self.recipe.steps
        end = self.recipe.steps * (1 - self.recipe.last_alone)
        share = (
            0.0 if self.attacks_from < 0 else min(1.0, max(0.0, (self.step - begun) / max(1.0, end - begun)))
        )
        return low + (high - low) * (1 + math.cos(math.pi * share)) / 2

    @property
    def extractor_alone(self) -> bool:
        """The last tenth: the picture stays as it is, the reading improves."""
        return self.attacks_from >= 0 and self.step >= self.recipe.steps * (1 - self.recipe.last_alone)

    def learn(self, luma: Tensor, rng: np.random.Generator) -> dict[str, float]:
        """One step on luma [N, 1, S, S] in [0, 1]; what it saw."""
        recipe = self.recipe
        bits = torch.from_numpy(rng.integers(0, 2, (len(luma), BITS)).astype(np.float32)).to(luma.device)
        with torch.set_grad_enabled(not self.extractor_alone):
            change = self.embedder(luma, bits * 2 - 1) * room(luma)
            scale = (
                self.strength
                / 255
                / change.detach().pow(2).mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-4)
            )
            change = change * scale.clamp_max(4 * self.strength / 255)
        marked = luma + change
        marked = marked + ((marked.clamp(0, 1) * 255).round() / 255 - marked).detach()
        logits = self.extractor(attacked(marked, self.ramp, rng))
        plain = self.extractor(attacked(luma, self.ramp, rng))[:, BITS]
        code = F.binary_cross_entropy_with_logits(logits[:, :BITS], bits)
        present = F.softplus(-logits[:, BITS]).mean() + F.softplus(plain).mean()
        smooth = (
            F.avg_pool2d(change * 255, 5, 1, 2).pow(2).mean()
        )  # long waves are what eyes see in flat places
        loss = code + 0.1 * present + (recipe.picture_weight * 0.01 * smooth if self.ramp >= 1 else 0.0)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*self.embedder.parameters(), *self.extractor.parameters()], 1.0)
        self.optimiser.step()
        accuracy = float(((logits[:, :BITS] > 0) == (bits > 0.5)).float().mean())
        self.right += 0.02 * (accuracy - self.right)
        if self.attacks_from < 0 and self.right > recipe.bits_first:
            self.attacks_from = self.step
        self.step += 1
        return {"code": float(code.detach()), "present": float(present.detach()), "bits": accuracy}

    def state(self) -> dict[str, object]:
        """Everything that `resume` needs."""
        return {
            "embedder": self.embedder.state_dict(),
            "extractor": self.extractor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "place": [self.step, self.attacks_from, self.right],
        }

    def load(self, state: dict[str, object]) -> None:
        self.embedder.load_state_dict(state["embedder"])  # type: ignore[arg-type]
        self.extractor.load_state_dict(state["extractor"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.step, self.attacks_from, self.right = state["place"]  # type: ignore[misc]


def train_mark(
    data: Path,
    run: Path,
    recipe: MarkRecipe,
    *,
    resume: bool = False,
    pictures: Pictures | None = None,
    report: Callable[[str], None] = print,
) -> Course:
    """Train until the steps or the minutes are used up; curve, checkpoint and safetensors land in `run`."""
    torch.set_num_threads(recipe.threads)
    run.mkdir(parents=True, exist_ok=True)
    pictures = pictures or portraits_and_drawings(data, recipe.side)
    course = Course(recipe)
    if resume and (run / "course.pt").exists():
        course.load(torch.load(run / "course.pt", map_location=recipe.device, weights_only=True))
    rng, end = np.random.default_rng([recipe.seed, course.step]), time.monotonic() + 60 * recipe.minutes
    with (run / "curve.jsonl").open("a", encoding="utf-8") as curve:
        while course.step < recipe.steps and time.monotonic() < end:
            grey = pictures(recipe.batch, rng)
            luma = torch.from_numpy(grey[:, None].astype(np.float32) / 255).to(recipe.device)
            seen = course.learn(luma, rng)
            if course.step % 100 == 0 or course.step == recipe.steps:
                place = {"step": course.step, "strength": course.strength, "ramp": course.ramp}
                curve.write(json.dumps(place | seen) + "\n")
                report(f"step {course.step} bits {course.right:.3f} strength {course.strength:.2f}")
            if course.step % 2000 == 0:
                torch.save(course.state(), run / "course.pt")
    torch.save(course.state(), run / "course.pt")
    hashes = {
        name: write_weights(run / f"{name}.safetensors", getattr(course, kind).state_dict())
        for name, kind in (("mark_embedder", "embedder"), ("mark_extractor", "extractor"))
    }
    (run / "run.json").write_text(json.dumps({"recipe": asdict(recipe), "sha256": hashes}, indent=2) + "\n")
    return course
