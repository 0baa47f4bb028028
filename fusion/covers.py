"""Things drawn in front of a face, whose pixels are known: glasses, strands of hair, fingers, a microphone.

For measuring what a swap does to an occluder; knows no engine, no network and no file. Drawn by rule and seed, with
texture and a soft shadow, but flat: no real glass, hair or hand is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from fusion import mask, mesh
from fusion.blend import resize
from fusion.face import FloatArray, UInt8Array
from fusion.warp import WarpResult, target_in_shape

if TYPE_CHECKING:
    from fusion.swap import Engine
Shape = Callable[[FloatArray, tuple[int, int], np.random.Generator], FloatArray]

KEPT_LEVELS: Final = 10.0  # mean over the channels within which a pixel of the cover counts as kept
_FINE: Final = 16  # fixed-point steps of a pixel


def draw_cover(
    rgb: UInt8Array, landmarks_px: FloatArray, kind: str, seed: int = 0
) -> tuple[UInt8Array, FloatArray]:
    """(picture with a cover of COVERS in front of the face, cover's share of each pixel float32 [H, W]).

    rgb uint8 [H, W, 3], landmarks [478, 2] of the face. KeyError for another kind.
    """
    rng = np.random.default_rng(seed)
    shape, colour, grain = COVERS[kind]
    size = (rgb.shape[0], rgb.shape[1])
    width = mesh.face_width(landmarks_px)
    cover = shape(landmarks_px[:, :2].astype(np.float32), size, rng)
    coarse = rng.normal(0, 1, (max(2, int(40 * size[0] / width)), max(2, int(40 * size[1] / width))))
    texture = resize(coarse.astype(np.float32), size) * np.float32(grain)
    shade = cv2.GaussianBlur(cover, (0, 0), 0.02 * width)  # brighter where the cover is thick
    paint = np.asarray(colour, np.float32) * (0.7 + 0.4 * shade[..., None]) + texture[..., None]
    shadow = 1 - np.float32(0.12) * cv2.GaussianBlur(cover, (0, 0), 0.012 * width)[..., None]
    under = rgb.astype(np.float32) * shadow
    merged = under + cover[..., None] * (paint - under)
    return np.clip(np.rint(merged), 0, 255).astype(np.uint8), cover


def _polyline(canvas: UInt8Array, points: FloatArray, thickness: float, closed: bool = False) -> None:
    ends = np.rint(points * _FINE).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [ends], closed, 255, max(1, round(thickness)), cv2.LINE_AA, shift=4)


def _as_share(canvas: UInt8Array) -> FloatArray:
    return np.asarray(canvas, np.float32) / np.float32(255)


def glasses(points: FloatArray, size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A dark frame: a rounded rim around either eye, bridge and temples."""
    canvas = np.zeros(size, np.uint8)
    width = mesh.face_width(points)
    thickness = rng.uniform(0.022, 0.035) * width
    middles = [points[list(eye)].mean(0) for eye in (mesh.LEFT_EYE, mesh.RIGHT_EYE)]
    across = middles[1] - middles[0]
    apart = float(np.linalg.norm(across))
    along = across / max(apart, 1e-6)
    down = np.array([-along[1], along[0]], np.float32)
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    cos, sin = np.cos(turns), np.sin(turns)
    for middle in middles:
        x = 0.40 * apart * np.sign(cos) * np.abs(cos) ** 0.7
        y = 0.29 * apart * np.sign(sin) * np.abs(sin) ** 0.7 + 0.05 * apart
        rim = middle + x[:, None] * along + y[:, None] * down
        _polyline(canvas, rim.astype(np.float32), thickness, closed=True)
    _polyline(
        canvas, np.stack([middles[0] + 0.4 * apart * along, middles[1] - 0.4 * apart * along]), thickness
    )
    for middle, side, temple in ((middles[0], -1, 234), (middles[1], 1, 454)):
        _polyline(canvas, np.stack([middle + side * 0.4 * apart * along, points[temple]]), thickness)
    return _as_share(canvas)


def strands(points: FloatArray, size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A dozen locks of hair from above the forehead down to the brow or the cheek."""
    canvas = np.zeros(size, np.uint8)
    width = mesh.face_width(points)
    top, chin = points[10], points[152]
    down = (chin - top) / max(float(np.linalg.norm(chin - top)), 1e-6)
    along = np.array([down[1], -down[0]], np.float32) * np.sign(down[1] if down[1] else 1)
    side = rng.choice([-1.0, 1.0])
    for _ in range(12):
        start = top - 0.2 * width * down + side * rng.uniform(-0.1, 0.35) * width * along
        length, bow = rng.uniform(0.45, 0.9) * width, side * rng.uniform(0.05, 0.3) * width
        t = np.linspace(0, 1, 24)[:, None]
        lock = start + t * length * down + (t**2) * bow * along
        _polyline(canvas, lock.astype(np.float32), rng.uniform(0.012, 0.03) * width)
    return _as_share(canvas)


def fingers(points: FloatArray, size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Four parallel fingers that come from the side over cheek and chin."""
    canvas = np.zeros(size, np.uint8)
    width = mesh.face_width(points)
    side = rng.choice([-1.0, 1.0])
    cheek = points[425 if side > 0 else 205]
    slant = rng.uniform(-0.3, 0.1)
    for k in range(4):
        tip = cheek + np.array([side * (0.05 + 0.03 * abs(k - 1.5)), 0.02 + 0.12 * k]) * width
        root = tip + np.array([side * 0.75, 0.75 * slant + 0.1]) * width
        _polyline(canvas, np.stack([tip, root]).astype(np.float32), 0.105 * width)
    return _as_share(canvas)


def microphone(points: FloatArray, size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A ball before the chin, with its handle down out of the face."""
    canvas = np.zeros(size, np.uint8)
    width = mesh.face_width(points)
    place = points[17] + np.array([rng.uniform(-0.15, 0.15), 0.1]) * width
    centre = np.rint(place * _FINE).astype(int)
    cv2.circle(
        canvas, (int(centre[0]), int(centre[1])), round(0.15 * width * _FINE), 255, -1, cv2.LINE_AA, shift=4
    )
    foot = place + np.array([rng.uniform(-0.2, 0.2), 0.9]) * width
    _polyline(canvas, np.stack([place, foot]).astype(np.float32), 0.12 * width)
    return _as_share(canvas)


# kind: (shape, colour in levels, grain of its texture in levels)
COVERS: Final[Mapping[str, tuple[Shape, tuple[float, float, float], float]]] = {
    "glasses": (glasses, (38.0, 32.0, 30.0), 6.0),
    "strands": (strands, (66.0, 46.0, 34.0), 10.0),
    "fingers": (fingers, (214.0, 164.0, 140.0), 6.0),
    "microphone": (microphone, (70.0, 72.0, 78.0), 18.0),
}


def measure_covers(
    engine: Engine,
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """`cover_measures` by kind: the target swapped bare and with every kind of cover, by the bare face's landmarks."""
    plain = engine(target_rgb, target_landmarks, source_rgb, source_landmarks)
    found = {}
    for kind in COVERS:
        drawn, cover = draw_cover(target_rgb, target_landmarks, kind, seed)
        output = engine(drawn, target_landmarks, source_rgb, source_landmarks)
        found[kind] = cover_measures(output, drawn, cover, plain, target_landmarks)
    return found


def cover_measures(
    output: WarpResult,
    covered_rgb: UInt8Array,
    cover: FloatArray,
    plain: WarpResult,
    landmarks_px: FloatArray,
) -> dict[str, float]:
    """What a swap did to a cover, where it would have painted the face; NaN where the cover misses that.

    cover_kept: share of the cover's pixels within KEPT_LEVELS of the covered target, bent to the output's shape;
    cover_error: mean change there, in levels. beside_painted: the source's share next to the cover (1 to 5 % of the
    face's width away), relative to `plain`, the swap of the same face, by the same landmarks, without a cover.
    """
    width = mesh.face_width(landmarks_px)
    x0, y0, x1, y1 = output.roi_xyxy
    wanted = 255 * target_in_shape(covered_rgb, output)
    as_picture = np.rint(np.repeat(cover[..., None], 3, -1) * 255).astype(np.uint8)
    bent = target_in_shape(as_picture, output)[..., 0]
    core = (bent > 0.95) & (plain.mask > 0.5)
    near = (mask.widen(bent, 0.05 * width) > 0.5) & ~(mask.widen(bent, 0.012 * width) > 0.05)
    beside = near & (plain.mask > 0.5)
    if core.sum() < 9 or beside.sum() < 9:
        return dict.fromkeys(("cover_kept", "cover_error", "beside_painted"), float("nan"))
    change = np.abs(output.rgb[y0:y1, x0:x1].astype(np.float32) - wanted).mean(-1)[core]
    return {
        "cover_kept": float((change <= KEPT_LEVELS).mean()),
        "cover_error": float(change.mean()),
        "beside_painted": float(output.mask[beside].sum() / plain.mask[beside].sum()),
    }
