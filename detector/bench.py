"""Which pictures a calibration and a bench look at, and the people on them; draws no conclusion.

People come from a folder of labelled portraits, or are drawn by the portrait model (people who don't exist).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from detector.calibrate import DELIVERED
from detector.cases import CLEAN, DELIVERIES, Q60_R75, SWEEPS, Case, make_cases
from detector.delivery import Delivery
from detector.evaluate import judge_bars
from detector.held_out import FIRST_HELD_OUT, HeldOut
from detector.pairs import IDENTITY_PASS, Person
from detector.plots import draw_sweep
from detector.samples import Sample, score_cases
from detector.score import Scorer
from facesets.portraits import PortraitModel
from fusion.swap import Engine
from fusion.tables import Row
from fusion.train.portraitset import read_portraits

PICTURE_PX: Final = 512
COPIED_PEOPLE: Final = 60
"""Of the first so many people the check's re-delivered copies are looked at too: four looks instead of one."""
SWEPT_PEOPLE: Final = 20
"""The sweeps beyond the bars are run on the first so many people."""
_PAIR: Final = {name: DELIVERIES[name] for name in (CLEAN, Q60_R75)}
_PASS: Final = {
    name: DELIVERIES[name] for name in (CLEAN, Q60_R75, "jpeg_q40", "jpeg_q85", "resize_0.5", "crop_10")
}


def read_people(data: Path, split: str) -> list[Person]:
    """The portraits of a split of a labelled folder; InputError `train.data` for another folder."""
    portraits = read_portraits(data, split, PICTURE_PX)
    return [
        Person(name, portraits.pictures[i], np.ascontiguousarray(portraits.points[i, :, :2]))
        for i, name in enumerate(portraits.names)
    ]


def read_groups(data: Path) -> dict[str, str]:
    """File name → `group_gender` as the set labels it; for tables only."""
    with (data / "portraits.csv").open(newline="") as stream:
        return {row["file"]: f"{row['group_label']}_{row['gender_label']}" for row in csv.DictReader(stream)}


def draw_people(count: int, seed: int) -> list[Person]:
    """Nobodies by the portrait model that ships."""
    model = PortraitModel.load()
    drawn = [model.render(nobody, size=PICTURE_PX) for nobody in model.draw(seed, count)]
    return [Person(f"nobody_{seed}_{i:04d}", p.rgb, p.landmarks_px) for i, p in enumerate(drawn)]


def bench_samples(
    people: Sequence[Person],
    engines: Mapping[str, Engine],
    scorer: Scorer,
    groups: Mapping[str, str] | None = None,
    seed: int = 7,
) -> Iterator[Sample]:
    """Every case in the deliveries that its bars ask for; the sweeps on the first SWEPT_PEOPLE."""
    yield from score_bench(make_cases(people, engines, seed), scorer, groups)


def score_bench(
    cases: Iterable[Case], scorer: Scorer, groups: Mapping[str, str] | None = None
) -> Iterator[Sample]:
    """Samples of cases that come person by person."""
    seen: dict[str, int] = {}
    for case in cases:
        number, judged = seen.setdefault(case.person, len(seen)), case.kind.startswith(("real", "own_"))
        yield from score_cases([case], scorer, _plan(case.kind), groups, judged and number < COPIED_PEOPLE)
        if judged and number < SWEPT_PEOPLE:
            yield from score_cases([case], scorer, SWEEPS, groups)


def _plan(kind: str) -> Mapping[str, Delivery]:
    if kind.startswith(("real", "own_")):
        return DELIVERIES
    if kind.startswith("sbi_") and kind.removeprefix("sbi_") not in FIRST_HELD_OUT.families:
        return {CLEAN: DELIVERIES[CLEAN]}
    return _PASS if kind == IDENTITY_PASS else _PAIR


def calibration_samples(cases: Iterable[Case], scorer: Scorer) -> Iterator[Sample]:
    """Samples for `calibrate`: reals, passes and own swaps as delivered, blends clean and at q60."""
    for case in cases:
        deliveries = _PAIR if case.kind.startswith("sbi_") else DELIVERED
        yield from score_cases([case], scorer, deliveries)


def draw_sweeps(rows: Sequence[Row]) -> dict[str, str]:
    """SVG texts by file name: detection and false alarms over JPEG quality, size and the rest."""
    values = {(row.case, row.metric): row.value for row in rows}
    orders = {
        "jpeg": ["clean", *(f"jpeg_q{q}" for q in (95, 85, 60, 40, 20, 10))],
        "size": ["resize_0.35", "resize_0.5", "resize_0.75", "clean", "resize_1.25", "resize_1.5", "crop_10"],
        "other": [
            "clean",
            "webp_q80",
            "webp_q40",
            "blur_1.0",
            "blur_2.0",
            "noise_4.0",
            "noise_12.0",
            "screenshot",
        ],
    }
    drawn = {}
    for name, order in orders.items():
        curves = {
            "AUC, own swaps": [values.get((f"own/{d}", "auc_frame"), float("nan")) for d in order],
            "found at the shipped threshold": [
                values.get((_own(d), "tpr_shipped"), float("nan")) for d in order
            ],
            "false alarms, untouched": [
                values.get((f"reals_{d}", "fpr_shipped"), float("nan")) for d in order
            ],
        }
        drawn[f"sweep_{name}.svg"] = draw_sweep(f"Detector by {name}", order, curves)
    return drawn


def _own(delivery: str) -> str:
    return {CLEAN: "own_clean", Q60_R75: "own_q60_r75"}.get(delivery, f"own/{delivery}")


def bars_markdown(rows: Sequence[Row], held_out: HeldOut) -> str:
    """Which bars are met by a network that was kept from `held_out`, as a Markdown table."""
    lines = ["| case | metric | measured | bar | met |", "|---|---|---|---|---|"]
    for bar, value, met in judge_bars(rows, held_out):
        sign = "≥" if bar.floor else "≤"
        shown = "not measured" if value is None else f"{value:.3g}"
        lines.append(
            f"| {bar.case} | {bar.metric} | {shown} | {sign} {bar.limit:g} | {'yes' if met else '**no**'} |"
        )
    return "\n".join(lines) + "\n"
