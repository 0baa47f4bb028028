"""Reports: every witness in both languages, nothing fetched, nothing run, signed, equal for equal input."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import numpy as np
import pypdf
import pytest
from clips import clip
from conftest import Studio

from detector.check import Checker, Report
from detector.evidence import Consistency, DetectorEvidence, FaceEvidence, VideoEvidence
from detector.statement import Statement
from detector.verdict import Verdict
from fusion.media import encode_picture, read_picture
from provenance.errors import InputError
from provenance.home import Home
from server import report_text
from server.check_console import COLUMNS, csv_text
from server.language import Lang, translator
from server.report import Issue, render_document, render_html
from server.report_pdf import render_pdf
from server.report_picture import face_picture
from server.report_style import STYLE

ISSUE = Issue("My lab 实验室", "0.1.0", datetime(2026, 3, 4, 5, 6, tzinfo=UTC), "signed beside")
FAILURES = [("letter.pdf", InputError("media.format", "This is a PDF document.", "Save it again."))]


@pytest.fixture(scope="module")
def reports(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    """An output as released; a copy that a detector called manipulated; a video of an unmarked drawing."""
    folder = tmp_path_factory.mktemp("reports")
    sealed = studio.people[0].path.read_bytes()
    bars = np.tile(np.linspace(0, 255, 160, dtype=np.uint8)[None, :, None], (128, 1, 3))
    video = clip(folder / "<bars>.mp4", [bars, bars, bars[:, ::-1], bars[:, ::-1]])
    with Home.open(studio.home_path) as home:
        checker = Checker(home)
        first, second = checker.check(sealed, "sealed.png"), checker.check_file(video)
    seen = first.detector.faces[0]
    heat = np.ones((12, 12), np.float32)
    left, top, right, bottom = seen.box_xyxy
    judged = replace(
        seen, band="strong", reason=None, logit=2.5, score=0.92, reliability=0.8, heatmap=heat,
        heatmap_xyxy=(left, top, right, bottom), variants={"jpeg_q75": "strong", "crop_4": "strong"},
    )  # fmt: skip
    conflict = Statement("conflict.capture_manipulated", "claims {claim}", claim="digitalCapture")
    shown = replace(
        first,
        file="<script>alert(1)<script>.png",
        verdict=Verdict.CONFLICT,
        conflicts=(conflict,),
        detector=DetectorEvidence("strong", None, (judged,)),
        consistency=Consistency(True, ("jpeg_q75", "resize_0.75", "crop_4")),
    )
    return [first, shown, second]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_html_tells_every_witness_and_what_each_verdict_does_not_mean(
    reports: list[Report], lang: Lang
) -> None:
    t, page = translator(lang), unescape(render_html(reports, translator(lang), FAILURES, ISSUE))
    assert f'<html lang="{t.tag}">' in page
    for report in reports:
        for part in ("title", "meaning", "not", "next"):
            assert t(f"verdict.{report.verdict.value}.{part}") in page
    for key in ("manifest", "mark", "ledger", "detector", "consistency", "foreign"):
        assert t(f"witness.{key}") in page
    assert str(reports[0].mark.asset_id) in page
    assert reports[0].content_sha256 in page
    assert t("limits.authentic") in page
    assert t("report.tree.made_by", generator=f"facsimile {ISSUE.version}") in page
    assert reports[0].versions["model.detect"] in page
    assert t("conflict.capture_manipulated", claim="digitalCapture") in page
    assert "<svg" in page


def test_html_fetches_nothing_runs_nothing_and_escapes_names(reports: list[Report]) -> None:
    page = render_html(reports, None, FAILURES, ISSUE)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;bars&gt;.mp4" in page
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,|#file-\d+")', page)
    assert "default-src 'none'" in page
    assert not re.search(r"\son\w+=", page)
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", page))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_pdf_says_the_same_and_is_equal_for_equal_input(reports: list[Report], lang: Lang) -> None:
    t = translator(lang)
    data = render_pdf(reports, t, FAILURES, ISSUE)
    assert data == render_pdf(reports, t, FAILURES, ISSUE)
    pages = pypdf.PdfReader(io.BytesIO(data)).pages
    told = re.sub(r"\s", "", "".join(page.extract_text() for page in pages))
    for key in ("report.title", "verdict.conflict.title", "verdict.declared_synthetic.not", "witness.ledger"):
        assert re.sub(r"\s", "", t(key)) in told, key
    assert str(reports[0].mark.asset_id) in told
    assert reports[0].content_sha256 in told
    assert "实验室" in told
    assert not any("/JS" in str(page.get_object()) for page in pages)


def test_json_names_who_issued_it_and_what_was_not_checked(reports: list[Report]) -> None:
    import json

    told = json.loads(render_document([each.as_dict() for each in reports], FAILURES, ISSUE))
    assert told["issued"] == {
        "organisation": "My lab 实验室",
        "version": "0.1.0",
        "at": "2026-03-04T05:06:00+00:00",
    }
    assert [each["verdict"] for each in told["files"]][1] == "conflict"
    assert told["not_checked"][0]["error"]["code"] == "media.format"
    video = told["files"][2]["evidence"]["video"]
    assert video["num_frames"] == 4
    assert VideoEvidence.from_dict(video).as_dict() == video


def test_the_heat_map_tints_only_its_own_box(reports: list[Report]) -> None:
    face = reports[1].detector.faces[0]
    tinted, plain = face_picture(face), face.crop
    assert tinted is not None
    assert plain is not None
    changed = np.abs(tinted.astype(int) - plain.astype(int)).max(2) > 8
    side = plain.shape[0]
    assert changed[side // 2, side // 2]
    assert not changed[:4].any()
    assert face_picture(replace(face, heatmap=None)) is plain


def test_reports_of_many_files_keep_words_only(reports: list[Report]) -> None:
    bare = reports[1].without_pictures()
    assert "<img" not in render_html([bare])
    assert bare.detector.faces[0].crop is None
    assert bare.as_dict()["verdict"] == "conflict"


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    "code",
    ["no_detector", "no_face", "face_small", "compression", "blocks", "drawing", "detail", "abstain", "flip"],
)
def test_every_reason_has_words(code: str, lang: Lang) -> None:
    told = Statement(f"gate.{code}", "x", size=1, least=64, quality=20, copies="none, strong", band="weak")
    said = report_text.say(told, translator(lang))
    assert len(said) > 5
    assert said != "x"


def test_remarks_of_the_reader_have_chinese_words(studio: Studio, reports: list[Report]) -> None:
    medium = replace(
        reports[0].medium, notes=("turned upright (EXIF orientation 6)", "the file ends 9 bytes too early")
    )
    said = report_text.notes(medium.notes, translator("zh"))
    assert all(re.search(r"[\u4e00-\u9fff]", line) for line in said)


def test_csv_has_one_line_per_file_and_no_formula(reports: list[Report]) -> None:
    named = replace(reports[0], file="=HYPERLINK(1)")
    lines = csv_text([named, reports[2]], [(Path("letter.pdf"), FAILURES[0][1])]).splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1].startswith("'=HYPERLINK(1),declared_synthetic,valid,")
    assert lines[3].startswith("letter.pdf,") and lines[3].endswith(",media.format")  # noqa: PT018


def test_a_face_without_a_place_in_the_picture_is_told_without_one() -> None:
    face = FaceEvidence((1.0, 2.0, 30.0, 40.0), "not_applicable", Statement("gate.no_detector", "none"))
    assert face_picture(face) is None
    assert report_text.face_lines(face, translator("en"))[-1] == "29 × 38 px, at 1, 2"


def test_a_stripped_copy_still_shows_its_receipt(studio: Studio) -> None:
    rgb = read_picture(studio.people[1].path.read_bytes()).rgb
    with Home.open(studio.home_path) as home:
        report = Checker(home).check(encode_picture(rgb, "jpeg", 85), "copy.jpg")
    line = report_text.receipt_line(report, translator("en"))
    assert line == f"Entry {studio.people[1].receipt.index}, found by its mark; inclusion proven."


def test_the_style_sheet_splits_no_name_over_lines() -> None:
    """A line break inside quotes makes a browser drop the rule and the next one."""
    for line in STYLE.splitlines():
        assert line.count('"') % 2 == 0, line
    assert STYLE.count("{") == STYLE.count("}")
