"""Cases to per-sample scores, kept one line each; knows no thresholds' origin and draws no conclusion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from detector.cases import Case, arrive
from detector.consistency import VARIANTS
from detector.crop import crop_face
from detector.delivery import Delivery
from detector.score import Calibration, Scorer, fine_detail, flat_share
from fusion.face import Face, FloatArray


@dataclass(frozen=True)
class Sample:
    """One look of the network. raw: score before calibration; iou: of mask and truth at 0.5, nan for reals;
    detail, flat: of the crop, see detector.score; ms: wall and cpu_ms of cutting and looking; copies: raw scores in the
    copies that the check makes of the delivered picture, where they were asked for."""

    kind: str
    person: str
    source: str
    delivery: str
    group: str
    altered: bool
    raw: float
    iou: float
    detail: float
    flat: float
    ms: float
    cpu_ms: float
    copies: tuple[float, ...] = ()


def score_cases(
    cases: Iterable[Case],
    scorer: Scorer,
    deliveries: Mapping[str, Delivery],
    groups: Mapping[str, str] | None = None,
    copies: bool = False,
) -> Iterator[Sample]:
    """One sample per case and delivery, with the check's `copies` of it where asked; the face's place is the truth,
    moved along, not found anew."""
    for case in cases:
        for name, delivery in deliveries.items():
            arrived = arrive(case, delivery)
            begun, begun_cpu = time.perf_counter(), time.process_time()
            crop, window = crop_face(arrived.rgb, arrived.box_xyxy, scorer.net.config.working_px)
            raw, mask, _ = scorer.look(arrived.rgb, arrived.box_xyxy, crop)
            spent, spent_cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
            iou = float("nan")
            if arrived.share is not None:
                iou = mask_iou(mask, np.asarray(cut_share(arrived.share, window.box_xyxy), np.float32))
            yield Sample(
                case.kind,
                case.person,
                case.source,
                name,
                (groups or {}).get(case.person, ""),
                case.altered,
                raw,
                iou,
                fine_detail(crop),
                flat_share(crop),
                1e3 * spent,
                1e3 * spent_cpu,
                tuple(_look_at_copies(arrived, scorer)) if copies else (),
            )


def _look_at_copies(case: Case, scorer: Scorer) -> Iterator[float]:
    """Raw score in each of consistency.VARIANTS."""
    face = Face(case.box_xyxy, np.zeros((5, 2), np.float32), 1.0)
    for make in VARIANTS.values():
        copy = make(case.rgb)
        box = copy.face(face).box_xyxy
        crop, _ = crop_face(copy.rgb, box, scorer.net.config.working_px)
        yield scorer.look(copy.rgb, box, crop)[0]


def cut_share(share: FloatArray, box_xyxy: tuple[int, int, int, int]) -> FloatArray:
    """The part of a map [H, W] that a window shows."""
    x0, y0, x1, y1 = box_xyxy
    return share[y0:y1, x0:x1]


def mask_iou(found: FloatArray, truth: FloatArray) -> float:
    """Intersection over union at 0.5 of a found map [h, w] and a true one of any size, reduced to it."""
    reduced = cv2.resize(truth, (found.shape[1], found.shape[0]), interpolation=cv2.INTER_AREA)
    a, b = found > 0.5, np.asarray(reduced) > 0.5
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in samples))


def read_samples(path: Path) -> list[Sample]:
    """What `write_samples` wrote."""
    told = (json.loads(line) for line in path.read_text().splitlines())
    return [Sample(**each | {"copies": tuple(each.get("copies", ()))}) for each in told]


def pick(
    samples: Iterable[Sample], kinds: str | tuple[str, ...] = "", deliveries: Sequence[str] = ()
) -> list[Sample]:
    """Samples whose kind begins with one of `kinds`, of the named deliveries (none named: all)."""
    return [s for s in samples if s.kind.startswith(kinds) and (not deliveries or s.delivery in deliveries)]


def logits(samples: Sequence[Sample], calibration: Calibration) -> FloatArray:
    """Calibrated logits [N]."""
    return np.array([calibration.logit(s.raw) for s in samples], np.float32)
