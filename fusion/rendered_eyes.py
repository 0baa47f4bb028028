"""Eyes drawn by code with known head, gaze, lamp and lids: ground truth for the eye branch; knows no photograph.

Eyeballs, corneal caps, flat irises with pupils and the lids of a head of the statistical model under one distant lamp,
seen by an orthographic camera. Axes and lengths as in fusion/cornea.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fusion.cornea import (
    CORNEA,
    EYEBALL,
    EYEBALL_NEAR,
    EYEBALL_UP,
    EYES,
    LIMBUS_FROM_CORNEA,
    LIMBUS_FROM_EYEBALL,
)
from fusion.face import FloatArray, UInt8Array
from fusion.pose import load_shape_model

_FINER = 3  # drawn so many times finer, then averaged
_WIDTH = 5.0  # of the eye, in limbus radii (29.5 mm)


@dataclass(frozen=True)
class EyeScene:
    """What is drawn; angles in degrees, (to the right, down) in the picture.

    width_px        of the left eye from corner to corner when the head faces the viewer
    head            turn of the head
    gaze            of both eyes, in the picture's axes
    lamp            off the viewer; None: no lamp
    lamp_degrees    angular radius of the lamp
    opening         height of the lids' opening, 1 as in the mean head; 0 closes them
    iris_rgb        mean colour of the iris in [0, 1]
    pupil           radius in limbus radii
    blur_px         Gaussian of the optics
    noise           standard deviation of the sensor, in [0, 1]
    seed            of head, iris texture and noise
    """

    width_px: float = 64.0
    head: tuple[float, float] = (0.0, 0.0)
    gaze: tuple[float, float] = (0.0, 0.0)
    lamp: tuple[float, float] | None = (20.0, -25.0)
    lamp_degrees: float = 7.0
    opening: float = 1.1
    iris_rgb: tuple[float, float, float] = (0.30, 0.20, 0.12)
    pupil: float = 0.35
    blur_px: float = 0.6
    noise: float = 0.01
    seed: int = 0


@dataclass(frozen=True, eq=False)
class DrawnEyes:
    """A drawn pair of eyes and its truth; the lists hold the left and the right eye of the picture.

    rgb             uint8 [H, W, 3]
    landmarks_px    float32 [478, 2] of the whole head, of which only the eyes are drawn
    corneas         float32 [H, W], share of each pixel that shows this cornea
    highlights_px   float32 [2], where the lamp's image lies; None without a lamp
    seen            whether its middle lies on the cornea between the lids
    gaze            float32 [3]
    """

    rgb: UInt8Array
    landmarks_px: FloatArray
    corneas: list[FloatArray]
    highlights_px: list[FloatArray | None]
    seen: list[bool]
    gaze: FloatArray


def random_scene(rng: np.random.Generator, width_px: float = 64.0) -> EyeScene:
    """Ordinary open eyes: gaze within 20°, head within 25°, one lamp in front, any iris, some blur and noise."""
    tint = np.array([1.0, rng.uniform(0.7, 1.05), rng.uniform(0.4, 1.25)]) * rng.uniform(0.08, 0.5)
    return EyeScene(
        width_px=width_px,
        head=(float(rng.uniform(-25, 25)), float(rng.uniform(-10, 10))),
        gaze=(float(rng.uniform(-20, 20)), float(rng.uniform(-8, 8))),
        lamp=(float(rng.uniform(-35, 35)), float(rng.uniform(-40, 5))),
        lamp_degrees=float(rng.uniform(5, 10)),
        opening=float(rng.uniform(0.9, 1.3)),
        iris_rgb=(float(tint[0]), float(tint[1]), float(tint[2])),
        pupil=float(rng.uniform(0.25, 0.5)),
        blur_px=float(rng.uniform(0.3, 1.2) * width_px / 64),
        noise=float(rng.uniform(0.0, 0.02)),
        seed=int(rng.integers(2**31)),
    )


def direction(degrees_right_down: tuple[float, float]) -> FloatArray:
    """Unit vector [3] this far to the right of and below the line to the viewer."""
    across, down = np.tan(np.radians(degrees_right_down))
    vector = np.array([across, down, 1.0])
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def draw_eyes(scene: EyeScene) -> DrawnEyes:
    """Both eyes of a head of the statistical model, on bare skin."""
    rng = np.random.default_rng(scene.seed)
    points, turn, width = _head(scene, rng)
    contours = [_opened(points[list(lids)], scene.opening) for _, lids in EYES]
    everything = np.concatenate(contours)
    low = np.floor(everything.min(0) - 0.4 * scene.width_px)
    size = tuple(np.ceil(everything.max(0) + 0.4 * scene.width_px - low).astype(int)[::-1].tolist())
    points, contours = points - low, [contour - low for contour in contours]
    y = np.arange(size[0] * _FINER, dtype=np.float32)[:, None, None] / (size[0] * _FINER)
    skin = np.array([0.78, 0.58, 0.48], np.float32) * (1.1 - 0.25 * y)
    colour = np.broadcast_to(skin, (size[0] * _FINER, size[1] * _FINER, 3)).copy()
    gaze, radius = direction(scene.gaze), width / _WIDTH
    corneas, places, seen, irises = [], [], [], []
    for (_, lids), contour in zip(EYES, contours, strict=True):
        corners = points[[lids[0], lids[8]]]
        eyeball = corners.mean(0) + width * (EYEBALL_UP * turn[:2, 1] + EYEBALL_NEAR * turn[:2, 2]) * [1, -1]
        cornea = _paint(colour, eyeball.astype(np.float32), radius, gaze, _fill(contour, size), scene, rng)
        limbus = np.asarray(eyeball + LIMBUS_FROM_EYEBALL * radius * gaze[:2], np.float32)
        place = _highlight_place(scene, gaze, limbus, radius)
        corneas.append(cornea)
        places.append(place)
        seen.append(place is not None and _at(cornea, place) > 0.5)
        irises.append(_iris_points(limbus, radius, gaze))
    for (_, lids), contour in zip(EYES, contours, strict=True):
        points[list(lids)] = contour
    small = cv2.resize(colour, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(scene.blur_px, 0.05))
    small = small + scene.noise * rng.standard_normal(small.shape)
    rgb = np.clip(np.rint(255 * small), 0, 255).astype(np.uint8)
    landmarks = np.concatenate([points, *irises]).astype(np.float32)
    return DrawnEyes(rgb, landmarks, corneas, places, seen, gaze)


def _head(scene: EyeScene, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, float]:
    """Mesh points [468, 2] in pixels, turn [3, 3] (head to camera, y up), true width of an eye in pixels."""
    model = load_shape_model()
    shape = model.mean + np.tensordot(0.6 * rng.standard_normal(len(model.identity)), model.identity, 1)
    across, down = np.radians(scene.head)
    cos, sin = np.cos([across, down]), np.sin([across, down])
    turn = np.array([[1, 0, 0], [0, cos[1], -sin[1]], [0, sin[1], cos[1]]])
    turn = np.array([[cos[0], 0, sin[0]], [0, 1, 0], [-sin[0], 0, cos[0]]]) @ turn
    width = float(np.mean([np.linalg.norm(shape[lids[0]] - shape[lids[8]]) for _, lids in EYES]))
    scale = scene.width_px / width
    return np.asarray(scale * (shape @ turn.T)[:, :2] * [1, -1], np.float32), turn, scene.width_px


def _opened(contour: FloatArray, amount: float) -> FloatArray:
    """A lid contour [16, 2] with its height above the line between the corners scaled."""
    along = contour[8] - contour[0]
    share = ((contour - contour[0]) @ along / (along @ along))[:, None]
    line = contour[0] + share * along
    return np.asarray(line + amount * (contour - line), np.float32)


def _paint(
    colour: FloatArray,
    eyeball: FloatArray,
    radius: float,
    gaze: FloatArray,
    opening: FloatArray,
    scene: EyeScene,
    rng: np.random.Generator,
) -> FloatArray:
    """Paint one eye into the fine picture; returns the share of visible cornea per pixel of the coarse one."""
    rows, columns = np.flatnonzero(opening.any(1)), np.flatnonzero(opening.any(0))
    seen = np.zeros(opening.shape, np.float32)
    if len(rows):
        cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        y, x = np.mgrid[cut].astype(np.float32)
        x, y = (
            ((x + 0.5) / _FINER - 0.5 - eyeball[0]) / radius,
            ((y + 0.5) / _FINER - 0.5 - eyeball[1]) / radius,
        )
        eye, cornea, glare = _shade(x, y, gaze, scene, rng)
        eye = eye + glare[..., None] * (1 - eye)
        colour[cut] += opening[cut][..., None] * (eye - colour[cut])
        seen[cut] = cornea * opening[cut]
    size = (opening.shape[1] // _FINER, opening.shape[0] // _FINER)
    return np.asarray(cv2.resize(seen, size, interpolation=cv2.INTER_AREA), np.float32)


def _highlight_place(
    scene: EyeScene, gaze: FloatArray, limbus: FloatArray, radius: float
) -> FloatArray | None:
    """Mirror point of a distant lamp on the cornea's sphere: its normal halves the angle between lamp and viewer."""
    if scene.lamp is None:
        return None
    half = direction(scene.lamp) + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    return np.asarray(
        limbus - LIMBUS_FROM_CORNEA * radius * gaze[:2] + CORNEA * radius * half[:2], np.float32
    )


def _iris_points(limbus: FloatArray, radius: float, gaze: FloatArray) -> FloatArray:
    """Centre and four points of the limbus, left, top, right, bottom, [5, 2]."""
    right = np.array([gaze[2], 0, -gaze[0]]) / np.hypot(gaze[2], gaze[0])
    down = np.cross(gaze, right)
    return np.asarray(limbus + radius * np.stack([0 * right, -right, -down, right, down])[:, :2], np.float32)


def _fill(outline: FloatArray, size: tuple[int, int]) -> FloatArray:
    canvas = np.zeros((size[0] * _FINER, size[1] * _FINER), np.uint8)
    finer = (outline + 0.5) * _FINER - 0.5
    cv2.fillPoly(canvas, [np.rint(finer * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return np.asarray(canvas, np.float32) / np.float32(255)


def _shade(
    x: FloatArray, y: FloatArray, gaze: FloatArray, scene: EyeScene, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Colour [h, w, 3] of the eye without its highlight, share of cornea, share of highlight [h, w]."""
    depth = np.sqrt(np.maximum(EYEBALL**2 - x * x - y * y, 0))
    sclera = np.array([0.86, 0.83, 0.80], np.float32) * (0.45 + 0.55 * (depth / EYEBALL))[..., None]
    # the plane of the limbus, met by the line of sight
    z = (LIMBUS_FROM_EYEBALL - gaze[0] * x - gaze[1] * y) / gaze[2]
    ball = np.stack([x, y, z], -1)
    across = ball - LIMBUS_FROM_EYEBALL * gaze
    away = np.linalg.norm(across, axis=-1)
    turn = np.arctan2(across[..., 1], across[..., 0])
    rays = np.zeros_like(turn)
    for k in (5, 9, 14, 23):
        rays += rng.uniform(0.02, 0.06) * np.sin(k * turn + rng.uniform(0, 6.3))
    iris = (
        np.array(scene.iris_rgb, np.float32)
        * (1 + rays - 0.35 * np.clip((away - 0.75) / 0.25, 0, 1))[..., None]
    )
    iris = np.where((away < scene.pupil)[..., None], np.float32(0.02), iris)
    cornea = (away < 1).astype(np.float32)
    return np.where(cornea[..., None] > 0, iris, sclera), cornea, _glare(x, y, gaze, cornea, scene)


def _glare(x: FloatArray, y: FloatArray, gaze: FloatArray, cornea: FloatArray, scene: EyeScene) -> FloatArray:
    """Where the mirrored line of sight meets the lamp, [h, w]."""
    if scene.lamp is None:
        return np.zeros_like(x)
    offset = (LIMBUS_FROM_EYEBALL - LIMBUS_FROM_CORNEA) * gaze
    nx, ny = (x - offset[0]) / CORNEA, (y - offset[1]) / CORNEA
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))
    mirrored = np.stack([2 * nz * nx, 2 * nz * ny, 2 * nz * nz - 1], -1)
    close = mirrored @ direction(scene.lamp)
    return np.asarray(cornea * (close > np.cos(np.radians(scene.lamp_degrees))), np.float32)


def _at(image: FloatArray, point: FloatArray) -> float:
    x, y = np.rint(point).astype(int)
    inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
    return float(image[y, x]) if inside else 0.0
