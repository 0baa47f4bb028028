"""The report passes what holds, fails what does not, and leaves the rest to a person."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from conftest import Studio
from test_provenance_fsck import tamper

from fusion.media import Format, encode_picture, read_picture
from fusion.pipeline import sample
from fusion.request import SampleRequest
from fusion.swap import load_perception
from provenance.compliance import CHECKS, Judged, Released, judge
from provenance.home import Home
from provenance.requirements import REQUIREMENTS, STANDARDS
from server.cli import build_app, spread
from server.copies import released_files
from server.report_compliance import render_csv, render_html, render_pdf


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """One of its own: what other tests did in theirs would show in the report."""
    folder = tmp_path_factory.mktemp("audited")
    with Home.create(folder / "home", "Facsimile tests") as home:
        people = sample(SampleRequest(count=3, seed=11, size_px=512), home, folder)
    return Studio(folder / "home", people, load_perception("cpu"))


@pytest.fixture(scope="module")
def judged(studio: Studio) -> dict[str, Judged]:
    with Home.open(studio.home_path) as home:
        return {
            each.requirement.id: each
            for each in judge(home, STANDARDS, released_files([studio.people[0].path], home))
        }


def test_every_check_that_a_requirement_names_exists_and_each_is_used() -> None:
    assert {each.check for each in REQUIREMENTS if each.check} == set(CHECKS)
    assert len({each.id for each in REQUIREMENTS}) == len(REQUIREMENTS)
    assert all(each.check or each.for_a_person for each in REQUIREMENTS)


def test_sealed_samples_pass_what_machines_can_tell(judged: dict[str, Judged]) -> None:
    passed = {
        "eu.signed", "eu.mark", "eu.says_generated", "eu.layers_cross_refer", "eu.no_private_data", "eu.inputs_kept",
        "eu.records", "cn.implicit_label", "cn.digital_watermark", "ca.latent", "ca.detectable",
        "ca.hard_to_remove", "ca.standards",
    }  # fmt: skip
    assert {name for name, row in judged.items() if row.state == "pass"} == passed


def test_what_is_not_there_fails_or_is_left_to_a_person(judged: dict[str, Judged]) -> None:
    assert judged["eu.timestamped"].state == "fail"  # no authority was named
    for name in (
        "eu.informed",
        "eu.deep_fake_label",
        "cn.real_name",
        "ca.licensees",
        "ca.tool",
        "eu.legal_ground",
    ):
        assert judged[name].state == "needs a person", name


def test_without_released_files_nothing_about_files_passes(studio: Studio) -> None:
    with Home.open(studio.home_path) as home:
        rows = {each.requirement.id: each.state for each in judge(home, ("cn", "ca"))}
    assert {rows[name] for name in ("cn.implicit_label", "ca.hard_to_remove", "ca.standards")} == {
        "needs a person"
    }


def test_a_stripped_file_and_a_broken_ledger_fail(studio: Studio, tmp_path: Path) -> None:
    rgb = read_picture(studio.people[0].path.read_bytes()).rgb
    bare = Released("bare.png", encode_picture(rgb, Format.PNG), "image/png", None, None)
    shutil.copytree(studio.home_path, tmp_path / "home")
    tamper(tmp_path / "home" / "ledger.db", "DELETE FROM manifests WHERE leaf_index = 2")
    with Home.open(tmp_path / "home") as home:
        rows = {each.requirement.id: each for each in judge(home, STANDARDS, [bare])}
    failed = {name for name, row in rows.items() if row.state == "fail"}
    assert {"eu.records", "eu.signed", "cn.implicit_label", "ca.standards", "eu.mark"} <= failed
    assert "2 of 3" in rows["eu.signed"].seen


def test_the_three_forms_hold_the_same_rows(judged: dict[str, Judged]) -> None:
    rows = list(judged.values())
    table = list(csv.DictReader(io.StringIO(render_csv(rows).decode("utf-8-sig"))))
    assert [row["id"] for row in table] == list(judged)
    page = render_html(rows, "A & B").decode()
    assert all(name in page for name in judged)
    assert "<h1>A &amp; B</h1>" in page
    assert "http" not in page
    pdf = render_pdf(rows, "北京 A & B")
    assert pdf.startswith(b"%PDF-1.")
    assert b"STSong-Light" in pdf
    assert render_pdf(rows, "北京 A & B") == pdf


def test_the_commands(
    studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACSIMILE_HOME", str(studio.home_path))

    def run(*arguments: object) -> int:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            build_app()(args=spread([str(argument) for argument in arguments]))
        return int(ended.value.code or 0)

    person = studio.people[1].path
    assert (
        run("audit", "report", "--standard", "cn", "-o", tmp_path / "r.csv", "--files", person, "--json") == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["standard"] for row in rows} == {"cn"}
    assert run("audit", "report", "--standard", "xx", "-o", tmp_path / "r.csv") == 2
    assert run("audit", "report", "-o", tmp_path / "r.doc") == 2
    assert run("audit", "export", "-o", tmp_path / "e.zip", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    from provenance.verify_export import verify

    assert verify(tmp_path / "e.zip", told["key"], [])["root"] == told["root"]
    assert run("audit", "export", "-o", tmp_path / "e.tar") == 2
    assert run("audit", "key", "--json") == 0
    assert json.loads(capsys.readouterr().out)["key"] == told["key"]
    assert run("audit", "consistency", 2, "--json") == 0
    assert json.loads(capsys.readouterr().out)["older"] == 2
