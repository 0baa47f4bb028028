"""Certificates rotated and revoked from the command line, and what is sealed with a time stamp and a visible label."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from timestamps import TimestampAuthority

from fusion.media import read_picture
from fusion.visible_label import label_masks
from provenance.compliance import judge
from provenance.home import Home
from provenance.signing import read_manifest
from server.cli import build_app

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACSIMILE_HOME", str(tmp_path / "home"))
    Home.create(tmp_path / "home", "Somebody").close()
    return tmp_path / "home"


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            build_app()(args=[*(str(argument) for argument in arguments), "--json"])
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return call


def test_a_certificate_is_rotated_and_revoked_and_the_ledger_knows(run: Run, path: Path) -> None:
    first = run("certificate", "list")[1]["certificates"]
    assert [each["state"] for each in first] == ["in use"]
    code, rotated = run("certificate", "rotate")
    assert (code, rotated["ledger"]["index"]) == (0, 1)
    states = {each["fingerprint"]: each["state"] for each in run("certificate", "list")[1]["certificates"]}
    assert states == {first[0]["fingerprint"]: "retired", rotated["rotated"]: "in use"}
    assert run("certificate", "revoke", first[0]["fingerprint"], "--reason", "lost")[0] == 0
    assert run("certificate", "revoke", "ab" * 32, "--reason", "x")[1]["error"]["code"] == "keys.unknown"
    states = {each["fingerprint"]: each["state"] for each in run("certificate", "list")[1]["certificates"]}
    assert states[first[0]["fingerprint"]] == "revoked"
    with Home.open(path) as home:
        entries = home.ledger.entries(1)
    assert [entry.kind for entry in entries] == ["key_rotated", "key_revoked"]
    assert entries[1].body["certificate_sha256"] == first[0]["fingerprint"]


def test_what_is_sealed_bears_a_trusted_time_stamp_and_the_label_that_was_asked_for(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock").mkdir()
    with TimestampAuthority(tmp_path / "clock") as clock:
        monkeypatch.setenv("FACSIMILE_TSA_URL", clock.url)
        root = clock.root.public_bytes(serialization.Encoding.PEM)
        (path / "keys" / "trust" / "timestamp" / "clock.pem").write_bytes(root)
        code, made = run("sample", "-n", 1, "--size", 256, "--seed", 5, "--label", "-o", tmp_path / "people")
    assert code == 0
    data = Path(made["files"][0]["output"]).read_bytes()
    with Home.open(path) as home:
        reading = read_manifest(data, "image/png", home.keys.trust)
        assert (reading.state, reading.ours, reading.timestamp_trusted) == ("valid", True, True)
        assert home.ledger.entry(made["files"][0]["ledger"]["index"]).body["label"] is True
        rows = {each.requirement.id: each.state for each in judge(home, ("eu",))}
    assert rows["eu.timestamped"] == "pass"
    rgb = read_picture(data).rgb.astype(float)
    ink, ground = label_masks(256, 256)
    assert rgb[ink > 0.9].mean() - rgb[(ground == 1) & (ink == 0)].mean() > 80
    assert np.isfinite(rgb).all()


def test_an_authority_that_does_not_answer_stops_the_release(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACSIMILE_TSA_URL", "http://127.0.0.1:9/")
    code, told = run("sample", "-n", 1, "--size", 256, "-o", tmp_path / "people")
    assert (code, told["error"]["code"]) == (3, "signature.failed")
    assert list((tmp_path / "people").iterdir()) == []
