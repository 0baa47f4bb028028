"""Frames of a foreign set to rows: frame and video AUC, error rates; knows nothing of how the set was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector import statistics
from detector.deepfakebench import ForeignVideo
from detector.score import Scorer
from fusion.face import Face, UInt8Array
from fusion.tables import Row


@dataclass(frozen=True)
class ForeignFrame:
    """One frame's score; nan where no face was found or the detector does not apply."""

    dataset: str
    label: str
    video: str
    altered: bool
    file: str
    logit: float
    band: str


def score_videos(
    videos: Iterable[ForeignVideo],
    scorer: Scorer,
    read: Callable[[Path], UInt8Array],
    find: Callable[[UInt8Array], Sequence[Face]],
) -> Iterator[ForeignFrame]:
    """The largest face of every frame; `read` gives a picture uint8 [H, W, 3], `find` its faces, largest first."""
    for video in videos:
        for path in video.frames:
            rgb = read(path)
            scores = scorer.score_faces(rgb, list(find(rgb))[:1])
            logit, band = (scores[0].logit, scores[0].band) if scores else (float("nan"), "not applicable")
            yield ForeignFrame(video.dataset, video.label, video.name, video.altered, str(path), logit, band)


def foreign_rows(frames: Sequence[ForeignFrame], shipped: float) -> list[Row]:
    """AUC, EER, hits and false alarms per frame and, by the mean logit, per video; intervals clustered by video.

    Frames without a score are left out and counted (`applicable`). A video counts under its name and label.
    """
    rows = []
    for dataset in sorted({frame.dataset for frame in frames}):
        own = [frame for frame in frames if frame.dataset == dataset]
        scored = [frame for frame in own if np.isfinite(frame.logit)]
        clusters = [f"{frame.label}/{frame.video}" for frame in scored]
        rows.append(Row(dataset, "applicable", len(scored) / len(own), "share", len(own), None))
        logit = np.array([frame.logit for frame in scored], np.float64)
        label = np.array([frame.altered for frame in scored], np.float64)
        rows += _rank_rows(dataset, "frame", logit, label, clusters, shipped)
        names = sorted(set(clusters))
        member = np.array([names.index(cluster) for cluster in clusters], int)
        video_logit = np.array([logit[member == i].mean() for i in range(len(names))], np.float64)
        video_label = np.array([label[member == i][0] for i in range(len(names))], np.float64)
        rows += _rank_rows(dataset, "video", video_logit, video_label, names, shipped)
    return rows


def _rank_rows(
    case: str,
    what: str,
    logit: statistics.Array,
    label: statistics.Array,
    clusters: Sequence[str],
    shipped: float,
) -> Iterator[Row]:
    if not len(logit):
        return
    reals = label < 0.5
    figures: dict[str, Callable[[statistics.Array, statistics.Array], float]] = {
        f"auc_{what}": statistics.auc,
        f"eer_{what}": statistics.equal_error_rate,
        f"tpr_at_fpr1_{what}": lambda s, y: statistics.hit_rate_at(s, y, 0.01),
    }
    if reals.any():
        figures[f"fpr_shipped_{what}"] = lambda s, y: (
            float((s[y < 0.5] >= shipped).mean()) if (y < 0.5).any() else np.nan
        )
    for metric, figure in figures.items():
        value = figure(logit, label)
        interval = statistics.clustered_interval(statistics.on(figure, logit, label), clusters)
        yield Row(case, metric, value, "share", len(logit), interval)
