"""Held-out samples to a Calibration: temperature, conformal thresholds with an abstain band, gates; scores no picture.

Calibrated on people that neither the training nor the test set shows. What the thresholds promise holds for pictures
like those; on foreign ones nothing is promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.optimize import minimize

from detector.blend import ALL_FAMILIES
from detector.cases import CLEAN, DELIVERIES, Q60_R75
from detector.delivery import Delivery
from detector.held_out import FIRST_HELD_OUT, HeldOut
from detector.pairs import IDENTITY_PASS
from detector.samples import Sample, pick
from detector.score import Calibration
from detector.statistics import Array, conformal_lower, conformal_upper
from provenance.errors import InputError

DELIVERED: Final[Mapping[str, Delivery]] = {
    name: DELIVERIES[name]
    for name in (CLEAN, Q60_R75, "jpeg_q40", "jpeg_q85", "resize_0.5", "resize_1.5", "crop_10")
}
"""How the calibration's pictures arrive."""


@dataclass(frozen=True)
class Risk:
    """Wanted shares. strong, moderate, weak: of untouched faces; missed: of altered ones at `none found`."""

    strong: float = 0.005
    moderate: float = 0.01
    weak: float = 0.03
    missed: float = 0.05


def calibrate(
    samples: Sequence[Sample], risk: Risk | None = None, held_out: HeldOut = FIRST_HELD_OUT
) -> Calibration:
    """Temperature and offset by likelihood, thresholds by class-conditional conformal prediction, gates by quantiles.

    Reals are untouched faces and identity passes, in every delivery; altered ones own swaps and every blend family that
    the network was not kept from. InputError `calibrate.samples` with too few.
    """
    risk = risk or Risk()
    learnt = tuple(f"sbi_{name}" for name in ALL_FAMILIES if name not in held_out.families)
    reals, fakes = pick(samples, ("real", IDENTITY_PASS)), pick(samples, ("own", *learnt))
    if len(reals) < 2 / risk.strong or len(fakes) < 50:
        raise InputError(
            "calibrate.samples",
            f"{len(reals)} untouched and {len(fakes)} altered samples are too few for these thresholds",
            "Calibrate on at least 60 held-out portraits.",
        )
    raw_real = np.array([s.raw for s in reals], np.float64)
    raw_fake = np.array([s.raw for s in fakes], np.float64)
    temperature, offset = fit_temperature(raw_real, raw_fake)
    start = Calibration(temperature, offset, 0, 0, 0, 0)
    real = np.array([start.logit(value) for value in raw_real])
    fake = np.array([start.logit(value) for value in raw_fake])
    strong = max(conformal_upper(real, risk.strong), _worst_delivery(reals, real, 2 * risk.strong))
    moderate = min(strong, conformal_upper(real, risk.moderate))
    weak = min(moderate, conformal_upper(real, risk.weak))
    return replace(
        start,
        strong=strong,
        moderate=moderate,
        weak=weak,
        clear=min(weak, conformal_lower(fake, risk.missed)),
        min_detail=0.8 * float(np.quantile([s.detail for s in reals], 0.002)),
        max_flat=min(0.9, 0.1 + 1.2 * float(np.quantile([s.flat for s in reals], 0.998))),
    )


def fit_temperature(real: Array, fake: Array) -> tuple[float, float]:
    """(temperature, offset) that make sigmoid((raw − offset) / temperature) most likely, classes balanced.

    Platt 1999 with balanced weights; the temperature is positive, so the order of scores stays.
    """
    scale = max(float(np.std(np.r_[real, fake])), 1e-6)
    middle = float(np.r_[real, fake].mean())

    def cost(values: Array) -> float:
        slope, shift = np.exp(values[0]), values[1]
        low, high = slope * ((real - middle) / scale) - shift, slope * ((fake - middle) / scale) - shift
        return float(np.logaddexp(0, low).mean() + np.logaddexp(0, -high).mean())

    found = minimize(
        cost, np.zeros(2), method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-5, "fatol": 1e-9}
    )
    slope = float(np.exp(found.x[0]))
    return scale / slope, middle + scale * float(found.x[1]) / slope


def _worst_delivery(samples: Sequence[Sample], logits: Array, alpha: float) -> float:
    """Greatest of the deliveries' own conformal thresholds, so that none of them alarms more often.

    A delivery with too few people for so small an alpha gives its highest score.
    """
    names = np.array([s.delivery for s in samples])
    worst = -np.inf
    for name in np.unique(names):
        own = logits[names == name]
        limit = conformal_upper(own, alpha)
        worst = max(worst, limit if np.isfinite(limit) else float(np.nextafter(own.max(), np.inf)))
    return float(worst)
