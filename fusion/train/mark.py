"""Recipe of a learned mark: embedder and extractor trained against attacks; nothing at run time uses the result.

Schedule (after VideoSeal, Fernandez 2024): bits first, at five times the strength and without attacks, until 95 % are
right; then attacks ramp up; then strength falls on a cosine to what SSIM allows; at the end the extractor learns alone.
Codecs are straight-through: the real JPEG or WebP forwards, the identity backwards. Attacks meet windows at the
picture's own size; both networks work at half of it, as on a picture of 512 x 512. Crops are windows anywhere; turns
and sizes are left to a search (`fusion/train/mark_judge.py`); only what it may miss is trained: a degree, a percent.
"""

from __future__ import annotations

import csv
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
from fusion.train.mark_nets import (
    BITS,
    CELLS,
    PER_CELL,
    TILE,
    MarkEmbedder,
    MarkExtractor,
    first_cell,
    fold,
    hidden,
)
from fusion.weights import write_weights

Attack = Callable[[Tensor, np.random.Generator], Tensor]
Pictures = Callable[[int, np.random.Generator], UInt8Array]
"""(how many, generator) → uint8 [N, S, S] luma."""


@dataclass(frozen=True)
class MarkRecipe:
    """Budget and schedule; shares are of the steps or of the minutes, whichever is used up more."""

    steps: int = 60_000
    minutes: float = 600.0
    batch: int = 8
    side: int = 128  # working pixels of a window
    rate: float = 2e-3
    device: str = "cpu"
    threads: int = 2
    seed: int = 0
    bits_first: float = 0.95
    ramp: float = 0.25
    last_alone: float = 0.1
    first_strength: float = 5.0  # of the last
    deficit: float = 0.0085  # 1 - SSIM that the last strength costs


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


def misplaced(x: Tensor, rng: np.random.Generator) -> Tensor:
    """As a search leaves a picture: up to a percent too large or small, 0.7 degrees turned, a pixel beside."""
    angle, size = math.radians(float(rng.uniform(-0.7, 0.7))), 1 + float(rng.uniform(-0.01, 0.01))
    c, s = size * math.cos(angle), size * math.sin(angle)
    dx, dy = (float(v) * 2 / x.shape[-1] for v in rng.uniform(-0.8, 0.8, 2))
    return _placed(x, [[c, -s, dx], [s, c, dy]])


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


def portraits_and_drawings(data: Path, side: int, most: int = 1000) -> Pictures:
    """Random windows of the train split's portraits at their own size, and one drawn picture in three."""
    with (data / "portraits.csv").open(newline="") as table:
        names = [row["file"] for row in csv.DictReader(table) if row["split"] == "train"][:most]
    portraits = [cv2.imread(str(data / "portraits" / name), cv2.IMREAD_GRAYSCALE) for name in names]

    def pick(count: int, rng: np.random.Generator) -> UInt8Array:
        found = []
        for _ in range(count):
            if rng.random() < 1 / 3:
                found.append(drawn(side, rng))
                continue
            grey = np.asarray(portraits[int(rng.integers(len(portraits)))], np.uint8)
            top, left = (int(rng.integers(0, n - side + 1)) for n in grey.shape)
            found.append(grey[top : top + side, left : left + side])
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
        self.recipe, self.step, self.minutes = recipe, 0, 0.0
        self.attacks_from = -1.0
        self.embedder = MarkEmbedder().to(recipe.device)
        self.extractor = MarkExtractor().to(recipe.device)
        both = [*self.embedder.parameters(), *self.extractor.parameters()]
        self.optimiser = torch.optim.AdamW(both, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.001)
        self.right = 0.5

    @property
    def progress(self) -> float:
        """Share of the budget that is used up."""
        return min(1.0, max(self.step / self.recipe.steps, self.minutes / self.recipe.minutes))

    @property
    def ramp(self) -> float:
        """Chance of an attack: 0 until the bits are learnt, then up to 1 over `ramp` of the budget."""
        return (
            0.0 if self.attacks_from < 0 else min(1.0, (self.progress - self.attacks_from) / self.recipe.ramp)
        )

    @property
    def strength(self) -> float:
        """Of the last strength: a cosine from the first, begun when half of the attacks are there."""
        if self.attacks_from < 0:
            return self.recipe.first_strength
        begun, end = self.attacks_from + self.recipe.ramp / 2, 0.6 * (1 - self.recipe.last_alone)
        share = min(1.0, max(0.0, (self.progress - begun) / max(0.1, end - begun)))
        return 1 + (self.recipe.first_strength - 1) * (1 + math.cos(math.pi * share)) / 2

    @property
    def extractor_alone(self) -> bool:
        """The last tenth: the picture stays as it is, the reading improves."""
        return self.attacks_from >= 0 and self.progress >= 1 - self.recipe.last_alone

    def marked(self, luma: Tensor, signs: Tensor, offset: tuple[int, int]) -> Tensor:
        """Luma [N, 1, 2S, 2S] in [0, 1] with the mark, at the strength of this step, rounded to grey levels."""
        small = F.avg_pool2d(luma, 2)
        change = self.embedder(small, signs, offset)
        cost = (change**2 / hidden(small)).mean((1, 2, 3), keepdim=True)
        change = change * (self.strength * math.sqrt(self.recipe.deficit)) / (cost + 1e-9).sqrt()
        full = luma + F.interpolate(change, scale_factor=2, mode="bicubic", align_corners=False) / 255
        return full + ((full.clamp(0, 1) * 255).round() / 255 - full).detach()

    def learn(self, luma: Tensor, rng: np.random.Generator) -> dict[str, float]:
        """One step on luma [N, 1, 2S, 2S] in [0, 1]; what it saw."""
        bits = torch.from_numpy(rng.integers(0, 2, (len(luma), BITS)).astype(np.float32)).to(luma.device)
        y, x = (int(v) for v in rng.integers(0, TILE, 2))
        with torch.set_grad_enabled(not self.extractor_alone):
            marked = self.marked(luma, bits * 2 - 1, (y, x))
        seen = F.avg_pool2d(attacked(marked, self.ramp, rng), 2)
        if rng.random() < self.ramp / 2:
            seen = misplaced(seen, rng)
        cells = self.extractor.cells(seen, (y, x))
        logits, wanted = fold(cells, first_cell((y, x))), _each_cell(bits, cells, first_cell((y, x)))
        whole = F.binary_cross_entropy_with_logits(logits, bits)
        loss = whole + 0.5 * F.binary_cross_entropy_with_logits(cells, wanted)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * max(0.05, 1 - self.progress**2) * min(1.0, (self.step + 1) / 50)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*self.embedder.parameters(), *self.extractor.parameters()], 1.0)
        self.optimiser.step()
        accuracy = float(((logits > 0) == (bits > 0.5)).float().mean())
        self.right += 0.02 * (accuracy - self.right)
        if self.attacks_from < 0 and self.right > self.recipe.bits_first:
            self.attacks_from = self.progress
        self.step += 1
        one = float(((cells > 0) == (wanted > 0.5)).float().mean())
        return {"loss": float(loss.detach()), "bits": accuracy, "bits_of_one_cell": one}

    def state(self) -> dict[str, object]:
        """Everything that `resume` needs."""
        return {
            "embedder": self.embedder.state_dict(),
            "extractor": self.extractor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "place": [self.step, self.minutes, self.attacks_from, self.right],
        }

    def load(self, state: dict[str, object]) -> None:
        self.embedder.load_state_dict(state["embedder"])  # type: ignore[arg-type]
        self.extractor.load_state_dict(state["extractor"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.step, self.minutes, self.attacks_from, self.right = state["place"]  # type: ignore[misc]


def _each_cell(bits: Tensor, cells: Tensor, first: tuple[int, int]) -> Tensor:
    """The bits [N, 128] that cells [N, 2, rows, columns] should say."""
    tile = bits.reshape(-1, PER_CELL, CELLS, CELLS)
    rows = (torch.arange(cells.shape[-2], device=bits.device) + first[0]) % CELLS
    columns = (torch.arange(cells.shape[-1], device=bits.device) + first[1]) % CELLS
    return tile[..., rows, :][..., columns]


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
    pictures = pictures or portraits_and_drawings(data, 2 * recipe.side)
    course = Course(recipe)
    if resume and (run / "course.pt").exists():
        course.load(torch.load(run / "course.pt", map_location=recipe.device, weights_only=True))
    rng, begun, before = np.random.default_rng([recipe.seed, course.step]), time.monotonic(), course.minutes
    with (run / "curve.jsonl").open("a", encoding="utf-8") as curve:
        while course.step < recipe.steps and course.minutes < recipe.minutes:
            grey = pictures(recipe.batch, rng)
            luma = torch.from_numpy(grey[:, None].astype(np.float32) / 255).to(recipe.device)
            seen = course.learn(luma, rng)
            course.minutes = before + (time.monotonic() - begun) / 60
            if course.step % 100 == 0 or course.step == recipe.steps:
                place = {"step": course.step, "minutes": round(course.minutes, 2)}
                state = {"right": course.right, "strength": course.strength, "ramp": course.ramp}
                curve.write(json.dumps(place | state | seen) + "\n")
                curve.flush()
                report(f"step {course.step} bits {course.right:.3f} strength {course.strength:.2f}")
            if course.step % 500 == 0:
                torch.save(course.state(), run / "course.pt")
    torch.save(course.state(), run / "course.pt")
    hashes = {
        name: write_weights(run / f"{name}.safetensors", getattr(course, kind).state_dict())
        for name, kind in (("mark_embedder", "embedder"), ("mark_extractor", "extractor"))
    }
    (run / "run.json").write_text(json.dumps({"recipe": asdict(recipe), "sha256": hashes}, indent=2) + "\n")
    return course
