"""Pictures of a check's report: small crops, heat maps over them, frames around faces; decides nothing."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fusion.face import FloatArray, UInt8Array
from fusion.media import encode_picture

if TYPE_CHECKING:
    from detector.check import Report
    from detector.evidence import FaceEvidence

TINT = np.array([214, 40, 90], np.float32)
FRAME = (255, 255, 255)
HEAT_OPACITY = 0.6


def face_picture(face: FaceEvidence) -> UInt8Array | None:
    """The crop of a face, tinted where its heat map is to be shown; uint8 [S, S, 3]."""
    if face.crop is None or face.crop_xyxy is None:
        return None
    if face.heatmap is None or face.heatmap_xyxy is None:
        return face.crop
    heat = (
        _on_crop(face.heatmap, face.heatmap_xyxy, face.crop_xyxy, face.crop.shape[0])[..., None]
        * HEAT_OPACITY
    )
    tinted = face.crop.astype(np.float32) * (1 - heat) + TINT * heat
    return np.asarray(tinted.round(), np.uint8)


def preview_picture(report: Report) -> UInt8Array | None:
    """The file in small with its faces framed and numbered from 1; of a video, one frame without frames."""
    preview = report.medium.preview
    if preview is None:
        return None
    drawn = np.ascontiguousarray(preview.copy())
    if report.video is not None:
        return drawn
    scale = preview.shape[1] / report.medium.width
    for number, face in enumerate(report.detector.faces[:12]):
        left, top, right, bottom = (round(value * scale) for value in face.box_xyxy)
        cv2.rectangle(drawn, (left, top), (right, bottom), (0, 0, 0), 3, cv2.LINE_AA)
        cv2.rectangle(drawn, (left, top), (right, bottom), FRAME, 1, cv2.LINE_AA)
        for colour, width in (((0, 0, 0), 3), (FRAME, 1)):
            at = (left + 4, min(top + 16, drawn.shape[0] - 4))
            cv2.putText(drawn, str(number + 1), at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width, cv2.LINE_AA)
    return drawn


def data_uri(rgb: UInt8Array, quality: int = 85) -> str:
    """A picture as the address of an `img` that needs no other file."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_picture(rgb, 'jpeg', quality)).decode()}"


def _on_crop(
    heat: FloatArray, heat_xyxy: tuple[float, ...], crop_xyxy: tuple[int, ...], size_px: int
) -> FloatArray:
    """A heat map over its own box, as it lies in a square crop of `size_px`; 0 outside."""
    scale = size_px / max(crop_xyxy[2] - crop_xyxy[0], 1)
    width = (heat_xyxy[2] - heat_xyxy[0]) * scale / heat.shape[1]
    height = (heat_xyxy[3] - heat_xyxy[1]) * scale / heat.shape[0]
    move = np.array(
        [
            [width, 0, (heat_xyxy[0] - crop_xyxy[0]) * scale + (width - 1) / 2],
            [0, height, (heat_xyxy[1] - crop_xyxy[1]) * scale + (height - 1) / 2],
        ],
        np.float32,
    )
    placed = cv2.warpAffine(heat.clip(0, 1), move, (size_px, size_px), flags=cv2.INTER_LINEAR)
    return np.asarray(placed, np.float32)
