"""Faces of a picture to scores and evidence bands; knows no manifests, no marks and no verdicts.

A band is no probability: it says how rare such a score was among untouched faces when the network was calibrated.
Gates come first: a face that is too small, too coarsely compressed or no photograph is not scored at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import torch

from detector.crop import crop_face
from detector.held_out import FIRST_HELD_OUT, HeldOut, held_out_of
from detector.model import EvidenceNet
from detector.weights import DETECTOR, WEIGHTS_FOLDER, load_network, read_note
from fusion.face import Face, FloatArray, UInt8Array
from fusion.media import encode_picture, read_picture
from fusion.weights import RETRAIN, WeightSpec
from provenance.errors import WeightsError

Band = Literal["none found", "weak", "moderate", "strong", "inconclusive", "not applicable"]

NOT_SCORED: Final = float("nan")


@dataclass(frozen=True)
class Calibration:
    """What `facsimile detector calibrate` learns on held-out people; all thresholds are on the calibrated logit.

    temperature, offset   calibrated logit = (raw − offset) / temperature (Guo 2017, eq. 9, with an offset)
    clear                 at or below: none found (few altered faces score so low)
    weak, moderate, strong   at or above; strong is the shipped threshold of an alarm
    min_face_px           longer side of a face's box, in the picture's pixels
    min_detail            least fine detail of a crop, see `fine_detail`
    max_flat              greatest share of exactly flat pixels, see `flat_share`
    min_reliability       below, the heat map is withheld
    views                 of VIEWS, over which the raw score is the mean; the mask is the first one's
    """

    temperature: float
    offset: float
    clear: float
    weak: float
    moderate: float
    strong: float
    min_face_px: float = 64.0
    min_detail: float = 0.0
    max_flat: float = 1.0
    min_reliability: float = 0.5
    views: tuple[str, ...] = ("plain",)

    def logit(self, raw: float) -> float:
        """The calibrated logit of a raw score."""
        return (raw - self.offset) / self.temperature

    def band(self, logit: float) -> Band:
        """The evidence band of a calibrated logit; between `clear` and `weak` nothing can be told."""
        if not np.isfinite(logit):
            return "not applicable"
        for name in ("strong", "moderate", "weak"):
            if logit >= getattr(self, name):
                return name
        return "none found" if logit <= self.clear else "inconclusive"

    @classmethod
    def from_note(cls, note: dict[str, Any]) -> Calibration:
        """From the header of a weights file; WeightsError `weights.uncalibrated`."""
        try:
            told = dict(note["calibration"])
            views = tuple(told.pop("views", ("plain",)))
            if not views or not set(views) <= VIEWS.keys():
                raise ValueError(f"unknown views {views}")
            return cls(**told, views=views)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                "weights.uncalibrated",
                f"the detector's weights carry no calibration record: {error}",
                "Run `facsimile detector calibrate` on held-out portraits.",
            ) from error


@dataclass(frozen=True, eq=False)
class FaceScore:
    """What the detector says of one face.

    box_xyxy      float32 [4], as the finder gave it
    logit         calibrated logit; nan where the detector does not apply
    score         sigmoid of it, in [0, 1]: a rank, not a probability that holds outside the calibration's pictures
    band          evidence band; `reason` says in plain words why it is inconclusive or not applicable, else ""
    reliability   mean of the network's own belief in its mask, in [0, 1]; 0 where it does not apply
    heatmap       float32 [h, w] in [0, 1] over `heatmap_xyxy` (pixels of the picture), or None where it is not reliable
    """

    box_xyxy: FloatArray
    logit: float
    score: float
    band: Band
    reliability: float
    heatmap: FloatArray | None
    heatmap_xyxy: tuple[int, int, int, int]
    reason: str = ""


class Scorer:
    """A calibrated network on one device; made by `load_scorer`."""

    def __init__(
        self,
        net: EvidenceNet,
        calibration: Calibration,
        device: str,
        sha256: str = "",
        held_out: HeldOut = FIRST_HELD_OUT,
    ) -> None:
        self.net = net.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.calibration = calibration
        self.device = device
        self.sha256 = sha256
        self.held_out = held_out

    @property
    def models(self) -> dict[str, str]:
        """Name and sha256 of the network."""
        return {DETECTOR.name: self.sha256}

    @property
    def thresholds(self) -> str:
        """SHA-256 of the calibration: every number that a band depends on."""
        return hashlib.sha256(json.dumps(asdict(self.calibration), sort_keys=True).encode()).hexdigest()

    def band_at(self, logit: float) -> Band:
        """The evidence band of a calibrated logit."""
        return self.calibration.band(logit)

    def score_faces(self, rgb: UInt8Array, faces: Sequence[Face]) -> list[FaceScore]:
        """One FaceScore per face, in order, of a picture uint8 [H, W, 3]; ValueError on another array."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"picture uint8 [H, W, 3] needed, got {rgb.dtype} {rgb.shape}")
        return [self._score_face(rgb, face) for face in faces]

    def _score_face(self, rgb: UInt8Array, face: Face) -> FaceScore:
        reason = self._too_small(face)
        if reason:
            return _not_scored(face, (0, 0, 0, 0), reason)
        crop, window = crop_face(rgb, face.box_xyxy, self.net.config.working_px)
        reason = self.unfit(crop)
        if reason:
            return _not_scored(face, window.box_xyxy, reason)
        raw, mask, reliability = self.look(rgb, face.box_xyxy, crop)
        logit = self.calibration.logit(raw)
        band = self.calibration.band(logit)
        trusted = float((reliability * _centre_weight(reliability.shape)).sum())
        shown = band in ("weak", "moderate", "strong") and trusted >= self.calibration.min_reliability
        return FaceScore(
            box_xyxy=face.box_xyxy,
            logit=logit,
            score=float(1 / (1 + np.exp(-np.clip(logit, -60, 60)))),
            band=band,
            reliability=trusted,
            heatmap=mask * reliability if shown else None,
            heatmap_xyxy=window.box_xyxy,
            reason="the score lies between those of untouched and of altered faces"
            if band == "inconclusive"
            else "",
        )

    def look(
        self, rgb: UInt8Array, box_xyxy: FloatArray, crop: UInt8Array
    ) -> tuple[float, FloatArray, FloatArray]:
        """Mean raw score over the calibration's views of a face and its `crop`; mask and reliability as `look`."""
        looks = [
            look(self.net, VIEWS[name](rgb, box_xyxy, crop), self.device) for name in self.calibration.views
        ]
        return float(np.mean([raw for raw, _, _ in looks])), looks[0][1], looks[0][2]

    def _too_small(self, face: Face) -> str:
        x0, y0, x1, y1 = face.box_xyxy
        side, least = float(max(x1 - x0, y1 - y0)), self.calibration.min_face_px
        return f"the face is {side:.0f} px high, {least:.0f} are needed" if side < least else ""

    def unfit(self, crop: UInt8Array) -> str:
        """Why a crop uint8 [S, S, 3] cannot be scored, or ""."""
        if fine_detail(crop) < self.calibration.min_detail:
            return (
                "the face shows too little fine detail: it is blurred, smoothed or heavily compressed. "
                "Get a copy closer to the original"
            )
        if flat_share(crop) > self.calibration.max_flat:
            return "this looks like a drawing or a rendering, not like a photograph"
        return ""


def load_scorer(device: str = "cpu", spec: WeightSpec = DETECTOR, folder: Path = WEIGHTS_FOLDER) -> Scorer:
    """The shipped detector with its calibration, hashed before it is read.

    WeightsError `weights.missing` (none are registered, or the file is gone), `weights.altered`, `weights.mismatch`,
    `weights.unreadable`, `weights.uncalibrated`.
    """
    if not spec.sha256:
        raise WeightsError("weights.missing", "no weights of the detector have been shipped yet", RETRAIN)
    note = read_note(spec, folder)
    calibration = Calibration.from_note(note)
    return Scorer(load_network(spec, folder), calibration, device, spec.sha256, held_out_of(note))


@torch.inference_mode()
def look(net: EvidenceNet, crop: UInt8Array, device: str) -> tuple[float, FloatArray, FloatArray]:
    """Raw score logit, mask and reliability float32 [S/4, S/4] in [0, 1] of one crop uint8 [S, S, 3]."""
    pictures = torch.from_numpy(np.ascontiguousarray(crop)).to(device).permute(2, 0, 1)[None].float() / 255
    found = net(pictures.contiguous(memory_format=torch.channels_last))
    maps = [tensor[0, 0].float().sigmoid().cpu().numpy() for tensor in (found.mask, found.reliability)]
    return float(found.score[0]), maps[0], maps[1]


def _plain(rgb: UInt8Array, box_xyxy: FloatArray, crop: UInt8Array) -> UInt8Array:
    return crop


def _coded(rgb: UInt8Array, box_xyxy: FloatArray, crop: UInt8Array) -> UInt8Array:
    """As it looks after one more save: what deliveries differ in is partly gone."""
    return read_picture(encode_picture(crop, "jpeg", VIEW_QUALITY)).rgb


def _shifted(rgb: UInt8Array, box_xyxy: FloatArray, crop: UInt8Array) -> UInt8Array:
    """The window moved to the upper left: other pixels are averaged, other cells filled."""
    x0, y0, x1, y1 = box_xyxy
    moved = box_xyxy - np.float32(VIEW_SHIFT * max(x1 - x0, y1 - y0))
    return crop_face(rgb, np.asarray(moved, np.float32), crop.shape[0])[0]


VIEW_QUALITY: Final = 75
VIEW_SHIFT: Final = 0.05
"""In longer sides of the face's box."""
VIEWS: Final[Mapping[str, Callable[[UInt8Array, FloatArray, UInt8Array], UInt8Array]]] = {
    "plain": _plain,
    "coded": _coded,
    "shifted": _shifted,
}
"""Ways to look at one face again, each of (picture, box, crop); a look each."""


def fine_detail(crop: UInt8Array) -> float:
    """Mean absolute Laplacian of luma, in grey levels: near 0 for blur and heavy compression."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F, ksize=1)).mean())


def flat_share(crop: UInt8Array) -> float:
    """Share of pixels equal in all channels to their right and lower neighbours: high for drawings and screenshots."""
    right = (crop[:-1, 1:] == crop[:-1, :-1]).all(2)
    below = (crop[1:, :-1] == crop[:-1, :-1]).all(2)
    return float((right & below).mean())


def _not_scored(face: Face, window_xyxy: tuple[int, int, int, int], reason: str) -> FaceScore:
    return FaceScore(face.box_xyxy, NOT_SCORED, NOT_SCORED, "not applicable", 0.0, None, window_xyxy, reason)


def _centre_weight(shape: tuple[int, ...]) -> FloatArray:
    """Weights that sum to 1 over the middle half of a map."""
    weight = np.zeros(shape, np.float32)
    h, w = shape
    weight[h // 4 : h - h // 4, w // 4 : w - w // 4] = 1
    return np.asarray(weight / weight.sum(), np.float32)
