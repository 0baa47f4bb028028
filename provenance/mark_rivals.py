"""Measures invisible-watermark's three methods beside ours, where that package is installed.

The suite itself does not need it: it comes with the development extra. Its 32 bits have neither error correction nor
presence test: the share of right bits, the quality and the times are all that can be compared.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from provenance.mark_attacks import ATTACKS, Attack
from provenance.mark_bench import Found, psnr_db, ssim
from provenance.mark_signal import UInt8Array

METHODS = ("dwtDct", "dwtDctSvd", "rivaGan")
BITS = 32
FEW: Mapping[str, Attack] = {
    each: ATTACKS[each]
    for each in ("clean", "jpeg_q75", "jpeg_q50", "webp_q60", "resize_0.5", "crop_10", "screenshot", "blur_2")
}
"""What rivaGan is asked: a reading of 512 x 512 takes it seconds."""


def installed() -> ModuleType | None:
    """The package, or None."""
    try:
        return importlib.import_module("imwatermark")
    except ImportError:
        return None


@functools.cache
def _tools(method: str) -> tuple[Any, Any]:
    """Encoder and decoder of the package; rivaGan's networks are loaded once."""
    package = importlib.import_module("imwatermark")
    if method == "rivaGan":
        package.WatermarkEncoder.loadModel()
    return package.WatermarkEncoder(), package.WatermarkDecoder("bits", BITS)


def measure_rival(
    method: str, rgb: UInt8Array, seed: Sequence[int], attacks: Mapping[str, Attack] = ATTACKS
) -> Found:
    """One picture, uint8 [H, W, 3] RGB, marked by one of METHODS and attacked in every way; cases METHOD:ATTACK."""
    encoder, decoder = _tools(method)
    bits, start = np.random.default_rng([*seed, 0]).integers(0, 2, BITS), time.process_time()
    encoder.set_watermark("bits", [int(bit) for bit in bits])
    bgr = encoder.encode(np.ascontiguousarray(rgb[..., ::-1]), method)
    spent = (time.process_time() - start) * 1e3
    marked = np.ascontiguousarray(np.asarray(bgr, np.uint8)[..., ::-1])
    found: Found = {
        f"{method}:quality": {
            "embed_cpu_ms": spent,
            "psnr_db": psnr_db(rgb, marked),
            "ssim": ssim(rgb, marked),
        }
    }
    for number, (case, attack) in enumerate(attacks.items(), 1):
        attacked = attack(marked, np.random.default_rng([*seed, number]))
        seen, start = np.ascontiguousarray(attacked[..., ::-1]), time.process_time()
        try:
            read = decoder.decode(seen, method)
        except RuntimeError:  # it refuses pictures under 256 x 256
            continue
        spent = (time.process_time() - start) * 1e3
        found[f"{method}:{case}"] = {
            "bit_accuracy": float((np.asarray(read) == bits).mean()),
            "extract_cpu_ms": spent,
        }
    return found
