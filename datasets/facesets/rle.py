"""Masks as run lengths, the way COCO counts them; knows no picture and no label.

Runs go down the columns, first the number of zeros (Lin et al. 2014, cocoapi `maskApi`, uncompressed form).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from facesets.errors import FacesetError

BoolArray = npt.NDArray[np.bool_]


def encode_runs(mask: BoolArray) -> list[int]:
    """Run lengths of a mask bool [H, W]; they sum up to H x W."""
    flat = np.asarray(mask, bool).ravel(order="F")
    turns = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], turns, [flat.size]])
    runs: list[int] = np.diff(edges).tolist() if flat.size else []
    return [0, *runs] if flat.size and flat[0] else runs


def decode_runs(runs: Sequence[int], height: int, width: int) -> BoolArray:
    """The mask bool [H, W] of run lengths; FacesetError `faceset.mask` where they do not fill it."""
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise FacesetError(
            "faceset.mask", f"the runs of a mask do not fill {height} x {width} pixels", "make the set again"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width, order="F")
