"""Recipe of the landmark network: labelled portraits, warped and spoilt, to 478 points; knows no detector.

The labels come from published networks (teacher labels). One thread of a CPU is enough; a run resumes from
its last checkpoint and its schedule follows the clock, so that a budget can be spent in slices of minutes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fusion.align import (
    Matrix,
    apply_matrix,
    compose,
    five_points,
    invert_matrix,
    landmarks_box,
    similarity_from_points,
)
from fusion.face import Face, FloatArray, UInt8Array
from fusion.landmark import BASIS, CROP_PX, LandmarkNet, find_landmarks, landmark_crop_from_image
from fusion.layers import folded_form
from fusion.train import shapes
from fusion.train.augment import Rng, chance, degrade, occlude, random_texture
from fusion.train.portraitset import PortraitSet, read_portraits
from fusion.weights import write_weights

FACE_HEIGHT_PX = 96.0  # mean face in the 128 px crop: room for a wrong region, an open mouth and turned heads
BATCH = 32
LEARNING_RATE = 2e-3
BASIS_DRAWS = 3000


class CropMaker:
    """Draws one training example; state: the portraits and what the warps share."""

    def __init__(self, portraits: PortraitSet) -> None:
        self.portraits = portraits
        self.mean = shapes.mean_shape(portraits.points, CROP_PX, FACE_HEIGHT_PX)
        self.mirror = shapes.mirror_index(self.mean)
        self.frames = [similarity_from_points(p[:, :2], self.mean) for p in portraits.points]
        aligned = [apply_matrix(m, p[:, :2]) for m, p in zip(self.frames, portraits.points, strict=True)]
        self.warper = shapes.make_warper(self.mean, np.stack(aligned))

    def draw(self, rng: Rng) -> tuple[UInt8Array, FloatArray]:
        """Crop uint8 [128, 128, 3] and its points float32 [478, 2]."""
        index = int(rng.choice(len(self.portraits), p=self.portraits.weights))
        picture, frame_from_image, xyz = self._pick(index, chance(rng, 0.5))
        field, points = self._warp(rng, xyz)
        crop_from_frame = self._region(rng, points)
        label = apply_matrix(crop_from_frame, points)
        crop = resample(picture, invert_matrix(frame_from_image), field, crop_from_frame)
        return self._spoil(rng, crop, label), label

    def _pick(self, index: int, mirrored: bool) -> tuple[UInt8Array, Matrix, FloatArray]:
        picture, xyz = self.portraits.pictures[index], self.portraits.points[index]
        matrix = self.frames[index]
        if mirrored:
            width = picture.shape[1]
            picture = np.ascontiguousarray(picture[:, ::-1])
            xyz = (xyz * [-1, 1, 1] + [width - 1, 0, 0])[self.mirror].astype(np.float32)
            matrix = similarity_from_points(xyz[:, :2], self.mean)
        scale = math.hypot(matrix[0, 0], matrix[1, 0])
        aligned = np.concatenate([apply_matrix(matrix, xyz[:, :2]), scale * xyz[:, 2:]], axis=1)
        return picture, matrix, aligned.astype(np.float32)

    def _warp(self, rng: Rng, xyz: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Field and the points it leads to; a field that folds is weakened, then dropped."""
        field = self.warper.draw_field(rng, xyz)
        for _ in range(2):
            points, error = shapes.follow_field(field, xyz[:, :2])
            if error < 0.25:
                return field, points
            field = field * 0.5
        return np.zeros_like(field), xyz[:, :2]

    def _region(self, rng: Rng, points: FloatArray) -> Matrix:
        """crop_from_frame as at run time: half as after the detector (rough), half as after pass 1 (near)."""
        rough = chance(rng, 0.5)
        known = five_points(points) if rough else points
        fitted = landmark_crop_from_image(known, self.mean)
        spread = 1.0 if rough else 0.25
        angle = math.radians(float(rng.uniform(-25, 25)) * spread)
        scale = math.exp(float(rng.uniform(-0.15, 0.15)) * spread)
        shift = rng.uniform(-0.08, 0.08, 2) * spread * FACE_HEIGHT_PX
        centre = np.full(2, (CROP_PX - 1) / 2)
        linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        jitter = np.concatenate([linear, (centre + shift - linear @ centre)[:, None]], axis=1)
        return compose(jitter, fitted)

    def _spoil(self, rng: Rng, crop: UInt8Array, label: FloatArray) -> UInt8Array:
        if chance(rng, 0.25):
            crop = change_ground(rng, crop, label, self.portraits.pictures)
        if chance(rng, 0.3):
            other = self.portraits.pictures[rng.integers(len(self.portraits))]
            crop = occlude(crop, rng, other)
        return degrade(crop, rng)


def resample(
    picture: UInt8Array, image_from_frame: Matrix, field: FloatArray, crop_from_frame: Matrix
) -> UInt8Array:
    """The crop [128, 128, 3] of a warped picture in one bilinear step."""
    seen = shapes.field_in_crop(field, crop_from_frame, CROP_PX)
    axis = np.arange(CROP_PX, dtype=np.float64)
    frame_from_crop = invert_matrix(crop_from_frame)
    grid = np.stack(np.meshgrid(axis, axis), axis=2)
    at = apply_matrix(image_from_frame, apply_matrix(frame_from_crop, grid) + seen)
    return np.asarray(
        cv2.remap(picture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8
    )


def change_ground(rng: Rng, crop: UInt8Array, label: FloatArray, pictures: UInt8Array) -> UInt8Array:
    """Another ground around the hull of the points, which is widened by up to a third and softened."""
    centre = label[:468].mean(0)
    hull = cv2.convexHull((centre + (label[:468] - centre) * rng.uniform(1.0, 1.35)).astype(np.int32))
    mask = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, hull, 255)
    soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.5, 4)))[..., None].astype(np.float32) / 255
    if chance(rng, 0.5):
        ground = random_texture(rng, *crop.shape[:2])
    else:
        ground = pictures[rng.integers(len(pictures))][: crop.shape[0], : crop.shape[1]]
    return np.asarray(crop * soft + ground * (1 - soft), np.uint8)


def point_weights() -> Tensor:
    """Weight of each point's error [478]: eyes and iris 3, lips 2, the rest 1."""
    weights = torch.ones(478)
    lips = (*shapes.UPPER_INNER_LIP, *shapes.LOWER_INNER_LIP, *shapes.LOWER_OUTER_LIP, 61, 291, 78, 308)
    weights[[*lips, 185, 40, 39, 37, 0, 267, 269, 270, 409]] = 2
    lids = [i for group in (*shapes.UPPER_LIDS, *shapes.LOWER_LIDS) for i in group]
    weights[[*lids, 33, 133, 362, 263, *range(468, 478)]] = 3
    return weights / weights.mean()


def point_loss(found: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Mean distance in crop pixels, rounded off near zero, weighted by point."""
    distance = ((found - label).square().sum(2) + 0.01).sqrt()
    return (distance * weights).mean()


def start_basis(net: LandmarkNet, maker: CropMaker, rng: Rng, count: int) -> None:
    """Set the last layer to the main directions of the labels, so that learning starts well-conditioned."""
    labels = []
    for _ in range(count):
        index = int(rng.integers(len(maker.portraits)))
        _, points = maker._warp(rng, maker._pick(index, chance(rng, 0.5))[2])
        labels.append(apply_matrix(maker._region(rng, points), points) - maker.mean)
    flat = torch.from_numpy(np.stack(labels).reshape(count, -1))
    with torch.no_grad():
        net.basis.bias.copy_(flat.mean(0))
        _, spread, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        net.basis.weight.copy_((directions[:BASIS] * (spread[:BASIS, None] / math.sqrt(count))).T)
        net.mean_shape.copy_(torch.from_numpy(maker.mean))


def make_batch(maker: CropMaker, rng: Rng, count: int) -> tuple[Tensor, Tensor]:
    """Crops float [N, 3, 128, 128] in [0, 1] and points [N, 478, 2]."""
    drawn = [maker.draw(rng) for _ in range(count)]
    crops = torch.from_numpy(np.stack([crop for crop, _ in drawn])).permute(0, 3, 1, 2).float() / 255
    return crops.contiguous(memory_format=torch.channels_last), torch.from_numpy(
        np.stack([p for _, p in drawn])
    )


def measure(
    net: LandmarkNet,
    portraits: PortraitSet,
    spoil: Callable[[UInt8Array], UInt8Array] | None = None,
    seed: int = 0,
    jitter: float = 0.04,
) -> npt.NDArray[np.float64]:
    """Error per portrait and point as a part of the distance of the iris centres, [N, 478].

    The five points that a detector would give are the labels moved by `jitter` of that distance.
    """
    rng = np.random.default_rng(seed)
    errors = []
    for picture, xyz in zip(portraits.pictures, portraits.points, strict=True):
        truth = xyz[:, :2]
        between = float(np.linalg.norm(truth[473] - truth[468]))
        rough = five_points(truth) + rng.normal(0, jitter * between, (5, 2)).astype(np.float32)
        seen = picture if spoil is None else spoil(picture)
        found = find_landmarks(seen, Face(landmarks_box(truth), rough, 1.0), net)
        errors.append(np.linalg.norm(found - truth, axis=1) / between)
    return np.asarray(errors, np.float64)


def inference_form(net: nn.Module) -> LandmarkNet:
    """Folded copy of a network (or of its running average) under training."""
    return folded_form(net, LandmarkNet(folded=True))


def train(
    data: Path,
    run: Path,
    *,
    minutes: float = 45,
    steps: int = 0,
    threads: int = 1,
    resume: bool = False,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Path:
    """Train for `minutes` (all slices together) or `steps` (if not 0); path of `run`/landmark.safetensors."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.manual_seed(seed)
    run.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    maker, held_out = CropMaker(read_portraits(data, "train")), read_portraits(data, "val")
    net = LandmarkNet().to(memory_format=torch.channels_last)
    start_basis(net, maker, rng, BASIS_DRAWS)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.997), use_buffers=True)  # type: ignore[no-untyped-call]
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=0.02)
    step, spent = 0, 0.0
    checkpoint = run / "checkpoint.pt"
    if resume and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step, spent = int(saved["step"]), float(saved["spent"])
        rng = np.random.default_rng((seed, step))
    report(
        f"{len(maker.portraits)} portraits, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters"
    )
    weights = point_weights()
    begin, saved_at, losses = time.monotonic() - spent, spent, []
    while (spent := time.monotonic() - begin) < minutes * 60 and not 0 < steps <= step:
        part = spent / (minutes * 60)
        rate = LEARNING_RATE * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * part)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        crops, labels = make_batch(maker, rng, BATCH)
        loss = point_loss(net.train()(crops), labels, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 20.0)
        optimiser.step()
        average.update_parameters(net)
        losses.append(float(loss.detach()))
        step += 1
        if spent - saved_at > 180 or step in (100, steps):
            saved_at = spent
            error = measure(inference_form(average), held_out)
            report(
                f"step {step} samples {step * BATCH} minutes {spent / 60:.1f} "
                f"loss {np.mean(losses[-200:]):.3f} px val nme478 {error.mean():.4f} "
                f"worst {error.mean(1).max():.4f} lr {rate:.1e}"
            )
            state = {"net": net.state_dict(), "average": average.state_dict()}
            torch.save(
                {**state, "optimiser": optimiser.state_dict(), "step": step, "spent": spent}, checkpoint
            )
    path = run / "landmark.safetensors"
    digest = write_weights(path, inference_form(average).state_dict(), {"samples": str(step * BATCH)})
    error = measure(inference_form(average), held_out)
    report(f"{step * BATCH} samples, val nme478 {error.mean():.4f}, {path.name} sha256 {digest}")
    return path
