"""Misreport bundles: deterministic, without secrets, and each one kept is replayed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from conftest import Studio
from misreports import FOLDER

from detector.check import Checker, Report, shipped_scorer
from fusion.media import encode_picture
from provenance.errors import InputError
from provenance.home import Home
from server.bundle import keep_as_test, read_bundle, replay, write_bundle
from server.demo import draw_hills

DATA = encode_picture(draw_hills(200), "png")


@pytest.fixture(scope="module")
def report(studio: Studio) -> Report:
    with Home.open(studio.home_path) as home:
        return Checker(home).check(DATA, "/home/somebody/secret folder/hills.png")


def test_equal_inputs_give_equal_bytes(report: Report) -> None:
    assert write_bundle(report, DATA, "x") == write_bundle(report, DATA, "x")


def test_a_bundle_names_no_folder_and_holds_the_file_only_where_agreed(report: Report) -> None:
    without, with_it = write_bundle(report, None), write_bundle(report, DATA)
    assert b"secret folder" not in without
    assert DATA not in without
    with zipfile.ZipFile(io.BytesIO(without)) as archive:
        assert archive.namelist() == ["README.txt", "report.json", "settings.json"]
    told, settings, original = read_bundle(with_it)
    assert (told["file"], settings["original"], original) == ("hills.png", True, DATA)


def test_another_file_is_no_original(report: Report) -> None:
    with pytest.raises(ValueError, match="not the file"):
        write_bundle(report, DATA + b"x")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", DATA])
def test_what_is_no_bundle_is_told(data: bytes) -> None:
    with pytest.raises(InputError) as raised:
        read_bundle(data)
    assert raised.value.code == "bundle.unreadable"


def test_a_bundle_whose_original_was_exchanged_is_refused(report: Report) -> None:
    data = bytearray(write_bundle(report, DATA))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, b"other" if name.startswith("original/") else content)
    with pytest.raises(InputError):
        read_bundle(out.getvalue())


def test_the_same_versions_give_the_same_verdict_again(report: Report) -> None:
    again = replay(write_bundle(report, DATA), None)
    assert again.detector_ran
    assert again.same_versions
    assert (again.verdict, again.band) == (report.verdict.value, report.detector.band)


def test_a_bundle_becomes_a_regression_test(report: Report, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(write_bundle(report, DATA))
    kept = keep_as_test(tmp_path / "b.zip", tmp_path / "kept", "hills", "inconclusive", "nothing to judge")
    assert kept.read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert json.loads(kept.with_suffix(".json").read_text()) == {
        "expect": "inconclusive",
        "why": "nothing to judge",
    }


@pytest.mark.parametrize("bundle", sorted(FOLDER.glob("*.zip")), ids=lambda path: path.stem)
def test_every_kept_misreport_reads_as_it_ought_to(bundle: Path) -> None:
    wanted = json.loads(bundle.with_suffix(".json").read_text())
    assert replay(bundle.read_bytes(), shipped_scorer()).verdict == wanted["expect"]


def test_there_is_a_kept_misreport() -> None:
    assert len(list(FOLDER.glob("*.zip"))) >= 1
