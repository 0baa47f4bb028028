"""Colour match and blending of two aligned pictures; knows masks, no landmarks and no files.

Pictures are float32 [H, W, 3] RGB in [0, 1], masks float32 [H, W] in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

from fusion.face import FloatArray


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
    mean = (image * weight[..., None]).sum((0, 1)) / max(total, 1e-6)
    above = blur(image * weight[..., None], sigma_px)
    below = blur(weight, sigma_px)[..., None]
    return np.asarray((above + floor * mean) / (below + floor), np.float32)


def relighting_gain(
    moved: FloatArray, target: FloatArray, skin: FloatArray, sigma_px: float, cap: float
) -> FloatArray:
    """Quotient of low-frequency skin target / moved, per channel, within [1 / cap, cap]; float32 [H, W, 3]."""
    offset = 0.02
    want = masked_blur(target, skin, sigma_px) + offset
    have = masked_blur(moved, skin, sigma_px) + offset
    return np.clip(want / have, 1 / cap, cap).astype(np.float32)


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
