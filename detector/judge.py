"""Faces of one picture to detector evidence: gates, scores, re-delivered copies; knows no network of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from detector import consistency, gates
from detector.evidence import (
    STRENGTH,
    Band,
    Consistency,
    DetectorEvidence,
    FaceEvidence,
    FaceScore,
    FaceScorer,
    band_of,
    strongest,
)
from detector.gates import PictureGates
from detector.statement import Statement
from fusion.face import Face, FloatArray, UInt8Array

MAX_CROPS = 12
CROP_PX = 256
CROP_MARGIN = 1.6
"""Side of a crop for people, in longer sides of the face's box."""

NO_DETECTOR = Statement("gate.no_detector", "no trained detector is installed")
NO_FACE = Statement("gate.no_face", "no face was found")


def judge_faces(
    rgb: UInt8Array,
    faces: Sequence[Face],
    picture: PictureGates,
    scorer: FaceScorer | None,
    *,
    redeliver: bool = True,
) -> tuple[DetectorEvidence, Consistency | None]:
    """Detector evidence of a picture uint8 [H, W, 3], and how it fares under re-delivery; None where not asked.

    A face whose band changes under re-delivery reads inconclusive.
    """
    reasons = [picture.reason or gates.judge_face(rgb, face) for face in faces]
    if scorer is None:
        reasons = [NO_DETECTOR] * len(faces)
    judged = [number for number, reason in enumerate(reasons) if reason is None]
    scores: dict[int, FaceScore] = {}
    variants: dict[int, dict[str, Band]] = {number: {} for number in judged}
    if scorer is not None and judged:
        found = scorer.score_faces(rgb, [faces[number] for number in judged])
        scores = dict(zip(judged, found, strict=True))
        if redeliver:
            variants = _redelivered(rgb, faces, judged, scorer)
    flipped = tuple(
        number for number in judged if consistency.flips(band_of(scores[number]), variants[number])
    )
    evidence = tuple(
        _face(
            rgb,
            face,
            number,
            reasons[number],
            scores.get(number),
            variants.get(number, {}),
            number in flipped,
        )
        for number, face in enumerate(faces)
    )
    applied = any(band_of(score) != "not_applicable" for score in scores.values())
    steady = Consistency(not flipped, tuple(consistency.VARIANTS), flipped) if redeliver and applied else None
    return _together(evidence, picture), steady


def _redelivered(
    rgb: UInt8Array, faces: Sequence[Face], judged: Sequence[int], scorer: FaceScorer
) -> dict[int, dict[str, Band]]:
    """Band of each judged face in each re-delivered copy; a face that a copy makes too small is left out of it."""
    bands: dict[int, dict[str, Band]] = {number: {} for number in judged}
    for name, deliver in consistency.VARIANTS.items():
        copy = deliver(rgb)
        moved = {number: copy.face(faces[number]) for number in judged}
        kept = [number for number in judged if gates.judge_face(copy.rgb, moved[number]) is None]
        scores = scorer.score_faces(copy.rgb, [moved[number] for number in kept]) if kept else []
        for number, score in zip(kept, scores, strict=True):
            bands[number][name] = band_of(score)
    return bands


def _face(
    rgb: UInt8Array,
    face: Face,
    number: int,
    reason: Statement | None,
    score: FaceScore | None,
    variants: Mapping[str, Band],
    flipped: bool,
) -> FaceEvidence:
    left, top, right, bottom = (float(value) for value in face.box_xyxy)
    crop, crop_xyxy = cut_face(rgb, face.box_xyxy) if number < MAX_CROPS else (None, None)
    box = (left, top, right, bottom)
    if score is None:
        return FaceEvidence(box, "not_applicable", reason, crop=crop, crop_xyxy=crop_xyxy)
    band, reason = band_of(score), None
    if band == "not_applicable":
        return FaceEvidence(box, band, _told(score.reason), crop=crop, crop_xyxy=crop_xyxy)
    if flipped:
        copies = sorted({each for each in variants.values() if each != band})
        band, reason = "inconclusive", _flip_reason(band_of(score), copies)
    elif band == "inconclusive":
        reason = Statement("gate.abstain", "the score lies where real and altered faces both do")
    shown = score.heatmap is not None
    return FaceEvidence(
        box_xyxy=box,
        band=band,
        reason=reason,
        score=round(float(score.score), 4),
        logit=round(float(score.logit), 4),
        reliability=round(float(score.reliability), 4),
        heatmap=score.heatmap if shown else None,
        heatmap_xyxy=_four(score.heatmap_xyxy) if shown else None,
        variants=variants,
        crop=crop,
        crop_xyxy=crop_xyxy,
    )


def _told(reason: str) -> Statement:
    """The scorer's own gates, which it words in English only, with a code for other languages."""
    words = (("px high", "gate.face_small"), ("blurred", "gate.detail"), ("drawing", "gate.drawing"))
    code = next((code for word, code in words if word in reason), "gate.other")
    return Statement(code, "{reason}", reason=reason)


def _flip_reason(band: Band, copies: Sequence[Band]) -> Statement:
    return Statement(
        "gate.flip",
        "re-delivered copies of the picture read {copies}, the picture itself {band}",
        copies=", ".join(copies),
        band=band,
    )


def _together(faces: tuple[FaceEvidence, ...], picture: PictureGates) -> DetectorEvidence:
    band = strongest([face.band for face in faces])
    reason: Statement | None = None
    unjudged = sum(face.band == "not_applicable" for face in faces)
    if not faces:
        reason = NO_FACE
    elif band in STRENGTH[:3] and unjudged:
        band, reason = (
            "inconclusive",
            Statement(
                "gate.some_faces",
                "{count} of {total} faces cannot be judged; the others show {band} evidence",
                count=unjudged,
                total=len(faces),
                band="no" if all(face.band in ("none", "not_applicable") for face in faces) else band,
            ),
        )
    elif band in ("inconclusive", "not_applicable"):
        reason = next(face.reason for face in faces if face.band == band)
    return DetectorEvidence(band, reason, faces, picture.quality, picture.blockiness)


def cut_face(rgb: UInt8Array, box_xyxy: FloatArray) -> tuple[UInt8Array, tuple[int, int, int, int]]:
    """The square around a face for people to see, at most CROP_PX a side, and where it lies."""
    height, width = rgb.shape[:2]
    left, top, right, bottom = (float(value) for value in box_xyxy)
    side = int(np.clip(CROP_MARGIN * max(right - left, bottom - top), 1, min(height, width)))
    x = int(np.clip((left + right - side) / 2, 0, width - side))
    y = int(np.clip((top + bottom - side) / 2, 0, height - side))
    crop = rgb[y : y + side, x : x + side]
    if side > CROP_PX:
        crop = np.asarray(cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(crop), (x, y, x + side, y + side)


def _four(values: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(value), 1) for value in values)
    return left, top, right, bottom
