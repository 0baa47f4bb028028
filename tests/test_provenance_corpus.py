"""Every file of the corpus (tests/make_corpus.py) proves what it was made to prove."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provenance.keys import Trust
from provenance.signing import read_manifest

FOLDER = Path(__file__).resolve().parent / "assets" / "c2pa"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
TRUST = Trust(**EXPECTED["trust"])
FILES: list[dict[str, Any]] = EXPECTED["files"]


@pytest.mark.parametrize("row", FILES, ids=lambda row: row["file"])
def test_a_file_proves_what_it_should(row: dict[str, Any]) -> None:
    reading = read_manifest((FOLDER / row["file"]).read_bytes(), row["mime"], TRUST)
    assert (reading.state, reading.ours) == (row["state"], row["ours"]), (row["why"], reading.codes)
    assert not row["code"] or row["code"] in reading.codes


@pytest.mark.parametrize("row", FILES, ids=lambda row: row["file"])
def test_who_believes_nobody_calls_nothing_valid(row: dict[str, Any]) -> None:
    reading = read_manifest((FOLDER / row["file"]).read_bytes(), row["mime"], Trust())
    wanted = {"valid": "untrusted"}.get(row["state"], row["state"])
    assert (reading.state, reading.ours) == (wanted, False)


def test_without_the_camera_list_cameras_are_unknown() -> None:
    data = (FOLDER / "listed_camera.jpg").read_bytes()
    assert read_manifest(data, "image/jpeg", replace(TRUST, listed_anchors="")).state == "untrusted"


def test_the_corpus_holds_every_kind_of_tampering_and_no_stray_file() -> None:
    names = {row["file"] for row in FILES}
    assert {path.name for path in FOLDER.iterdir()} == names | {"expected.json"}
    assert {row["state"] for row in FILES} == {"valid", "tampered", "untrusted", "none"}
    wanted = {
        "pixel_byte", "appended_byte", "xmp_edit", "assertion_byte", "claim_byte", "signature_byte", "transplanted",
        "stripped", "recoded", "padding", "free_box", "mdat_byte", "namesake",
    }  # fmt: skip
    assert wanted <= {Path(name).stem for name in names}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 700_000
