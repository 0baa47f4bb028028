"""Engines with a network, as functions like `warp_face`; knows no paths and no policy."""

from __future__ import annotations

from fusion.face import FloatArray, UInt8Array
from fusion.warp import WarpOptions, WarpResult
from fusion.weights import STYLE, verify_file


def style_face(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    options: WarpOptions | None = None,
    *,
    identity: FloatArray | None = None,
) -> WarpResult:
    """The specification's generator; WeightsError `weights.missing` as long as none is shipped."""
    verify_file(STYLE)
    raise NotImplementedError
