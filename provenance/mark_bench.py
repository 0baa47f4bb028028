"""Measures a mark picture by picture: what it costs and what it survives; knows no file and no ledger.

A measurement is `Found`: case -> metric -> value of one picture. It depends on the picture, the key and a seed alone,
so a long run can be cut off and go on (`facsimile bench mark` keeps them). Rows carry their n and a 95 % interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from provenance import codec, watermark
from provenance.errors import VerificationError
from provenance.mark_attacks import ATTACKS, Attack, sized
from provenance.mark_signal import UInt8Array, luma_of
from provenance.watermark import MarkReading

Found = dict[str, dict[str, float]]
LARGE = (1920, 1080)


class Scheme(Protocol):
    """A mark of 128 coded bits under one key."""

    @property
    def key(self) -> bytes:
        """The 32 bytes."""

    def embed(self, rgb: UInt8Array, asset_id: bytes) -> UInt8Array:
        """A copy with the id; VerificationError where the picture does not hold it."""

    def extract(self, rgb: UInt8Array) -> MarkReading:
        """What the picture says, the full search included."""


@dataclass(frozen=True)
class SpreadSpectrum:
    """The mark that ships."""

    key: bytes

    def embed(self, rgb: UInt8Array, asset_id: bytes) -> UInt8Array:
        return watermark.embed(rgb, asset_id, self.key)

    def extract(self, rgb: UInt8Array) -> MarkReading:
        return watermark.extract(rgb, self.key)


@dataclass(frozen=True)
class Row:
    """One figure of the table; `ci95` is None where no interval makes sense (times, extremes)."""

    case: str
    metric: str
    value: float
    unit: str
    n: int
    ci95: tuple[float, float] | None


# ---------------------------------------------------------------- figures


def psnr_db(a: UInt8Array, b: UInt8Array) -> float:
    """Peak signal to noise ratio over all channels, dB."""
    error = float(((a.astype(np.float32) - b) ** 2).mean())
    return 10 * math.log10(255**2 / max(error, 1e-9))


def ssim(a: UInt8Array, b: UInt8Array) -> float:
    """Mean SSIM of the lumas at the picture's own size (Wang 2004: Gaussian window 11, sigma 1.5)."""
    x, y = luma_of(a).astype(np.float64), luma_of(b).astype(np.float64)

    def mean(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5), np.float64)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + 6.5025) * (2 * cov + 58.5225)
    return float((top / ((mean_x**2 + mean_y**2 + 6.5025) * (var_x + var_y + 58.5225))).mean())


def _interval(values: Sequence[float], share: bool) -> tuple[float, float]:
    """Wilson's interval for a share of yes, the normal one for a mean."""
    n, mean = len(values), float(np.mean(values))
    if not share:
        half = 1.96 * float(np.std(values)) / math.sqrt(n)
        return mean - half, mean + half
    z2 = 1.96**2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 / (1 + z2 / n) * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def row_of(case: str, metric: str, values: Sequence[float]) -> Row:
    """One figure from its single values: a mean with its interval, a median of times, an extreme."""
    unit = "dB" if metric.endswith("_db") else "ms" if metric.endswith("_ms") else "1"
    if metric.endswith("_ms"):
        return Row(case, metric, float(np.median(values)), unit, len(values), None)
    if metric in _EXTREMES:
        return Row(case, metric, float(_EXTREMES[metric](values)), unit, len(values), None)
    share = metric in {"embedded", "id_recovered", "present", "id_wrong", "transplant_told"}
    return Row(case, metric, float(np.mean(values)), unit, len(values), _interval(values, share))


_EXTREMES = {"p_false": np.max, "least_psnr_db": np.min, "least_ssim": np.min, "least_p": np.min}


def rows_of(found: Iterable[Found]) -> list[Row]:
    """The table of many measurements, in the order in which cases and metrics first appear."""
    values = dict[tuple[str, str], list[float]]()
    for each in found:
        for case, figures in each.items():
            for metric, value in figures.items():
                values.setdefault((case, metric), []).append(value)
    cases = list(dict.fromkeys(case for case, _ in values))
    return [
        row_of(case, metric, values[case, metric])
        for case, metric in sorted(values, key=lambda k: cases.index(k[0]))
    ]


# ---------------------------------------------------------------- one picture


class _Clock:
    """Wall and CPU time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def spent(self, name: str) -> dict[str, float]:
        """NAME_ms and NAME_cpu_ms: on a busy machine only the second says something."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return {f"{name}_ms": 1e3 * wall, f"{name}_cpu_ms": 1e3 * cpu}


def reading_figures(reading: MarkReading, asset_id: bytes, key: bytes) -> dict[str, float]:
    """What a reading of a picture that carries `asset_id` is worth."""
    right = (reading.soft > 0) == (codec.encode(asset_id, key) == 1)
    return {
        "bit_accuracy": float(right.mean()),
        "id_recovered": float(reading.asset_id == asset_id.hex()),
        "id_wrong": float(reading.asset_id not in (None, asset_id.hex())),
        "present": float(reading.present),
        "p_false": reading.p_false,
    }


def measure_picture(
    scheme: Scheme, rgb: UInt8Array, seed: Sequence[int], attacks: Mapping[str, Attack] = ATTACKS
) -> Found:
    """One uint8 [H, W, 3] RGB picture marked once and attacked in every way; each attack draws from its own seed."""
    asset_id, clock = np.random.default_rng([*seed, 0]).bytes(codec.ID_BYTES), _Clock()
    try:
        marked = scheme.embed(rgb, asset_id)
    except VerificationError:
        return {"quality": {"embedded": 0.0}}
    quality, psnr, similar = (
        {"embedded": 1.0, **clock.spent("embed")},
        psnr_db(rgb, marked),
        ssim(rgb, marked),
    )
    quality |= {"psnr_db": psnr, "least_psnr_db": psnr}
    found: Found = {"quality": quality | {"ssim": similar, "least_ssim": similar}}
    for number, (case, attack) in enumerate(attacks.items(), 1):
        seen, clock = attack(marked, np.random.default_rng([*seed, number])), _Clock()
        reading = scheme.extract(seen)
        found[case] = reading_figures(reading, asset_id, scheme.key) | clock.spent("extract")
    return found


def measure_1080p(scheme: Scheme, rgb: UInt8Array, seed: Sequence[int]) -> Found:
    """Case `1080p`: a picture brought to 1920 x 1080, marked, read, searched after a crop, and searched unmarked."""
    large = sized(_wide(rgb), *LARGE)
    found = measure_picture(scheme, large, seed, {each: ATTACKS[each] for each in ("clean", "crop_10")})
    clock = _Clock()
    scheme.extract(large)
    found["unmarked"] = clock.spent("extract")
    return {f"1080p_{case}": figures for case, figures in found.items()}


def measure_unmarked(
    pictures: Sequence[UInt8Array],
    count: int,
    seed: Sequence[int],
    search: watermark.Search = "fast",
    side: tuple[int, int] = (160, 420),
) -> list[Found]:
    """Case `unmarked` or `unmarked_full`: `count` random crops of unmarked pictures, each read under a key of its own.

    present: reads as marked. least_p: the smallest p_false, for a true bound seldom far below 1/count.
    """
    rng, found = np.random.default_rng(list(seed)), list[Found]()
    for _ in range(count):
        rgb = pictures[int(rng.integers(len(pictures)))]
        size = [int(min(n, rng.integers(*side))) for n in rgb.shape[:2]]
        top, left = (int(rng.integers(0, n - s + 1)) for n, s in zip(rgb.shape[:2], size, strict=True))
        cut = np.ascontiguousarray(rgb[top : top + size[0], left : left + size[1]])
        reading = watermark.extract(cut, rng.bytes(codec.KEY_BYTES), search=search)
        figures = {"present": float(reading.present), "least_p": reading.p_false}
        found.append({"unmarked" if search == "fast" else "unmarked_full": figures})
    return found


# ---------------------------------------------------------------- pictures and tables


def _wide(rgb: UInt8Array) -> UInt8Array:
    """The middle of a picture in 16:9."""
    height, width = rgb.shape[:2]
    kept_h, kept_w = min(height, width * 9 // 16), min(width, height * 16 // 9)
    top, left = (height - kept_h) // 2, (width - kept_w) // 2
    return np.ascontiguousarray(rgb[top : top + kept_h, left : left + kept_w])


def drawn_picture(seed: int, height: int = 512, width: int = 512) -> UInt8Array:
    """uint8 [H, W, 3]: gradients, discs, strokes and grain, made from a seed; nobody's pixels."""
    rng = np.random.default_rng(seed)
    scale, strength = rng.uniform(1, 4), rng.uniform(5, 40)
    grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), scale)
    dark, light = (float(v) for v in rng.uniform(30, 220, 2))
    ramp = np.linspace(dark, light, width, dtype=np.float32)[None, :, None]
    picture = np.clip(ramp + grain * strength * scale, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(4, 16))):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        x, y, other_x, other_y = (int(v) for v in rng.integers(0, (width, height, width, height)))
        if rng.random() < 0.5:
            cv2.circle(picture, (x, y), int(rng.integers(8, max(9, width // 6))), colour, -1, cv2.LINE_AA)
        else:
            cv2.line(picture, (x, y), (other_x, other_y), colour, int(rng.integers(1, 12)), cv2.LINE_AA)
    noisy = picture + rng.normal(0, rng.uniform(0, 3), picture.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def quick(key: bytes, pictures: int = 6, seed: int = 0) -> list[Row]:
    """A table in under a minute from drawn pictures alone."""
    scheme, drawn = SpreadSpectrum(key), [drawn_picture(seed + i) for i in range(pictures)]
    found = [measure_picture(scheme, rgb, (seed, i)) for i, rgb in enumerate(drawn)]
    found += [measure_1080p(scheme, rgb, (seed, i)) for i, rgb in enumerate(drawn[:2])]
    return rows_of([*found, *measure_unmarked(drawn, 100, (seed,))])


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows as bench.json wants them."""
    return [asdict(r) | {"ci95": list(r.ci95) if r.ci95 else None} for r in rows]


def rows_as_markdown(rows: Sequence[Row]) -> str:
    """The same rows as a table, one line a case; times and what every line would repeat stay in the JSON."""
    metrics = [m for m in dict.fromkeys(r.metric for r in rows) if not m.endswith("_cpu_ms")]
    cells = {(r.case, r.metric): r for r in rows}
    lines = ["| case | n | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for case in dict.fromkeys(r.case for r in rows):
        n = max(r.n for r in rows if r.case == case)
        lines.append(f"| {case} | {n} | " + " | ".join(_cell(cells.get((case, m))) for m in metrics) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.ci95 is None:
        return f"{row.value:.3g}"
    return f"{row.value:.4g} [{row.ci95[0]:.3g}, {row.ci95[1]:.3g}]"
