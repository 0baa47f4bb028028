"""Measures invisible-watermark's three methods beside ours, where that package is installed.

The suite itself does not need it: it comes with the development extra. Its 32 bits have neither error correction nor
presence test: the share of right bits, the quality and the times are all that can be compared.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Sequence
from types import ModuleType

import numpy as np

from provenance.mark_bench import ATTACKS, Row, psnr_db, row_of
from provenance.mark_signal import UInt8Array

METHODS = ("dwtDct", "dwtDctSvd", "rivaGan")
BITS = 32


def installed() -> ModuleType | None:
    """The package, or None."""
    try:
        return importlib.import_module("imwatermark")
    except ImportError:
        return None


def measure_rivals(
    pictures: Iterable[UInt8Array],
    seed: int = 0,
    cases: Sequence[str] = tuple(ATTACKS),
    methods: Sequence[str] = METHODS,
) -> list[Row]:
    """Rows with the case `METHOD:ATTACK`; none where the package is not installed. rivaGan takes seconds a picture."""
    package = installed()
    if package is None:
        return []
    rng, found = np.random.default_rng(seed), dict[tuple[str, str], list[float]]()
    if "rivaGan" in methods:
        package.WatermarkEncoder.loadModel()
    for rgb in pictures:
        for method in methods:
            for case, metric, value in _of_one(package, rgb, method, cases, rng):
                found.setdefault((f"{method}:{case}", metric), []).append(value)
    return [row_of(case, metric, values) for (case, metric), values in found.items()]


def _of_one(
    package: ModuleType, rgb: UInt8Array, method: str, cases: Sequence[str], rng: np.random.Generator
) -> Iterable[tuple[str, str, float]]:
    bits, start = rng.integers(0, 2, BITS), time.perf_counter()
    encoder = package.WatermarkEncoder()
    encoder.set_watermark("bits", [int(bit) for bit in bits])
    bgr = encoder.encode(np.ascontiguousarray(rgb[..., ::-1]), method)
    marked = np.ascontiguousarray(np.asarray(bgr, np.uint8)[..., ::-1])
    yield "clean", "embed_ms", (time.perf_counter() - start) * 1e3
    yield "clean", "psnr_db", psnr_db(rgb, marked)
    for case in cases:
        seen, start = np.ascontiguousarray(ATTACKS[case](marked, rng)[..., ::-1]), time.perf_counter()
        try:
            read = package.WatermarkDecoder("bits", BITS).decode(seen, method)
        except RuntimeError:  # it refuses pictures under 256 x 256
            continue
        yield case, "extract_ms", (time.perf_counter() - start) * 1e3
        yield case, "bit_accuracy", float((np.asarray(read) == bits).mean())
