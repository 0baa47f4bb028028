"""`facsimile check` as people use it: folders, spreadsheets, signed reports, bundles, wrong use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clips import clip, corners
from conftest import Studio
from test_server_cli import Run, run

from fusion.media import encode_picture

__all__ = ["run"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, a video, a text, a broken picture, a hidden file."""
    made = tmp_path_factory.mktemp("mixed")
    picture = encode_picture(np.full((140, 150, 3), 90, np.uint8), "png")
    (made / "deeper").mkdir()
    (made / "a.png").write_bytes(picture)
    (made / "deeper" / "b.jpg").write_bytes(picture)
    (made / "notes.txt").write_text("hello")
    (made / "broken.png").write_bytes(picture[:60])
    (made / ".hidden.png").write_bytes(picture)
    clip(made / "c.mp4", [corners(0)] * 3)
    return made


def test_a_folder_is_walked_other_files_left_out_broken_ones_told(
    run: Run, studio: Studio, folder: Path
) -> None:
    ran = run("check", folder, "--json", home=studio.home_path)
    assert ran.code == 2
    names = [Path(each["file"]).name for each in ran.json["files"]]
    assert names == ["a.png", "c.mp4", "b.jpg", "broken.png"]
    assert ran.json["files"][-1]["error"]["code"] == "media.truncated"
    assert ran.json["skipped"] == 1


def test_table_spreadsheet_and_counts_agree(run: Run, studio: Studio, folder: Path, tmp_path: Path) -> None:
    ran = run("check", folder, "--csv", tmp_path / "all.csv", home=studio.home_path)
    lines = (tmp_path / "all.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == 5
    assert "3 Cannot tell" in ran.out
    assert "1 Not checked" in ran.out
    assert "media.truncated" in ran.out


def test_paths_of_both_kinds_stand_in_one_table(
    run: Run, studio: Studio, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ran = run("check", "a.png", folder / "deeper" / "b.jpg", home=studio.home_path)
    assert ran.code == 0
    assert "2 Cannot tell" in ran.out


@pytest.mark.parametrize("suffix", [".html", ".pdf", ".json"])
def test_a_report_is_signed_and_a_changed_one_is_told(
    run: Run, studio: Studio, folder: Path, tmp_path: Path, suffix: str
) -> None:
    report = tmp_path / f"report{suffix}"
    assert run("check", folder / "a.png", "--report", report, "--lang", "zh", home=studio.home_path).code == 0
    good = run("check", "--verify-report", report, "--json", home=studio.home_path)
    assert (good.code, good.json["valid"], good.json["signer"]) == (0, True, "Facsimile tests")
    report.write_bytes(report.read_bytes() + b" ")
    bad = run("check", "--verify-report", report, "--json", home=studio.home_path)
    assert (bad.code, bad.json["error"]["code"]) == (3, "attestation.signature")


def test_a_report_without_its_signature_file_is_told(run: Run, studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("x")
    ran = run("check", "--verify-report", tmp_path / "r.html", "--json", home=studio.home_path)
    assert (ran.code, ran.json["error"]["code"]) == (2, "file.missing")


def test_a_bundle_of_one_file(run: Run, studio: Studio, folder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    for path in (one, two):
        ran = run(
            "check",
            folder / "a.png",
            "--bundle",
            path,
            "--include-original",
            "--remark",
            "no",
            home=studio.home_path,
        )
        assert ran.code == 0
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), "check.no_file"),
        (("x.png", "--report", "r.docx"), "check.report_format"),
        (("x.png", "--lang", "fr"), "check.language"),
        (("x.png", "y.png", "--bundle", "b.zip"), "check.bundle"),
        (("x.png", "--bundle", "b.tar"), "check.bundle"),
        (("x.png", "--include-original"), "check.bundle"),
        (("x.png", "--report", "/no/such/folder/r.html"), "store.no_folder"),
    ],
)
def test_wrong_use_is_told_before_any_work(
    run: Run, studio: Studio, options: tuple[str, ...], code: str
) -> None:
    ran = run("check", *options, "--json", home=studio.home_path)
    assert (ran.code, ran.json["error"]["code"]) == (2, code)


def test_a_report_never_overwrites_what_is_checked(run: Run, studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes(b"kept")
    ran = run("check", path, "--report", path, "--json", home=studio.home_path)
    assert (ran.code, ran.json["error"]["code"]) == (2, "usage.output_is_input")
    assert path.read_bytes() == b"kept"


def test_an_empty_folder_is_told(run: Run, studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = run("check", tmp_path / "empty", "--json", home=studio.home_path)
    assert (ran.code, ran.json["error"]["code"]) == (2, "check.nothing")


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.pdf", b"%PDF-1.7\n"), ("a.txt", b"Dear sir,"), ("a.mkv", b"\x1aE\xdf\xa3" + bytes(40))],
)
def test_documents_are_not_applicable_with_a_reason(
    run: Run, studio: Studio, tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    ran = run("check", tmp_path / name, home=studio.home_path)
    assert ran.code == 2
    assert "media.format" in ran.out
    assert "This is a" in ran.out


def test_one_file_is_a_card_in_the_asked_language(run: Run, studio: Studio, folder: Path) -> None:
    ran = run("check", folder / "a.png", "--lang", "zh", home=studio.home_path)
    assert "无法判断" in ran.out
    assert json.dumps(ran.out).count("\\u5224\\u65ad") >= 1
