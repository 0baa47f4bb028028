"""What the report card says beyond swaps in pictures: clips, faces drawn whole, photographs; samples and rows.

Clips film untouched and swapped portraits. Faces drawn whole are no class of the detector: their rows say what it
reads in them. On photographs every alarm is a false one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from detector import statistics
from detector.cases import CLEAN, DELIVERIES, Q60_R75, Case
from detector.clips import FRAMES_PER_S, film, redeliver
from detector.evaluate import CONCLUSIVE
from detector.pairs import Person
from detector.plots import draw_sweep
from detector.samples import Sample, logits, pick, score_cases
from detector.score import Calibration, Scorer
from fusion.face import Face, UInt8Array
from fusion.tables import Row

DRAWN, PHOTO = "drawn", "photo"
CLIPS: Final[Mapping[str, int | None]] = {"clip_raw": None, "clip_crf23": 23, "clip_crf28": 28}
"""Delivery → constant rate factor; None: the filmed frames before any codec."""
LOOKS: Final = (3, 9, 15, 21)
"""Frames of a clip that are looked at."""
_PAIR: Final = {name: DELIVERIES[name] for name in (CLEAN, Q60_R75)}


def clip_samples(cases: Iterable[Case], scorer: Scorer, seed: int = 7) -> Iterator[Sample]:
    """LOOKS frames of every case (`real`, `own_…`) in every way of CLIPS, in order; a person's cases move alike."""
    people: dict[str, int] = {}
    for case in cases:
        rng = np.random.default_rng((seed, people.setdefault(case.person, len(people))))
        shown = film(case.rgb, rng)
        for name, crf in CLIPS.items():
            frames = [each.rgb for each in shown]
            arrived = frames if crf is None else redeliver(frames, crf)
            for number in LOOKS:
                box = shown[number].box(case.box_xyxy)
                frame = replace(case, rgb=arrived[number], box_xyxy=box, share=None)
                for sample in score_cases([frame], scorer, {name: DELIVERIES[CLEAN]}):
                    yield replace(sample, altered=case.altered)


def drawn_samples(people: Iterable[Person], scorer: Scorer) -> Iterator[Sample]:
    """Portraits that were drawn whole, clean and at JPEG 60 after a reduction to 3/4; marked by nobody."""
    for person in people:
        case = Case(DRAWN, person.name, person.name, person.rgb, person.box_xyxy, None)
        yield from score_cases([case], scorer, _PAIR)


def photo_samples(
    photos: Iterable[tuple[str, UInt8Array]], find: Callable[[UInt8Array], Sequence[Face]], scorer: Scorer
) -> Iterator[Sample]:
    """Faces that `find` finds in untouched photographs (name, uint8 [H, W, 3]), if large enough to be judged."""
    for name, rgb in photos:
        for face in find(rgb):
            x0, y0, x1, y1 = face.box_xyxy
            if max(x1 - x0, y1 - y0) < scorer.calibration.min_face_px:
                continue
            case = Case(PHOTO, name, name, rgb, np.asarray(face.box_xyxy, np.float32), None)
            yield from score_cases([case], scorer, _PAIR)


def clip_rows(samples: Sequence[Sample], calibration: Calibration) -> Iterator[Row]:
    """Per way of CLIPS: AUC, hits and false alarms at the shipped threshold by frame and by clip (mean logit)."""
    for name in CLIPS:
        chosen = pick(samples, ("real", "own_"), (name,))
        if not chosen:
            continue
        clips = [chosen[i : i + len(LOOKS)] for i in range(0, len(chosen), len(LOOKS))]
        by_frame = logits(chosen, calibration).astype(np.float64)
        by_clip = np.array([logits(clip, calibration).mean() for clip in clips], np.float64)
        yield from _ranked(name, "frame", by_frame, chosen, calibration)
        yield from _ranked(name, "clip", by_clip, [clip[0] for clip in clips], calibration)
        steady = [_steady([calibration.band(calibration.logit(s.raw)) for s in clip]) for clip in clips]
        yield _row(name, "one_band", np.array(steady, np.float64), [clip[0] for clip in clips])


def band_rows(case: str, samples: Sequence[Sample], calibration: Calibration) -> Iterator[Row]:
    """Share of each band, per delivery, of samples that have no truth to be ranked against."""
    for delivery in sorted({sample.delivery for sample in samples}):
        chosen = pick(samples, deliveries=(delivery,))
        name = case if delivery == CLEAN else f"{case}_{delivery}"
        fit = [s.detail >= calibration.min_detail and s.flat <= calibration.max_flat for s in chosen]
        bands = np.where(fit, [calibration.band(calibration.logit(s.raw)) for s in chosen], "not applicable")
        for band in ("not applicable", "none found", "inconclusive", "weak", "moderate", "strong"):
            yield _row(name, f"band_{band.replace(' ', '_')}", (bands == band).astype(float), chosen)


def drawn_rows(samples: Sequence[Sample], calibration: Calibration) -> Iterator[Row]:
    """Bands of faces drawn whole and, where untouched portraits are among the samples, how the two rank."""
    yield from band_rows(DRAWN, pick(samples, DRAWN), calibration)
    for delivery in _PAIR:
        both = pick(samples, (DRAWN, "real"), (delivery,))
        label = np.array([sample.kind == DRAWN for sample in both], np.float64)
        if both and 0 < label.mean() < 1:
            raw = np.array([sample.raw for sample in both], np.float64)
            figure = statistics.on(statistics.auc, raw, label)
            interval = statistics.clustered_interval(figure, [sample.person for sample in both])
            name = DRAWN if delivery == CLEAN else f"{DRAWN}_{delivery}"
            yield Row(name, "auc_frame", figure(np.arange(len(both))), "share", len(both), interval)


def draw_curve(samples: Sequence[Sample], calibration: Calibration) -> str:
    """SVG text: mean calibrated score of untouched and of swapped clips over the frames looked at."""
    curves = {}
    for name in ("clip_raw", "clip_crf28"):
        for altered, what in ((False, "untouched"), (True, "swapped")):
            chosen = [s for s in pick(samples, deliveries=(name,)) if s.altered == altered]
            if not chosen:
                continue
            score = 1 / (1 + np.exp(-logits(chosen, calibration).astype(np.float64)))
            curves[f"{what}, {name.removeprefix('clip_')}"] = score.reshape(-1, len(LOOKS)).mean(0).tolist()
    times = [f"{number / FRAMES_PER_S:.2f} s" for number in LOOKS]
    return draw_sweep("Mean score along a clip", times, curves)


def _ranked(
    case: str, what: str, logit: statistics.Array, chosen: Sequence[Sample], calibration: Calibration
) -> Iterator[Row]:
    label = np.array([sample.altered for sample in chosen], np.float64)
    people = [sample.person for sample in chosen]
    if 0 < label.mean() < 1:
        figure = statistics.on(statistics.auc, logit, label)
        value, interval = figure(np.arange(len(chosen))), statistics.clustered_interval(figure, people)
        yield Row(case, f"auc_{what}", value, "share", len(chosen), interval)
    alarm = (logit >= calibration.strong).astype(float)
    for metric, part in ((f"tpr_shipped_{what}", label > 0.5), (f"fpr_shipped_{what}", label < 0.5)):
        if part.any():
            yield _row(case, metric, alarm[part], [chosen[int(i)] for i in np.flatnonzero(part)])


def _row(case: str, metric: str, values: statistics.Array, chosen: Sequence[Sample]) -> Row:
    people = [sample.person for sample in chosen]
    interval = statistics.clustered_interval(lambda i: float(values[i].mean()), people)
    if not values.any():
        interval = (0.0, statistics.none_seen_limit(len(set(people))))
    return Row(case, metric, float(values.mean()), "share", len(chosen), interval)


def _steady(bands: Sequence[str]) -> bool:
    """Whether the frames of a clip that say something say the same."""
    return len({band for band in bands if band in CONCLUSIVE}) <= 1
