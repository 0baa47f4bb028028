"""Portraits with hands and things drawn before the face, and bare ones with shadows and make-up; knows no network.

Drawn afresh each time on a 128 px crop. A hand's colour is mostly that of the portrait's own cheeks, and what covers
may carry the texture of another portrait, so that neither colour nor smoothness gives it away.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from fusion import mesh
from fusion.align import Matrix, Points, apply_matrix, compose, warp_crop
from fusion.face import FloatArray, UInt8Array
from fusion.native import generator_crop_from_image
from fusion.train.augment import Rng, chance, degrade, random_texture, smooth_field
from fusion.train.occlusion_shapes import GRID, Cover, Lamp, X, Y, cloth, hand, over, thing
from fusion.train.portraitset import PortraitSet

KEPT_PX: Final = 160  # side of what is kept of a portrait: the crop and an eighth more on each side
MARGIN: Final = (KEPT_PX - GRID) // 2
MAP: Final = GRID // 2
BARE_SHARE: Final = 0.42
OUTSIDE: Final = 0.15  # weight of an answer beyond the face, where nothing is painted anyway
CHEEKS: Final = (50, 280, 205, 425, 101, 330)
# Where fingertips and things are put: cheeks, mouth, chin, jaw, nose, brows, forehead.
PLACES: Final = (
    50,
    280,
    205,
    425,
    61,
    291,
    0,
    17,
    152,
    172,
    397,
    132,
    361,
    1,
    33,
    263,
    105,
    334,
    151,
    109,
    338,
    127,
    356,
)


class CoverMaker:
    """Draws training examples; state: the aligned portraits, their points and the colour of their cheeks."""

    def __init__(self, portraits: PortraitSet) -> None:
        self.weights = portraits.weights
        shift = np.array([[1.0, 0.0, MARGIN], [0.0, 1.0, MARGIN]])
        places = [compose(shift, generator_crop_from_image(p)) for p in portraits.points]
        self.crops = np.stack(
            [
                warp_crop(rgb, m, KEPT_PX, border="replicate")
                for rgb, m in zip(portraits.pictures, places, strict=True)
            ]
        )  # [N, 160, 160, 3]
        self.points = np.stack(
            [apply_matrix(m, p[: mesh.NUM_MESH, :2]) for m, p in zip(places, portraits.points, strict=True)]
        )  # [N, 468, 2]
        self.skins = np.stack(
            [_skin(crop, points) for crop, points in zip(self.crops, self.points, strict=True)]
        )

    def __len__(self) -> int:
        return len(self.crops)

    def draw(self, rng: Rng) -> tuple[UInt8Array, FloatArray, FloatArray]:
        """Crop uint8 [128, 128, 3], covered share float32 [64, 64] and weight of each answer [64, 64]."""
        index = int(rng.choice(len(self), p=self.weights))
        matrix = _jitter(rng)
        crop = np.asarray(
            cv2.warpAffine(self.crops[index], matrix, (GRID, GRID), borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
        points = apply_matrix(matrix, self.points[index])
        picture = shadows(crop.astype(np.float32), rng, points)
        alpha = np.zeros((GRID, GRID), np.float32)
        if not chance(rng, BARE_SHARE):
            picture, alpha = self.cover(picture, rng, points, index)
        rgb = degrade(np.clip(np.rint(picture), 0, 255).astype(np.uint8), rng, 0.6)
        label, weight = _halved(alpha), face_weight(points)
        if chance(rng, 0.5):
            rgb, label, weight = rgb[:, ::-1], label[:, ::-1], weight[:, ::-1]
        return np.ascontiguousarray(rgb), np.ascontiguousarray(label), np.ascontiguousarray(weight)

    def cover(
        self, picture: FloatArray, rng: Rng, points: FloatArray, index: int
    ) -> tuple[FloatArray, FloatArray]:
        """A hand (in six of ten), a thing, both, or cloth over a picture float32 [128, 128, 3] in levels."""
        lamp, face_px = Lamp.draw(rng), mesh.face_width(points) * float(rng.uniform(0.8, 1.2))
        place = points[int(rng.choice(PLACES))] + rng.normal(0, 0.08 * face_px, 2).astype(np.float32)
        kind = rng.choice(4, p=[0.6, 0.15, 0.13, 0.12])
        if kind == 0:
            drawn = hand(rng, lamp, place, face_px)
            return self._put(picture, rng, lamp, drawn, self._skin_paint(rng, index))
        if kind == 1:
            return self._put(picture, rng, lamp, thing(rng, lamp, place, face_px), self._thing_paint(rng))
        if kind == 3:
            return self._put(picture, rng, lamp, cloth(rng, lamp, place, face_px), self._thing_paint(rng))
        below = thing(rng, lamp, place, face_px)
        top = hand(rng, lamp, place + rng.normal(0, 0.15 * face_px, 2).astype(np.float32), face_px)
        part = top.alpha[..., None]
        first, second = self._thing_paint(rng), self._skin_paint(rng, index)
        return self._put(picture, rng, lamp, over(top, below, 0.4), first + part * (second - first))

    def _put(
        self, picture: FloatArray, rng: Rng, lamp: Lamp, drawn: Cover, colour: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        paint = colour * drawn.shade[..., None] * drawn.tint
        alpha = drawn.alpha
        soft = float(rng.uniform(0.3, 1.3))
        if chance(rng, 0.5):  # softer than the portrait, out of focus
            alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), soft), np.float32)
            paint = np.asarray(cv2.GaussianBlur(paint, (0, 0), soft), np.float32)
        reach = float(rng.uniform(0.5, 6))
        move = np.array([[1, 0, -lamp.x * reach], [0, 1, -lamp.y * reach]])
        cast = cv2.GaussianBlur(cv2.warpAffine(alpha, move, (GRID, GRID)), (0, 0), reach)
        depth = float(rng.uniform(0, 0.5)) * np.array([0.9, 1.0, 1.05], np.float32)
        under = picture * (1 - cast[..., None] * depth)
        return np.asarray(under + alpha[..., None] * (paint - under), np.float32), np.asarray(
            alpha, np.float32
        )

    def _skin_paint(self, rng: Rng, index: int) -> FloatArray:
        """Colour of a hand in levels, float32 [128, 128, 3]: mostly this portrait's skin, sometimes another's."""
        who = index if chance(rng, 0.65) else int(rng.integers(len(self)))
        gain = np.exp(rng.normal(0, 0.16) + rng.normal(0, 0.04, 3)).astype(np.float32)
        paint = np.broadcast_to(self.skins[who] * gain, (GRID, GRID, 3)).astype(np.float32)
        if chance(rng, 0.06):  # a glove
            paint = np.broadcast_to(rng.uniform(10, 245, 3), (GRID, GRID, 3)).astype(np.float32)
        mottle = smooth_field(rng, GRID, GRID, int(rng.integers(4, 24)))[..., None]
        paint = paint * (1 + float(rng.uniform(0, 0.06)) * mottle * np.array([0.7, 1.1, 1.1], np.float32))
        if chance(rng, 0.4):
            paint = paint * self._texture(rng, float(rng.uniform(0.2, 1.0)))
        return self._grained(paint, rng)

    def _thing_paint(self, rng: Rng) -> FloatArray:
        """Colour of a thing in levels, float32 [128, 128, 3]: plain, patterned, or cut from a portrait."""
        kind = rng.integers(5)
        if kind == 0:
            return random_texture(rng, GRID, GRID).astype(np.float32)
        if kind == 1:
            who = int(rng.integers(len(self)))
            cut = warp_crop(self.crops[who], _cut(rng), GRID, border="replicate").astype(np.float32)
            return np.asarray(cut * rng.uniform(0.5, 1.3, 3).astype(np.float32), np.float32)
        level = float(rng.choice([30.0, 90.0, 160.0, 230.0]))
        colour = np.clip(level + rng.normal(0, 30, 3), 2, 250)
        paint = np.broadcast_to(colour, (GRID, GRID, 3)).astype(np.float32)
        if kind == 2:
            paint = paint * self._texture(rng, float(rng.uniform(0.3, 1.0)))
        return self._grained(paint, rng)

    def _texture(self, rng: Rng, strength: float) -> FloatArray:
        """Factor of mean about 1 from a piece of another portrait, float32 [128, 128, 3]."""
        crop = self.crops[int(rng.integers(len(self)))]
        piece = warp_crop(crop, _cut(rng), GRID, border="replicate").astype(np.float32) + 8
        ratio = piece / cv2.GaussianBlur(piece, (0, 0), 12)
        return np.asarray(1 + strength * (np.clip(ratio, 0.4, 1.8) - 1), np.float32)

    def _grained(self, paint: FloatArray, rng: Rng) -> FloatArray:
        grain = rng.standard_normal((GRID, GRID, 1), np.float32)
        size = float(rng.choice([0.0, 0.7, 1.2]))
        if size:
            grain = cv2.GaussianBlur(grain, (0, 0), size)[..., None] * np.float32(2 * size + 1)
        return np.asarray(paint + float(rng.uniform(0, 7)) * grain, np.float32)


def shadows(picture: FloatArray, rng: Rng, points: FloatArray) -> FloatArray:
    """Light and colour that lie on a face without covering it: shadows, hard and soft, patches, make-up, glare."""
    if chance(rng, 0.35):
        depth = (rng.uniform(0.1, 0.6) * rng.uniform(0.85, 1.1, 3)).astype(np.float32)
        picture = picture * (1 - _patch(rng, points) * depth)
    if chance(rng, 0.1):
        height = (rng.uniform(0.1, 0.4) * rng.uniform(0.9, 1.1, 3)).astype(np.float32)
        picture = picture * (1 + _patch(rng, points) * height)
    if chance(rng, 0.2):
        for spot in rng.choice(PLACES, 2):
            x, y = X - points[spot][0], Y - points[spot][1]
            share = np.exp(-(x * x + y * y) / float(rng.uniform(3, 14)) ** 2) * float(rng.uniform(0.1, 0.5))
            picture = picture + share[..., None] * (rng.uniform(20, 235, 3).astype(np.float32) - picture)
    return np.asarray(picture, np.float32)


def _patch(rng: Rng, points: FloatArray) -> FloatArray:
    """A half plane, a band or a blob with an edge of any softness, float32 [128, 128, 1]."""
    at = points[int(rng.choice(PLACES))]
    x, y = X - at[0], Y - at[1]
    angle, edge = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.5, 14))
    c, s = float(np.cos(angle)), float(np.sin(angle))
    kind = rng.integers(3)
    if kind == 0:
        distance = x * c + y * s + 4 * np.sin((y * c - x * s) / float(rng.uniform(5, 30)))
    elif kind == 1:
        distance = np.abs(x * c + y * s) - float(rng.uniform(2, 18))
    else:
        bumps = 12 * smooth_field(rng, GRID, GRID, int(rng.integers(2, 6)))
        distance = bumps + np.sqrt(x * x + y * y) - float(rng.uniform(8, 40))
    return np.asarray(np.clip(0.5 - distance / edge, 0, 1)[..., None], np.float32)


def face_weight(points: FloatArray) -> FloatArray:
    """1 within the face's oval (a little widened), OUTSIDE elsewhere, float32 [64, 64]; points in crop px."""
    inside = np.zeros((MAP, MAP), np.uint8)
    oval = ((points[list(mesh.OVAL)] + 0.5) / 2 - 0.5).astype(np.float32)
    middle = oval.mean(0)
    cv2.fillPoly(inside, [np.rint(middle + 1.06 * (oval - middle)).astype(np.int32)], 1)
    return np.where(inside > 0, 1.0, OUTSIDE).astype(np.float32)


def _halved(alpha: FloatArray) -> FloatArray:
    return np.asarray(alpha.reshape(MAP, 2, MAP, 2).mean((1, 3)), np.float32)


def _jitter(rng: Rng) -> Matrix:
    """crop_from_kept: turned by up to 8 degrees, 10 % larger or smaller, moved by up to 5 px."""
    middle = (KEPT_PX - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), float(rng.uniform(-8, 8)), float(rng.uniform(0.9, 1.1)))
    return _moved(np.asarray(turn, np.float64), rng.uniform(-5, 5, 2) - MARGIN)


def _cut(rng: Rng) -> Matrix:
    """crop_from_kept of a piece, turned by any angle and enlarged."""
    centre = rng.uniform(0.2, 0.8, 2) * KEPT_PX
    turn = cv2.getRotationMatrix2D(
        (float(centre[0]), float(centre[1])), float(rng.uniform(0, 360)), float(rng.uniform(1.0, 3.5))
    )
    return _moved(np.asarray(turn, np.float64), GRID / 2 - centre)


def _moved(matrix: Matrix, shift: Points) -> Matrix:
    return compose(np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]]), matrix)


def _skin(crop: UInt8Array, points: FloatArray) -> FloatArray:
    """Median colour of the cheeks in levels, float32 [3]."""
    at = np.clip(np.rint(points[list(CHEEKS)]).astype(int), 3, KEPT_PX - 4)
    patches = [crop[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3) for x, y in at]
    return np.asarray(np.median(np.concatenate(patches), axis=0), np.float32)
