"""What the check adds for a video: sampled frames, their marks summed, shots, faces followed through them.

It looks at some frames only, and says at which. Evidence between them is not seen.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector import gates
from detector.evidence import (
    STRENGTH,
    Band,
    Consistency,
    DetectorEvidence,
    FaceEvidence,
    FramePoint,
    Medium,
    Shot,
    Track,
    VideoEvidence,
    strongest,
)
from detector.gates import PictureGates
from detector.judge import NO_FACE, judge_faces
from detector.statement import Statement
from fusion.face import FloatArray, UInt8Array
from fusion.files import open_file
from fusion.track import colours_of, is_cut
from fusion.video import VIDEO_LIMITS, Frame, VideoInfo, open_video, sample_times
from provenance import signing
from provenance.frame_evidence import FrameEvidence
from provenance.hashes import video_content_sha256
from provenance.watermark import MarkReading

if TYPE_CHECKING:
    from detector.check import Checker, Report

MAX_FRAMES = 24
SAME_FACE_OVERLAP = 0.2


@dataclass(eq=False)
class _Seen:
    """What is kept of one sampled frame: not its pixels."""

    time_s: float
    colours: FloatArray
    mark_id: str | None
    faces: tuple[FaceEvidence, ...]
    band: Band
    shot: int = 0


@dataclass(eq=False)
class _Walk:
    """What gathers while frames go by."""

    seen: list[_Seen] = field(default_factory=list)
    preview: UInt8Array | None = None
    doubtful: UInt8Array | None = None  # the frame of the highest logit so far
    doubt: float = -np.inf
    size: tuple[int, int] = (0, 0)


def check_video(checker: Checker, path: Path, name: str) -> Report:
    """Check a video file; InputError `file.*`, MediaError `media.*` when it is none or not one frame decodes."""
    from detector.check import preview_of

    with open_video(path) as video:
        wanted = sample_times(video.info, MAX_FRAMES)
        walk, seen = _Walk(), FrameEvidence(checker.home.keys.mark_key)
        for number, frame in enumerate(video.frames(wanted)):
            _look(checker, frame, walk, seen)
            if number == len(wanted) // 2 or walk.preview is None:
                walk.preview = preview_of(frame.rgb)
        info, notes = video.info, tuple(video.notes)
    mark = seen.mark()
    detector, steady, evidence = _conclude(checker, walk, info, mark)
    with open_file(path, VIDEO_LIMITS.max_bytes) as file:
        content, whole = video_content_sha256(file), _sha256(file)
        file.seek(0)
        manifest = signing.read_manifest(file, "video/mp4", checker.home.keys.trust)
        num_bytes = file.seek(0, 2)
    medium = Medium("video", "mp4", walk.size[1], walk.size[0], num_bytes, notes, walk.preview)
    return checker.report(
        name,
        content=content,
        file_sha256=whole,
        medium=medium,
        manifest=manifest,
        mark=mark,
        ledger=checker.ledger_evidence(content, seen.carrying(mark), mark),
        detector=detector,
        consistency=steady,
        video=evidence,
    )


def _sha256(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _look(checker: Checker, frame: Frame, walk: _Walk, seen: FrameEvidence) -> None:
    """One frame: its mark, its faces, its colours."""
    rgb = frame.rgb
    mark_id = seen.look(rgb)
    found, _ = judge_faces(rgb, checker.faces(rgb), _gates(rgb), checker.scorer, redeliver=False)
    logits = [face.logit for face in found.faces if face.logit is not None]
    if logits and max(logits) > walk.doubt:
        walk.doubt, walk.doubtful = max(logits), rgb
    walk.size = (rgb.shape[0], rgb.shape[1])
    walk.seen.append(_Seen(frame.time_s, colours_of(rgb), mark_id, found.faces, found.band))


def _gates(rgb: UInt8Array) -> PictureGates:
    return gates.judge_picture(rgb)


def _conclude(
    checker: Checker, walk: _Walk, info: VideoInfo, mark: MarkReading
) -> tuple[DetectorEvidence, Consistency | None, VideoEvidence]:
    shots = _cut(walk.seen)
    tracks = _follow(walk.seen)
    steady = None
    band = strongest([track.band for track in tracks])
    reason = _reason(band, walk.seen)
    if checker.scorer is not None and walk.doubtful is not None:
        again, steady = judge_faces(
            walk.doubtful, checker.faces(walk.doubtful), _gates(walk.doubtful), checker.scorer
        )
        if steady is not None and not steady.stable and band in STRENGTH:
            band, reason = "inconclusive", again.reason
    faces = max((each.faces for each in walk.seen), key=_weight, default=())
    evidence = VideoEvidence(
        duration_s=round(info.duration_s, 3),
        num_frames=info.num_frames,
        frame_rate=round(info.frame_rate, 3),
        variable_rate=info.variable_rate,
        codec=info.codec,
        has_sound=info.has_sound,
        frames=tuple(_point(each, mark) for each in walk.seen),
        shots=shots,
        tracks=tracks,
    )
    return DetectorEvidence(band, reason, faces), steady, evidence


def _weight(faces: tuple[FaceEvidence, ...]) -> tuple[float, int]:
    """Which frame's faces stand for the video: those of the highest logit, else the most."""
    return max((face.logit for face in faces if face.logit is not None), default=-np.inf), len(faces)


def _reason(band: Band, seen: Sequence[_Seen]) -> Statement | None:
    if band in STRENGTH:
        return None
    reasons = [face.reason for each in seen for face in each.faces if face.band == band and face.reason]
    return reasons[0] if reasons else NO_FACE if not any(each.faces for each in seen) else None


def _point(seen: _Seen, mark: MarkReading) -> FramePoint:
    logits = [face.logit for face in seen.faces if face.logit is not None]
    marked = mark.asset_id is not None and seen.mark_id == mark.asset_id
    return FramePoint(round(seen.time_s, 3), len(seen.faces), seen.band, max(logits, default=None), marked)


def _cut(seen: Sequence[_Seen]) -> tuple[Shot, ...]:
    """Number the frames' shots and sum each up; a cut lies where most colours change."""
    for before, after in itertools.pairwise(seen):
        after.shot = before.shot + is_cut(before.colours, after.colours)
    shots = []
    for number in range(seen[-1].shot + 1 if seen else 0):
        frames = [each for each in seen if each.shot == number]
        logits = [face.logit for each in frames for face in each.faces if face.logit is not None]
        shots.append(
            Shot(
                start_s=round(frames[0].time_s, 3),
                end_s=round(frames[-1].time_s, 3),
                num_frames=len(frames),
                band=strongest([each.band for each in frames]),
                logit=round(float(np.mean(logits)), 4) if logits else None,
            )
        )
    return tuple(shots)


def _follow(seen: Sequence[_Seen]) -> tuple[Track, ...]:
    """Link faces of neighbouring sampled frames of one shot by the overlap of their boxes."""
    chains: list[list[tuple[_Seen, FaceEvidence]]] = []
    for each in seen:
        open_chains = [
            chain for chain in chains if chain[-1][0].shot == each.shot and chain[-1][0] is not each
        ]
        for face in each.faces:
            best = max(open_chains, key=lambda chain: _overlap(chain[-1][1], face), default=None)
            if best is not None and _overlap(best[-1][1], face) >= SAME_FACE_OVERLAP:
                best.append((each, face))
                open_chains.remove(best)
            else:
                chains.append([(each, face)])
    return tuple(_track(chain) for chain in chains)


def _track(chain: Sequence[tuple[_Seen, FaceEvidence]]) -> Track:
    logits = [face.logit for _, face in chain if face.logit is not None]
    largest = max((face for _, face in chain), key=lambda face: face.box_xyxy[2] - face.box_xyxy[0])
    return Track(
        shot=chain[0][0].shot,
        start_s=round(chain[0][0].time_s, 3),
        end_s=round(chain[-1][0].time_s, 3),
        num_frames=len(chain),
        band=_middle([face.band for _, face in chain]),
        logit=round(float(np.mean(logits)), 4) if logits else None,
        crop=largest.crop,
    )


def _middle(bands: Sequence[Band]) -> Band:
    """The median of the bands that say something, where at least half of the judged frames do."""
    judged = [band for band in bands if band != "not_applicable"]
    told = sorted((band for band in judged if band in STRENGTH), key=STRENGTH.index)
    if not judged:
        return "not_applicable"
    return told[(len(told) - 1) // 2] if len(told) * 2 >= len(judged) else "inconclusive"


def _overlap(one: FaceEvidence, other: FaceEvidence) -> float:
    """Intersection over union of two faces' boxes."""
    a, b = one.box_xyxy, other.box_xyxy
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / max(areas - common, 1e-9)
