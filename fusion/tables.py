"""Tables of a fusion bench: samples of pairs → rows with intervals, whole and by case; knows no picture, no file."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from fusion import measures
from fusion.evaluate import SIMILAR_MOUTH, SIMILAR_POSE_DEGREES, Bench, Gallery, Pair, Sample
from fusion.face import FloatArray
from fusion.pose import pose_difference_degrees
from fusion.swap import Engine

BoolArray = npt.NDArray[np.bool_]

BOOTSTRAP_ROUNDS: Final = 1000
UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("id_top1", "id_top5"), "share"),
    **dict.fromkeys(("id_cos_source", "id_cos_target"), "cosine"),
    **{"pose_deg": "degree", "pose_within_4": "share", "landmark_nme": "inter-ocular distance"},
    **{"seam_delta_e": "CIE76", "hf_corr": "correlation"},
    **dict.fromkeys(("catchlight_kept", "catchlight_refound"), "share"),
    **dict.fromkeys(("hf_ratio", "hf_off", "hf_ratio_1", "hf_ratio_2"), "ratio"),
    **{"cover_kept": "share", "cover_error": "level", "beside_painted": "ratio"},
    **{"eye_aperture_err": "share of the opening", "iris_err": "eye width"},
}


@dataclass(frozen=True)
class Row:
    """One number of a bench table; ci95 by bootstrap over pairs, None where there is none."""

    case: str
    metric: str
    value: float
    unit: str
    n: int
    ci95: tuple[float, float] | None


def cases_of(bench: Bench, pairs: Sequence[Pair], groups: Mapping[str, str]) -> dict[str, BoolArray]:
    """Which pairs [P] fall under which case: difference of pose, mouth, age's look and group of the target.

    `mouth_open` and `mouth_closed` are the target's; `oldest_tenth`: the tenth of the targets with the most wrinkled
    skin (measures.age_proxy), `the_rest` the others; `similar`: pose and mouth alike. `groups`: label of each portrait.
    """
    sources, targets = [bench.know(p.source) for p in pairs], [bench.know(p.target) for p in pairs]
    both = list(zip(sources, targets, strict=True))
    pose = np.array([pose_difference_degrees(one.given, other.given) for one, other in both])
    mouth = np.array([abs(one.mouth - other.mouth) for one, other in both])
    mouth_open = np.array([target.mouth > SIMILAR_MOUTH for target in targets])
    border = float(
        np.quantile(list({p.target: t.age for p, t in zip(pairs, targets, strict=True)}.values()), 0.9)
    )
    old = np.array([target.age >= border for target in targets])
    found = {
        "pose_0_10": pose < 10,
        "pose_10_25": (pose >= 10) & (pose < 25),
        "pose_25_up": pose >= 25,
        "mouth_differs": mouth > SIMILAR_MOUTH,
        "mouth_open": mouth_open,
        "mouth_closed": ~mouth_open,
        "similar": (pose <= SIMILAR_POSE_DEGREES) & (mouth <= SIMILAR_MOUTH),
        "oldest_tenth": old,
        "the_rest": ~old,
    }
    labels = [groups.get(p.target, "") for p in pairs]
    by_group = {
        f"group_{label}": np.array([one == label for one in labels]) for label in sorted({*labels} - {""})
    }
    return {**found, **by_group}


def tabulate(case: str, samples: Sequence[Sample], seed: int = 0) -> list[Row]:
    """One row per metric: mean over the pairs it applies to (median for ms) with its bootstrap interval."""
    rows = []
    for name, first in samples[0].items():
        if not isinstance(first, float):
            continue
        values = np.array([sample[name] for sample in samples], np.float64)
        if not (known := values[np.isfinite(values)]).size:
            continue
        metric = name.split(":")[0]
        timed = metric.startswith("ms_")
        value = float(np.median(known) if timed else known.mean())
        interval = median_interval(known) if timed else mean_interval(known, seed)
        rows.append(Row(case, name, value, "ms" if timed else UNITS.get(metric, ""), len(known), interval))
    return rows


def cover_rows(found: Sequence[Mapping[str, Sample]]) -> list[Row]:
    """Rows of `covers.measure_covers` of several pairs, one case a kind of cover."""
    return [row for kind in found[0] for row in tabulate(f"cover_{kind}", [one[kind] for one in found])]


def mean_interval(values: npt.NDArray[np.floating], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over samples drawn with replacement (Efron 1979)."""
    low, high = np.percentile(_draws(len(values), seed) @ values / len(values), [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=32)
def _draws(count: int, seed: int) -> FloatArray:
    """How often each of `count` samples is drawn, [BOOTSTRAP_ROUNDS, count]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), BOOTSTRAP_ROUNDS).astype(np.float32)


def median_interval(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """95 % interval of the median by order statistics (binomial, normal approximation)."""
    ordered, count = np.sort(values), len(values)
    half = 0.98 * np.sqrt(count)
    low = int(np.clip(np.floor(count / 2 - half), 0, count - 1))
    high = int(np.clip(np.ceil(count / 2 + half), 0, count - 1))
    return float(ordered[low]), float(ordered[high])


def bench_rows(
    samples: Mapping[str, Mapping[Pair, Sample]],
    bench: Bench,
    groups: Mapping[str, str] | None = None,
    broken_down: str = "default",
) -> Iterator[Row]:
    """Rows of every way (case: its name) and, for the one `broken_down`, of every case of its pairs.

    A way's samples may still be few: rows tell of what is there.
    """
    for way, by_pair in samples.items():
        if not by_pair:
            continue
        pairs, measured = list(by_pair), list(by_pair.values())
        yield from tabulate(way, measured)
        if bench.features is not None and len(pairs) > 3:
            targets = [bench.know(name).feature for name in sorted({pair.target for pair in pairs})]
            real = np.stack([feature for feature in targets if feature is not None])
            yield kernel_row(way, np.stack([np.asarray(sample["feature"]) for sample in measured]), real)
        if way != broken_down:
            continue
        for case, chosen in cases_of(bench, pairs, groups or {}).items():
            if chosen.any():
                yield from tabulate(case, [measured[i] for i in np.flatnonzero(chosen)])
    yield Row("process", "peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB", 1, None)


def bench_engines(
    bench: Bench,
    engines: Mapping[str, Engine],
    pairs: Sequence[Pair],
    gallery: Gallery | None = None,
    groups: Mapping[str, str] | None = None,
    broken_down: str = "default",
) -> list[Row]:
    """Measure every engine on every pair, then `bench_rows`."""
    people = gallery or Gallery.of(bench.portraits.values(), bench.recognisers)
    samples = {
        name: dict(zip(pairs, bench.measure(engine, pairs, people), strict=True))
        for name, engine in engines.items()
    }
    return list(bench_rows(samples, bench, groups, broken_down))


def kernel_row(case: str, features: FloatArray, real: FloatArray, rounds: int = 40, seed: int = 0) -> Row:
    """`kid` of outputs against the real targets; interval over halves of both (no more than 200) drawn anew."""
    rng = np.random.default_rng(seed)

    def half(vectors: FloatArray) -> FloatArray:
        return vectors[rng.choice(len(vectors), max(2, min(len(vectors) // 2, 200)), replace=False)]

    low, high = np.percentile(
        [measures.kernel_distance(half(features), half(real)) for _ in range(rounds)], [2.5, 97.5]
    )
    value = measures.kernel_distance(features, real)
    return Row(case, "kid", value, "squared MMD", len(features), (float(low), float(high)))
