"""Last step of the identity recipe: norms measured again, last layer solved in closed form; knows no files.

A short run leaves the last layer behind the features below it. Its best weights are a ridge regression of the
teacher's embedding on those features (Hoerl and Kennard 1970), which needs no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.identity import EMBEDDING_SIZE, IdentityNet

FloatArray = npt.NDArray[np.float32]

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
GAINS = (1.0, 1.3, 1.7)


@dataclass(frozen=True, eq=False)
class Readout:
    """Affine map, features [N, 512] → the teacher's embedding [N, 256]: wanted_mean + gain (x - mean) @ weight."""

    weight: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    wanted_mean: npt.NDArray[np.float64]
    gain: float = 1.0
    ridge: float = 0.0

    def settings(self) -> dict[str, float]:
        """What was chosen."""
        return {"ridge": self.ridge, "gain": self.gain}

    def read(self, features: FloatArray) -> FloatArray:
        """[N, 512] → [N, 256] of unit length."""
        raw = self.wanted_mean + self.gain * (features - self.mean) @ self.weight
        return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)


def penultimate(net: IdentityNet, x: Tensor) -> Tensor:
    """[N, 3, 112, 96] in [0, 1] → what the last layer sees, [N, 512]."""
    seen: Tensor = net.weigh(F.relu(net.expand(net.maps(x)[-1])))
    return seen.flatten(1)


@torch.inference_mode()
def project(net: IdentityNet, features: FloatArray) -> FloatArray:
    """The network's own last layer, features [N, 512] → unit embedding [N, 512]."""
    unit: FloatArray = F.normalize(net.project(torch.from_numpy(features))).numpy()
    return unit


@torch.no_grad()
def refresh_norms(net: IdentityNet, batches: list[Tensor]) -> None:
    """Mean and variance of every batch norm as the mean over `batches`; averaged weights have no norms of their own."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    net.train()
    for batch in batches:
        penultimate(net, batch)
    net.eval()
    for norm in norms:
        norm.momentum = 0.1


def solve_readout(features: FloatArray, wanted: FloatArray, ridge: float) -> Readout:
    """Ridge regression, features [N, 512] on wanted [N, 256]; `ridge` in units of the features' mean variance."""
    mean, wanted_mean = features.mean(0, dtype=np.float64), wanted.mean(0, dtype=np.float64)
    a, b = features - mean, wanted - wanted_mean
    gram = a.T @ a
    penalty = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    return Readout(np.linalg.solve(gram + penalty, a.T @ b), mean, wanted_mean, ridge=ridge)


@torch.inference_mode()
def read_features(net: IdentityNet, batches: Iterable[Tensor]) -> FloatArray:
    """What the last layer sees of many batches, [N, 512]; network in evaluation mode."""
    return np.concatenate([penultimate(net, batch).numpy() for batch in batches])


def choose_readout(
    features: FloatArray,
    wanted: FloatArray,
    score: Callable[[Readout], float],
    ridges: Iterable[float] = RIDGES,
) -> Readout:
    """The readout with the highest score over ridges and gains; the score should come from people not fitted on."""
    solved = [solve_readout(features, wanted, ridge) for ridge in ridges]
    return max((replace(one, gain=gain) for one in solved for gain in GAINS), key=score)


@torch.no_grad()
def install(net: IdentityNet, readout: Readout, seed: int = 0) -> None:
    """Write a readout into the last layer; its 256 numbers are turned into 512 without changing a cosine.

    The halves (of the picture, of its mirror image) stay halves, so that mirroring the picture swaps them.
    """
    half = readout.weight.shape[1] // 2
    block = np.linalg.qr(np.random.default_rng(seed).standard_normal((EMBEDDING_SIZE // 2, half)))[0]
    basis = np.kron(np.eye(2), block)  # [512, 256], orthonormal columns
    weight = readout.gain * readout.weight @ basis.T
    bias = readout.wanted_mean @ basis.T - readout.mean @ weight
    net.project.weight.copy_(torch.from_numpy(weight.T))
    net.project.bias.copy_(torch.from_numpy(bias))
