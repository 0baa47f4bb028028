"""The cases of `bench detector`, each by itself, so that a long bench can be made in parts; judges no file.

What a case measured replaces its earlier rows in bench.json. Samples are kept, a file a case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from detector.pairs import Person, taught_engines
from detector.samples import Sample, write_samples
from detector.score import Scorer
from fusion.files import write_file_atomically
from fusion.tables import Row

if TYPE_CHECKING:
    from detector.probes import Witnesses

GATE_PEOPLE: Final = 60


@dataclass(frozen=True)
class Plan:
    """What the cases are measured on. `photos`: a folder of untouched photographs, where there is one."""

    people: Sequence[Person]
    drawn: Callable[[], Sequence[Person]]
    groups: dict[str, str] | None
    photos: Path | None
    scorer: Scorer
    seed: int
    out: Path
    witnesses: Callable[[], Witnesses]


def own(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """The report card: own swaps, what was held out, false alarms, calibration, masks, groups, sweeps, leak gates."""
    from detector.bench import bars_markdown, bench_samples, draw_sweeps
    from detector.evaluate import report_card
    from detector.probes import run_gates

    scorer = plan.scorer
    samples = list(bench_samples(plan.people, taught_engines(), scorer, plan.groups, plan.seed))
    write_samples(plan.out / "samples.jsonl", samples)
    rows = report_card(samples, scorer.calibration, scorer.held_out)
    for name, svg in draw_sweeps(rows).items():
        write_file_atomically(plan.out / name, svg.encode())
    shown = plan.people[:GATE_PEOPLE]
    gates = run_gates(shown, taught_engines(), scorer, plan.witnesses(), plan.seed)
    told = [Row(f"gate_{g.leak}", g.figure, g.value, "share", g.n, g.ci95) for g in gates]
    failed = ", ".join(f"{g.leak} ({g.figure})" for g in gates if not g.held) or "none"
    return _plain(
        [*rows, *told]
    ), f"\n{bars_markdown(rows, scorer.held_out)}\nLeak gates that fail: {failed}.\n"


def leave(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """Other engines, settings and blend families alone, clean and at JPEG 60 after a reduction to 3/4."""
    from detector.cases import make_cases
    from detector.evaluate import report_card

    cases = make_cases(plan.people, taught_engines(), plan.seed, ("real", "engine", "setting", "sbi"))
    samples = _kept(plan, "leave", _as_delivered(cases, plan.scorer))
    rows = report_card(samples, plan.scorer.calibration, plan.scorer.held_out)
    return _plain([row for row in rows if row.case.startswith(("leave_", "engine_", "sbi_"))]), ""


def clips(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """Filmed portraits, untouched and swapped: raw, and through H.264 at CRF 23 and 28."""
    from detector.beyond import clip_rows, clip_samples, draw_curve
    from detector.cases import make_cases

    cases = make_cases(plan.people, taught_engines(), plan.seed, ("real", "own"))
    samples = _kept(plan, "clips", clip_samples(cases, plan.scorer, plan.seed))
    svg = draw_curve(samples, plan.scorer.calibration)
    write_file_atomically(plan.out / "clip_curve.svg", svg.encode())
    return _plain(clip_rows(samples, plan.scorer.calibration)), ""


def drawn(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """Portraits drawn whole by the portrait model, against the untouched ones of the folder."""
    from detector.beyond import drawn_rows, drawn_samples
    from detector.cases import make_cases

    reals = make_cases(plan.people if plan.groups else (), taught_engines(), plan.seed, ("real",))
    found = [*drawn_samples(plan.drawn(), plan.scorer), *_as_delivered(reals, plan.scorer)]
    return _plain(drawn_rows(_kept(plan, "drawn", iter(found)), plan.scorer.calibration)), ""


def photos(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """Faces that our own finder finds in untouched photographs: every alarm is a false one."""
    from detector.beyond import PHOTO, band_rows, photo_samples
    from fusion.media import LIMITS, PICTURE_SUFFIXES, read_file, read_picture

    if plan.photos is None:
        return [], ""
    files = [path for path in sorted(plan.photos.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES]
    pictures = ((path.name, read_picture(read_file(path, LIMITS.max_bytes)).rgb) for path in files)
    samples = _kept(plan, "photos", photo_samples(pictures, plan.witnesses().find, plan.scorer))
    shown = len({sample.person for sample in samples})
    told = Row(PHOTO, "pictures_with_a_face", shown / max(len(files), 1), "share", len(files), None)
    return _plain([told, *band_rows(PHOTO, samples, plan.scorer.calibration)]), ""


CASES: Final = {"own": own, "leave": leave, "clips": clips, "drawn": drawn, "photos": photos}


def _as_delivered(cases: Any, scorer: Scorer) -> Iterator[Sample]:
    from detector.cases import CLEAN, DELIVERIES, Q60_R75
    from detector.samples import score_cases

    return score_cases(cases, scorer, {name: DELIVERIES[name] for name in (CLEAN, Q60_R75)})


def _kept(plan: Plan, case: str, samples: Iterator[Sample]) -> list[Sample]:
    found = list(samples)
    write_samples(plan.out / f"samples_{case}.jsonl", found)
    return found


def _plain(rows: Any) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
