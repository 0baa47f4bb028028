"""Short clips of one picture as a hand-held camera would film it, through H.264 and back; for measuring only.

A clip lies in a temporary folder while it is measured and is gone afterwards. A filmed picture is flat: no lips move
and no face turns, so a clip says what codec and camera do to the evidence, not what a swapped film looks like.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from fusion.face import FloatArray, UInt8Array
from fusion.video_codec import VideoReader, VideoWriter

CLIP_PX: Final = 448
FRAMES: Final = 24
FRAMES_PER_S: Final = 25.0


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame uint8 [CLIP_PX, CLIP_PX, 3] and where the picture's pixels lie in it: frame_from_image [2, 3]."""

    rgb: UInt8Array
    frame_from_image: FloatArray

    def box(self, box_xyxy: FloatArray) -> FloatArray:
        """The box around a box of the picture, in the frame, cut at its border; float32 [4]."""
        corners = (
            np.array([box_xyxy[[i, j]] for i in (0, 2) for j in (1, 3)]) @ self.frame_from_image[:, :2].T
        )
        corners = np.clip(corners + self.frame_from_image[:, 2], 0, CLIP_PX)
        return np.asarray([*corners.min(0), *corners.max(0)], np.float32)


def film(rgb: UInt8Array, rng: np.random.Generator, frames: int = FRAMES) -> list[Shown]:
    """A clip of a picture uint8 [H, W, 3]: a slow pan, zoom and turn, and the tremble of a hand."""
    height, width = rgb.shape[:2]
    fit = CLIP_PX / min(height, width)
    pan = rng.uniform(-0.04, 0.04, (2, 2)) * CLIP_PX  # from, to
    zoom, turn = rng.uniform(1.0, 1.2, 2), rng.uniform(-3, 3, 2)
    tremble = cv2.GaussianBlur(rng.normal(0, 1.5, (frames, 2)), (1, 5), 1.0)
    shown = []
    for number in range(frames):
        along = number / max(frames - 1, 1)
        scale = fit * float(np.interp(along, (0, 1), zoom))
        matrix = cv2.getRotationMatrix2D(
            (width / 2, height / 2), float(np.interp(along, (0, 1), turn)), scale
        )
        centre = pan[0] + along * (pan[1] - pan[0]) + tremble[number]
        matrix[:, 2] += np.array([CLIP_PX - width, CLIP_PX - height]) / 2 + centre
        kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frame = cv2.warpAffine(
            rgb, matrix, (CLIP_PX, CLIP_PX), flags=kernel, borderMode=cv2.BORDER_REFLECT_101
        )
        shown.append(Shown(np.asarray(frame, np.uint8), matrix.astype(np.float32)))
    return shown


def redeliver(frames: Sequence[UInt8Array], crf: int) -> list[UInt8Array]:
    """The frames uint8 [H, W, 3] through H.264 at a constant rate factor (x264, medium, 4:2:0), in order."""
    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, width, height, crf=crf) as out:
            for number, frame in enumerate(frames):
                out.write(frame, number / FRAMES_PER_S)
        with path.open("rb") as file:
            return [decoded.rgb for decoded in VideoReader(file).frames()]
