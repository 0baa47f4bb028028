"""Colour match and blending of two aligned pictures; knows no network and no files.

Pictures are float32 [H, W, 3] RGB in [0, 1], masks float32 [H, W] in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from fusion import mesh
from fusion.face import FloatArray, UInt8Array

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
DARK_FEATURE, PALE_SKIN = (
    0.35,
    0.75,
)  # luma, as a part of the skin's around, of what is surely none and surely skin


def blur(image: FloatArray, sigma_px: float) -> FloatArray:
    """Gaussian of any width: shrunk first where it is wide, so that the cost stays flat."""
    height, width = image.shape[:2]
    step = max(1, int(sigma_px / 3))
    if step == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma_px, 0.3)), np.float32)
    size = (max(1, width // step), max(1, height // step))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / step, borderType=cv2.BORDER_REFLECT101)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def masked_blur(image: FloatArray, weight: FloatArray, sigma_px: float, floor: float = 1e-3) -> FloatArray:
    """Normalised convolution: mean of `image` under a Gaussian, counting only where `weight` is.

    Far from any weight the value tends to the weighted mean of the whole picture.
    """
    total = float(weight.sum())
    mean = np.einsum("hwc,hw->c", image, weight) / max(total, 1e-6)
    above = blur(image * weight[..., None], sigma_px)
    below = blur(weight, sigma_px)[..., None]
    return np.asarray((above + floor * mean) / (below + floor), np.float32)


@dataclass(frozen=True, eq=False)
class Light:
    """How to repaint one picture in the light and skin colour of another; all float32 [H, W, 3].

    have, want   low frequencies of its own skin and of the other's
    darker       factor on what is darker than the skin around (brows, pores, shade); lighter detail keeps its height
    """

    have: FloatArray
    want: FloatArray
    darker: FloatArray

    def mixed(self, other: Light, share: FloatArray) -> Light:
        """This light, and the other where `share` [H, W] is 1."""
        part = share[..., None]
        both = ((self.have, other.have), (self.want, other.want), (self.darker, other.darker))
        return Light(*(np.asarray(mine + part * (its - mine), np.float32) for mine, its in both))

    def resized(self, size: tuple[int, int]) -> Light:
        """The same at another size (height, width)."""
        return Light(*(resize(part, size) for part in (self.have, self.want, self.darker)))


def match_light(
    moved: FloatArray,
    target: FloatArray,
    moved_skin: FloatArray,
    skin: FloatArray,
    sigma_px: float,
    cap: float,
) -> Light:
    """Light that makes the skin of `moved` equal the skin of `target` below the frequency of `sigma_px`.

    Each picture counts only where its own skin is. The factor on darker detail lies within [1 / cap, cap].
    """
    have, want = masked_blur(moved, moved_skin, sigma_px), masked_blur(target, skin, sigma_px)
    darker = np.clip((want + 0.02) / (have + 0.02), 1 / cap, cap).astype(np.float32)
    return Light(have, want, darker)


def relight(moved: FloatArray, light: Light) -> FloatArray:
    """Low frequencies exchanged; what is darker than the skin scales with it, what is lighter is added as it is.

    A factor alone turns highlights of dark skin into glare on light skin; a sum alone turns brows grey. What is much
    darker than the skin (brows, lashes, nostrils) is none: it gets brighter or darker but keeps its own colour, which
    the factors of skin would turn blue on lighter skin.
    """
    detail = moved - light.have
    as_skin = light.want + np.where(detail < 0, detail * light.darker, detail)
    own_colour = moved * (light.darker @ LUMA)[..., None]
    paleness = (moved @ LUMA) / (light.have @ LUMA + 0.02)  # 1: as light as the skin around
    skin = np.clip((paleness - DARK_FEATURE) / (PALE_SKIN - DARK_FEATURE), 0, 1)[..., None]
    return np.clip(own_colour + skin * (as_skin - own_colour), 0, 1).astype(np.float32)


def match_region(
    light: Light, moved: FloatArray, target: FloatArray, region: FloatArray, amount: float, cap: float
) -> Light:
    """Within a soft `region` (the lips) take the colour there instead of the skin's.

    The region's mean goes `amount` of the way from where the skin's light takes it to the target's own mean.
    """
    weight = region / max(float(region.sum()), 1e-6)
    if amount <= 0 or region.sum() < 4:
        return light
    have, own = (np.einsum("hwc,hw->c", picture, weight) for picture in (moved, target))
    as_skin = np.einsum("hwc,hw->c", relight(moved, light), weight)
    want = as_skin + amount * (own - as_skin)
    darker = np.clip((want + 0.02) / (have + 0.02), 1 / cap, cap)
    soft = region[..., None]
    return Light(
        light.have + soft * (have - light.have),
        light.want + soft * (want - light.want),
        (light.darker + soft * (darker - light.darker)).astype(np.float32),
    )


def resize(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Bilinear to `size` = (height, width)."""
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def blend_bands(over: FloatArray, under: FloatArray, mask: FloatArray, bands: int) -> FloatArray:
    """Laplacian pyramid blend (Burt & Adelson 1983, eq. 12): every octave with its own width of seam."""
    bands = max(1, min(bands, int(np.log2(max(2, min(mask.shape)))) - 2))
    difference, masks = [over - under], [mask]
    for _ in range(bands - 1):
        difference.append(np.asarray(cv2.pyrDown(difference[-1]), np.float32))
        masks.append(np.asarray(cv2.pyrDown(masks[-1]), np.float32))
    result: FloatArray = difference[-1] * masks[-1][..., None]
    for level in range(bands - 2, -1, -1):
        size = (difference[level].shape[1], difference[level].shape[0])
        band = difference[level] - cv2.pyrUp(difference[level + 1], dstsize=size)
        result = np.asarray(cv2.pyrUp(result, dstsize=size) + band * masks[level][..., None], np.float32)
    return np.asarray(under + result, np.float32)


def match_iris_colour(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    amount: float,
) -> UInt8Array:
    """The target with irises in the source's colour; shade, pupil and catch-lights stay where they are.

    Mean Lab colour of the ring between pupil and rim is shifted by `amount` of the difference. Irises under
    3 px or hidden by the lids are left alone. The picture itself is returned where nothing changes.
    """
    wanted = [_iris_colour(source_rgb, source_landmarks, iris, eye) for iris, eye in IRISES]
    colours = [colour for colour, _, _ in wanted if colour is not None]
    if not colours:
        return target_rgb
    want = np.mean(colours, axis=0)
    painted = target_rgb.copy()
    for iris, eye in IRISES:
        have, weight, (x0, y0, x1, y1) = _iris_colour(target_rgb, target_landmarks, iris, eye)
        if have is None:
            continue
        part = painted[y0:y1, x0:x1].astype(np.float32) / np.float32(255)
        lab = cv2.cvtColor(part, cv2.COLOR_RGB2Lab)
        shift = amount * (want - have) * np.array([0.6, 1, 1])
        shade = np.clip(lab[..., :1] / max(float(have[0]), 1.0), 0, 1)  # the pupil stays black
        new = cv2.cvtColor((lab + weight[..., None] * shade * shift).astype(np.float32), cv2.COLOR_Lab2RGB)
        painted[y0:y1, x0:x1] = np.clip(np.rint(new * 255), 0, 255).astype(np.uint8)
    return painted


def _iris_colour(
    rgb: UInt8Array, landmarks: FloatArray, iris: tuple[int, ...], eye: tuple[int, ...]
) -> tuple[FloatArray | None, FloatArray, tuple[int, int, int, int]]:
    """(mean Lab [3] of the visible iris or None, weight [h, w] of the disc, its box_xyxy)."""
    centre = landmarks[iris[0], :2]
    radius = float(np.linalg.norm(landmarks[list(iris[1:]), :2] - centre, axis=1).mean())
    low = np.floor(centre - 1.3 * radius).astype(int)
    high = np.ceil(centre + 1.3 * radius).astype(int) + 1
    x0, y0 = np.clip(low, 0, [rgb.shape[1], rgb.shape[0]]).tolist()
    x1, y1 = np.clip(high, 0, [rgb.shape[1], rgb.shape[0]]).tolist()
    box = (x0, y0, x1, y1)
    if radius < 3 or x1 - x0 < 3 or y1 - y0 < 3:
        return None, np.zeros((0, 0), np.float32), box
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    away = np.hypot(x - centre[0], y - centre[1]) / radius
    opening = np.zeros((y1 - y0, x1 - x0), np.uint8)
    outline = np.rint((landmarks[list(eye), :2] - [x0, y0]) * 16).astype(np.int32)
    cv2.fillPoly(opening, [outline], 255, lineType=cv2.LINE_AA, shift=4)
    weight = (opening / np.float32(255) * np.clip((1.02 - away) / 0.2, 0, 1)).astype(np.float32)
    lab = cv2.cvtColor(rgb[y0:y1, x0:x1].astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab)
    ring = (weight > 0.5) & (away > 0.45) & (away < 0.9) & (lab[..., 0] < 75)
    if ring.sum() < 8:
        return None, weight, box
    return np.asarray(np.median(lab[ring], axis=0), np.float32), weight, box


IRISES: Final = ((mesh.LEFT_IRIS, mesh.LEFT_EYE), (mesh.RIGHT_IRIS, mesh.RIGHT_EYE))
