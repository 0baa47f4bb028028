"""Scenes with labelled faces, made from portraits on made-up grounds; knows no network.

Grounds hold no face: dead leaves (discs and bars that cover each other, which have the statistics of nature;
Lee, Mumford and Huang 2001), clouds, ramps, and patches of the portraits from outside their faces. Faces
that were spoilt beyond recognition (scrambled, smeared, without eyes and mouth) stay unlabelled on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np

from fusion.align import Matrix, apply_matrix, five_points, landmarks_box
from fusion.detect import overlaps
from fusion.face import FloatArray, UInt8Array
from fusion.train.augment import (
    Rng,
    blur,
    chance,
    coarsen,
    degrade,
    occlude,
    random_colour,
    random_texture,
    smooth_field,
    tone,
)
from fusion.train.portraitset import PortraitSet

MIN_FACE_PX = 9.0  # smaller faces are drawn, but their place is not judged


@dataclass(frozen=True, eq=False)
class Scene:
    """Picture uint8 [S, S, 3], boxes float32 [F, 4], points [F, 5, 2]; `judged` [F] False: tiny face."""

    picture: UInt8Array
    boxes: FloatArray
    points: FloatArray
    judged: np.ndarray


class SceneMaker:
    """Draws scenes; state: portraits and a bank of grounds."""

    def __init__(
        self, portraits: PortraitSet, rng: Rng, grounds: int = 160, extra: tuple[UInt8Array, ...] = ()
    ) -> None:
        self.portraits = portraits
        self.levels = [portraits, halved(portraits), halved(halved(portraits))]
        self.grounds = [self._ground(rng) for _ in range(grounds)] + list(extra) * 3

    def draw(self, rng: Rng, size: int, face_px: tuple[float, float], most: int = 5) -> Scene:
        """A scene `size` px wide, faces `face_px` (least, most; root of box area) large, log-uniform."""
        picture = self._cut_ground(rng, size)
        for _ in range(int(rng.integers(0, 3))):
            picture = self._paste_decoy(rng, picture, face_px)
        boxes, points = np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32)
        wanted = 0 if chance(rng, 0.12) else int(rng.integers(1, most + 1))
        for _ in range(wanted):
            picture, box, five = self._paste_face(rng, picture, face_px, boxes)
            if box is not None and five is not None:
                boxes, points = np.concatenate([boxes, box[None]]), np.concatenate([points, five[None]])
        picture = degrade(picture, rng, 0.7)
        side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
        return Scene(picture, boxes, points, side >= MIN_FACE_PX)

    def _ground(self, rng: Rng, size: int = 512) -> UInt8Array:
        kind = rng.integers(0, 8)
        if kind == 0:
            return random_texture(rng, size, size)
        if kind == 1:
            return clouds(rng, size)
        if kind <= 4:
            return patchwork(rng, self, size)
        return dead_leaves(rng, size, self)

    def patch(self, rng: Rng) -> UInt8Array:
        """A piece of a portrait from outside its face (hair, clothes, neck, wall), turned at random."""
        index = int(rng.integers(len(self.portraits)))
        picture = self.portraits.pictures[index]
        left, top, right, bottom = landmarks_box(self.portraits.points[index, :, :2]).astype(int)
        whole = picture.shape[0]
        low = top - (bottom - top) // 3
        strips = [
            (0, max(low, 24), 0, whole),
            (min(bottom + 8, whole - 24), whole, 0, whole),
            (0, whole, 0, max(left - 12, 24)),
            (0, whole, min(right + 12, whole - 24), whole),
        ]
        y0, y1, x0, x1 = strips[int(rng.integers(4))]
        high, wide = y1 - y0, x1 - x0
        h, w = int(rng.integers(min(20, high), high + 1)), int(rng.integers(min(20, wide), wide + 1))
        y, x = y0 + int(rng.integers(high - h + 1)), x0 + int(rng.integers(wide - w + 1))
        return np.ascontiguousarray(np.rot90(picture[y : y + h, x : x + w], int(rng.integers(4))))

    def _cut_ground(self, rng: Rng, size: int) -> UInt8Array:
        ground = self.grounds[int(rng.integers(len(self.grounds)))]
        side = int(rng.uniform(0.25, 1.0) * min(ground.shape[:2]))
        y = int(rng.integers(ground.shape[0] - side + 1))
        x = int(rng.integers(ground.shape[1] - side + 1))
        part = ground[y : y + side, x : x + side]
        return np.ascontiguousarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA))

    def _level(self, side_px: float) -> PortraitSet:
        """The portraits at the size that suits a face of that side, so that small faces cost little."""
        own = 0.56 * self.portraits.pictures.shape[1]
        return self.levels[0 if side_px > own / 2.2 else 1 if side_px > own / 4.4 else 2]

    def _paste_face(
        self, rng: Rng, scene: UInt8Array, face_px: tuple[float, float], boxes: FloatArray
    ) -> tuple[UInt8Array, FloatArray | None, FloatArray | None]:
        index = int(rng.choice(len(self.portraits), p=self.portraits.weights))
        side = draw_side(rng, face_px)
        level = self._level(side)
        portrait, known = level.pictures[index], level.points[index, :, :2]
        matrix = draw_place(rng, landmarks_box(known), scene.shape[0], side)
        landmarks = apply_matrix(matrix, known)
        box, five = landmarks_box(landmarks), five_points(landmarks)
        if np.linalg.det(matrix[:, :2]) < 0:
            five = five[[1, 0, 2, 4, 3]]
        if len(boxes) and overlaps(box[None] + np.array([-4, -4, 4, 4], np.float32), boxes).max() > 0.01:
            return scene, None, None
        if chance(rng, 0.4):
            portrait = portrait_tone(rng, portrait)
        if chance(rng, 0.2):
            portrait = partly_hidden(rng, portrait, known)
        mask = portrait_mask(rng, portrait.shape[0], known)
        return paste(scene, portrait, mask, matrix, boxes), box, five

    def _paste_decoy(self, rng: Rng, scene: UInt8Array, face_px: tuple[float, float]) -> UInt8Array:
        """Something that is no face: skin without features, scrambled face, patch of hair or neck."""
        index = int(rng.integers(len(self.portraits)))
        side = draw_side(rng, face_px)
        level = self._level(side)
        portrait, known = level.pictures[index], level.points[index, :, :2]
        kind = rng.integers(0, 3)
        if kind == 0:
            other = np.asarray(cv2.resize(self.patch(rng), portrait.shape[:2]), np.uint8)
        elif kind == 1:
            other = blank_face(rng, portrait, known)
        else:
            other = scrambled(rng, portrait, known)
        mask = portrait_mask(rng, other.shape[0], known)
        matrix = draw_place(rng, landmarks_box(known), scene.shape[0], side)
        return paste(scene, other, mask, matrix, np.zeros((0, 4), np.float32))


def halved(portraits: PortraitSet) -> PortraitSet:
    """The same portraits at half the size."""
    size = portraits.pictures.shape[1] // 2
    small = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in portraits.pictures]
    points = portraits.points * 0.5
    points[..., :2] -= 0.25
    return replace(portraits, pictures=np.stack(small), points=points)


def draw_side(rng: Rng, face_px: tuple[float, float]) -> float:
    """Root of a box's area, log-uniform."""
    return math.exp(rng.uniform(math.log(face_px[0]), math.log(face_px[1])))


def draw_place(rng: Rng, box: FloatArray, size: int, side: float) -> Matrix:
    """scene_from_portrait for a face `side` px large: scale, roll, a little squeeze, mirror image, place."""
    scale = side / math.sqrt(float(np.prod(box[2:] - box[:2])))
    angle = math.radians(float(rng.normal(0, 14) if chance(rng, 0.6) else rng.uniform(-58, 58)))
    squeeze = float(rng.uniform(0.78, 1.1)) if chance(rng, 0.4) else 1.0
    flip = -1.0 if chance(rng, 0.5) else 1.0
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = scale * turn @ np.diag([squeeze * flip, 1.0])
    low, high = min(0.42 * side, size / 2), max(size - 0.42 * side, size / 2)
    centre = rng.uniform(low, high, 2)
    return np.concatenate([linear, (centre - linear @ ((box[:2] + box[2:]) / 2))[:, None]], axis=1)


def portrait_tone(rng: Rng, portrait: UInt8Array) -> UInt8Array:
    """Own light for one face of a scene."""
    gain = (rng.uniform(0.6, 1.35) * rng.uniform(0.9, 1.1, 3)).astype(np.float32)
    return tone(portrait, gain, float(rng.uniform(-0.08, 0.08)), float(rng.uniform(0.75, 1.3)))


def partly_hidden(rng: Rng, portrait: UInt8Array, points: FloatArray) -> UInt8Array:
    """An occluder over the lower part (mask, scarf, hand) or a bar anywhere."""
    if chance(rng, 0.5):
        left, _, right, bottom = landmarks_box(points).astype(int)
        top = int(points[1, 1] + rng.uniform(0.0, 0.5) * (bottom - points[1, 1]))
        hidden = portrait.copy()
        cv2.rectangle(hidden, (left, top), (right, bottom + 20), random_colour(rng), -1)
        return hidden
    return occlude(portrait, rng)


def portrait_mask(rng: Rng, size: int, points: FloatArray) -> FloatArray:
    """What of a portrait is pasted, float32 [S, S] in [0, 1]: all of it, or the head with a soft edge."""
    if chance(rng, 0.4):
        return np.ones((size, size), np.float32)
    left, top, right, bottom = landmarks_box(points)
    centre = ((left + right) / 2, (top + bottom) / 2 - 0.12 * (bottom - top))
    grow = rng.uniform(1.0, 1.5)
    axes = (0.55 * (right - left) * grow, 0.68 * (bottom - top) * grow)
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, (int(centre[0]), int(centre[1])), (int(axes[0]), int(axes[1])), 0, 0, 360, 255, -1)
    if chance(rng, 0.5):  # shoulders
        cv2.rectangle(mask, (int(left), int(bottom)), (int(right), size), 255, -1)
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.6, size / 50))), np.float32)
    return soft / np.float32(255)


def paste(
    scene: UInt8Array, picture: UInt8Array, mask: FloatArray, scene_from_picture: Matrix, protect: FloatArray
) -> UInt8Array:
    """The picture on the scene through its mask; what lies in the boxes `protect` [F, 4] stays."""
    size = scene.shape[1], scene.shape[0]
    warped = cv2.warpAffine(picture, scene_from_picture, size, flags=cv2.INTER_LINEAR)
    alpha = cv2.warpAffine(mask, scene_from_picture, size, flags=cv2.INTER_LINEAR)
    for x0, y0, x1, y1 in protect.astype(int):
        alpha[max(y0 - 2, 0) : max(y1 + 3, 0), max(x0 - 2, 0) : max(x1 + 3, 0)] = 0
    mixed = scene + (warped.astype(np.float32) - scene) * alpha[..., None]
    return np.asarray(mixed, np.uint8)


def blank_face(rng: Rng, portrait: UInt8Array, points: FloatArray) -> UInt8Array:
    """The face's skin smeared over eyes, nose and mouth: a head without a face."""
    smeared = blur(coarsen(portrait, portrait.shape[0] / 7), portrait.shape[0] / 20)
    hull = cv2.convexHull(points[:468].astype(np.int32))
    mask = np.zeros(portrait.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, hull, 255)
    soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(2, 6)))[..., None].astype(np.float32) / 255
    return np.asarray(smeared * soft + portrait * (1 - soft), np.uint8)


def scrambled(rng: Rng, portrait: UInt8Array, points: FloatArray) -> UInt8Array:
    """The face cut into a grid of pieces that change places."""
    left, top, right, bottom = np.clip(landmarks_box(points).astype(int), 0, portrait.shape[0])
    cells = int(rng.integers(3, 6))
    high, wide = (bottom - top) // cells, (right - left) // cells
    shuffled = portrait.copy()
    order = rng.permutation(cells * cells)
    for to, source in enumerate(order):
        y, x = top + to // cells * high, left + to % cells * wide
        v, u = top + source // cells * high, left + source % cells * wide
        piece = portrait[v : v + high, u : u + wide]
        shuffled[y : y + high, x : x + wide] = piece[::-1] if chance(rng, 0.5) else piece
    return shuffled


def clouds(rng: Rng, size: int) -> UInt8Array:
    """Three smooth fields added over octaves, about 1/f."""
    total = np.zeros((size, size, 3), np.float32)
    for octave in range(7):
        shared = smooth_field(rng, size, size, 2 + 2**octave)[..., None]
        own = np.stack([smooth_field(rng, size, size, 2 + 2**octave) for _ in range(3)], axis=2)
        total += (shared + 0.4 * own) * 0.6**octave
    return np.asarray((128 + total * rng.uniform(20, 50)).clip(0, 255), np.uint8)


def dead_leaves(rng: Rng, size: int, maker: SceneMaker, leaves: int = 260) -> UInt8Array:
    """Discs, bars and polygons of power-law sizes, filled with colour or patches, covering each other."""
    picture = np.full((size, size, 3), random_colour(rng), np.uint8)
    palette = rng.integers(0, 256, (int(rng.integers(3, 12)), 3))
    for _ in range(leaves):
        radius = int(min(size / 3, 4 / max(rng.random(), 0.015) ** 0.75))
        centre = int(rng.integers(size)), int(rng.integers(size))
        mask = np.zeros((2 * radius + 1, 2 * radius + 1), np.uint8)
        kind = rng.integers(0, 3)
        if kind == 0:
            axes = (radius, max(1, int(radius * rng.uniform(0.3, 1))))
            cv2.ellipse(mask, (radius, radius), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
        elif kind == 1:
            corners = rng.integers(0, 2 * radius + 1, (int(rng.integers(3, 6)), 2)).astype(np.int32)
            cv2.fillPoly(mask, [cv2.convexHull(corners)], 255)
        else:
            ends = rng.integers(0, 2 * radius + 1, (2, 2))
            cv2.line(mask, ends[0].tolist(), ends[1].tolist(), 255, max(1, radius // 4))
        colour = palette[rng.integers(len(palette))]
        fill = np.full((*mask.shape, 3), np.clip(colour + rng.normal(0, 12, 3), 0, 255), np.uint8)
        if radius > 6 and chance(rng, 0.35):
            fill = np.asarray(cv2.resize(maker.patch(rng), mask.shape[::-1]), np.uint8)
        _stamp(picture, fill, mask, centre[0] - radius, centre[1] - radius)
    return picture if chance(rng, 0.5) else blur(picture, float(rng.uniform(0.5, 2)))


def _stamp(picture: UInt8Array, fill: UInt8Array, mask: UInt8Array, x: int, y: int) -> None:
    """`fill` where `mask`, its corner at (x, y), into the picture in place."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + mask.shape[1], width), min(y + mask.shape[0], height)
    part = picture[y0:y1, x0:x1]
    seen = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
    np.copyto(part, fill[seen], where=mask[seen][..., None] > 0)


def patchwork(rng: Rng, maker: SceneMaker, size: int) -> UInt8Array:
    """Patches from outside the faces, enlarged, side by side."""
    picture = np.zeros((size, size, 3), np.uint8)
    cells = int(rng.integers(1, 6))
    edges = np.linspace(0, size, cells + 1).astype(int)
    for y0, y1 in pairwise(edges):
        for x0, x1 in pairwise(edges):
            picture[y0:y1, x0:x1] = cv2.resize(maker.patch(rng), (int(x1 - x0), int(y1 - y0)))
    return picture
