"""Linear statistics of portraits: packed textures, attributes, the mixture drawn from; opens no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facesets.template import CANVAS_PX

FloatArray = npt.NDArray[np.float32]

HALF_PX = CANVAS_PX // 2
OUTLINE_PX = CANVAS_PX // 4
OUTLINE_GAIN = 1.5
EDGE_STEEPNESS = 10.0  # a distance of 1 is 32 px of the canvas: the edge is 3 px wide
CHROMA_GAIN = 2.0  # a chroma sample stands for four pixels, so it weighs twice in the sum of squares
ATTRIBUTES = ("yaw", "pitch", "smile", "mouth_open", "eye_open", "light_side")


def pack_texture(rgb: FloatArray, outline: FloatArray) -> FloatArray:
    """Vector float32 [102400] of a picture [256, 256, 3] in [0, 1] and its signed distance [256, 256].

    Luma is kept in full, chroma at half, the distance at a quarter of the size.
    """
    ycc = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)
    chroma = cv2.resize(ycc[..., 1:], (HALF_PX, HALF_PX), interpolation=cv2.INTER_AREA) - 0.5
    distance = cv2.resize(outline, (OUTLINE_PX, OUTLINE_PX), interpolation=cv2.INTER_AREA)
    parts = [ycc[..., 0], CHROMA_GAIN * chroma.transpose(2, 0, 1), OUTLINE_GAIN * distance]
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def unpack_texture(vector: FloatArray) -> FloatArray:
    """Picture and signed distance float32 [256, 256, 4] (not clipped) of a vector made by `pack_texture`."""
    luma, chroma, distance = np.split(vector, [CANVAS_PX**2, CANVAS_PX**2 + 2 * HALF_PX**2])
    chroma = chroma.reshape(2, HALF_PX, HALF_PX).transpose(1, 2, 0) / CHROMA_GAIN + 0.5
    chroma = _enlarge(np.ascontiguousarray(chroma))
    ycc = np.concatenate([luma.reshape(CANVAS_PX, CANVAS_PX, 1), chroma], axis=2)
    rgb = cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)
    outline = _enlarge(distance.reshape(OUTLINE_PX, OUTLINE_PX) / OUTLINE_GAIN)
    return np.asarray(np.dstack([rgb, outline]), np.float32)


def _enlarge(plane: FloatArray) -> FloatArray:
    return np.asarray(cv2.resize(plane, (CANVAS_PX, CANVAS_PX), interpolation=cv2.INTER_LINEAR), np.float32)


def coverage(distance: FloatArray) -> FloatArray:
    """How much of each pixel the person covers [0, 1], of signed distances; the edge is about three pixels wide."""
    return np.asarray(np.clip(0.5 + distance * EDGE_STEEPNESS, 0, 1), np.float32)


def principal_components(rows: FloatArray, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean [D], unit components [count, D] and standard deviations [count] of rows [N, D], by the Gram matrix."""
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = rows - mean
    values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    components = (vectors / np.sqrt(values)).T.astype(np.float32) @ rows
    return mean, components, np.sqrt(values / len(rows)).astype(np.float32)


def _distance(shapes: FloatArray, a: int, b: int) -> FloatArray:
    return np.asarray(np.linalg.norm(shapes[:, a, :2] - shapes[:, b, :2], axis=1), np.float32)


def shape_attributes(points: FloatArray) -> FloatArray:
    """Yaw and pitch in degrees, smile, mouth and eye opening in eye distances: float32 [N, 5] of points [N, 478, 3]."""
    eyes = _distance(points, 33, 263)
    side = points[:, 454] - points[:, 234]
    rise = points[:, 152] - points[:, 10]
    yaw = np.degrees(np.arctan2(side[:, 2], side[:, 0]))
    pitch = np.degrees(np.arctan2(rise[:, 2], rise[:, 1]))
    smile = _distance(points, 61, 291) / eyes
    mouth = _distance(points, 13, 14) / eyes
    lids = (_distance(points, 159, 145) + _distance(points, 386, 374)) / (2 * eyes)
    return np.stack([yaw, pitch, smile, mouth, lids], axis=1).astype(np.float32)


def light_side(textures: FloatArray) -> FloatArray:
    """How much brighter the cheek on the picture's left is, [-1, 1], of mean-shape luma [N, 256, 256]."""
    row = slice(150, 195)
    left, right = textures[:, row, 82:112].mean(axis=(1, 2)), textures[:, row, 142:172].mean(axis=(1, 2))
    return np.asarray((left - right) / (left + right), np.float32)


def regress(on: FloatArray, rows: FloatArray, ridge: float = 1.0) -> FloatArray:
    """Least squares matrix [A, D] with rows [N, D] ~ on [N, A] @ matrix; both must be centred."""
    gram = on.T @ on + ridge * np.eye(on.shape[1], dtype=np.float32)
    return np.asarray(np.linalg.solve(gram, on.T @ rows), np.float32)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussian mixture: weights [M], means [M, D], lower Cholesky factors of the covariances [M, D, D]."""

    weights: FloatArray
    means: FloatArray
    factors: FloatArray

    def draw(self, rng: np.random.Generator, shrink: float) -> FloatArray:
        """One vector float32 [D]; its distance from the mean of its mixture part is shrunk."""
        part = int(rng.choice(len(self.weights), p=self.weights / self.weights.sum()))
        step = self.factors[part] @ np.asarray(rng.standard_normal(self.means.shape[1]), np.float32)
        return np.asarray(self.means[part] + shrink * step, np.float32)


def fit_mixture(rows: FloatArray, parts: int, seed: int) -> Mixture:
    """Full-covariance Gaussian mixture of standardised rows [N, D]."""
    from sklearn.mixture import GaussianMixture

    fitted: Any = GaussianMixture(parts, covariance_type="full", reg_covar=0.05, random_state=seed).fit(rows)
    factors = np.linalg.cholesky(fitted.covariances_)
    return Mixture(*(np.asarray(a, np.float32) for a in (fitted.weights_, fitted.means_, factors)))
