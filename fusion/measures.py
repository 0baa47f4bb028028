"""Measures of one swap against its target: seam, fine bands, lids, irises, catch-lights; knows no network, no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from fusion import blend, mask, mesh
from fusion.cornea import Cornea, find_corneas
from fusion.face import FloatArray, UInt8Array
from fusion.octaves import band_energies, fine_bands
from fusion.warp import WarpResult, target_in_shape

EyeLights = tuple[list[FloatArray], list[FloatArray]]  # places in the left and the right eye, brightest first

OCTAVES: Final = 2
CATCHLIGHT_REACH: Final = 0.3  # limbus radii within which a catch-light counts as in its place
CATCHLIGHT_LEAST: Final = 0.25  # luma above the cornea's median
LIDS: Final = ((33, 133, 159, 145), (263, 362, 386, 374))  # corners, upper and lower lid


def seam_delta_e(output: WarpResult, target_rgb: UInt8Array, width_px: float, level: float = 0.05) -> float:
    """Colour step that the seam adds: mean along the seam of the CIE76 distance between the step in the output
    and the step in the untouched target, each from a band within to a band without.

    The seam is the outer line where the source's share passes `level`; eyes and mouth within are no seam. The
    bands are 4 % of the face's width wide. 0 for a swap that changes nothing.
    """
    x0, y0, x1, y1 = output.roi_xyxy
    scale = min(1.0, 80.0 / width_px)
    size = (max(8, round((y1 - y0) * scale)), max(8, round((x1 - x0) * scale)))
    inside = mask.fill_outlines(blend.resize(output.mask, size) > level)
    line = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    if not line.any():
        return 0.0
    steps = [
        _step(picture[y0:y1, x0:x1], inside, 0.04 * width_px * scale) for picture in (output.rgb, target_rgb)
    ]
    return float(np.linalg.norm(steps[0] - steps[1], axis=-1)[line].mean())


def _step(rgb: UInt8Array, inside: FloatArray, band_px: float) -> FloatArray:
    """Lab within less Lab without, each a local mean over a band at the rim, float32 [h, w, 3]."""
    size = (inside.shape[1], inside.shape[0])
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
    lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2Lab), np.float32)
    return blend.masked_blur(lab, inside, band_px) - blend.masked_blur(lab, 1 - inside, band_px)


def fine_band_measures(
    output: WarpResult, target_rgb: UInt8Array, target_landmarks: FloatArray, target_bands: FloatArray
) -> dict[str, float]:
    """hf_ratio: amplitude of the finest two octaves on bare skin, output over target; hf_ratio_1 and _2 by octave.

    hf_off: how far hf_ratio is from 1. hf_corr: correlation of these octaves with the target's, bent to the output's
    shape by the engine's own map. `target_bands`: band_energies of the target.
    """
    landmarks = target_landmarks if output.landmarks_px is None else output.landmarks_px
    mine, other = band_energies(output.rgb, landmarks, OCTAVES), target_bands
    both = float(np.sqrt((mine**2).sum()) / max(float(np.sqrt((other**2).sum())), 1e-6))
    x0, y0, x1, y1 = output.roi_xyxy
    under = target_in_shape(target_rgb, output).mean(-1)
    seen = output.rgb[y0:y1, x0:x1].astype(np.float32).mean(-1) / np.float32(255)
    points = (landmarks[: mesh.NUM_MESH, :2] - [x0, y0]).astype(np.float32)
    skin = mask.cheek_mask(points, (y1 - y0, x1 - x0)) > 0.5
    a, b = fine_bands(seen, OCTAVES)[skin], fine_bands(np.asarray(under, np.float32), OCTAVES)[skin]
    corr = (
        float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-9)) if skin.any() else 0.0
    )
    ratios = {f"hf_ratio_{k + 1}": float(mine[k] / max(float(other[k]), 1e-6)) for k in range(OCTAVES)}
    return {"hf_ratio": both, "hf_off": abs(both - 1), **ratios, "hf_corr": corr}


def age_proxy(rgb: UInt8Array, landmarks_px: FloatArray) -> float:
    """How wrinkled bare skin looks: amplitude of octaves 2 to 4 over a face 300 px wide. No age is known."""
    scale = 300 / max(mesh.face_width(landmarks_px), 1.0)
    size = (max(8, round(rgb.shape[1] * scale)), max(8, round(rgb.shape[0] * scale)))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    points = ((landmarks_px[:, :2] + 0.5) * scale - 0.5).astype(np.float32)
    return float(np.sqrt((band_energies(small, points, 4)[1:] ** 2).sum()))


def eye_measures(found: FloatArray, before: FloatArray) -> dict[str, float]:
    """eye_aperture_err: change of the lids' opening, relative; iris_err: of the iris centre, in eye widths.

    Landmarks [478, 2] of output and target by the same finder; mean of both eyes.
    """
    aperture, iris = [], []
    for corners_and_lids, centre in zip(LIDS, (mesh.LEFT_IRIS[0], mesh.RIGHT_IRIS[0]), strict=True):
        (open_after, at_after), (open_before, at_before) = (
            _eye_frame(points, corners_and_lids, centre) for points in (found, before)
        )
        aperture.append(abs(open_after - open_before) / max(open_before, 0.02))
        iris.append(float(np.linalg.norm(at_after - at_before)))
    return {"eye_aperture_err": float(np.mean(aperture)), "iris_err": float(np.mean(iris))}


def _eye_frame(points: FloatArray, numbers: tuple[int, ...], iris: int) -> tuple[float, FloatArray]:
    """(opening in eye widths, place of the iris along and across the eye's axis in eye widths [2])."""
    one, other, upper, lower = (points[k, :2] for k in numbers)
    axis = other - one
    width = max(float(np.linalg.norm(axis)), 1e-6)
    along = axis / width
    across = np.array([-along[1], along[0]], np.float32)
    away = points[iris, :2] - (one + other) / 2
    place = np.array([away @ along, away @ across], np.float32) / np.float32(width)
    return abs(float((lower - upper) @ across)) / width, place


def catchlights(rgb: UInt8Array, cornea: Cornea) -> list[FloatArray]:
    """Places [2] of bright spots on a cornea, from its middle, in limbus radii, brightest first.

    A threshold on luma, on purpose simpler than the eye branch's own finder, so that it judges it.
    """
    x0, y0, x1, y1 = cornea.box_xyxy
    part = np.ascontiguousarray(rgb[y0:y1, x0:x1])
    luma = np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)
    inside = (cornea.visible > 0.5) & (cornea.eccentricity < 0.85)
    if inside.sum() < 9:
        return []
    above = np.where(inside, luma - np.median(luma[inside]), 0)
    peak = float(above.max())
    if peak < CATCHLIGHT_LEAST:
        return []
    _, labels = cv2.connectedComponents((above > 0.6 * peak).astype(np.uint8))
    x, y = cornea.grid_px
    spots = []
    for label in range(1, int(labels.max()) + 1):
        weight = above * (labels == label)
        place = np.array([(x * weight).sum(), (y * weight).sum()], np.float32) / np.float32(weight.sum())
        spots.append((float(weight.max()), (place - cornea.centre_px) / np.float32(cornea.radius_px)))
    return [place for _, place in sorted(spots, key=lambda one: -one[0])]


def eye_lights(rgb: UInt8Array, landmarks_px: FloatArray) -> EyeLights:
    """`catchlights` of the left and the right eye; none in an eye that is closed or too small."""
    left, right = (
        catchlights(rgb, own) if own is not None and own.openness > 0.3 else []
        for own in find_corneas(rgb, landmarks_px)
    )
    return left, right


def catchlight_kept(
    output_rgb: UInt8Array, found: FloatArray, lights: EyeLights, also: Sequence[FloatArray] = ()
) -> float:
    """Share of the eyes with a catch-light (`eye_lights` of the target) whose output shows one within reach.

    `found`: the output's landmarks [478, 2] by the finder. Where it misplaces the limbus, a highlight that is plainly
    there lies out of reach; so an eye also counts where it is seen from one of `also`, landmarks of the same face got
    otherwise. NaN where no eye has a catch-light.
    """
    seen = [find_corneas(output_rgb, points) for points in (found, *also)]
    kept = [
        any(
            float(np.linalg.norm(one - wanted[0])) <= CATCHLIGHT_REACH
            for cornea in (corneas[eye] for corneas in seen)
            if cornea is not None
            for one in catchlights(output_rgb, cornea)
        )
        for eye, wanted in enumerate(lights)
        if wanted
    ]
    return float(np.mean(kept)) if kept else float("nan")


def kernel_distance(features: FloatArray, real: FloatArray) -> float:
    """Unbiased squared MMD with the cubic kernel (KID, Bińkowski et al. 2018, eq. 4); features [N, D], [M, D]."""
    size = features.shape[1]
    own, other, across = (
        (a.astype(np.float64) @ b.T / size + 1) ** 3
        for a, b in ((features, features), (real, real), (features, real))
    )
    n, m = len(features), len(real)
    within = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(within - 2 * across.mean())
