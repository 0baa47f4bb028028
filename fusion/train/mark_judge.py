"""Draws and reads the learned mark on whole pictures, so that it can be judged; knows no code, no key and no id.

Place and size are found by looking everywhere at once: a cell's logits are large where a cell begins, and small beside
it. Sizes from 0.7 to 1.1 and turns to 7.5 degrees are tried, not both at once, and not mirrored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fusion.face import FloatArray, UInt8Array
from fusion.train.mark_nets import BITS, CELL, CELLS, PER_CELL, TILE, MarkEmbedder, MarkExtractor, hidden

WORKING_AREA = 256 * 256
SCALES = np.exp(np.arange(math.log(0.7), math.log(1.1), 0.012))
TURNS_DEG = np.arange(-7.5, 7.6, 1.25)
COARSE_PX = 144
KEPT = 2


def working_luma(rgb: UInt8Array) -> FloatArray:
    """float32 [h, w] in [0, 1]: the luma of uint8 [H, W, 3] at as many pixels as 256 x 256 have."""
    height, width = rgb.shape[:2]
    scale = math.sqrt(WORKING_AREA / (width * height))
    size = (max(TILE, round(width * scale)), max(TILE, round(height * scale)))
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return np.asarray(cv2.resize(luma, size, interpolation=mode), np.float32)


def _offset(plane: FloatArray) -> tuple[int, int]:
    """A tile begins at the plane's centre."""
    return -(plane.shape[0] // 2) % TILE, -(plane.shape[1] // 2) % TILE


def _tensor(plane: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(plane))[None, None]


def turned(plane: FloatArray, scale: float, turn_deg: float) -> FloatArray:
    """The plane enlarged and turned about its centre, as much as there is of it."""
    size = [max(TILE + CELL, round(n * scale)) for n in plane.shape]
    matrix = cv2.getRotationMatrix2D((plane.shape[1] // 2, plane.shape[0] // 2), turn_deg, scale)
    matrix[:, 2] += (size[1] // 2 - plane.shape[1] // 2, size[0] // 2 - plane.shape[0] // 2)
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    seen = cv2.warpAffine(plane, matrix, size[::-1], flags=mode, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(seen, np.float32)


def folded(everywhere: FloatArray) -> FloatArray:
    """Logits [2, h, w] of cells that begin at each pixel → their sums [2, 64, 64] over all tiles."""
    _, height, width = everywhere.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    canvas = np.zeros((PER_CELL, rows * TILE, columns * TILE), np.float32)
    canvas[:, :height, :width] = everywhere
    return np.asarray(canvas.reshape(PER_CELL, rows, TILE, columns, TILE).sum((1, 3)), np.float32)


def places(sums: FloatArray) -> tuple[float, FloatArray]:
    """Sums [2, 64, 64] → how far the best of the 64 places within a cell stands out, and its 64 readings [64, 128],
    one for each cell that may be the tile's first."""
    by_place = sums.reshape(PER_CELL, CELLS, CELL, CELLS, CELL)
    energy = (by_place**2).sum((0, 1, 3))
    at = np.unravel_index(int(energy.argmax()), energy.shape)
    tile = by_place[:, :, at[0], :, at[1]]
    readings = [np.roll(tile, (-y, -x), (1, 2)).reshape(BITS) for y in range(CELLS) for x in range(CELLS)]
    return float(energy.max() / np.median(energy)), np.stack(readings)


@dataclass(frozen=True, eq=False)
class LearnedMark:
    """A trained pair of networks."""

    embedder: MarkEmbedder
    extractor: MarkExtractor

    @classmethod
    def load(cls, run: Path) -> LearnedMark:
        """What `train mark` left in a folder."""
        made = cls(MarkEmbedder().eval(), MarkExtractor().eval())
        made.embedder.load_state_dict(load_file(run / "mark_embedder.safetensors"))
        made.extractor.load_state_dict(load_file(run / "mark_extractor.safetensors"))
        return made

    @torch.inference_mode()
    def change(self, rgb: UInt8Array, bits: UInt8Array) -> FloatArray:
        """float32 [H, W], grey levels: what to add to the luma for bits [128], at a cost of 1 % of SSIM by estimate."""
        plane = working_luma(rgb)
        luma = _tensor(plane)
        drawn = self.embedder(luma, torch.from_numpy(bits.astype(np.float32) * 2 - 1)[None], _offset(plane))
        drawn = drawn * (0.1 / float((drawn**2 / hidden(luma)).mean().sqrt()))
        size = (rgb.shape[1], rgb.shape[0])
        return np.asarray(cv2.resize(drawn[0, 0].numpy(), size, interpolation=cv2.INTER_CUBIC), np.float32)

    @torch.inference_mode()
    def straight(self, rgb: UInt8Array) -> FloatArray:
        """float32 [128]: logits of a picture that was neither cropped nor turned."""
        plane = working_luma(rgb)
        return np.asarray(self.extractor(_tensor(plane), _offset(plane))[0].numpy(), np.float32)

    def searched(self, rgb: UInt8Array) -> list[FloatArray]:
        """The likeliest poses' readings, [64, 128] each: by the middle of the picture, then by all of it."""
        plane = working_luma(rgb)
        poses = [(float(s), 0.0) for s in SCALES] + [(1.0, float(t)) for t in TURNS_DEG]
        ranked = sorted(poses, key=lambda pose: -self._reading(_middle(turned(plane, *pose)))[0])
        return [self._reading(turned(plane, *pose))[1] for pose in ranked[:KEPT]]

    @torch.inference_mode()
    def _reading(self, plane: FloatArray) -> tuple[float, FloatArray]:
        return places(folded(self.extractor.everywhere(_tensor(plane))[0].numpy()))


def _middle(plane: FloatArray) -> FloatArray:
    top, left = (max(0, (n - COARSE_PX) // 2) for n in plane.shape)
    return plane[top : top + COARSE_PX, left : left + COARSE_PX]
