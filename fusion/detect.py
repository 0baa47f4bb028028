"""Picture to faces: boxes, five points and scores; knows no identity, no landmark mesh and no training data.

One stage, no anchors: every position of four maps (strides 8 to 64) says whether a face of that level's size
is centred there and how far its sides and points are (FCOS, arXiv 1904.01355; the score is the expected
overlap, arXiv 2006.04388). A box is the tight box of the face mesh: chin to mid-forehead, no hair, no ears.

Pictures are reduced to a long side of 768 px first. A face whose box is smaller than 12 px after that is not
found: 12 px in pictures up to 768 px, 30 px in 1920 x 1080, 60 px in 3840 x 2160. Roll up to 45 degrees is
trained; other rolls are tried in turned copies only where the upright picture gave nothing, which then costs
four passes for one.

A face that the first look leaves in doubt is looked at once more alone: cut from the picture's own pixels, turned
upright, 80 px large. Its score then is the mean of both looks, as logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion import align
from fusion.face import Face, FloatArray, UInt8Array
from fusion.layers import ConvUnit, ResidualUnit
from fusion.weights import DETECT, load_weights

STRIDES = (8, 16, 32, 64)
WORKING_PX = 768  # long side of what the network sees
MIN_SIZE_PX = 12.0  # in the working picture
LARGE_PX = 110.0  # in the working picture; larger faces are placed by a second look at COARSE of its size
COARSE = 0.4
COARSE_LEAST_PX = 160  # working pictures with a shorter long side get one look
MIN_SCORE = 0.55
TURNED_MIN_SCORE = 0.6
DOUBTFUL = (0.25, 0.7)  # first scores between these are decided by a look at the face alone
ALONE_PX = 80.0  # size of the face in that look
ALONE_SIDE_PX = 128  # side of that look
ALONE_MIN_SCORE = 0.02
MAX_DOUBTS = 24  # the best so many are looked at; the others keep their score
MAX_FACES = 256
CANDIDATES = 1000
OVERLAP = 0.4  # intersection over union above which two boxes are one face

IntArray = npt.NDArray[np.int64]


class Detector(nn.Module):
    """Pictures float [N, 3, H, W] in [0, 1], RGB, H and W multiples of 64, to one map per stride.

    Each map is [N, 15, H / stride, W / stride]: score logit, four distances (left, top, right, bottom) and
    five points (x, y from the position), distances and points in px. 1.6 G multiply-adds at 768 x 432.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, folded: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(DETECT.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(DETECT.std).view(1, 3, 1, 1))
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4), ConvUnit(48, 24, folded=folded), ConvUnit(24, 24, folded=folded)
        )
        widths = (24, 56, 88, 112, 112)
        depths = (1, 2, 2, 1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvUnit(widths[i], widths[i + 1], stride=2, folded=folded),
                *(ResidualUnit(widths[i + 1], folded=folded) for _ in range(depths[i])),
            )
            for i in range(4)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, 48, 1) for width in widths[1:])
        self.smooth = nn.ModuleList(ConvUnit(48, 48, folded=folded) for _ in STRIDES)
        self.tower = ConvUnit(48, 48, folded=folded)
        self.head = nn.Conv2d(48, 15, 1)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Maps of the four strides, finest first; ValueError on sides that are no multiples of 64."""
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] % 64 or pictures.shape[3] % 64:
            raise ValueError(f"pictures [N, 3, 64 a, 64 b] needed, got {tuple(pictures.shape)}")
        x = self.stem((pictures - self.mean) / self.std)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        merged = self.lateral[3](levels[3])
        outputs = [self._read(self.smooth[3](merged), STRIDES[3])]
        for i in (2, 1, 0):
            merged = self.lateral[i](levels[i]) + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            outputs.append(self._read(self.smooth[i](merged), STRIDES[i]))
        return outputs[::-1]

    def _read(self, features: Tensor, stride: int) -> Tensor:
        raw = self.head(self.tower(features))  # [N, 15, h, w]
        score, sides, points = raw.split((1, 4, 10), dim=1)
        return torch.cat([score, F.softplus(sides) * (2.0 * stride), points * (2.0 * stride)], dim=1)


def load_detector(device: str | torch.device = "cpu") -> Detector:
    """The shipped network, ready for `find_faces`; WeightsError if the file is missing or altered."""
    net = Detector(folded=True)
    load_weights(net, DETECT)
    return net.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def find_faces(
    rgb: UInt8Array,
    detector: Detector,
    *,
    min_score: float = MIN_SCORE,
    min_size_px: float = 0.0,
    working_px: int = WORKING_PX,
    try_turned: bool = True,
) -> list[Face]:
    """Faces of a picture uint8 [H, W, 3], largest first; an empty list where there is none.

    `min_size_px` is the least side (root of the box's area) in the picture's own pixels. With `try_turned`,
    copies turned by 90, 180 and 270 degrees are searched where the upright picture gave nothing. `min_score`
    is asked of the score after the second look.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"picture uint8 [H, W, 3] needed, got {rgb.dtype} {rgb.shape}")
    if min(rgb.shape[:2]) == 0:
        return []
    small, ratio = reduce_picture(rgb, working_px)
    found = search_twice(small, detector, min(min_score, DOUBTFUL[0]))
    faces = settle_doubts(rgb, [_as_face(row, ratio) for row in found], detector)
    faces = [face for face in faces if face.score >= min_score]
    if try_turned and not faces:
        turned = _search_turned(small, detector, max(min_score, TURNED_MIN_SCORE))
        faces = [_as_face(row, ratio) for row in turned]
    faces = [face for face in faces if face.side_px >= min_size_px]
    return sorted(faces, key=lambda face: face.side_px, reverse=True)


def settle_doubts(rgb: UInt8Array, faces: list[Face], detector: Detector) -> list[Face]:
    """Faces, best first, whose score lies between DOUBTFUL take score and points from a look at each alone."""
    doubts = [i for i, face in enumerate(faces) if DOUBTFUL[0] <= face.score < DOUBTFUL[1]][:MAX_DOUBTS]
    settled = list(faces)
    for i, face in zip(doubts, look_again(rgb, [faces[i] for i in doubts], detector), strict=True):
        settled[i] = face
    return settled


def look_again(rgb: UInt8Array, faces: Sequence[Face], detector: Detector) -> list[Face]:
    """Each face with the mean of its score and that of itself alone (logits), and with the second look's points.

    The look is the face turned upright at ALONE_PX, cut from uint8 [H, W, 3]. One that shows no face of about this
    place and size counts as a score of 0.02.
    """
    views = [alone_from_image(face) for face in faces]
    crops = [align.warp_crop(rgb, view, ALONE_SIDE_PX) for view in views]
    looks = read_pictures(crops, detector, ALONE_MIN_SCORE)
    return [_settled(*each) for each in zip(faces, views, looks, strict=True)]


def alone_from_image(face: Face) -> align.Matrix:
    """[2, 3] from picture px to the square of ALONE_SIDE_PX that shows the face alone, upright, ALONE_PX large."""
    roll = math.radians(align.roll_degrees(face.points_px))
    scale = ALONE_PX / max(face.side_px, 1.0)
    linear = scale * np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    middle = (face.box_xyxy[:2].astype(np.float64) + face.box_xyxy[2:]) / 2
    return np.concatenate([linear, ((ALONE_SIDE_PX - 1) / 2 - linear @ middle)[:, None]], axis=1)


def _settled(face: Face, view: align.Matrix, rows: FloatArray) -> Face:
    away = np.linalg.norm((rows[:, 1:3] + rows[:, 3:5]) / 2 - (ALONE_SIDE_PX - 1) / 2, axis=1)
    size = row_sides(rows) / ALONE_PX
    seen = rows[(away < 0.35 * ALONE_PX) & (size > 0.6) & (size < 1.6)]
    if not len(seen):
        return replace(face, score=_mean_score(face.score, ALONE_MIN_SCORE))
    points = align.apply_matrix(align.invert_matrix(view), seen[0, 5:].reshape(5, 2))
    return replace(face, score=_mean_score(face.score, float(seen[0, 0])), points_px=points)


def _mean_score(first: float, second: float) -> float:
    """Sigmoid of the mean of two scores' logits."""
    odds = math.sqrt(first / (1 - first) * second / (1 - min(second, 1 - 1e-6)))
    return odds / (1 + odds)


def reduce_picture(rgb: UInt8Array, working_px: int) -> tuple[UInt8Array, FloatArray]:
    """The picture with its long side at most `working_px`, and working px per picture px in x and y, [2].

    Halved while it is twice too large or more, then brought to size: one mean over areas takes six times as long.
    """
    height, width = rgb.shape[:2]
    factor = min(1.0, working_px / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small, kind = rgb, cv2.INTER_AREA
    while max(small.shape[:2]) >= 2 * working_px:
        half = (-(-small.shape[1] // 2), -(-small.shape[0] // 2))
        small, kind = (
            np.asarray(cv2.resize(small, half, interpolation=cv2.INTER_AREA), np.uint8),
            cv2.INTER_LINEAR,
        )
    if small.shape[:2] != size[::-1]:
        small = np.asarray(cv2.resize(small, size, interpolation=kind), np.uint8)
    return small, np.array([size[0] / width, size[1] / height], np.float32)


def search_twice(rgb: UInt8Array, detector: Detector, min_score: float) -> FloatArray:
    """`search`, with large faces looked at once more in a copy reduced to 0.4, where they are placed better.

    A face larger than 110 px takes its place from the copy; if the copy does not show it, it is dropped. Costs a sixth.
    """
    fine = search(rgb, detector, min_score)
    if max(rgb.shape[:2]) < COARSE_LEAST_PX:
        return fine
    small, ratio = reduce_picture(rgb, round(COARSE * max(rgb.shape[:2])))
    coarse = search(small, detector, min_score)
    coarse[:, 1:] = (coarse[:, 1:] + 0.5) / np.tile(ratio, 7) - 0.5
    fine, coarse = fine[row_sides(fine) < LARGE_PX], coarse[row_sides(coarse) >= 0.8 * LARGE_PX]
    rows = np.concatenate([coarse, fine])  # where both see a face, the copy wins
    kept: FloatArray = rows[suppress(rows[:, 1:5])]
    return kept[np.argsort(-kept[:, 0], kind="stable")]


def row_sides(rows: FloatArray) -> FloatArray:
    """Root of the area of the boxes of rows [K, 15], float32 [K]."""
    return np.asarray(np.sqrt(np.prod(np.maximum(rows[:, 3:5] - rows[:, 1:3], 0), axis=1)), np.float32)


def search(rgb: UInt8Array, detector: Detector, min_score: float) -> FloatArray:
    """Rows [K, 15] of score, box_xyxy, points in px of the working picture, best first, overlaps removed."""
    [rows] = read_pictures([rgb], detector, min_score)
    kept: FloatArray = rows[suppress(rows[:, 1:5])[:MAX_FACES]]
    return kept


def read_pictures(pictures: Sequence[UInt8Array], detector: Detector, min_score: float) -> list[FloatArray]:
    """Rows [K, 15] as of `search`, overlaps left in, of pictures uint8 [H, W, 3] of one size; one pass for all."""
    if not pictures:
        return []
    height, width = pictures[0].shape[:2]
    padded = np.zeros((len(pictures), -(-height // 64) * 64, -(-width // 64) * 64, 3), np.uint8)
    padded[:, :height, :width] = pictures
    batch = torch.from_numpy(padded).to(detector.mean.device).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        maps = [level.float().cpu().numpy() for level in detector(batch)]
    return [_rows_of([level[i] for level in maps], (height, width), min_score) for i in range(len(pictures))]


def _rows_of(maps: Sequence[FloatArray], shape: tuple[int, int], min_score: float) -> FloatArray:
    """The rows of one picture [H, W] from its four maps, finest first."""
    rows = np.concatenate([read_map(m, stride, min_score) for m, stride in zip(maps, STRIDES, strict=True)])
    rows = rows[np.argsort(-rows[:, 0], kind="stable")[:CANDIDATES]]
    centre = (rows[:, 1:3] + rows[:, 3:5]) / 2
    inside = ((centre >= 0) & (centre <= shape[::-1])).all(1)
    large_enough: FloatArray = rows[(row_sides(rows) >= MIN_SIZE_PX) & inside]
    return large_enough


def read_map(level: FloatArray, stride: int, min_score: float) -> FloatArray:
    """Rows [K, 15] (score, box_xyxy, points) of positions of a map [15, h, w] that reach `min_score`."""
    logit = float(np.log(max(min_score, 1e-6) / max(1 - min_score, 1e-6)))
    at_y, at_x = np.nonzero(level[0] >= logit)
    picked = level[:, at_y, at_x].T.astype(np.float32)  # [K, 15]
    centre = np.stack([at_x, at_y], axis=1).astype(np.float32) * stride + (stride - 1) / 2
    score = 1 / (1 + np.exp(-picked[:, :1]))
    points = picked[:, 5:].reshape(-1, 5, 2) + centre[:, None]
    return np.concatenate(
        [score, centre - picked[:, 1:3], centre + picked[:, 3:5], points.reshape(-1, 10)],
        axis=1,
        dtype=np.float32,
    )


def suppress(boxes: FloatArray, overlap: float = OVERLAP) -> IntArray:
    """Indices of boxes [K, 4], best first, that no better kept one overlaps by more than `overlap`."""
    ratio = overlaps(boxes, boxes)
    alive = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if alive[i]:
            alive[i + 1 :] &= ratio[i, i + 1 :] <= overlap
    return np.flatnonzero(alive)


def overlaps(first: FloatArray, second: FloatArray) -> FloatArray:
    """Intersection over union of every box of [N, 4] with every one of [M, 4], float32 [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    area = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (first, second)]
    union = area[0][:, None] + area[1][None] - common
    return np.asarray(common / np.maximum(union, 1e-9), np.float32)


def _search_turned(rgb: UInt8Array, detector: Detector, min_score: float) -> FloatArray:
    """`search` in copies turned by 90, 180 and 270 degrees; the turn with the best score wins."""
    best = np.zeros((0, 15), np.float32)
    for turns in (1, 2, 3):
        rows = search_twice(np.ascontiguousarray(np.rot90(rgb, turns)), detector, min_score)
        if len(rows) and (not len(best) or rows[0, 0] > best[0, 0]):
            best = turn_back(rows, turns, rgb.shape[0], rgb.shape[1])
    return best


def turn_back(rows: FloatArray, turns: int, height: int, width: int) -> FloatArray:
    """Rows found in np.rot90(picture [height, width], turns) in the coordinates of the picture."""
    x, y = rows[:, 1::2], rows[:, 2::2]  # [K, 7]: two corners and five points
    if turns == 1:
        x, y = width - 1 - y, x
    elif turns == 2:
        x, y = width - 1 - x, height - 1 - y
    else:
        x, y = y, height - 1 - x
    corners = np.stack([x[:, :2], y[:, :2]], axis=2)  # [K, 2, 2]
    points = np.stack([x[:, 2:], y[:, 2:]], axis=2).reshape(-1, 10)
    return np.concatenate([rows[:, :1], corners.min(1), corners.max(1), points], axis=1, dtype=np.float32)


def _as_face(row: FloatArray, ratio: FloatArray) -> Face:
    """Back to the picture's own pixels; pixel centres on integers."""
    places = (row[1:].reshape(7, 2) + 0.5) / ratio - 0.5
    places = places.astype(np.float32)
    return Face(box_xyxy=places[:2].reshape(4), points_px=places[2:], score=float(row[0]))
