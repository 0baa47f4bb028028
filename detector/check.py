"""The one-click check: a file to a Report; reads manifest, mark, ledger and detector, and lets the table decide.

It changes nothing, writes nothing, and never says more than its evidence. What a video adds is in check_video.py.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import cv2
import numpy as np

from detector import gates
from detector.evidence import (
    Consistency,
    DetectorEvidence,
    FaceScorer,
    LedgerEvidence,
    Medium,
    VideoEvidence,
)
from detector.judge import judge_faces
from detector.verdict import Evidence, Verdict, decide
from fusion import detect
from fusion.face import Face, UInt8Array
from fusion.files import open_file, read_file
from fusion.headers import jpeg_luma_table, read_header
from fusion.media import LIMITS, Limits, Picture, read_picture
from fusion.video import VIDEO_LIMITS, is_video
from fusion.weights import DETECT
from provenance import __version__, signing, watermark
from provenance.checkpoint import open_checkpoint
from provenance.errors import LedgerError
from provenance.foreign_marks import ForeignMark, RivaDecoder, read_foreign_marks
from provenance.frame_evidence import NO_MARK
from provenance.hashes import PERCEPTUAL_OTHER, content_sha256, sha256_hex
from provenance.home import Home
from provenance.ledger import Entry
from provenance.looks import Look
from provenance.resolution import likeness_of
from provenance.signing import ManifestReading
from provenance.watermark import MarkReading

RULES_VERSION = 3
"""Version of the verdict table and of the rules that lead to it; raised when one changes."""
PREVIEW_PX = 480
DETECTOR_FILE = Path(__file__).resolve().parent / "weights" / "detector.safetensors"


@dataclass(frozen=True, eq=False)
class Report:
    """Evidence and verdict for one file; every witness stands on its own."""

    file: str
    verdict: Verdict
    summary: str
    conflicts: tuple[str, ...]
    content_sha256: str
    file_sha256: str
    medium: Medium
    manifest: ManifestReading
    mark: MarkReading
    ledger: LedgerEvidence
    detector: DetectorEvidence
    consistency: Consistency | None
    video: VideoEvidence | None
    versions: dict[str, str]
    foreign_marks: tuple[ForeignMark, ...] = ()

    def without_pictures(self) -> Report:
        """The same, holding no pixels: for folders of thousands."""
        faces = tuple(replace(face, crop=None, heatmap=None) for face in self.detector.faces)
        return replace(
            self, medium=replace(self.medium, preview=None), detector=replace(self.detector, faces=faces)
        )

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `facsimile check`, see docs/cli.md."""
        evidence = {
            "manifest": {
                "state": self.manifest.state,
                "ours": self.manifest.ours,
                "signer": self.manifest.signer,
                "source_type": self.manifest.source_type,
                "asset_id": self.manifest.asset_id,
                "timestamp": self.manifest.timestamp,
                "codes": list(self.manifest.codes),
            },
            "mark": {
                "present": self.mark.present,
                "asset_id": self.mark.asset_id,
                "bit_accuracy": self.mark.bit_accuracy,
                "p_false": self.mark.p_false,
            },
            "ledger": asdict(self.ledger),
            "foreign_marks": [mark.as_dict() for mark in self.foreign_marks],
            "detector": self.detector.as_dict(),
            "consistency": self.consistency.as_dict() if self.consistency else None,
        }
        if self.video is not None:
            evidence["video"] = self.video.as_dict()
        return {
            "file": self.file,
            "verdict": self.verdict.value,
            "summary": self.summary,
            "evidence": evidence,
            "conflicts": list(self.conflicts),
            "notes": list(self.medium.notes),
            "content_sha256": self.content_sha256,
            "file_sha256": self.file_sha256,
            "media": self.medium.as_dict(),
            "versions": self.versions,
        }


class Eyes:
    """The face finder, loaded when the first picture is looked at."""

    @cached_property
    def _finder(self) -> detect.Detector:
        return detect.load_detector("cpu")

    def faces(self, rgb: UInt8Array) -> list[Face]:
        """Every face of uint8 [H, W, 3], largest first."""
        return detect.find_faces(rgb, self._finder)

    @property
    def models(self) -> dict[str, str]:
        """Name and sha256 of the network."""
        return {DETECT.name: DETECT.sha256}


class Checker:
    """Checks files against one home's keys, trust anchors and ledger; `scorer` is the detector, if there is one.

    `limits` are those of the decoder of pictures.
    """

    def __init__(self, home: Home, scorer: FaceScorer | None = None, limits: Limits = LIMITS) -> None:
        self.home = home
        self.limits = limits
        self.scorer = scorer
        self.eyes = Eyes()

    def check_file(self, path: Path, name: str | None = None) -> Report:
        """Check a picture or a video. InputError `file.*`, MediaError `media.*` when it is neither."""
        with open_file(path, VIDEO_LIMITS.max_bytes) as file:
            head = file.read(16)
        if is_video(head):
            from detector.check_video import check_video

            return check_video(self, path, name or str(path))
        return self.check(read_file(path, LIMITS.max_bytes), name or str(path))

    def check(self, data: bytes, name: str) -> Report:
        """Check the bytes of one picture, or of a small video; MediaError when they are neither."""
        if is_video(data[:16]):
            with NamedTemporaryFile(suffix=".mp4") as kept:
                kept.write(data)
                kept.flush()
                return self.check_file(Path(kept.name), name)
        picture = read_picture(data, self.limits)
        content = content_sha256(data)
        manifest = signing.read_manifest(data, picture.format.mime, self.home.keys.trust)
        mark = self._read_mark(picture.rgb)
        ledger = self.ledger_evidence(content, [Look.of(picture.rgb)], mark)
        detector, steady = self._look(data, picture)
        return self.report(
            name,
            content=content,
            file_sha256=sha256_hex(data),
            medium=_medium(picture, len(data)),
            manifest=manifest,
            mark=mark,
            ledger=ledger,
            detector=detector,
            consistency=steady,
            foreign_marks=read_foreign_marks(picture.rgb, self._riva),
        )

    def report(
        self,
        name: str,
        *,
        content: str,
        file_sha256: str,
        medium: Medium,
        manifest: ManifestReading,
        mark: MarkReading,
        ledger: LedgerEvidence,
        detector: DetectorEvidence,
        consistency: Consistency | None = None,
        video: VideoEvidence | None = None,
        foreign_marks: tuple[ForeignMark, ...] = (),
    ) -> Report:
        """Ask the table, and put everything together."""
        finding = decide(_evidence(manifest, mark, ledger, detector))
        return Report(
            file=name,
            verdict=finding.verdict,
            summary=finding.summary,
            conflicts=finding.conflicts,
            content_sha256=content,
            file_sha256=file_sha256,
            medium=medium,
            manifest=manifest,
            mark=mark,
            ledger=ledger,
            detector=detector,
            consistency=consistency,
            video=video,
            versions=self.versions(),
            foreign_marks=foreign_marks,
        )

    def versions(self) -> dict[str, str]:
        """Everything that a verdict depends on beside the file: rules, tool, models, thresholds."""
        found = {
            "facsimile": __version__,
            "verdict_table": str(RULES_VERSION),
            "gates": gates.VERSION,
            "python": platform.python_version(),
        }
        found |= {f"model.{name}": sha256 for name, sha256 in self.eyes.models.items()}
        if self.scorer is not None:
            found |= {f"model.{name}": sha256 for name, sha256 in self.scorer.models.items()}
            found["thresholds"] = self.scorer.thresholds
        return found

    def faces(self, rgb: UInt8Array) -> list[Face]:
        """Faces of a picture, largest first."""
        return self.eyes.faces(rgb)

    def ledger_evidence(self, content: str, seen: Sequence[Look], mark: MarkReading) -> LedgerEvidence:
        """What the ledger knows, by content hash first, then by the mark's id; `seen`: what carries the mark."""
        ledger = self.home.ledger
        found_by, entries = "content", ledger.find_by_content_hash(content)
        if not entries and mark.asset_id is not None:
            found_by, entries = "mark", ledger.find_by_asset_id(mark.asset_id)
        outputs = [entry for entry in entries if entry.kind == "output_recorded"]
        if not outputs:
            return LedgerEvidence(found=False)
        entry = outputs[-1]
        likeness = likeness_of(entry, seen, mark.pose if found_by == "mark" else watermark.STRAIGHT)
        told = (None, None) if likeness is None else (likeness.distance, likeness.other_from)
        return LedgerEvidence(True, found_by, entry.index, self._is_included(entry), *told)

    def _read_mark(self, rgb: UInt8Array) -> MarkReading:
        """What the pixels carry; a picture too small for a mark carries none."""
        if min(rgb.shape[:2]) < watermark.MIN_SIDE_PX:
            return NO_MARK
        return watermark.extract(rgb, self.home.keys.mark_key)

    @cached_property
    def _riva(self) -> RivaDecoder | None:
        """rivaGan's decoder, where the user brought the file along (`facsimile models add`)."""
        from fusion.guests import list_guests, open_riva

        folder = self.home.path / "models"
        named = [guest.name for guest in list_guests(folder) if guest.kind == "rivagan"]
        return open_riva(folder, named[0]) if named else None

    def _look(self, data: bytes, picture: Picture) -> tuple[DetectorEvidence, Consistency | None]:
        table = jpeg_luma_table(read_header(data).pixel_stream)
        whole = gates.judge_picture(picture.rgb, table)
        return judge_faces(picture.rgb, self.faces(picture.rgb), whole, self.scorer)

    def _is_included(self, entry: Entry) -> bool:
        ledger = self.home.ledger
        proof = ledger.inclusion_proof(entry.index)
        head = open_checkpoint(proof.checkpoint, ledger.signer.verifier)
        try:
            proof.verify_inclusion(entry.leaf_sha256, head.root.hex())
        except LedgerError:
            return False
        return True


def shipped_scorer() -> FaceScorer | None:
    """The detector that ships, None where its file is not there; WeightsError when that is altered.

    The file is looked for first: its network's library takes seconds to load.
    """
    if not DETECTOR_FILE.is_file():
        return None
    from detector.score import load_scorer

    return load_scorer("cpu")


def preview_of(rgb: UInt8Array, longest_px: int = PREVIEW_PX) -> UInt8Array:
    """A small copy of uint8 [H, W, 3] for people to see."""
    factor = min(1.0, longest_px / max(rgb.shape[:2]))
    size = (max(round(rgb.shape[1] * factor), 1), max(round(rgb.shape[0] * factor), 1))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _medium(picture: Picture, num_bytes: int) -> Medium:
    height, width = picture.rgb.shape[:2]
    notes = picture.notes
    if min(height, width) < watermark.MIN_SIDE_PX:
        notes += (f"too small to carry a mark, which needs {watermark.MIN_SIDE_PX} pixels a side",)
    return Medium("picture", picture.format.value, width, height, num_bytes, notes, preview_of(picture.rgb))


def _evidence(
    manifest: ManifestReading, mark: MarkReading, ledger: LedgerEvidence, detector: DetectorEvidence
) -> Evidence:
    return Evidence(
        manifest=manifest.state,
        source_type=(manifest.source_type or "").rsplit("/", 1)[-1] or None,
        ours=manifest.ours,
        signer=manifest.signer,
        manifest_asset_id=manifest.asset_id,
        mark_asset_id=mark.asset_id if mark.present else None,
        perceptual_distance=ledger.perceptual_distance if ledger.found_by == "mark" else None,
        other_from=ledger.other_from or PERCEPTUAL_OTHER,
        band=detector.band,
        band_reason=str(detector.reason or ""),
    )
