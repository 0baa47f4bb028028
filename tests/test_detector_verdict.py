"""The verdict table, a test per row."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest

from detector.verdict import Band, Evidence, ManifestState, Verdict, decide
from provenance.hashes import PERCEPTUAL_OTHER

ID, OTHER = "00112233445566ff", "ffeeddccbbaa9900"
OURS = Evidence(
    manifest="valid",
    source_type="compositeWithTrainedAlgorithmicMedia",
    ours=True,
    signer="Facsimile Test",
    manifest_asset_id=ID,
    mark_asset_id=ID,
)
CAMERA = Evidence(manifest="valid", source_type="digitalCapture", signer="Camera Maker")
NONE = Evidence(manifest="none")
BANDS: tuple[Band, ...] = get_args(Band)
STATES: tuple[ManifestState, ...] = get_args(ManifestState)


@pytest.mark.parametrize("band", BANDS)
def test_ours_with_its_mark_is_declared_synthetic_whatever_the_detector_says(band: Band) -> None:
    found = decide(replace(OURS, band=band))
    assert found.verdict is Verdict.DECLARED_SYNTHETIC
    assert found.conflicts == ()


@pytest.mark.parametrize("mark", [None, OTHER])
def test_ours_without_its_mark_is_a_conflict(mark: str | None) -> None:
    found = decide(replace(OURS, mark_asset_id=mark))
    assert found.verdict is Verdict.CONFLICT
    assert ID in found.conflicts[0]
    assert (mark or "no mark") in found.conflicts[0]


@pytest.mark.parametrize("mark", [None, ID, OTHER])
def test_another_trusted_signer_declares_synthesis(mark: str | None) -> None:
    found = decide(replace(OURS, ours=False, signer="Someone Listed", mark_asset_id=mark))
    assert found.verdict is Verdict.DECLARED_SYNTHETIC
    assert "Someone Listed" in found.summary


def test_camera_claim_with_our_mark_is_an_integrity_clash() -> None:
    found = decide(replace(CAMERA, mark_asset_id=ID))
    assert found.verdict is Verdict.CONFLICT
    assert "digitalCapture" in found.conflicts[0]


def test_signed_capture_with_strong_evidence_is_a_conflict() -> None:
    assert decide(replace(CAMERA, band="strong")).verdict is Verdict.CONFLICT


@pytest.mark.parametrize("band", [band for band in BANDS if band != "strong"])
def test_signed_capture_without_strong_evidence_is_verified(band: Band) -> None:
    found = decide(replace(CAMERA, band=band))
    assert found.verdict is Verdict.PROVENANCE_VERIFIED
    assert "Camera Maker" in found.summary


@pytest.mark.parametrize(("mark", "band"), list(itertools.product([None, ID], BANDS)))
def test_tampered_stays_tampered(mark: str | None, band: Band) -> None:
    found = decide(replace(OURS, manifest="tampered", mark_asset_id=mark, band=band))
    assert found.verdict is Verdict.TAMPERED


@pytest.mark.parametrize(("mark", "band"), list(itertools.product([None, ID], BANDS)))
def test_untrusted_signer_reads_as_none_and_is_shown(mark: str | None, band: Band) -> None:
    untrusted = replace(CAMERA, manifest="untrusted", mark_asset_id=mark, band=band)
    found = decide(untrusted)
    assert found.verdict is decide(replace(NONE, mark_asset_id=mark, band=band)).verdict
    assert "Camera Maker" in found.conflicts[-1]


@pytest.mark.parametrize("band", BANDS)
def test_mark_alone_is_synthetic_by_mark(band: Band) -> None:
    found = decide(replace(NONE, mark_asset_id=ID, perceptual_distance=3, band=band))
    assert found.verdict is Verdict.SYNTHETIC_BY_MARK
    assert ID in found.summary


def test_mark_on_another_picture_is_a_transplant() -> None:
    limit = replace(NONE, mark_asset_id=ID, perceptual_distance=PERCEPTUAL_OTHER - 1)
    beyond = replace(limit, perceptual_distance=PERCEPTUAL_OTHER)
    assert decide(limit).verdict is Verdict.SYNTHETIC_BY_MARK
    assert decide(beyond).verdict is Verdict.MARK_TRANSPLANT


def test_strong_detector_alone_is_likely_manipulated() -> None:
    assert decide(replace(NONE, band="strong")).verdict is Verdict.LIKELY_MANIPULATED


@pytest.mark.parametrize("band", ["weak", "moderate", "inconclusive", "not_applicable"])
def test_middle_or_inapplicable_is_inconclusive_with_a_reason(band: Band) -> None:
    found = decide(replace(NONE, band=band, band_reason="not trained yet"))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert ("not trained yet" in found.summary) == (band in {"inconclusive", "not_applicable"})


def test_nothing_found_says_so_and_never_authentic() -> None:
    assert decide(replace(NONE, band="none")).verdict is Verdict.NO_EVIDENCE


def test_no_summary_ever_says_authentic() -> None:
    for state, mark, band, ours in itertools.product(STATES, [None, ID], BANDS, [True, False]):
        found = decide(replace(CAMERA, manifest=state, mark_asset_id=mark, band=band, ours=ours))
        assert "is authentic" not in found.summary
        assert "percent" not in found.summary
