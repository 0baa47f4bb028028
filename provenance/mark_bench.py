"""Measures the mark: what it costs and what it survives, attack by attack; knows no file and no ledger.

Case names are the command line's (`facsimile bench mark`). An attack is a pure function of a picture and a
random generator; rows carry their number of pictures and a 95 % interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import numpy.typing as npt

from provenance import codec, watermark
from provenance.errors import VerificationError
from provenance.mark_signal import UInt8Array, luma_of

Attack = Callable[[UInt8Array, np.random.Generator], UInt8Array]


@dataclass(frozen=True)
class Row:
    """One figure of the table; `ci95` is None where no interval makes sense (times, extremes)."""

    case: str
    metric: str
    value: float
    unit: str
    n: int
    ci95: tuple[float, float] | None


# ---------------------------------------------------------------- attacks


def _coded(rgb: UInt8Array, extension: str, flag: int, quality: int) -> UInt8Array:
    data = cv2.imencode(extension, rgb[..., ::-1], [flag, quality])[1]
    bgr = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(bgr[..., ::-1])


def jpeg(quality: int) -> Attack:
    """JPEG 4:2:0 at a quality."""
    return lambda rgb, rng: _coded(rgb, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


def webp(quality: int) -> Attack:
    """Lossy WebP at a quality."""
    return lambda rgb, rng: _coded(rgb, ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)


def _sized(rgb: UInt8Array, width: int, height: int) -> UInt8Array:
    mode = cv2.INTER_AREA if width < rgb.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=mode), np.uint8)


def scaled(factor: float) -> Attack:
    """Resize both sides by a factor and leave it so."""
    return lambda rgb, rng: _sized(rgb, round(rgb.shape[1] * factor), round(rgb.shape[0] * factor))


def crop(removed: float, back: bool = False) -> Attack:
    """Cut a share off each side's length at a random place; `back`: resize to the old size."""

    def attack(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        height, width = rgb.shape[:2]
        kept_h, kept_w = round(height * (1 - removed)), round(width * (1 - removed))
        top, left = int(rng.integers(0, height - kept_h + 1)), int(rng.integers(0, width - kept_w + 1))
        cut = np.ascontiguousarray(rgb[top : top + kept_h, left : left + kept_w])
        return _sized(cut, width, height) if back else cut

    return attack


def linear(gain: float, offset: float = 0.0) -> Attack:
    """Every value times gain plus offset, saturated."""
    return lambda rgb, rng: np.clip(np.rint(rgb * gain + offset), 0, 255).astype(np.uint8)


def rotate(degrees: float) -> Attack:
    """Turn about the centre by a random sign of an angle, same size, border mirrored."""

    def attack(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        height, width = rgb.shape[:2]
        angle = degrees if rng.random() < 0.5 else -degrees
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
        turned = cv2.warpAffine(
            rgb, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        return np.asarray(turned, np.uint8)

    return attack


def chain(*attacks: Attack) -> Attack:
    """One attack after another."""

    def attack(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        for step in attacks:
            rgb = step(rgb, rng)
        return rgb

    return attack


def denoised(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """An adversary that smooths what it can without blurring edges: bilateral, median, then JPEG q70."""
    smooth = cv2.medianBlur(cv2.bilateralFilter(rgb, 7, 25, 3), 3)
    return jpeg(70)(np.asarray(smooth, np.uint8), rng)


ATTACKS: Mapping[str, Attack] = {
    "clean": lambda rgb, rng: rgb,
    "jpeg_q75": jpeg(75),
    "jpeg_q50": jpeg(50),
    "jpeg_q30": jpeg(30),
    "webp_q60": webp(60),
    "resize_0.5": scaled(0.5),
    "screenshot": chain(scaled(0.75), crop(0.02), jpeg(80)),
    "social": chain(scaled(0.6), jpeg(70)),
    "brightness_up": linear(1.2),
    "brightness_down": linear(0.8),
    "contrast_up": linear(1.2, -25.6),
    "blur_2": lambda rgb, rng: np.asarray(cv2.GaussianBlur(rgb, (0, 0), 2), np.uint8),
    "mirror": lambda rgb, rng: np.ascontiguousarray(rgb[:, ::-1]),
    "crop_10": crop(0.10),
    "crop_10_back": crop(0.10, back=True),
    "crop_50": crop(1 - math.sqrt(0.5)),  # half of the area
    "rotate_5": rotate(5),
    "adversary_denoise": denoised,
}


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
    """One figure from its single values: a mean with its interval, a median for times, the largest p_false."""
    unit = {"psnr_db": "dB", "embed_ms": "ms", "extract_ms": "ms"}.get(metric, "1")
    if metric.endswith("_ms"):
        return Row(case, metric, float(np.median(values)), unit, len(values), None)
    if metric == "p_false":
        return Row(case, metric, float(np.max(values)), unit, len(values), None)
    share = metric in {"id_recovered", "present", "id_wrong", "transplant_told"}
    return Row(case, metric, float(np.mean(values)), unit, len(values), _interval(values, share))


def _timed_ms(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def _reading_figures(rgb: UInt8Array, asset_id: bytes, key: bytes) -> dict[str, float]:
    start = time.perf_counter()
    reading = watermark.extract(rgb, key)
    spent = _timed_ms(start)
    right = (reading.soft > 0) == (codec.encode(asset_id, key) == 1)
    return {
        "bit_accuracy": float(right.mean()),
        "id_recovered": float(reading.asset_id == asset_id.hex()),
        "id_wrong": float(reading.asset_id not in (None, asset_id.hex())),
        "present": float(reading.present),
        "p_false": reading.p_false,
        "extract_ms": spent,
    }


def _figures_of(
    rgb: UInt8Array, key: bytes, rng: np.random.Generator, cases: Sequence[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """(case, figures) of one picture marked once and attacked in every way."""
    asset_id, start = rng.bytes(codec.ID_BYTES), time.perf_counter()
    try:
        marked = watermark.embed(rgb, asset_id, key)
    except VerificationError:
        yield "clean", {"embedded": 0.0}
        return
    spent = _timed_ms(start)
    yield (
        "clean",
        {"embedded": 1.0, "embed_ms": spent, "psnr_db": psnr_db(rgb, marked), "ssim": ssim(rgb, marked)},
    )
    for case in cases:
        yield case, _reading_figures(ATTACKS[case](marked, rng), asset_id, key)


def measure(
    pictures: Iterable[UInt8Array], key: bytes, seed: int = 0, cases: Sequence[str] = tuple(ATTACKS)
) -> list[Row]:
    """The table over uint8 [H, W, 3] RGB pictures: quality and time on `clean`, reading on every case."""
    rng, found = np.random.default_rng(seed), dict[tuple[str, str], list[float]]()
    for rgb in pictures:
        for case, figures in _figures_of(rgb, key, rng, cases):
            for metric, value in figures.items():
                found.setdefault((case, metric), []).append(value)
    return [row_of(case, metric, values) for (case, metric), values in found.items()]


def measure_1080p(pictures: Iterable[UInt8Array], key: bytes, seed: int = 0) -> list[Row]:
    """The case `1080p`: pictures brought to 1920 x 1080, marked and read back."""
    large = (_sized(_wide(rgb), 1920, 1080) for rgb in pictures)
    rows = measure(large, key, seed, ("clean",))
    return [Row("1080p", r.metric, r.value, r.unit, r.n, r.ci95) for r in rows]


def _wide(rgb: UInt8Array) -> UInt8Array:
    """The middle of a picture in 16:9."""
    height, width = rgb.shape[:2]
    kept_h, kept_w = min(height, width * 9 // 16), min(width, height * 16 // 9)
    top, left = (height - kept_h) // 2, (width - kept_w) // 2
    return np.ascontiguousarray(rgb[top : top + kept_h, left : left + kept_w])


def measure_false_alarms(
    pictures: Sequence[UInt8Array],
    count: int,
    seed: int = 0,
    search: watermark.Search = "fast",
    side: tuple[int, int] = (160, 420),
) -> list[Row]:
    """The case `unmarked`: `count` random crops of unmarked pictures, each read under a key of its own.

    present: share that reads as marked; p_false: the least seen, which for a true bound is not below 1/count
    by much.
    """
    rng = np.random.default_rng(seed)
    present, lowest = 0, 1.0
    for _ in range(count):
        rgb = pictures[int(rng.integers(len(pictures)))]
        size = [int(min(n, rng.integers(*side))) for n in rgb.shape[:2]]
        top, left = (int(rng.integers(0, n - s + 1)) for n, s in zip(rgb.shape[:2], size, strict=True))
        cut = np.ascontiguousarray(rgb[top : top + size[0], left : left + size[1]])
        reading = watermark.extract(cut, rng.bytes(codec.KEY_BYTES), search=search)
        present, lowest = present + reading.present, min(lowest, reading.p_false)
    ci95 = _interval([1.0] * present + [0.0] * (count - present), share=True)
    case = "unmarked" if search == "fast" else "unmarked_full"
    return [
        Row(case, "present", present / count, "1", count, ci95),
        Row(case, "p_false", lowest, "1", count, None),
    ]


# ---------------------------------------------------------------- pictures and tables


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
    drawn = [drawn_picture(seed + i) for i in range(pictures)]
    return [
        *measure(drawn, key, seed),
        *measure_1080p(drawn[:2], key, seed),
        *measure_false_alarms(drawn, 100, seed),
    ]


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows as bench.json wants them."""
    return [asdict(r) | {"ci95": list(r.ci95) if r.ci95 else None} for r in rows]


def rows_as_markdown(rows: Sequence[Row]) -> str:
    """The same rows as a table, one line a case."""
    metrics = list(dict.fromkeys(r.metric for r in rows))
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
