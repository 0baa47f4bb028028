"""What each witness says of a file, as plain records; decides nothing, opens nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np

from detector.statement import Statement
from fusion.face import Face, FloatArray, UInt8Array
from fusion.media import encode_picture

Band = Literal["none", "weak", "moderate", "strong", "inconclusive", "not_applicable"]
BANDS: tuple[Band, ...] = get_args(Band)
STRENGTH = ("none", "weak", "moderate", "strong")
"""Bands that say how strong the evidence is, in rising order."""
WORDED: Mapping[str, Band] = {"none found": "none", "not applicable": "not_applicable"}
"""Bands that a scorer words for people, as programs know them."""


class FaceScore(Protocol):
    """What a detector says of one face.

    box_xyxy     float32 [4] px
    logit        calibrated; positive speaks for manipulation; nan where it does not apply
    score        the logit's sigmoid, in [0, 1]
    band         `none found`, `weak`, `moderate`, `strong`, `inconclusive`, `not applicable`; `reason` says why
    reliability  in [0, 1], the detector's own guess of how far its map is right
    heatmap      float32 [h, w] in [0, 1] over `heatmap_xyxy` (px), None where it is not to be shown
    """

    @property
    def box_xyxy(self) -> FloatArray: ...
    @property
    def heatmap_xyxy(self) -> Sequence[float]: ...
    @property
    def logit(self) -> float: ...
    @property
    def band(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def reliability(self) -> float: ...
    @property
    def heatmap(self) -> FloatArray | None: ...


class FaceScorer(Protocol):
    """A calibrated detector: `models` names its weights' sha256, `thresholds` its calibration's hash."""

    @property
    def models(self) -> Mapping[str, str]: ...
    @property
    def thresholds(self) -> str: ...
    def score_faces(self, rgb: UInt8Array, faces: Sequence[Face]) -> Sequence[FaceScore]: ...


@dataclass(frozen=True)
class LedgerEvidence:
    """What the ledger knows of a file: found by its content hash or by its mark's id.

    perceptual_distance  bits of 64 from what was recorded; from `other_from` on it is another picture or video
    """

    found: bool
    found_by: str | None = None
    index: int | None = None
    inclusion_verified: bool = False
    perceptual_distance: int | None = None
    other_from: int | None = None


@dataclass(frozen=True, eq=False)
class FaceEvidence:
    """One face; `reason` says why its band is `inconclusive` or `not_applicable`.

    crop is uint8 [S, S, 3] for people to see, crop_xyxy where it lies; heatmap float32 over heatmap_xyxy, kept only
    where the detector calls it reliable. variants: band after each re-delivery.
    """

    box_xyxy: tuple[float, float, float, float]
    band: Band
    reason: Statement | None = None
    score: float | None = None
    logit: float | None = None
    reliability: float | None = None
    heatmap: FloatArray | None = field(default=None, repr=False)
    heatmap_xyxy: tuple[float, float, float, float] | None = None
    variants: Mapping[str, Band] = field(default_factory=dict)
    crop: UInt8Array | None = field(default=None, repr=False)
    crop_xyxy: tuple[int, int, int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Without the crop; the heat map as the base64 of an 8-bit PNG."""
        return {
            "box_xyxy": [round(value, 1) for value in self.box_xyxy],
            "band": self.band,
            "reason": self.reason,
            "reason_code": self.reason.code if self.reason else None,
            "score": self.score,
            "logit": self.logit,
            "reliability": self.reliability,
            "heatmap": None if self.heatmap is None else _png_base64(self.heatmap),
            "heatmap_xyxy": self.heatmap_xyxy,
            "variants": dict(self.variants),
        }


@dataclass(frozen=True)
class DetectorEvidence:
    """What the detector says of all faces together: the strongest band, or why there is none."""

    band: Band
    reason: Statement | None = None
    faces: tuple[FaceEvidence, ...] = ()
    quality: float | None = None
    blockiness: float | None = None

    @property
    def applicable(self) -> bool:
        """Whether at least one face was judged."""
        return self.band != "not_applicable"

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `evidence.detector`."""
        return {
            "applicable": self.applicable,
            "band": self.band,
            "reason": self.reason,
            "reason_code": self.reason.code if self.reason else None,
            "faces": [face.as_dict() for face in self.faces],
            "jpeg_quality": None if self.quality is None else round(self.quality),
            "blockiness": None if self.blockiness is None else round(self.blockiness, 2),
        }


@dataclass(frozen=True)
class Consistency:
    """Whether every face kept its band under each re-delivery."""

    stable: bool
    variants: tuple[str, ...]
    flipped: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `evidence.consistency`; `flipped` are the numbers of the faces that did not keep theirs."""
        return asdict(self)


@dataclass(frozen=True)
class FramePoint:
    """One sampled frame of a video: strongest band and logit of its faces, whether it carries the mark."""

    time_s: float
    num_faces: int
    band: Band
    logit: float | None
    marked: bool


@dataclass(frozen=True)
class Shot:
    """A stretch of sampled frames between two cuts, and the strongest band in it."""

    start_s: float
    end_s: float
    num_frames: int
    band: Band
    logit: float | None


@dataclass(frozen=True, eq=False)
class Track:
    """One face followed through a shot: where it was, and how often it was judged."""

    shot: int
    start_s: float
    end_s: float
    num_frames: int
    band: Band
    logit: float | None
    crop: UInt8Array | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Without the crop."""
        return {name: value for name, value in vars(self).items() if name != "crop"}


@dataclass(frozen=True)
class VideoEvidence:
    """What was looked at of a video, shot by shot."""

    duration_s: float
    num_frames: int
    frame_rate: float
    variable_rate: bool
    codec: str
    has_sound: bool
    frames: tuple[FramePoint, ...]
    shots: tuple[Shot, ...]
    tracks: tuple[Track, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `evidence.video`."""
        plain = {
            name: value for name, value in vars(self).items() if name not in ("frames", "shots", "tracks")
        }
        return plain | {
            "frames": [asdict(each) for each in self.frames],
            "shots": [asdict(each) for each in self.shots],
            "tracks": [each.as_dict() for each in self.tracks],
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> VideoEvidence:
        """What `as_dict` gave; the crops of the tracks are not in it."""
        parts = {
            "frames": tuple(FramePoint(**each) for each in found["frames"]),
            "shots": tuple(Shot(**each) for each in found["shots"]),
            "tracks": tuple(Track(**each) for each in found["tracks"]),
        }
        return cls(**{**found, **parts})


@dataclass(frozen=True, eq=False)
class Medium:
    """What the file is: kind, format, size in px upright; `preview` uint8 [h, w, 3], small, for people to see."""

    kind: Literal["picture", "video"]
    format: str
    width: int
    height: int
    num_bytes: int
    notes: tuple[str, ...] = ()
    preview: UInt8Array | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Without the preview."""
        return {name: value for name, value in vars(self).items() if name != "preview"}


def strongest(bands: Sequence[Band]) -> Band:
    """The strongest evidence among bands; `inconclusive` hides `none` to `moderate`, and is hidden by `strong`."""
    if not bands:
        return "not_applicable"
    order: tuple[Band, ...] = ("not_applicable", "none", "weak", "moderate", "inconclusive", "strong")
    return max(bands, key=order.index)


def band_of(score: FaceScore) -> Band:
    """A score's band, as programs know it; ValueError for none of them."""
    return word_band(score.band)


def word_band(told: str) -> Band:
    """A scorer's word for a band, as programs know it; ValueError for none of them."""
    band = WORDED.get(told, told)
    if band not in BANDS:
        raise ValueError(f"the detector speaks of an unknown band {told!r}")
    return BANDS[BANDS.index(band)]


def _png_base64(heatmap: FloatArray) -> str:
    grey = (heatmap.clip(0, 1) * 255).round().astype(np.uint8)
    return base64.b64encode(encode_picture(np.repeat(grey[..., None], 3, axis=2), "png")).decode()
