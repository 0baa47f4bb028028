"""Cuts the person out of a plain ground, for training; knows no statistics and no network.

The outline is kept as a signed distance, because a weighted sum of distances has one clean outline where a weighted
sum of pictures has ghosts.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

WORK_PX = 128
REACH_PX = 16.0  # distances saturate here, in pixels of the 128 px picture


def _trimap(rgb: UInt8Array, points: FloatArray) -> UInt8Array:
    """First guess for GrabCut [128, 128]: face sure, head likely, what runs on from the corners ground."""
    size = WORK_PX
    guess = np.full((size, size), cv2.GC_PR_BGD, np.uint8)
    x, y = points[:468].mean(axis=0)
    width = points[454, 0] - points[234, 0]
    cv2.ellipse(guess, (int(x), int(y - 8)), (44, 58), 0, 0, 360, int(cv2.GC_PR_FGD), -1)
    chin = int(points[152, 1])
    guess[chin:, int(x - 0.6 * width) : int(x + 0.6 * width)] = cv2.GC_PR_FGD
    filled = np.zeros((size + 2, size + 2), np.uint8)
    smooth = cv2.GaussianBlur(rgb, (0, 0), 1.0)
    for corner in ((1, 1), (size - 2, 1)):
        cv2.floodFill(smooth, filled, corner, 0, (3,) * 3, (3,) * 3, 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8))
    guess[cv2.erode(filled[1:-1, 1:-1], np.ones((5, 5), np.uint8), borderValue=1) > 0] = cv2.GC_BGD
    guess[:3, :3] = guess[:3, -3:] = cv2.GC_BGD
    cv2.fillConvexPoly(guess, cv2.convexHull(points[:468]).astype(np.int32), int(cv2.GC_FGD))
    guess[chin:, int(x - 0.3 * width) : int(x + 0.3 * width)] = cv2.GC_FGD
    return guess


def person_mask(rgb: UInt8Array, points: FloatArray) -> UInt8Array:
    """Person 1, ground 0, uint8 [128, 128], of a picture [128, 128, 3] and its landmarks [478, 2]."""
    guess = _trimap(rgb, points)
    cv2.setRNGSeed(0)
    cv2.grabCut(rgb, guess, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    person = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    x, y = points[:468].mean(axis=0).astype(int)
    labels = cv2.connectedComponents(person)[1]
    person = (labels == labels[y, x]).astype(np.uint8)
    holes = cv2.connectedComponents(1 - person)[1]
    border = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    return np.where(np.isin(holes, border), person, np.uint8(1))


def covers_head(mask: UInt8Array, points: FloatArray) -> bool:
    """Whether the crown of the head is inside the mask; where it is not, the cut went wrong."""
    up = points[10] - points[152]
    crown = points[10] + np.float32(0.16) * up
    aside = np.array([-up[1], up[0]]) * np.float32(0.2)
    spots = np.stack([crown, crown - 0.08 * up + aside, crown - 0.08 * up - aside])
    x, y = np.clip(np.round(spots), 0, WORK_PX - 1).astype(int).T
    return bool(mask[y, x].all())


def signed_distance(mask: UInt8Array) -> FloatArray:
    """Distance to the outline float32 [128, 128] in [-1, 1], positive inside, saturating at REACH_PX."""
    padded = np.pad(mask, 16, mode="edge")
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5)
    return np.asarray(np.clip((inside - outside)[16:-16, 16:-16] / REACH_PX, -1, 1), np.float32)


def extend_person(rgb: FloatArray, mask: FloatArray) -> FloatArray:
    """Picture [H, W, 3] whose ground is filled from the person's nearest colours, coarse to fine; mask [H, W]."""
    small, weight = (
        cv2.resize(a, (64, 64), interpolation=cv2.INTER_AREA) for a in (rgb * mask[..., None], mask)
    )
    filled = np.zeros_like(small)
    for sigma in (16.0, 8.0, 4.0, 2.0, 1.0, 0.5):
        blurred = cv2.GaussianBlur(small, (0, 0), sigma)
        share = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
        confident = np.clip(share / 0.15, 0, 1)
        filled = confident * blurred / np.maximum(share, 1e-4) + (1 - confident) * filled
    filled = cv2.resize(filled, mask.shape, interpolation=cv2.INTER_LINEAR)
    return np.asarray(filled * (1 - mask[..., None]) + rgb * mask[..., None], np.float32)


def ground_terms(size: int) -> FloatArray:
    """Terms of a smooth ground float32 [size, size, 6]: 1, x, y, x^2, xy, y^2 with x, y in [-1, 1]."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2)


def fit_ground(rgb: FloatArray, mask: UInt8Array) -> FloatArray:
    """Coefficients float32 [6, 3] of the smooth ground behind a person, by ridge regression; rgb in [0, 1]."""
    away = cv2.erode(1 - mask, np.ones((5, 5), np.uint8), borderValue=1) > 0
    terms, colours = ground_terms(len(mask))[away], rgb[away]
    ridge = np.diag([0.0, 0.02, 0.02, 0.05, 0.05, 0.05]) * max(len(terms), 1) + 1e-3 * np.eye(6)
    prior = np.zeros((6, 3))
    prior[0] = np.median(colours, axis=0) if len(colours) else 0.7
    gain = np.linalg.solve(terms.T @ terms + ridge, terms.T @ (colours - prior[0]))
    return np.asarray(prior + gain, np.float32)
