"""The one-click check: bytes to a Report; reads manifest, mark and ledger, and lets the table decide.

It changes nothing, writes nothing, and never says more than its evidence.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from detector.verdict import Evidence, Verdict, decide
from fusion.face import UInt8Array
from fusion.media import read_picture
from provenance import signing, watermark
from provenance.checkpoint import open_checkpoint
from provenance.errors import LedgerError
from provenance.hashes import content_sha256, hamming_distance, perceptual_hash
from provenance.home import Home
from provenance.ledger import Entry
from provenance.resolution import picture_as_marked
from provenance.signing import ManifestReading
from provenance.watermark import MarkReading

RULES_VERSION = 1
"""Version of the verdict table; raised when a row changes."""


@dataclass(frozen=True)
class LedgerEvidence:
    """What the ledger knows of a file: found by its content hash or by its mark's id."""

    found: bool
    found_by: str | None = None
    index: int | None = None
    inclusion_verified: bool = False
    perceptual_distance: int | None = None


@dataclass(frozen=True)
class Report:
    """Evidence and verdict for one file; every witness stands on its own."""

    file: str
    verdict: Verdict
    summary: str
    conflicts: tuple[str, ...]
    content_sha256: str
    manifest: ManifestReading
    mark: MarkReading
    ledger: LedgerEvidence
    detector: dict[str, Any]
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `facsimile check`, see docs/cli.md."""
        return {
            "file": self.file,
            "verdict": self.verdict.value,
            "summary": self.summary,
            "evidence": {
                "manifest": {
                    "state": self.manifest.state,
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
                "foreign_marks": [],
                "detector": self.detector,
                "consistency": None,
            },
            "conflicts": list(self.conflicts),
            "content_sha256": self.content_sha256,
            "versions": self.versions,
        }


class Checker:
    """Checks files against one home's keys, trust anchors and ledger."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def check(self, data: bytes, name: str) -> Report:
        """Check the bytes of one picture; MediaError when they are not one."""
        picture = read_picture(data)
        content = content_sha256(data)
        manifest = signing.read_manifest(data, picture.format.mime, self._home.keys.trust)
        mark = watermark.extract(picture.rgb, self._home.keys.mark_key)
        ledger = self._ledger_evidence(content, picture.rgb, mark)
        finding = decide(_evidence(manifest, mark, ledger))
        return Report(
            file=name,
            verdict=finding.verdict,
            summary=finding.summary,
            conflicts=finding.conflicts + picture.notes,
            content_sha256=content,
            manifest=manifest,
            mark=mark,
            ledger=ledger,
            detector={
                "applicable": False,
                "band": "not_applicable",
                "reason": "not trained yet",
                "faces": [],
            },
            versions={"verdict_table": str(RULES_VERSION)},
        )

    def _ledger_evidence(self, content: str, rgb: UInt8Array, mark: MarkReading) -> LedgerEvidence:
        ledger = self._home.ledger
        found_by, entries = "content", ledger.find_by_content_hash(content)
        if not entries and mark.asset_id is not None:
            found_by, entries = "mark", ledger.find_by_asset_id(mark.asset_id)
        outputs = [entry for entry in entries if entry.kind == "output_recorded"]
        if not outputs:
            return LedgerEvidence(found=False)
        entry = outputs[-1]
        whole = rgb if found_by == "content" else picture_as_marked(rgb, mark.pose)
        distance = None
        if whole is not None:
            distance = hamming_distance(entry.body["perceptual_hash"], perceptual_hash(whole))
        return LedgerEvidence(True, found_by, entry.index, self._is_included(entry), distance)

    def _is_included(self, entry: Entry) -> bool:
        ledger = self._home.ledger
        proof = ledger.inclusion_proof(entry.index)
        head = open_checkpoint(proof.checkpoint, ledger.signer.verifier)
        try:
            proof.verify_inclusion(entry.leaf_sha256, head.root.hex())
        except LedgerError:
            return False
        return True


def _evidence(manifest: ManifestReading, mark: MarkReading, ledger: LedgerEvidence) -> Evidence:
    return Evidence(
        manifest=manifest.state,
        source_type=(manifest.source_type or "").rsplit("/", 1)[-1] or None,
        ours=manifest.ours,
        signer=manifest.signer,
        manifest_asset_id=manifest.asset_id,
        mark_asset_id=mark.asset_id if mark.present else None,
        perceptual_distance=ledger.perceptual_distance if ledger.found_by == "mark" else None,
    )
