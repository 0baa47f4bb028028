"""Leak gates: can a real and an altered picture be told apart by anything but the alteration? Knows no verdicts.

Six gates, one per way in which a paired set leaks its labels (docs/detector.md). A gate that fails is
reported as failing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from detector import statistics
from detector.cases import Case, arrive, make_cases
from detector.crop import crop_face, face_window
from detector.delivery import draw_delivery
from detector.pairs import IDENTITY_PASS, Person
from detector.score import Scorer
from fusion.face import Face, FloatArray, UInt8Array
from fusion.swap import Engine

MARK_LIMIT: Final = 0.03
PROBE_LIMIT: Final = 0.55
BACKGROUND_LIMIT: Final = 0.05
PASS_LIMIT: Final = 0.01
PASSES_EACH: Final = 10
SETTING_FLOOR: Final = 0.85


@dataclass(frozen=True)
class Gate:
    """One gate's figure. `held` says whether it lies within `limit`; `n` counts pictures; `ci95` is clustered."""

    leak: str
    figure: str
    value: float
    limit: str
    held: bool
    n: int
    ci95: tuple[float, float] | None
    note: str = ""


@dataclass(frozen=True)
class Witnesses:
    """What the gates need beside the detector.

    mark   puts the suite's mark into a picture uint8 [H, W, 3]     find   a picture's faces, largest first
    embed  an untouched portrait's identity [512]
    """

    mark: Callable[[UInt8Array], UInt8Array]
    find: Callable[[UInt8Array], Sequence[Face]]
    embed: Callable[[Person], FloatArray]


def run_gates(
    people: Sequence[Person],
    engines: Mapping[str, Engine],
    scorer: Scorer,
    witnesses: Witnesses,
    seed: int = 0,
    passes_each: int = PASSES_EACH,
) -> list[Gate]:
    """All six gates on people whom the training did not show (at least 10; ValueError with fewer).

    `passes_each` identity passes of every person, since a rate of one in a hundred is no matter of sixty pictures.
    """
    if len(people) < 10:
        raise ValueError(f"ten people are needed, got {len(people)}")
    cases = list(make_cases(people, engines, seed, ("real", "identity", "own", "setting", "engine")))
    reals = [case for case in cases if case.kind == "real"]
    own = [case for case in cases if case.kind.startswith("own_")]
    more = (make_cases(people, engines, seed + again, ("identity",)) for again in range(1, passes_each))
    passes = [*(case for case in cases if case.kind == IDENTITY_PASS), *chain.from_iterable(more)]
    return [
        mark_gate(reals, scorer, witnesses.mark),
        file_gate(reals, own, seed),
        background_gate(reals, own, scorer),
        pass_gate(passes, scorer),
        box_gate(reals, own, witnesses.find),
        identity_gate(people, own, witnesses.embed),
        *setting_gates(cases, reals, scorer),
    ]


def mark_gate(reals: Sequence[Case], scorer: Scorer, mark: Callable[[UInt8Array], UInt8Array]) -> Gate:
    """A marked real must look like a real: AUC 0.50 ± 0.03."""
    raw = [(_raw(scorer, case.rgb, case), _raw(scorer, mark(case.rgb), case)) for case in reals]
    scores = np.array(raw, np.float64)
    value, interval = _paired_auc(scores[:, 0], scores[:, 1], [case.person for case in reals])
    held = abs(value - 0.5) <= MARK_LIMIT
    return Gate("mark", "AUC marked real : real", value, "0.47 to 0.53", held, 2 * len(reals), interval)


def file_gate(reals: Sequence[Case], fakes: Sequence[Case], seed: int = 0) -> Gate:
    """Both members as training sees them, written to a file: format, tables, size and grid must not tell the label."""
    by_person = {case.person: case for case in reals}
    features, labels, groups = [], [], []
    for index, fake in enumerate(fakes):
        delivery = draw_delivery(np.random.default_rng((seed, index)), 1.0)
        for case in (by_person[fake.person], fake):
            features.append(file_features(arrive(case, delivery).rgb, delivery.jpeg or 95))
            labels.append(float(case.altered))
            groups.append(case.person)
    value, interval = probe(np.stack(features), np.array(labels), groups)
    note = "format, quantisation table, sides, block-grid phase and strength"
    return Gate(
        "file", "AUC of a file probe", value, "≤ 0.55", value <= PROBE_LIMIT, len(labels), interval, note
    )


def file_features(rgb: UInt8Array, quality: int) -> FloatArray:
    """What a file says without its content: quantisation sums, sides, and grid strength at all eight phases [18]."""
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    stream = bytes(np.asarray(data))
    start = stream.index(b"\xff\xdb") + 5
    table = np.frombuffer(stream[start : start + 64], np.uint8).astype(np.float32)
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    frame = np.zeros(luma.shape, bool)  # the rim only: the face may be altered, its surroundings are not
    frame[: luma.shape[0] // 10] = frame[-(luma.shape[0] // 10) :] = True
    step = np.where(frame[:, 1:], np.abs(np.diff(luma, axis=1)), 0)
    phases = [float(step[:, phase::8].mean()) for phase in range(8)]
    share = np.array(phases) / max(sum(phases), 1e-6)
    return np.array(
        [table.sum(), table[0], *rgb.shape[:2], *share, stream.count(b"\xff\xe1"), quality], np.float32
    )


def background_gate(reals: Sequence[Case], fakes: Sequence[Case], scorer: Scorer) -> Gate:
    """With the altered region of both members greyed out, the detector must not tell them apart: AUC 0.50 ± 0.05."""
    by_person = {case.person: case for case in reals}
    raw = []
    for fake in fakes:
        assert fake.share is not None
        real = by_person[fake.person]
        differs = (fake.rgb != real.rgb).any(2).astype(np.uint8)
        hidden = cv2.dilate(differs, np.ones((9, 9), np.uint8))[..., None] > 0
        raw.append([_raw(scorer, np.where(hidden, np.uint8(128), case.rgb), case) for case in (real, fake)])
    scores = np.array(raw, np.float64)
    value, interval = _paired_auc(scores[:, 0], scores[:, 1], [case.person for case in fakes])
    held = abs(value - 0.5) <= BACKGROUND_LIMIT
    return Gate("file", "AUC on the background alone", value, "0.45 to 0.55", held, 2 * len(fakes), interval)


def pass_gate(passes: Sequence[Case], scorer: Scorer) -> Gate:
    """Reals that were warped and pasted but not swapped must not alarm: at most 1 % at the shipped threshold."""
    alarms = np.array([_logit(scorer, case) >= scorer.calibration.strong for case in passes], np.float64)
    interval = statistics.clustered_interval(
        lambda i: float(alarms[i].mean()), [case.person for case in passes]
    )
    value = float(alarms.mean())
    if value == 0:
        interval = (0.0, statistics.none_seen_limit(len(passes)))
    return Gate(
        "resampling",
        "false alarms on identity passes",
        value,
        "≤ 0.01",
        value <= PASS_LIMIT,
        len(passes),
        interval,
    )


def box_gate(
    reals: Sequence[Case], fakes: Sequence[Case], find: Callable[[UInt8Array], Sequence[Face]]
) -> Gate:
    """Place and size of the face as the finder sees them in each member, and of the window, must not tell the label."""
    by_person = {case.person: case for case in reals}
    features, labels, groups = [], [], []
    for fake in fakes:
        for case in (by_person[fake.person], fake):
            faces = find(case.rgb)
            box = faces[0].box_xyxy if len(faces) else case.box_xyxy
            window = face_window(case.rgb.shape[:2], box)
            features.append([*box, box[2] - box[0], box[3] - box[1], window.left, window.top, window.side])
            labels.append(float(case.altered))
            groups.append(case.person)
    value, interval = probe(np.array(features, np.float32), np.array(labels), groups)
    note = "boxes found anew in both members; the windows of training pairs are equal by construction"
    return Gate(
        "crop", "AUC of a box probe", value, "≤ 0.55", value <= PROBE_LIMIT, len(labels), interval, note
    )


def identity_gate(
    people: Sequence[Person], fakes: Sequence[Case], embed: Callable[[Person], FloatArray]
) -> Gate:
    """Who is shown must not tell the label: portraits of the target for a real, of the source for a fake."""
    known = {person.name: np.asarray(embed(person), np.float32) for person in people}
    rows, labels, groups = [], [], []
    for fake in fakes:
        for name, label in ((fake.person, 0.0), (fake.source, 1.0)):
            rows.append(known[name])
            labels.append(label)
            groups.append(name)
    value, interval = probe(np.stack(rows), np.array(labels), groups)
    return Gate(
        "identity", "AUC of an identity probe", value, "≤ 0.55", value <= PROBE_LIMIT, len(labels), interval
    )


def setting_gates(cases: Sequence[Case], reals: Sequence[Case], scorer: Scorer) -> list[Gate]:
    """Settings and an engine that training never showed must be found nearly as well: AUC at least 0.85 each."""
    real = np.array([_raw(scorer, case.rgb, case) for case in reals], np.float64)
    gates = []
    unseen = scorer.held_out
    for kind in (
        *(f"setting_{name}" for name in unseen.settings),
        *(f"engine_{name}" for name in unseen.engines),
    ):
        chosen = [case for case in cases if case.kind == kind]
        fake = np.array([_raw(scorer, case.rgb, case) for case in chosen], np.float64)
        scores, labels = np.r_[real, fake], np.r_[np.zeros(len(real)), np.ones(len(fake))]
        people = [case.person for case in (*reals, *chosen)]
        value = statistics.auc(scores, labels)
        interval = statistics.clustered_interval(statistics.on(statistics.auc, scores, labels), people)
        gates.append(
            Gate("one setting", f"AUC {kind}", value, "≥ 0.85", value >= SETTING_FLOOR, len(scores), interval)
        )
    return gates


def probe(
    features: FloatArray, labels: FloatArray, groups: Sequence[str]
) -> tuple[float, tuple[float, float] | None]:
    """AUC of a logistic probe on people it was not fitted to (five folds), with its interval.

    An AUC under 0.5 says that the folds disagree, not that the label is told; it is given as it is.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = GroupKFold(min(5, len(set(groups))))
    chance = cross_val_predict(model, features, labels, groups=groups, cv=folds, method="predict_proba")[:, 1]
    scores, truth = np.asarray(chance, np.float64), np.asarray(labels, np.float64)
    interval = statistics.clustered_interval(statistics.on(statistics.auc, scores, truth), groups)
    return statistics.auc(scores, truth), interval


def _paired_auc(
    real: statistics.Array, fake: statistics.Array, people: Sequence[str]
) -> tuple[float, tuple[float, float] | None]:
    def figure(indices: np.ndarray) -> float:
        scores = np.r_[real[indices], fake[indices]]
        return statistics.auc(scores, np.r_[np.zeros(len(indices)), np.ones(len(indices))])

    return figure(np.arange(len(real))), statistics.clustered_interval(figure, people)


def _raw(scorer: Scorer, rgb: UInt8Array, case: Case) -> float:
    crop, _ = crop_face(rgb, case.box_xyxy, scorer.net.config.working_px)
    return scorer.look(rgb, case.box_xyxy, crop)[0]


def _logit(scorer: Scorer, case: Case) -> float:
    return scorer.calibration.logit(_raw(scorer, case.rgb, case))
