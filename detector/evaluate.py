"""The report card: rows and sweeps from samples, each with n and a 95 % interval clustered by identity; scores nothing.

Figures hold for portraits of people who do not exist, swapped by this suite. Foreign sets come through
detector.deepfakebench and stand in a table of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detector import statistics
from detector.blend import ALL_FAMILIES
from detector.cases import CLEAN, DELIVERIES, OTHER_ENGINES, Q60_R75, SWEEPS
from detector.consistency import VARIANTS, flips
from detector.evidence import BANDS, STRENGTH, Band, word_band
from detector.held_out import FIRST_HELD_OUT, HELD_OUT, HeldOut
from detector.pairs import IDENTITY_PASS
from detector.samples import Sample, pick
from detector.score import Calibration
from fusion.tables import Row

CONCLUSIVE: Final = frozenset({"none found", "weak", "moderate", "strong"})


@dataclass(frozen=True)
class Bar:
    """What a row is held against: at least (`floor`) or at most."""

    case: str
    metric: str
    limit: float
    floor: bool


BARS: Final = (
    Bar("own_clean", "auc_frame", 0.97, True),
    Bar("own_q60_r75", "auc_frame", 0.92, True),
    Bar("identity_pass", "fpr_shipped", 0.01, False),
    Bar("reals_all", "fpr_shipped", 0.01, False),
    Bar("own_clean", "mask_iou", 0.6, True),
    Bar("own_all", "ece", 0.05, False),
    Bar("all", "consistency_check", 0.95, True),
    Bar("all", "ms_face", 60.0, False),
)


def report_card(
    samples: Sequence[Sample], calibration: Calibration, held_out: HeldOut = FIRST_HELD_OUT
) -> list[Row]:
    """Every row that the samples allow; cases as in docs/detector.md. `held_out`: what the network never saw."""
    card = _Card(samples, calibration, held_out)
    rows = [*card.detection(), *card.false_alarms(), *card.calibration_rows(), *card.masks()]
    rows += [*card.groups(), *card.consistency(), *card.speed()]
    return [row for row in rows if row.n]


class _Card:
    """Samples with their calibrated logits."""

    def __init__(
        self, samples: Sequence[Sample], calibration: Calibration, held_out: HeldOut = FIRST_HELD_OUT
    ) -> None:
        self.samples, self.calibration, self.held_out = samples, calibration, held_out

    def detection(self) -> Iterator[Row]:
        """Ranking of altered pictures against the untouched ones of the same delivery."""
        own_engines = sorted({s.kind for s in self.samples if s.kind.startswith("own_")})
        for delivery, case in ((CLEAN, "own_clean"), (Q60_R75, "own_q60_r75")):
            yield from self._ranked(case, ("own_",), delivery)
            yield from self._ranked(f"shipped_setting_{delivery}", ("default_",), delivery)
            for kind in own_engines if len(own_engines) > 1 else []:
                yield from self._ranked(f"{kind}_{delivery}", (kind,), delivery)
        suffixes = ((CLEAN, ""), (Q60_R75, f"_{Q60_R75}"))
        for delivery, suffix in suffixes:
            for name in OTHER_ENGINES:
                yield from self._ranked(self._engine(name) + suffix, (f"engine_{name}",), delivery)
            for name in HELD_OUT.settings:
                yield from self._ranked(f"leave_{name}{suffix}", (f"setting_{name}",), delivery)
            for name in ALL_FAMILIES:
                case = f"leave_{name}" if name in self.held_out.families else f"sbi_{name}"
                yield from self._ranked(case + suffix, (f"sbi_{name}",), delivery)
        for name in (*DELIVERIES, *SWEEPS):
            rows = list(self._ranked(f"own/{name}", ("own_",), name))
            yield from (row for row in rows if row.metric in ("auc_frame", "tpr_shipped"))

    def _engine(self, name: str) -> str:
        return f"leave_{name}" if name in self.held_out.engines else f"engine_{name}"

    def _ranked(self, case: str, kinds: tuple[str, ...], delivery: str) -> Iterator[Row]:
        chosen = pick(self.samples, ("real", *kinds), (delivery,))
        raw = np.array([s.raw for s in chosen], np.float64)
        label = np.array([s.altered for s in chosen], np.float64)
        if not 0 < label.sum() < len(label):
            return
        shipped = self.calibration.strong
        figures: dict[str, Callable[[statistics.Array, statistics.Array], float]] = {
            "auc_frame": statistics.auc,
            "eer": statistics.equal_error_rate,
            "tpr_at_fpr1": lambda s, y: statistics.hit_rate_at(s, y, 0.01),
            "tpr_shipped": lambda s, y: float((self._logits(s)[y > 0.5] >= shipped).mean()),
        }
        for metric, figure in figures.items():
            yield self._row(case, metric, chosen, statistics.on(figure, raw, label))

    def false_alarms(self) -> Iterator[Row]:
        """Share of untouched faces at or above the shipped threshold, and of those not called `none found`."""
        within = tuple(DELIVERIES)
        for case, kind, deliveries in (
            (IDENTITY_PASS, IDENTITY_PASS, within),
            ("reals_all", "real", within),
            *((f"reals_{name}", "real", (name,)) for name in (*DELIVERIES, *SWEEPS)),
        ):
            chosen = pick(self.samples, kind, deliveries)
            yield from self._alarms(case, chosen)

    def _alarms(self, case: str, chosen: list[Sample]) -> Iterator[Row]:
        logit = self._gated(chosen)
        yield self._row(case, "applicable", chosen, _mean_of(np.isfinite(logit)))
        yield self._row(case, "fpr_shipped", chosen, _mean_of(logit >= self.calibration.strong))
        if case in (IDENTITY_PASS, "reals_all"):
            for name, limit in (
                ("fpr_moderate", self.calibration.moderate),
                ("fpr_weak", self.calibration.weak),
            ):
                yield self._row(case, name, chosen, _mean_of(logit >= limit))

    def calibration_rows(self) -> Iterator[Row]:
        """ECE and Brier of the calibrated score, own swaps and as many untouched faces; share of each band."""
        within = tuple(DELIVERIES)
        chosen = pick(self.samples, ("real", "own_"), within)
        label = np.array([s.altered for s in chosen], np.float64)
        chance = 1 / (1 + np.exp(-self._logits(np.array([s.raw for s in chosen], np.float64))))
        if chosen and 0 < label.mean() < 1:
            yield self._row(
                "own_all", "ece", chosen, statistics.on(statistics.expected_calibration_error, chance, label)
            )
            yield self._row("own_all", "brier", chosen, statistics.on(statistics.brier, chance, label))
        for case, kinds in (("reals_all", "real"), ("own_all", "own_")):
            part = pick(self.samples, kinds, within)
            bands = np.array([self.calibration.band(self.calibration.logit(s.raw)) for s in part])
            for band in ("none found", "inconclusive", "weak", "moderate", "strong"):
                name = "band_" + band.replace(" ", "_")
                yield self._row(case, name, part, _mean_of(bands == band))

    def masks(self) -> Iterator[Row]:
        for case, kinds, delivery in (
            ("own_clean", "own_", CLEAN),
            ("own_q60_r75", "own_", Q60_R75),
            *((self._engine(name), f"engine_{name}", CLEAN) for name in OTHER_ENGINES),
            ("sbi_clean", "sbi_", CLEAN),
        ):
            chosen = pick(self.samples, kinds, (delivery,))
            iou = np.array([s.iou for s in chosen], np.float64)
            yield self._row(case, "mask_iou", chosen, _mean_of(iou))

    def groups(self) -> Iterator[Row]:
        """False alarms and detection per labelled group; labels are folder names of the source."""
        within = tuple(DELIVERIES)
        for group in sorted({s.group for s in self.samples if s.group}):
            members = [s for s in self.samples if s.group == group]
            chosen = pick(members, "real", within)
            logit = self._gated(chosen)
            for name, limit in (
                ("fpr_shipped", self.calibration.strong),
                ("fpr_weak", self.calibration.weak),
            ):
                yield self._row(f"group_{group}", name, chosen, _mean_of(logit >= limit))
            both = pick(members, ("real", "own_"), within)
            raw, label = np.array([s.raw for s in both]), np.array([s.altered for s in both], np.float64)
            if both and 0 < label.mean() < 1:
                yield self._row(
                    f"group_{group}", "auc_frame", both, statistics.on(statistics.auc, raw, label)
                )

    def consistency(self) -> Iterator[Row]:
        """Share of delivery variants that stay in their picture's band or read inconclusive.

        By one look at each, and as the check does it, which abstains where re-delivered copies say another thing.
        """
        looked = pick(self.samples, ("real", "own_"), tuple(DELIVERIES))
        copied = [sample for sample in looked if sample.copies]
        for metric, samples in (("consistency", looked), ("consistency_check", copied)):
            kept = consistent(samples, self.calibration, by_copies=samples is copied)
            held = np.array([ok for _, ok in kept], np.float64)
            yield self._row("all", metric, [sample for sample, _ in kept], _mean_of(held))
        bands = np.array([checked_band(sample, self.calibration) for sample in copied])
        for case, altered in (("reals_all", False), ("own_all", True)):
            mine = np.array([sample.altered == altered for sample in copied], bool)
            part = [sample for sample in copied if sample.altered == altered]
            for band in BANDS[:5] if part else ():
                yield self._row(case, f"check_{band}", part, _mean_of(bands[mine] == band))

    def speed(self) -> Iterator[Row]:
        chosen = [s for s in self.samples if s.delivery == CLEAN]
        for name, spent in (("ms_face", [s.ms for s in chosen]), ("cpu_ms_face", [s.cpu_ms for s in chosen])):
            median = np.array(spent, np.float64)
            yield self._row("all", name, chosen, functools.partial(_median, median), "ms")

    def _gated(self, chosen: Sequence[Sample]) -> statistics.Array:
        """Calibrated logits, minus infinity where the gates on detail and flatness withhold the score."""
        fit = [
            s.detail >= self.calibration.min_detail and s.flat <= self.calibration.max_flat for s in chosen
        ]
        return np.where(fit, self._logits(np.array([s.raw for s in chosen], np.float64)), -np.inf)

    def _logits(self, raw: statistics.Array) -> statistics.Array:
        return (raw - self.calibration.offset) / self.calibration.temperature

    def _row(
        self,
        case: str,
        metric: str,
        chosen: Sequence[Sample],
        figure: Callable[[npt.NDArray[np.intp]], float],
        unit: str = "share",
    ) -> Row:
        if not chosen:
            return Row(case, metric, float("nan"), unit, 0, None)
        interval = statistics.clustered_interval(figure, [s.person for s in chosen])
        if interval == (0.0, 0.0) and metric.startswith("fpr"):
            interval = (0.0, statistics.none_seen_limit(len({s.person for s in chosen})))
        return Row(case, metric, figure(np.arange(len(chosen))), unit, len(chosen), interval)


def _mean_of(values: npt.NDArray[Any]) -> Callable[[npt.NDArray[np.intp]], float]:
    return lambda indices: float(values[indices].mean())


def _median(values: statistics.Array, indices: npt.NDArray[np.intp]) -> float:
    return float(np.median(values[indices]))


def checked_band(sample: Sample, calibration: Calibration) -> Band:
    """What the check says of a sample whose copies were looked at; the gates are left out."""
    band, *copies = (
        word_band(calibration.band(calibration.logit(raw))) for raw in (sample.raw, *sample.copies)
    )
    return "inconclusive" if flips(band, dict(zip(VARIANTS, copies, strict=True))) else band


def consistent(
    samples: Sequence[Sample], calibration: Calibration, *, by_copies: bool = False
) -> list[tuple[Sample, bool]]:
    """Each variant, and whether its band is its picture's own (the commonest conclusive one) or inconclusive."""
    pictures: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        pictures.setdefault((sample.kind, sample.person), []).append(sample)
    judged = []
    for variants in pictures.values():
        if by_copies:
            bands: list[str] = [checked_band(s, calibration) for s in variants]
        else:
            bands = [word_band(calibration.band(calibration.logit(s.raw))) for s in variants]
        said = [band for band in bands if band in STRENGTH]
        main = max(sorted(set(said)), key=said.count) if said else "inconclusive"
        judged += [(s, b in (main, "inconclusive")) for s, b in zip(variants, bands, strict=True)]
    return judged


def bars(held_out: HeldOut) -> tuple[Bar, ...]:
    """BARS, and those of every engine and blend family that a network was kept from."""
    left = (*held_out.engines, *held_out.families)
    return BARS[:2] + tuple(Bar(f"leave_{name}", "auc_frame", 0.85, True) for name in left) + BARS[2:]


def judge_bars(
    rows: Sequence[Row], held_out: HeldOut = FIRST_HELD_OUT
) -> list[tuple[Bar, float | None, bool]]:
    """Every bar with the measured value (None where it was not measured) and whether it is met."""
    values = {(row.case, row.metric): row.value for row in rows}
    judged = []
    for bar in bars(held_out):
        value = values.get((bar.case, bar.metric))
        met = value is not None and (value >= bar.limit if bar.floor else value <= bar.limit)
        judged.append((bar, value, met))
    return judged
