"""Recipe of the detector: scenes with pasted portraits to boxes and points; knows no photograph and no video.

One thread of a CPU is enough; a run resumes from its last checkpoint and its schedule follows the clock.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fusion.detect import MIN_SCORE, STRIDES, Detector, find_faces, overlaps
from fusion.face import FloatArray, UInt8Array
from fusion.layers import folded_form
from fusion.train.augment import Rng
from fusion.train.portraitset import read_portraits
from fusion.train.scenes import Scene, SceneMaker
from fusion.weights import write_weights

# Scene's side, scenes a step, least and largest face, most faces, and how often.
MIXTURE = ((192, 16, 10.0, 150.0, 4, 0.60), (320, 6, 12.0, 280.0, 6, 0.22), (448, 3, 90.0, 420.0, 2, 0.18))
# Faces (root of the box's area, px) that each stride answers for; neighbours share the borders.
RANGES = ((0.0, 46.0), (36.0, 102.0), (78.0, 230.0), (180.0, 1e9))
LEARNING_RATE = 2e-3
NEGATIVE, UNJUDGED = -1, -2
SAMPLE_PHOTOGRAPHS = {  # no people on them, not even on coins
    "skimage": [
        f"data/{name}"
        for name in (
            *("brick.png", "chelsea.png", "clock_motion.png", "coffee.png", "grass.png", "gravel.png"),
            *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png"),
            *("page.png", "retina.jpg", "rocket.jpg", "text.png"),
        )
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}


def assign(scenes: Sequence[Scene], size: int) -> list[Tensor]:
    """For every position of every level, int64 [N, h, w]: its face among all faces, -1 none, -2 unjudged."""
    maps = [np.full((len(scenes), size // s, size // s), NEGATIVE, np.int64) for s in STRIDES]
    first = 0
    for n, scene in enumerate(scenes):
        sides = np.sqrt(np.prod(scene.boxes[:, 2:] - scene.boxes[:, :2], axis=1))
        for face in np.argsort(-sides):  # smaller faces are written last and win
            for grids, stride, (low, high) in zip(maps, STRIDES, RANGES, strict=True):
                if low <= sides[face] < high:
                    where = positive_area(scene.boxes[face], stride, bool(scene.judged[face]))
                    grids[n][where] = first + int(face) if scene.judged[face] else UNJUDGED
        first += len(sides)
    return [torch.from_numpy(m) for m in maps]


def positive_area(box: FloatArray, stride: int, judged: bool) -> tuple[slice, slice]:
    """Rows and columns of a level that answer for a box: its middle, or all of it where it is not judged."""
    centre = (box[:2] + box[2:]) / 2
    reach = np.minimum(np.maximum(0.22 * (box[2:] - box[:2]), 0.5 * stride), 1.5 * stride)
    if not judged:
        reach = (box[2:] - box[:2]) / 2 + stride
    start = np.ceil((centre - reach - (stride - 1) / 2) / stride - 1e-3).astype(int)
    stop = np.floor((centre + reach - (stride - 1) / 2) / stride + 1e-3).astype(int) + 1
    rows, columns = (slice(max(int(start[i]), 0), max(int(stop[i]), 0)) for i in (1, 0))
    return rows, columns


def detection_loss(maps: list[Tensor], scenes: Sequence[Scene], size: int) -> tuple[Tensor, dict[str, float]]:
    """Quality focal loss + distance-IoU loss + distance of points, each per positive position."""
    boxes = torch.from_numpy(np.concatenate([scene.boxes for scene in scenes]))
    points = torch.from_numpy(np.concatenate([scene.points for scene in scenes]))
    logits, targets, found, wanted = [], [], [], []
    for level, target, stride in zip(maps, assign(scenes, size), STRIDES, strict=True):
        n, y, x = torch.nonzero(target >= 0, as_tuple=True)
        centre = torch.stack([x, y], 1).float() * stride + (stride - 1) / 2
        picked = level[n, :, y, x]  # [P, 15]
        low, high = centre - picked[:, 1:3], centre + picked[:, 3:5]
        five = (picked[:, 5:].view(-1, 5, 2) + centre[:, None]).flatten(1)
        found.append(torch.cat([low, high, five], 1))
        wanted.append(target[n, y, x])
        logits.append(level[:, 0].flatten())
        targets.append(target.flatten())
    logit, target = torch.cat(logits), torch.cat(targets)
    rows, face = torch.cat(found), torch.cat(wanted)
    count = max(len(rows), 1)
    ratio, distance = box_overlap(rows[:, :4], boxes[face])
    side = (boxes[face, 2:] - boxes[face, :2]).prod(1, keepdim=True).sqrt()
    off = (rows[:, 4:] - points[face].flatten(1)) / side
    point = (off.view(-1, 5, 2).square().sum(2) + 1e-5).sqrt().sum() / (5 * count)
    quality = torch.zeros_like(logit)
    quality[target >= 0] = ratio.detach().clamp(0.4, 1.0)
    # arXiv 2006.04388, eq. 6 with beta = 2
    gate = (logit.sigmoid() - quality).abs().detach().square() * (target != UNJUDGED)
    score = (F.binary_cross_entropy_with_logits(logit, quality, reduction="none") * gate).sum() / count
    box = (1 - ratio + distance).sum() / count
    parts = {"score": float(score.detach()), "box": float(box.detach()), "point": float(point.detach())}
    return 2 * score + 1.5 * box + 8 * point, parts


def box_overlap(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union [P] and (centre distance / diagonal)^2 [P] (arXiv 1911.08287, eq. 6)."""
    common = (
        (torch.minimum(found[:, 2:], wanted[:, 2:]) - torch.maximum(found[:, :2], wanted[:, :2]))
        .clamp(0)
        .prod(1)
    )
    area = (found[:, 2:] - found[:, :2]).clamp(0).prod(1) + (wanted[:, 2:] - wanted[:, :2]).prod(1)
    ratio = common / (area - common).clamp(1e-6)
    hull = torch.maximum(found[:, 2:], wanted[:, 2:]) - torch.minimum(found[:, :2], wanted[:, :2])
    apart = (found[:, 2:] + found[:, :2] - wanted[:, 2:] - wanted[:, :2]) / 2
    return ratio, apart.square().sum(1) / hull.square().sum(1).clamp(1e-6)


def match(found: FloatArray, truth: FloatArray, least: float = 0.5) -> tuple[int, int, list[tuple[int, int]]]:
    """Found and true boxes paired greedily, best overlap first: hits, false alarms, pairs (found, true)."""
    ratio = overlaps(found, truth)
    pairs: list[tuple[int, int]] = []
    while ratio.size and ratio.max() >= least:
        i, j = (int(v) for v in np.unravel_index(int(ratio.argmax()), ratio.shape))
        pairs.append((i, j))
        ratio[i], ratio[:, j] = 0, 0
    return len(pairs), len(found) - len(pairs), pairs


def measure(
    net: Detector, scenes: Sequence[Scene], min_score: float = MIN_SCORE, try_turned: bool = False
) -> dict[str, float]:
    """Recall, precision and error of the five points (as part of the eyes' distance) over judged faces."""
    hits = alarms = faces = 0
    errors: list[float] = []
    for scene in scenes:
        found = find_faces(scene.picture, net, min_score=min_score, try_turned=try_turned)
        boxes = np.array([face.box_xyxy for face in found], np.float32).reshape(-1, 4)
        hit, alarm, pairs = match(boxes, scene.boxes[scene.judged])
        hits, alarms, faces = hits + hit, alarms + alarm, faces + int(scene.judged.sum())
        for i, j in pairs:
            truth = scene.points[scene.judged][j]
            off = np.linalg.norm(found[i].points_px - truth, axis=1).mean()
            errors.append(float(off / np.linalg.norm(truth[1] - truth[0])))
    error = float(np.mean(errors)) if errors else float("nan")
    return {
        "recall": hits / max(faces, 1),
        "precision": hits / max(hits + alarms, 1),
        "nme5": error,
        "faces": float(faces),
    }


def make_step(maker: SceneMaker, rng: Rng) -> tuple[list[Scene], int]:
    """Scenes of one step, all of one size drawn from the mixture."""
    chosen = int(rng.choice(len(MIXTURE), p=[row[5] for row in MIXTURE]))
    size, count, least, largest, most, _ = MIXTURE[chosen]
    return [maker.draw(rng, size, (least, largest), most) for _ in range(count)], size


def to_batch(scenes: Sequence[Scene]) -> Tensor:
    """Pictures as float [N, 3, S, S] in [0, 1]."""
    stacked = torch.from_numpy(np.stack([scene.picture for scene in scenes]))
    return (stacked.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def inference_form(net: nn.Module) -> Detector:
    """Folded copy of a network (or of its running average) under training."""
    return folded_form(net, Detector(folded=True))


def sample_photographs() -> tuple[UInt8Array, ...]:
    """Photographs without people that scikit-image and scikit-learn carry, as grounds, where present."""
    pictures = []
    for package, names in SAMPLE_PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
        for path in (folder / name for folder in folders for name in names):
            bgr = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.exists() else None
            if bgr is not None:
                pictures.append(np.ascontiguousarray(np.asarray(bgr, np.uint8)[..., ::-1]))
    return tuple(pictures)


def start_head(net: Detector) -> None:
    """Score 1 % everywhere, sides and points at zero, as the focal loss needs."""
    with torch.no_grad():
        nn.init.normal_(net.head.weight, std=0.01)
        assert net.head.bias is not None
        net.head.bias.zero_()
        net.head.bias[0] = -math.log(99)


def train(
    data: Path,
    run: Path,
    *,
    minutes: float = 60,
    steps: int = 0,
    threads: int = 1,
    resume: bool = False,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Path:
    """Train for `minutes` (all slices together) or `steps` (if not 0); path of `run`/detect.safetensors."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.manual_seed(seed)
    run.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    maker = SceneMaker(read_portraits(data, "train", 320), rng, extra=sample_photographs())
    judge = SceneMaker(read_portraits(data, "val", 320), np.random.default_rng(1), grounds=24)
    held_out = [judge.draw(np.random.default_rng(i), 448, (14.0, 250.0), 4) for i in range(40)]
    net = Detector().to(memory_format=torch.channels_last)
    start_head(net)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)  # type: ignore[no-untyped-call]
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=0.02)
    step, seen, spent = 0, 0, 0.0
    checkpoint = run / "checkpoint.pt"
    if resume and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step, seen, spent = int(saved["step"]), int(saved["seen"]), float(saved["spent"])
        rng = np.random.default_rng((seed, step))
    report(
        f"{len(maker.portraits)} portraits, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters"
    )
    begin, saved_at, losses = time.monotonic() - spent, spent, []
    while (spent := time.monotonic() - begin) < minutes * 60 and not 0 < steps <= step:
        part = spent / (minutes * 60)
        rate = LEARNING_RATE * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * part)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        scenes, size = make_step(maker, rng)
        loss, parts = detection_loss(net.train()(to_batch(scenes)), scenes, size)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        average.update_parameters(net)
        losses.append(list(parts.values()))
        step, seen = step + 1, seen + len(scenes)
        if spent - saved_at > 180 or step in (100, steps):
            saved_at = spent
            means = np.mean(losses[-200:], axis=0).round(4)
            report(
                f"step {step} scenes {seen} minutes {spent / 60:.1f} score/box/point {means} lr {rate:.1e} "
                f"val {measure(inference_form(average), held_out)}"
            )
            state = {"net": net.state_dict(), "average": average.state_dict()}
            progress = {"step": step, "seen": seen, "spent": spent}
            torch.save({**state, "optimiser": optimiser.state_dict(), **progress}, checkpoint)
    path = run / "detect.safetensors"
    digest = write_weights(path, inference_form(average).state_dict(), {"scenes": str(seen)})
    report(f"{seen} scenes, val {measure(inference_form(average), held_out)}, {path.name} sha256 {digest}")
    return path
