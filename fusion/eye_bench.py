"""Judges the eye branch on drawn eyes: where its highlights land, and whether both eyes agree; knows no photograph.

Two sets of scenes: `ordinary` and `unusual`. Seeds 7001 and 7002 chose the finder of highlights; figures are taken on
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fusion.eyes import match_eyes
from fusion.face import FloatArray, UInt8Array
from fusion.rendered_eyes import DrawnEyes, EyeScene, draw_eyes, random_scene

Rng = np.random.Generator
LEAST_CONTRAST: Final = 0.15  # of luma: a dimmer catch-light nobody sees
LANDMARK_NOISE: Final = 0.01  # standard deviation, in widths of the eye
LOST: Final = 99.0


@dataclass(frozen=True)
class Judged:
    """What became of one scene's eyes, left and right of the picture.

    errors_px   distance of the painted highlight from its true place; None where none can be judged, LOST where
                none was painted
    apart       how far the two painted highlights lie from the same place of their corneas, in limbus radii; None
                where not both were painted
    """

    errors_px: tuple[float | None, float | None]
    apart: float | None


def unusual_scene(rng: Rng, width_px: float = 64.0) -> EyeScene:
    """Wider ranges than `random_scene`: turned further, lids lower and higher, irises of any hue, small and large lamps
    and pupils, more blur and noise.
    """
    tint = rng.uniform(0.04, 1.0, 3) * rng.uniform(0.1, 0.65)
    return EyeScene(
        width_px=width_px,
        head=(float(rng.uniform(-32, 32)), float(rng.uniform(-15, 15))),
        gaze=(float(rng.uniform(-26, 26)), float(rng.uniform(-12, 12))),
        lamp=(float(rng.uniform(-45, 45)), float(rng.uniform(-50, 15))),
        lamp_degrees=float(rng.uniform(3.5, 13)),
        opening=float(rng.uniform(0.75, 1.5)),
        iris_rgb=(float(tint[0]), float(tint[1]), float(tint[2])),
        pupil=float(rng.uniform(0.2, 0.6)),
        blur_px=float(rng.uniform(0.2, 1.6) * width_px / 64),
        noise=float(rng.uniform(0.0, 0.03)),
        seed=int(rng.integers(2**31)),
    )


SCENES: Final[Mapping[str, Callable[[Rng, float], EyeScene]]] = {
    "ordinary": random_scene,
    "unusual": unusual_scene,
}


def judge_scenes(kind: str, count: int, seed: int, width_px: float = 64.0) -> Iterator[Judged]:
    """Draw targets of a kind, results that look up to 6° elsewhere with other irises, and judge the branch on them."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        scene = SCENES[kind](rng, width_px)
        gaze = (scene.gaze[0] + float(rng.uniform(-6, 6)), scene.gaze[1] + float(rng.uniform(-3, 3)))
        red, green, blue = rng.uniform(0.05, 0.5, 3).tolist()
        yield judge_scene(scene, replace(scene, gaze=gaze, iris_rgb=(red, green, blue)), rng)


def judge_scene(scene: EyeScene, other: EyeScene, rng: Rng) -> Judged:
    """Give the unlit eyes of `other` the highlights of `scene`; both heads are in one place."""
    target, truth = draw_eyes(scene), draw_eyes(other)
    result, dark = draw_eyes(replace(other, lamp=None)), draw_eyes(replace(scene, lamp=None))
    jitter = LANDMARK_NOISE * scene.width_px
    points = [
        (one.landmarks_px + rng.normal(0, jitter, one.landmarks_px.shape)).astype(np.float32)
        for one in (result, target)
    ]
    out = match_eyes(result.rgb, points[0], target.rgb, points[1])
    added = np.asarray((target.rgb.mean(-1) - dark.rgb.mean(-1)) / 255, np.float32)
    errors: list[float | None] = []
    offsets: list[FloatArray] = []
    for k in (0, 1):
        place, own = truth.highlights_px[k], target.highlights_px[k]
        found = brightened_at(out.rgb, result.rgb, result.corneas[k])
        if found is not None and place is not None:
            offsets.append(found - place)
        if place is None or own is None or not _visible(target, truth, k, own, added):
            errors.append(None)
        else:
            errors.append(LOST if found is None else float(np.linalg.norm(found - place)))
    radius = scene.width_px / 5
    apart = float(np.linalg.norm(offsets[0] - offsets[1])) / radius if len(offsets) == 2 else None
    return Judged((errors[0], errors[1]), apart)


def _visible(target: DrawnEyes, truth: DrawnEyes, k: int, own: FloatArray, added: FloatArray) -> bool:
    """Whether the target shows this eye's highlight well, and the result may."""
    x, y = np.rint(own).astype(int)
    bright = added[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].max(initial=0) >= LEAST_CONTRAST
    return bool(target.seen[k] and truth.seen[k] and bright)


def brightened_at(after: UInt8Array, before: UInt8Array, where: FloatArray) -> FloatArray | None:
    """Middle [2] of what became brighter where `where` [H, W] is; None where nothing did."""
    rise = np.clip(after.astype(np.float32) - before, 0, None).sum(-1) * (where > 0.02)
    if rise.sum() < 1:
        return None
    y, x = np.mgrid[: rise.shape[0], : rise.shape[1]]
    return np.asarray(np.array([(x * rise).sum(), (y * rise).sum()]) / rise.sum(), np.float32)
