"""Reads a picture or video handed in, and what proves that its people are nobody's; decides and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from fusion.face import UInt8Array
from fusion.media import LIMITS, Limits, read_picture
from provenance import claim, consent, signing
from provenance.declarations import find_declaration
from provenance.hashes import content_sha256, perceptual_hash, video_content_sha256
from provenance.home import Home
from provenance.records import FolderEvidence, ManifestEvidence

VIDEO_MIME = "video/mp4"


@dataclass(frozen=True)
class Input:
    """A picture handed in: its bytes, its pixels, and what proves that its people are nobody's."""

    data: bytes
    rgb: UInt8Array
    mime: str
    evidence: ManifestEvidence | FolderEvidence | None

    @classmethod
    def read(cls, data: bytes, home: Home, limits: Limits = LIMITS) -> Input:
        picture = read_picture(data, limits)
        mime = picture.format.mime
        evidence = _synthetic_evidence(content_sha256(data), data, mime, home)
        return cls(data, picture.rgb, mime, evidence)

    @property
    def perceptual_hash(self) -> str:
        """What the ledger keeps of the picture's look."""
        return perceptual_hash(self.rgb)


@dataclass(frozen=True, eq=False)
class VideoInput:
    """A video handed in: an open file that nobody else can change, and what proves that its people are nobody's.

    perceptual_hash  of its first frame
    """

    data: BinaryIO
    mime: str
    evidence: ManifestEvidence | FolderEvidence | None
    perceptual_hash: str

    @classmethod
    def read(cls, file: BinaryIO, first: UInt8Array, home: Home) -> VideoInput:
        """`first` is its first frame, uint8 [H, W, 3]."""
        evidence = _synthetic_evidence(video_content_sha256(file), file, VIDEO_MIME, home)
        return cls(file, VIDEO_MIME, evidence, perceptual_hash(first))


def _synthetic_evidence(
    content: str, data: bytes | BinaryIO, mime: str, home: Home
) -> ManifestEvidence | FolderEvidence | None:
    """What says that the people of a file are nobody's: its manifest, or a folder declared by the operator."""
    declaration = find_declaration(home, content)
    if declaration is not None:
        return FolderEvidence.make(kind="folder", content_sha256=content, declaration_id=declaration)
    reading = signing.read_manifest(data, mime, home.keys.trust)
    if reading.state != "valid" or not _declares_nobodies(reading, content, home):
        return None
    return ManifestEvidence.make(
        kind="manifest",
        content_sha256=content,
        state=reading.state,
        ours=reading.ours,
        source_type=reading.source_type,
        asset_id=reading.asset_id,
    )


def _declares_nobodies(reading: signing.ManifestReading, content: str, home: Home) -> bool:
    if reading.source_type == claim.SAMPLE_SOURCE_TYPE:
        return True
    recorded = home.ledger.find_by_content_hash(content) if reading.ours else []
    return any(entry.body.get(consent.NOBODIES_FIELD) is True for entry in recorded)
