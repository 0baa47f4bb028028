"""Reads a picture handed in, and what proves that its people are nobody's; decides nothing and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.face import UInt8Array
from fusion.media import LIMITS, Limits, read_picture
from provenance import claim, consent, signing
from provenance.declarations import find_declaration
from provenance.hashes import content_sha256
from provenance.home import Home
from provenance.records import FolderEvidence, ManifestEvidence


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
        return cls(data, picture.rgb, mime, _synthetic_evidence(data, mime, home))


def _synthetic_evidence(data: bytes, mime: str, home: Home) -> ManifestEvidence | FolderEvidence | None:
    """What says that the people of a file are nobody's: its manifest, or a folder declared by the operator."""
    content = content_sha256(data)
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
