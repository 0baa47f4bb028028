"""Ranking and calibration figures with 95 % intervals clustered by identity; knows no pictures and no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ROUNDS: Final = 400


def auc(scores: Array, labels: Array) -> float:
    """Chance that an altered picture scores above an untouched one, ties half (Hanley and McNeil 1982)."""
    positive = labels > 0.5
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not n_pos or not n_neg:
        return float("nan")
    order = np.argsort(scores, kind="stable")
    sorted_scores = scores[order]
    ranks = np.empty(len(scores))
    starts = np.flatnonzero(np.r_[True, sorted_scores[1:] != sorted_scores[:-1]])
    ends = np.r_[starts[1:], len(scores)]
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def equal_error_rate(scores: Array, labels: Array) -> float:
    """Error where as many reals alarm as fakes are missed."""
    rates = _rates(scores, labels)
    if rates is None:
        return float("nan")
    false_alarms, hits = rates
    at = int(np.argmin(np.abs(false_alarms - (1 - hits))))
    return float((false_alarms[at] + 1 - hits[at]) / 2)


def hit_rate_at(scores: Array, labels: Array, false_alarm_rate: float) -> float:
    """Greatest share of altered pictures found with at most that share of false alarms."""
    rates = _rates(scores, labels)
    if rates is None:
        return float("nan")
    false_alarms, hits = rates
    return float(hits[false_alarms <= false_alarm_rate].max(initial=0.0))


def _rates(scores: Array, labels: Array) -> tuple[Array, Array] | None:
    positive = labels > 0.5
    if positive.all() or not positive.any():
        return None
    limits = np.r_[np.inf, np.unique(scores)[::-1]]
    alarms = np.searchsorted(np.sort(scores[~positive]), limits, side="left")
    found = np.searchsorted(np.sort(scores[positive]), limits, side="left")
    return 1 - alarms / (~positive).sum(), 1 - found / positive.sum()


def expected_calibration_error(chances: Array, labels: Array, bins: int = 15) -> float:
    """Mean gap of confidence and frequency over equally filled bins (Naeini 2015; Nguyen and O'Connor 2015)."""
    parts = np.array_split(np.argsort(chances, kind="stable"), min(bins, len(chances)))
    gaps = [len(p) * abs(chances[p].mean() - labels[p].mean()) for p in parts if len(p)]
    return float(sum(gaps) / max(len(chances), 1))


def brier(chances: Array, labels: Array) -> float:
    """Mean squared error of a chance (Brier 1950)."""
    return float(((chances - labels) ** 2).mean())


def conformal_upper(scores: Array, alpha: float) -> float:
    """Threshold that a new exchangeable score exceeds or meets with chance ≤ alpha (Vovk 2005, eq. 2.20).

    Infinite where there are too few scores for so small an alpha.
    """
    n = len(scores)
    rank = int(np.ceil((n + 1) * (1 - alpha)))
    return float(np.nextafter(np.sort(scores)[rank - 1], np.inf)) if 1 <= rank <= n else float("inf")


def conformal_lower(scores: Array, alpha: float) -> float:
    """Threshold that a new exchangeable score falls to or below with chance ≤ alpha."""
    return -conformal_upper(-scores, alpha)


def clustered_interval(
    figure: Callable[[npt.NDArray[np.intp]], float], clusters: Sequence[str], seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of `figure(indices)` with whole clusters drawn with replacement; None if undefined."""
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    groups = [np.flatnonzero(member == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(ROUNDS):
        chosen = rng.integers(len(groups), size=len(groups))
        drawn.append(figure(np.concatenate([groups[i] for i in chosen])))
    finite = np.array([value for value in drawn if np.isfinite(value)])
    if len(finite) < ROUNDS // 2:
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def on(
    figure: Callable[[Array, Array], float], values: Array, labels: Array
) -> Callable[[npt.NDArray[np.intp]], float]:
    """A figure of (values, labels) as a function of the indices that take part."""
    return lambda indices: figure(values[indices], labels[indices])


def none_seen_limit(n: int) -> float:
    """Upper 95 % limit of a share of which none was seen in n independent tries (rule of three)."""
    return min(1.0, 3.0 / n) if n else 1.0
