"""The colour step at a painted face's outline, taken away by a membrane; knows no engine's inside, no network, no file.

At the outline the result must have the colour that the target, bent to the result's shape, has there. What it lacks in
low frequencies is added and fades inwards, as in Poisson blending (Pérez 2003) but with a finite reach: the middle of
the face keeps the source's skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fusion import blend, mask, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.warp import WarpResult, target_in_shape


@dataclass(frozen=True)
class SeamOptions:
    """Settings; lengths are shares of the face's width.

    scale     finest colour that is made equal at the outline (Gaussian sigma)
    depth     how far from the outline the difference is measured
    reach     how far inwards it is taken away, fading
    rounds    every round takes away what the one before has left
    level     share of the source at which the outline lies
    cap       greatest change in a round, of pictures in [0, 1]
    width_px  width of the face on the grid on which the difference is computed
    """

    scale: float = 0.04
    depth: float = 0.05
    reach: float = 0.07
    rounds: int = 4
    level: float = 0.02
    cap: float = 0.25
    width_px: float = 100.0


def close_seam(
    target_rgb: UInt8Array, result: WarpResult, landmarks_px: FloatArray, options: SeamOptions | None = None
) -> UInt8Array:
    """The result's picture uint8 [H, W, 3] without the colour step at its outline; a new picture.

    landmarks [478, 2] of the face. Where the source was not painted, and deeper than `reach`, nothing changes.
    """
    options = options or SeamOptions()
    x0, y0, x1, y1 = result.roi_xyxy
    kept = result.rgb[y0:y1, x0:x1]
    width = mesh.face_width(landmarks_px)
    scale = min(1.0, options.width_px / width)
    size = (max(8, round((y1 - y0) * scale)), max(8, round((x1 - x0) * scale)))
    inside = mask.fill_outlines(blend.resize(result.mask, size) > options.level)
    small = cv2.resize(kept, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    seen = small.astype(np.float32) / np.float32(255)
    wanted = target_in_shape(target_rgb, result, size)
    added = membrane_step(wanted - seen, inside, width * scale, options)
    full = (y1 - y0, x1 - x0)
    merged = kept.astype(np.float32) + 255 * blend.resize(added, full) * blend.resize(inside, full)[..., None]
    new = np.clip(np.rint(merged), 0, 255).astype(np.uint8)
    rgb = result.rgb.copy()
    rgb[y0:y1, x0:x1] = np.where((result.altered & (result.mask > 0))[..., None], new, kept)
    return rgb


def membrane_step(
    missing: FloatArray, inside: FloatArray, width_px: float, options: SeamOptions
) -> FloatArray:
    """What to add to the inside so that nothing is missing at its rim, float32 [h, w, 3].

    missing [h, w, 3] is wanted less seen; inside [h, w] is 0 or 1. The mean of what is missing near the rim is
    carried along the rim by normalised convolution and weighted by how near the rim is.
    """
    fade, near = membrane_rim(inside, width_px, options)
    added = np.zeros_like(missing)
    if not inside.any():
        return added
    for _ in range(options.rounds):
        lacking = blend.masked_blur(missing - added, near, options.scale * width_px, floor=1e-4)
        added = added + np.clip(lacking, -options.cap, options.cap) * fade[..., None]
    return np.asarray(added, np.float32)


def membrane_rim(inside: FloatArray, width_px: float, options: SeamOptions) -> tuple[FloatArray, FloatArray]:
    """How much of a step is taken away at each pixel, and how much a pixel counts where it is measured, [h, w] each."""
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)
    fade = inside * (1 - mask.smooth_step(distance / np.float32(options.reach * width_px)))
    near = inside * np.exp(-0.5 * (distance / np.float32(options.depth * width_px)) ** 2)
    return np.asarray(fade, np.float32), np.asarray(near, np.float32)
