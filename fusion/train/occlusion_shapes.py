"""Hands and held things drawn by rule: how much of each pixel they cover, and how they are lit; knows no face.

Everything lives on one square grid of GRID px, float32. Shapes are signed distances, so edges are smooth without
supersampling, and the same distances give the surface's slope for the shading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from fusion.face import FloatArray
from fusion.train.augment import Rng, chance, smooth_field

GRID: Final = 128
Window = tuple[slice, slice]
WHOLE: Final[Window] = (slice(None), slice(None))
_AXIS: Final = np.arange(GRID, dtype=np.float32)
X, Y = np.meshgrid(_AXIS, _AXIS)


@dataclass(frozen=True, eq=False)
class Cover:
    """Something before a face.

    alpha   float32 [128, 128], how much of each pixel it covers
    shade   float32 [128, 128], factor of light on its colour
    tint    float32 [128, 128, 3], factor on its colour (nails, rims, stripes)
    """

    alpha: FloatArray
    shade: FloatArray
    tint: FloatArray


@dataclass(frozen=True)
class Lamp:
    """Direction of light (towards it, unit) and how much of the light has no direction."""

    x: float
    y: float
    z: float
    ambient: float

    @classmethod
    def draw(cls, rng: Rng) -> Lamp:
        """From anywhere before the face."""
        direction = np.array([*rng.normal(0, 1, 2), rng.uniform(0.5, 2.0)])
        x, y, z = direction / np.linalg.norm(direction)
        return cls(
            float(x), float(y), float(z), float(rng.choice([1.0, 0.8, 0.6, 0.4], p=[0.15, 0.3, 0.35, 0.2]))
        )

    def on(self, nx: FloatArray, ny: FloatArray) -> FloatArray:
        """Shade of a surface whose unit normal has these two parts; about 1 where it faces the camera."""
        nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0, 1))
        lit = np.maximum(nx * self.x + ny * self.y + nz * self.z, 0) / self.z
        return np.asarray(self.ambient + (1 - self.ambient) * np.minimum(lit, 1.8), np.float32)


class Canvas:
    """Layers painted over each other, each darkening what lies under its edge."""

    def __init__(self) -> None:
        self.alpha = np.zeros((GRID, GRID), np.float32)
        self.shade = np.ones((GRID, GRID), np.float32)
        self.tint = np.ones((GRID, GRID, 3), np.float32)

    def paint(
        self,
        distance: FloatArray,
        shade: FloatArray,
        tint: FloatArray | None = None,
        crease: float = 0.0,
        window: Window = WHOLE,
    ) -> None:
        """Add what lies within distance < 0; `crease` darkens a line of about 2 px around it on what is there."""
        cover = np.clip(0.5 - distance, 0, 1)
        under = self.shade[window]
        if crease > 0:
            near = np.clip(1 - np.maximum(distance, 0) / 2.5, 0, 1)
            under *= 1 - crease * near * (1 - cover)
        under += cover * (shade - under)
        wanted = np.ones(3, np.float32) if tint is None else tint
        self.tint[window] += cover[..., None] * (wanted - self.tint[window])
        np.maximum(self.alpha[window], cover, out=self.alpha[window])

    def done(self) -> Cover:
        return Cover(self.alpha, self.shade, self.tint)


def tapered(
    start: FloatArray, end: FloatArray, radius: float, last: float, window: Window = WHOLE
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Capsule of changing radius: signed distance, slopes nx, ny in [-1, 1], place along it in px."""
    way_x, way_y = float(end[0] - start[0]), float(end[1] - start[1])
    length = max(float(np.hypot(way_x, way_y)), 1e-3)
    x, y = X[window] - np.float32(start[0]), Y[window] - np.float32(start[1])
    along = (x * way_x + y * way_y) / length
    t = np.clip(along / length, 0, 1)
    x -= t * way_x
    y -= t * way_y
    away = np.sqrt(x * x + y * y) + np.float32(1e-4)
    width = radius + t * (last - radius)
    scale = 1 / np.maximum(width, away)  # unit beyond the rim
    distance = np.asarray(away - width, np.float32)
    return distance, x * scale, y * scale, np.asarray(along, np.float32)


def window_around(points: list[FloatArray], margin: float) -> Window:
    """Part of the grid within `margin` of some points [2]; at least one pixel."""
    low = np.clip(np.floor(np.min(points, axis=0) - margin), 0, GRID - 1).astype(int)
    high = np.clip(np.ceil(np.max(points, axis=0) + margin) + 1, low + 1, GRID).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def finger(
    canvas: Canvas,
    rng: Rng,
    lamp: Lamp,
    base: FloatArray,
    angle: float,
    length: float,
    radius: float,
    look: Look,
) -> None:
    """Two or three tapered joints that bend the same way, folds at the joints, a nail where the back is seen."""
    parts = (0.44, 0.31, 0.25) if chance(rng, 0.8) else (0.6, 0.4)
    turns = [angle]
    for _ in parts[1:]:
        turns.append(turns[-1] + look.bend * float(rng.uniform(0.4, 1.4)))
    joints = [base]
    for part, turn in zip(parts, turns, strict=True):
        joints.append(joints[-1] + part * length * _heading(turn))
    window = window_around(joints, radius + 4)
    here = radius
    distance, nx, ny, _ = tapered(joints[0], joints[1], radius, 0.92 * radius, window)
    folds = np.ones_like(distance)
    for k in range(1, len(parts)):
        here *= 0.92
        last = here * (0.92 if k < len(parts) - 1 else 0.8)
        d, sx, sy, along = tapered(joints[k], joints[k + 1], here, last, window)
        nearer = d < distance
        distance, nx, ny = np.where(nearer, d, distance), np.where(nearer, sx, nx), np.where(nearer, sy, ny)
        for shift in (0.0, 1.6)[: 1 + int(look.double_folds)]:
            across = np.exp(-(((along - shift) / 0.8) ** 2))
            folds *= 1 - look.folds * across * (np.abs(d + here) < here * 0.9)
    shade = lamp.on(look.roundness * nx, look.roundness * ny) * folds
    tint = np.ones((*distance.shape, 3), np.float32)
    x, y = X[window] - joints[-1][0], Y[window] - joints[-1][1]
    reddish = np.exp(-(x * x + y * y) / (2 * (1.6 * radius) ** 2))
    tint += look.red_tips * reddish[..., None] * np.array([0.05, -0.1, -0.06], np.float32)
    if look.nails:
        _nail(tint, x, y, turns[-1], 0.8 * radius, look)
    canvas.paint(distance, shade, tint, look.crease, window)


def _heading(angle: float) -> FloatArray:
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


@dataclass(frozen=True)
class Look:
    """How the fingers of one hand look: bend of a joint (rad), depth of folds and creases, nails and their colour."""

    bend: float
    folds: float
    double_folds: bool
    crease: float
    roundness: float
    red_tips: float
    nails: bool
    polish: tuple[float, float, float]

    @classmethod
    def draw(cls, rng: Rng) -> Look:
        polish = (1.08, 1.0, 1.0) if chance(rng, 0.75) else tuple(float(v) for v in rng.uniform(0.2, 1.4, 3))
        return cls(
            bend=float(rng.normal(0, 0.25)),
            folds=float(rng.uniform(0, 0.35)),
            double_folds=chance(rng, 0.5),
            crease=float(rng.uniform(0, 0.6)),
            roundness=float(rng.uniform(0.5, 0.98)),
            red_tips=float(rng.uniform(0, 1.5)),
            nails=chance(rng, 0.5),
            polish=(polish[0], polish[1], polish[2]),
        )


def _nail(tint: FloatArray, x: FloatArray, y: FloatArray, turn: float, radius: float, look: Look) -> None:
    """An ellipse at the tip, from which x and y are counted, with a darker rim."""
    ahead, beside = float(np.cos(turn)), float(np.sin(turn))
    u = (x * ahead + y * beside + 0.1 * radius) / (0.85 * radius)
    v = (y * ahead - x * beside) / (0.62 * radius)
    away = np.sqrt(u * u + v * v)
    inside = np.clip((1 - away) * (0.6 * radius) + 0.5, 0, 1)[..., None]
    tint += inside * (np.array(look.polish, np.float32) - tint)
    tint *= 1 - 0.15 * np.exp(-(((away - 1) * radius) ** 2))[..., None]


def hand(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """One to five fingers with their tips about `place` (x, y), palm and wrist behind them, from any side."""
    canvas, look = Canvas(), Look.draw(rng)
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.08, 0.12, 0.2, 0.42, 0.18]))
    radius = face_px * float(rng.uniform(0.045, 0.085))
    length = face_px * float(rng.uniform(0.3, 0.85))
    approach = (
        float(rng.uniform(0, 2 * np.pi)) if chance(rng, 0.4) else float(rng.uniform(-1.3, 1.3)) - np.pi / 2
    )
    # from below and from the sides more often than from above: the hand points up in the picture (y runs down)
    ahead = _heading(approach)
    beside = np.array([-ahead[1], ahead[0]], np.float32)
    spacing = 2 * radius * float(rng.uniform(0.92, 1.35))
    fan = float(rng.uniform(-0.02, 0.16))
    knuckles = place - length * ahead
    spread = [(k - (count - 1) / 2) for k in range(count)]
    if chance(rng, 0.85):
        half = max(1.0, (count - 1) / 2) * spacing + radius
        wrist = knuckles - ahead * face_px * float(rng.uniform(0.35, 0.7))
        d, nx, ny, _ = tapered(knuckles - 0.5 * half * ahead, wrist, half, 0.7 * half)
        canvas.paint(d, lamp.on(0.7 * nx**3, 0.7 * ny**3))
        if chance(rng, 0.5):
            d, nx, ny, _ = tapered(wrist, wrist - 2 * face_px * ahead, 0.65 * half, 0.75 * half)
            sleeve = None if chance(rng, 0.5) else rng.uniform(0.1, 1.5, 3).astype(np.float32)
            canvas.paint(d, lamp.on(0.8 * nx, 0.8 * ny), sleeve)
    if count >= 3 and chance(rng, 0.5):
        side = float(rng.choice([-1.0, 1.0]))
        root = knuckles - 0.3 * length * ahead + side * 0.5 * count * spacing * beside
        turn = approach + side * float(rng.uniform(0.2, 1.1))
        finger(canvas, rng, lamp, root, turn, 0.75 * length, 1.12 * radius, look)
    order = rng.permutation(count) if chance(rng, 0.3) else np.arange(count)[:: int(rng.choice([-1, 1]))]
    for k in order:
        reach = length * (1 - 0.07 * abs(spread[k] + 0.3)) * float(rng.uniform(0.9, 1.06))
        root = knuckles + spread[k] * spacing * beside
        thickness = radius * float(rng.uniform(0.92, 1.05))
        finger(canvas, rng, lamp, root, approach + fan * spread[k], reach, thickness, look)
    return canvas.done()


def thing(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """A phone, cup, microphone, ball, stick or card about `place`."""
    return THINGS[int(rng.integers(len(THINGS)))](rng, lamp, place, face_px)


def _turned(place: FloatArray, angle: float) -> tuple[FloatArray, FloatArray]:
    x, y = X - place[0], Y - place[1]
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * c + y * s, -x * s + y * c


def _box(u: FloatArray, v: FloatArray, half: tuple[float, float], corner: float) -> FloatArray:
    """Signed distance of a rectangle with rounded corners."""
    qx, qy = np.abs(u) - half[0] + corner, np.abs(v) - half[1] + corner
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0) - corner, np.float32)


def slab(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """A phone or a card: flat, a rim of another light, sometimes lenses or lines upon it."""
    canvas = Canvas()
    half = (face_px * float(rng.uniform(0.12, 0.4)), face_px * float(rng.uniform(0.1, 0.6)))
    u, v = _turned(place, float(rng.uniform(0, np.pi)))
    d = _box(u, v, half, min(half) * float(rng.uniform(0.02, 0.5)))
    ramp = 1 + float(rng.uniform(-0.3, 0.3)) * u / half[0] + float(rng.uniform(-0.3, 0.3)) * v / half[1]
    rim = 1 + float(rng.uniform(-0.5, 0.6)) * np.exp(-(((d + 1.2) / 0.9) ** 2))
    tint = np.ones((GRID, GRID, 3), np.float32)
    for _ in range(int(rng.integers(0, 4))):
        at = rng.uniform(-0.8, 0.8, 2) * half
        spot = np.clip(face_px * float(rng.uniform(0.02, 0.07)) - np.hypot(u - at[0], v - at[1]), 0, 1)
        tint *= 1 + spot[..., None] * (rng.uniform(0.1, 1.5, 3).astype(np.float32) - 1)
    canvas.paint(d, (ramp * rim).astype(np.float32), tint)
    return canvas.done()


def ball(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """An ellipsoid: an apple, a ball, a bun."""
    canvas = Canvas()
    u, v = _turned(place, float(rng.uniform(0, np.pi)))
    a, b = face_px * float(rng.uniform(0.08, 0.35)), face_px * float(rng.uniform(0.08, 0.35))
    away = np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-4
    inner = np.minimum(1, 1 / away)
    canvas.paint(((away - 1) * min(a, b)).astype(np.float32), lamp.on(u / a * inner, v / b * inner))
    return canvas.done()


def microphone(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """A head with a mesh, or one of foam, on a handle that leads out of the face."""
    canvas = Canvas()
    away = float(rng.uniform(0.2, np.pi - 0.2)) if chance(rng, 0.7) else float(rng.uniform(0, 2 * np.pi))
    foot = place + 3 * face_px * _heading(away)
    head = face_px * float(rng.uniform(0.07, 0.22))
    d, nx, ny, _ = tapered(
        place, foot, head * float(rng.uniform(0.3, 0.8)), head * float(rng.uniform(0.3, 0.9))
    )
    canvas.paint(d, lamp.on(0.95 * nx, 0.95 * ny), rng.uniform(0.2, 1.3, 3).astype(np.float32))
    nose = place - 0.3 * head * float(rng.uniform(0, 2)) * _heading(away)
    d, nx, ny, _ = tapered(nose, place, head, head)
    u, v = _turned(place, float(rng.uniform(0, np.pi)))
    period = float(rng.uniform(2.5, 6))
    grid = 1 - float(rng.uniform(0, 0.4)) * (
        np.cos(2 * np.pi * u / period) * np.cos(2 * np.pi * v / period) > 0
    )
    canvas.paint(d, (lamp.on(nx, ny) * grid).astype(np.float32), crease=0.3)
    return canvas.done()


def cup(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """A cup, can or glass: a cylinder that may widen, with a rim and a band."""
    canvas = Canvas()
    u, v = _turned(place, float(rng.normal(0, 0.5)))
    wide, tall = face_px * float(rng.uniform(0.15, 0.35)), face_px * float(rng.uniform(0.2, 0.5))
    radius = np.maximum(wide * (1 - float(rng.uniform(-0.1, 0.35)) * (v + tall) / (2 * tall)), 1.0)
    bow = 0.2 * wide * np.sqrt(np.clip(1 - (u / radius) ** 2, 0, 1)) * float(rng.uniform(0, 1.2))
    d = np.maximum(np.abs(u) - radius, np.maximum(-tall - bow - v, v - tall - bow))
    shade = lamp.on(np.clip(0.97 * u / radius, -0.97, 0.97), np.zeros_like(u))
    tint = np.ones((GRID, GRID, 3), np.float32)
    if chance(rng, 0.6):
        low, high = np.sort(rng.uniform(-tall, tall, 2))
        band = ((v - bow > low) & (v - bow < high))[..., None]
        tint = np.where(band, rng.uniform(0.2, 1.5, 3), tint).astype(np.float32)
    tint = tint * (1 + float(rng.uniform(-0.5, 0.5)) * np.exp(-(((v + tall) / 1.5) ** 2)))[..., None]
    canvas.paint(d.astype(np.float32), shade, tint)
    return canvas.done()


def stick(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """A pen, brush, spoon or straw that ends on the face or crosses it."""
    canvas = Canvas()
    angle = float(rng.uniform(0, 2 * np.pi))
    way = _heading(angle)
    radius = face_px * float(rng.uniform(0.02, 0.06))
    beyond = 2 * face_px if chance(rng, 0.3) else 0.0
    d, nx, ny, along = tapered(place - beyond * way, place + 2 * face_px * way, radius, radius)
    tint = np.ones((GRID, GRID, 3), np.float32)
    tint = np.where((along < 0.3 * face_px * rng.random())[..., None], rng.uniform(0.3, 1.5, 3), tint)
    canvas.paint(d, lamp.on(0.9 * nx, 0.9 * ny), tint.astype(np.float32))
    return canvas.done()


def cloth(rng: Rng, lamp: Lamp, place: FloatArray, face_px: float) -> Cover:
    """Cloth with folds and stripes that reaches up to `place`, mostly from below."""
    canvas = Canvas()
    u, v = _turned(
        place, float(rng.normal(0, 0.3)) if chance(rng, 0.75) else float(rng.uniform(0, 2 * np.pi))
    )
    edge = np.zeros_like(u)
    for _ in range(3):
        edge += (
            face_px
            * float(rng.uniform(0, 0.08))
            * np.sin(u / float(face_px * rng.uniform(0.06, 0.4)) + float(rng.uniform(0, 6)))
        )
    height = smooth_field(rng, GRID, GRID, int(rng.integers(3, 10))) * face_px * float(rng.uniform(0, 0.06))
    ny, nx = np.gradient(height)
    steep = np.maximum(1, np.hypot(nx, ny) / 0.9)
    shade = lamp.on((nx / steep).astype(np.float32), (ny / steep).astype(np.float32))
    tint = np.ones((GRID, GRID, 3), np.float32)
    if chance(rng, 0.4):
        period, angle = float(rng.uniform(3, 25)), float(rng.uniform(0, np.pi))
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * (u * float(np.cos(angle)) + v * float(np.sin(angle))) / period)
        tint += wave[..., None] * (rng.uniform(0.2, 1.6, 3).astype(np.float32) - 1)
    d = edge - v
    hem = 1 + float(rng.uniform(-0.3, 0.2)) * np.exp(-(((d + 2) / 1.2) ** 2))
    canvas.paint(d.astype(np.float32), (shade * hem).astype(np.float32), tint)
    return canvas.done()


def over(top: Cover, bottom: Cover, crease: float) -> Cover:
    """One cover in front of another, in whose shade it is; the colours stay each layer's factor."""
    near = cv2.GaussianBlur(top.alpha, (0, 0), 1.5)
    shade = bottom.shade * (1 - crease * near)
    part = top.alpha
    return Cover(
        np.maximum(top.alpha, bottom.alpha),
        (shade + part * (top.shade - shade)).astype(np.float32),
        (bottom.tint + part[..., None] * (top.tint - bottom.tint)).astype(np.float32),
    )


THINGS: Final = (slab, ball, microphone, cup, stick)
