"""The verdict table: (manifest, mark, ledger, detector) to one Verdict, row by row, never an average.

Pure: opens no file, runs no network, knows no language but English summaries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from detector.evidence import Band
from detector.statement import Statement
from provenance.claim import SYNTHETIC_SOURCE_TYPES
from provenance.hashes import PERCEPTUAL_OTHER


class Verdict(StrEnum):
    """What can be proven about a file; the values are part of the command line's contract."""

    DECLARED_SYNTHETIC = "declared_synthetic"
    CONFLICT = "conflict"
    PROVENANCE_VERIFIED = "provenance_verified"
    TAMPERED = "tampered"
    SYNTHETIC_BY_MARK = "synthetic_by_mark"
    MARK_TRANSPLANT = "mark_transplant"
    LIKELY_MANIPULATED = "likely_manipulated"
    INCONCLUSIVE = "inconclusive"
    NO_EVIDENCE = "no_evidence"


ManifestState = Literal["valid", "tampered", "untrusted", "none"]

DECLARES_SYNTHESIS = frozenset(url.rsplit("/", 1)[-1] for url in SYNTHETIC_SOURCE_TYPES)
"""IPTC digital source types that declare synthesis (cv.iptc.org/newscodes/digitalsourcetype)."""


@dataclass(frozen=True)
class Evidence:
    """What each witness says of one file.

    manifest              state of the C2PA manifest; `untrusted` means intact, signer unknown
    source_type           last part of the declared IPTC digital source type, or None
    ours                  the manifest is signed by this deployment's pinned key
    signer                who signed, as the certificate says
    manifest_asset_id     id in the manifest's soft binding, 16 hex digits
    mark_asset_id         id that the mark carries, or None when no mark is present
    perceptual_distance   bits (0-64) between this picture or video and the ledger's record of the mark, or None
    other_from            from so many bits on it is another one
    band                  the detector's evidence band
    band_reason           why the detector says so, or cannot
    """

    manifest: ManifestState
    source_type: str | None = None
    ours: bool = False
    signer: str | None = None
    manifest_asset_id: str | None = None
    mark_asset_id: str | None = None
    perceptual_distance: int | None = None
    other_from: int = PERCEPTUAL_OTHER
    band: Band = "not_applicable"
    band_reason: str = "no trained detector is installed"

    @property
    def declares_synthetic(self) -> bool:
        return self.source_type in DECLARES_SYNTHESIS


@dataclass(frozen=True)
class Finding:
    """A verdict, one sentence for people, and the conflicts that led to it or stand beside it."""

    verdict: Verdict
    summary: str
    conflicts: tuple[Statement, ...] = ()


def decide(evidence: Evidence) -> Finding:
    """Read the table: the manifest's state picks the rows, mark and detector pick one among them."""
    if evidence.manifest == "tampered":
        return _tampered(evidence)
    if evidence.manifest == "valid":
        return _valid_synthetic(evidence) if evidence.declares_synthetic else _valid_capture(evidence)
    return _without_trusted_manifest(evidence)


def _tampered(evidence: Evidence) -> Finding:
    summary = "Altered after signing: the file's manifest no longer matches its content."
    if evidence.mark_asset_id is not None:
        summary += f" The pixels carry the mark {evidence.mark_asset_id}."
    return Finding(Verdict.TAMPERED, summary)


def _valid_synthetic(evidence: Evidence) -> Finding:
    if not evidence.ours:
        return Finding(
            Verdict.DECLARED_SYNTHETIC, f"Declared synthetic by {evidence.signer}; the signature holds."
        )
    if evidence.mark_asset_id is not None and evidence.mark_asset_id == evidence.manifest_asset_id:
        return Finding(
            Verdict.DECLARED_SYNTHETIC, "Declared synthetic: signature, mark and declaration agree."
        )
    found = "no mark" if evidence.mark_asset_id is None else f"the mark {evidence.mark_asset_id}"
    conflict = Statement(
        "conflict.mark_exchanged",
        "the manifest binds the mark {bound}, the pixels carry {found}",
        bound=evidence.manifest_asset_id,
        found=found,
    )
    return Finding(Verdict.CONFLICT, "Pixels or manifest were exchanged.", (conflict,))


def _valid_capture(evidence: Evidence) -> Finding:
    claim = evidence.source_type or "no source type"
    if evidence.mark_asset_id is not None:
        conflict = Statement(
            "conflict.integrity_clash",
            "the manifest claims {claim}, the pixels carry the synthetic mark {found}",
            claim=claim,
            found=evidence.mark_asset_id,
        )
        return Finding(
            Verdict.CONFLICT,
            "Integrity clash: a valid signature denies what the mark proves.",
            (conflict,),
        )
    if evidence.band == "strong":
        conflict = Statement(
            "conflict.capture_manipulated",
            "the manifest claims {claim}, the detector finds strong evidence of manipulation",
            claim=claim,
        )
        return Finding(
            Verdict.CONFLICT, "Signed capture with manipulation evidence: a person should look.", (conflict,)
        )
    return Finding(
        Verdict.PROVENANCE_VERIFIED,
        f"Provenance verified, signed by {evidence.signer}; {_detector_phrase(evidence)}.",
    )


def _without_trusted_manifest(evidence: Evidence) -> Finding:
    conflicts = _claim_note(evidence)
    if evidence.mark_asset_id is not None:
        stripped = "provenance stripped" if evidence.manifest == "none" else "signer unknown"
        summary = f"Synthetic by its mark {evidence.mark_asset_id}; {stripped}."
        found = _transplant(evidence) or Finding(Verdict.SYNTHETIC_BY_MARK, summary)
    elif evidence.band == "strong":
        found = Finding(Verdict.LIKELY_MANIPULATED, "Likely manipulated, by model evidence only.")
    elif evidence.band == "none":
        found = Finding(
            Verdict.NO_EVIDENCE, "No evidence of manipulation found; this does not prove authenticity."
        )
    else:
        found = Finding(
            Verdict.INCONCLUSIVE,
            f"Inconclusive: no manifest we trust, no mark, {_detector_phrase(evidence)}. "
            "Ask for the original file, as it left the camera or the tool.",
        )
    return Finding(found.verdict, found.summary, found.conflicts + conflicts)


def _claim_note(evidence: Evidence) -> tuple[Statement, ...]:
    if evidence.manifest != "untrusted":
        return ()
    claim = evidence.source_type or "no source type"
    return (
        Statement(
            "conflict.unknown_signer",
            "a manifest by the unknown signer {signer} claims {claim}; it is a claim only",
            signer=evidence.signer,
            claim=claim,
        ),
    )


def _transplant(evidence: Evidence) -> Finding | None:
    distance = evidence.perceptual_distance
    if distance is None or distance < evidence.other_from:
        return None
    conflict = Statement(
        "conflict.other_picture",
        "the file differs from the one recorded for this mark in {distance} of 64 perceptual bits",
        distance=distance,
    )
    return Finding(
        Verdict.MARK_TRANSPLANT,
        "The mark is known, the file does not show what it was given to: a transplanted mark is suspected.",
        (conflict,),
    )


def _detector_phrase(evidence: Evidence) -> str:
    phrases: dict[Band, str] = {
        "none": "no manipulation evidence found",
        "weak": "weak manipulation evidence",
        "moderate": "moderate manipulation evidence",
        "strong": "strong manipulation evidence",
        "inconclusive": f"the detector cannot tell ({evidence.band_reason})",
        "not_applicable": f"the detector does not apply ({evidence.band_reason})",
    }
    return phrases[evidence.band]
