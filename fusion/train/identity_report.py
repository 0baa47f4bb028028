"""Numbers that say how good a face embedding is, from embeddings alone; knows no network and no picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, spearmanr
from sklearn.metrics import roc_auc_score

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Threshold:
    """Similarity above which two faces count as one person, fitted on impostor scores.

    fmr is what was asked for, `impostors` the pairs it was fitted on; ci95 comes from drawing people with
    replacement; fmr_ci95 is the exact binomial interval of the rate at this threshold (Clopper-Pearson 1934).
    """

    value: float
    fmr: float
    impostors: int
    ci95: tuple[float, float]
    fmr_ci95: tuple[float, float]


def upper_pairs(similarity: FloatArray) -> FloatArray:
    """Entries above the diagonal of [N, N], as [N (N - 1) / 2]."""
    return similarity[np.triu_indices(len(similarity), k=1)]


def rank_agreement(ours: FloatArray, reference: FloatArray) -> float:
    """Spearman's rank correlation of the similarities of all pairs; embeddings [N, D] and [N, E], unit."""
    result = spearmanr(upper_pairs(ours @ ours.T), upper_pairs(reference @ reference.T))
    return float(result.statistic)


def verification_scores(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Genuine [N] and impostor [N (N - 1)] similarities of two views [N, D] of the same N people."""
    similarity = first @ second.T
    return np.diagonal(similarity).copy(), similarity[~np.eye(len(similarity), dtype=bool)]


def roc_auc(genuine: FloatArray, impostor: FloatArray) -> float:
    """Chance that a genuine pair scores higher than an impostor pair."""
    labels = np.concatenate([np.ones(len(genuine)), np.zeros(len(impostor))])
    return float(roc_auc_score(labels, np.concatenate([genuine, impostor])))


def quantile_threshold(impostor: FloatArray, fmr: float) -> float:
    """Smallest similarity that at most `fmr` of the impostor scores exceed."""
    return float(np.quantile(impostor, 1 - fmr, method="higher"))


def fit_threshold(embeddings: FloatArray, fmr: float = 1e-4, draws: int = 1000, seed: int = 0) -> Threshold:
    """Threshold on the similarities of all pairs of people, embeddings [N, D] unit, one a person."""
    similarity = embeddings @ embeddings.T
    pairs = upper_pairs(similarity)
    value = quantile_threshold(pairs, fmr)
    rng = np.random.default_rng(seed)
    fits = []
    for _ in range(draws):
        chosen = np.sort(rng.integers(len(embeddings), size=len(embeddings)))
        rows, columns = np.triu_indices(len(chosen), k=1)
        different = chosen[rows] != chosen[columns]
        fits.append(quantile_threshold(similarity[chosen[rows], chosen[columns]][different], fmr))
    low, high = np.quantile(fits, [0.025, 0.975])
    accepted = int((pairs > value).sum())
    return Threshold(
        value, fmr, len(pairs), (float(low), float(high)), binomial_interval(accepted, len(pairs))
    )


def binomial_interval(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high
