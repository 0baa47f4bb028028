"""What the training cards of detector and landmark network say, measured on a split; knows no teacher.

Clean and spoilt portraits (JPEG quality 40, blur, light by 30 %), composites in 1920 x 1080 with faces of 40 to 400 px
at any roll up to 45 degrees, and pictures without faces.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np

from fusion.align import FIVE_OF_478, apply_matrix, five_points, landmarks_box
from fusion.detect import MIN_SCORE, Detector, find_faces, overlaps
from fusion.face import FloatArray, UInt8Array
from fusion.landmark import LandmarkNet, find_landmarks
from fusion.train.augment import Rng, blur, jpeg, tone
from fusion.train.detect import match
from fusion.train.portraitset import PortraitSet
from fusion.train.scenes import Scene, paste, portrait_mask

Spoil = Callable[[UInt8Array], UInt8Array]


def brightness(factor: float) -> Spoil:
    """Light multiplied by `factor`."""
    return lambda rgb: tone(rgb, np.full(3, factor, np.float32), 0.0, 1.0)


SPOILERS: Mapping[str, Spoil] = {
    "clean": lambda rgb: rgb,
    "jpeg q40": lambda rgb: jpeg(rgb, 40),
    "blur (sigma 1/250 of the side)": lambda rgb: blur(rgb, rgb.shape[0] / 250),
    "light -30 %": brightness(0.7),
    "light +30 %": brightness(1.3),
}


def measure_finders(
    detector: Detector,
    landmarker: LandmarkNet,
    portraits: PortraitSet,
    spoil: Spoil,
    min_score: float = MIN_SCORE,
) -> dict[str, float]:
    """Both networks one after the other, as at run time, on whole portraits; errors in parts of the eyes' distance."""
    alarms, rows = 0, []
    for picture, xyz in zip(portraits.pictures, portraits.points, strict=True):
        truth = xyz[:, :2]
        seen = spoil(picture)
        faces = find_faces(seen, detector, min_score=min_score, try_turned=False)
        boxes = np.array([face.box_xyxy for face in faces], np.float32).reshape(-1, 4)
        _, alarm, pairs = match(boxes, landmarks_box(truth)[None])
        alarms += alarm
        for i, _ in pairs:
            between = float(np.linalg.norm(truth[473] - truth[468]))
            points = find_landmarks(seen, faces[i], landmarker)
            off = np.linalg.norm(points - truth, axis=1) / between
            five = np.linalg.norm(faces[i].points_px - five_points(truth), axis=1).mean() / between
            rows.append([five, off[list(FIVE_OF_478)].mean(), off.mean(), off[468:].mean()])
    means, worst = np.mean(rows, axis=0), np.max(rows, axis=0)
    return {
        "recall": len(rows) / len(portraits),
        "precision": len(rows) / max(len(rows) + alarms, 1),
        "nme5 detector": means[0],
        "nme5 landmarks": means[1],
        "nme478": means[2],
        "nme iris": means[3],
        "nme478 worst": worst[2],
    }


def composite(
    portraits: PortraitSet,
    ground: UInt8Array,
    rng: Rng,
    size: tuple[int, int] = (1920, 1080),
    face_px: tuple[float, float] = (40.0, 400.0),
    roll: float = 45.0,
) -> Scene:
    """Two to five heads or whole portraits on a ground [H, W, 3], faces log-uniform in size, none under another."""
    picture = cover(ground, size)
    boxes, points = np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        index = int(rng.integers(len(portraits)))
        known = portraits.points[index, :, :2]
        low, high = landmarks_box(known).reshape(2, 2)
        scale = math.exp(rng.uniform(*np.log(face_px))) / math.sqrt(float(np.prod(high - low)))
        angle = math.radians(float(rng.uniform(-roll, roll)))
        linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        margin = 0.75 * scale * float((high - low).max())
        if 2 * margin > size[1]:
            continue
        centre = rng.uniform(margin, np.array(size) - margin)
        matrix = np.concatenate([linear, (centre - linear @ ((low + high) / 2))[:, None]], axis=1)
        landmarks = apply_matrix(matrix, known)
        box = landmarks_box(landmarks)
        if len(boxes) and overlaps(box[None], boxes).max() > 0:
            continue
        mask = portrait_mask(rng, portraits.pictures.shape[1], known)
        picture = paste(picture, portraits.pictures[index], mask, matrix, boxes)
        boxes, points = (
            np.concatenate([boxes, box[None]]),
            np.concatenate([points, five_points(landmarks)[None]]),
        )
    return Scene(picture, boxes, points, np.ones(len(boxes), bool))


def cover(ground: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """The middle of a ground, enlarged to (width, height)."""
    factor = max(size[0] / ground.shape[1], size[1] / ground.shape[0])
    shape = (math.ceil(ground.shape[1] * factor), math.ceil(ground.shape[0] * factor))
    large = np.asarray(cv2.resize(ground, shape, interpolation=cv2.INTER_CUBIC), np.uint8)
    y, x = (large.shape[0] - size[1]) // 2, (large.shape[1] - size[0]) // 2
    return np.ascontiguousarray(large[y : y + size[1], x : x + size[0]])


def composites(
    portraits: PortraitSet, grounds: Sequence[UInt8Array], count: int, seed: int = 0
) -> list[Scene]:
    """`count` composites, one ground after the other."""
    rng = np.random.default_rng(seed)
    return [composite(portraits, grounds[i % len(grounds)], rng) for i in range(count)]


def spoilt(scenes: Sequence[Scene], seed: int = 1) -> list[Scene]:
    """The same scenes, each spoilt in one of the ways."""
    rng = np.random.default_rng(seed)
    ways: list[Spoil] = [SPOILERS["jpeg q40"], brightness(0.7), brightness(1.3), lambda rgb: blur(rgb, 1.5)]
    return [replace(scene, picture=ways[int(rng.integers(len(ways)))](scene.picture)) for scene in scenes]


def false_alarms(
    detector: Detector, pictures: Sequence[UInt8Array], min_score: float
) -> list[tuple[int, FloatArray]]:
    """(index of the picture, score and box [5]) of everything found in pictures, turned copies included."""
    rows = []
    for index, picture in enumerate(pictures):
        for face in find_faces(picture, detector, min_score=min_score):
            rows.append((index, np.concatenate([[face.score], face.box_xyxy]).astype(np.float32)))
    return rows


def median_ms(work: Callable[[], object], repeats: int = 15) -> float:
    """Median wall time of a call in milliseconds, after one call that warms up."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begin))
    return float(np.median(times))
