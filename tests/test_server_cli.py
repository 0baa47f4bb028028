"""The command line's contract: exit codes, one JSON object, errors with a code, a cause and a next step."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ORGANISATION, ROOT, Studio
from hostile import HOSTILE

from detector.evidence import BANDS
from fusion.media import encode_picture, read_picture
from fusion.weights import REGISTRY
from provenance import fsck
from provenance.home import Home
from server.cli import build_app, spread


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("FACSIMILE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FACSIMILE_DATABASE", raising=False)

    def call(*arguments: str | Path, home: Path | None = None) -> Ran:
        if home is not None:
            monkeypatch.setenv("FACSIMILE_HOME", str(home))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            build_app()(args=spread([str(argument) for argument in arguments]))
        printed = capsys.readouterr()
        code = ended.value.code
        return Ran(0 if code is None else int(code), printed.out, printed.err)

    return call


def test_values_after_an_option_that_takes_several_are_spread() -> None:
    assert spread(["fuse", "--source", "a", "b", "--target", "c", "-o", "d"]) == [
        "fuse", "--source", "a", "--source", "b", "--target", "c", "-o", "d",
    ]  # fmt: skip
    assert spread(["check", "a", "b", "--report", "r.html"]) == ["check", "a", "b", "--report", "r.html"]


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys; from server.cli import build_app; build_app();"
        "print(sorted({'torch', 'cv2', 'numpy', 'c2pa', 'sqlalchemy', 'pydantic'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}"}
    printed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert printed.stdout.strip() == b"[]"


def test_init_makes_a_home_once(run: Run, tmp_path: Path) -> None:
    first = run("init", "--organisation", "Somebody", "--json")
    again = run("init", "--json")
    assert (first.code, first.json["organisation"]) == (0, "Somebody")
    assert (again.code, again.json["error"]["code"]) == (2, "home.exists")
    assert oct((tmp_path / "home").stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize("command", [("check", "x.png"), ("audit", "verify"), ("grant", "list")])
def test_without_a_home_the_next_step_is_named(run: Run, command: tuple[str, ...]) -> None:
    ran = run(*command)
    assert ran.code == 2
    assert "home.missing" in ran.err
    assert "facsimile init" in ran.err


def test_a_home_that_is_a_file_is_said_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    assert "home.not_a_folder" in run("audit", "verify").err


def test_check_prints_one_json_object_per_contract(run: Run, studio: Studio) -> None:
    ran = run("check", studio.people[0].path, "--json", home=studio.home_path)
    assert ran.code == 0
    assert ran.json["verdict"] == "declared_synthetic"
    assert list(ran.json) == [
        "file", "verdict", "summary", "evidence", "conflicts", "notes", "content_sha256", "file_sha256", "media",
        "versions",
    ]  # fmt: skip
    assert list(ran.json["evidence"]) == [
        "manifest", "mark", "ledger", "foreign_marks", "detector", "consistency",
    ]  # fmt: skip
    assert ran.json["evidence"]["mark"]["asset_id"] == studio.people[0].asset_id
    assert ran.json["evidence"]["ledger"]["inclusion_verified"] is True
    assert ran.json["evidence"]["detector"]["band"] in BANDS


def test_check_exits_with_3_on_a_tampered_file(run: Run, studio: Studio, tmp_path: Path) -> None:
    data = bytearray(studio.people[0].path.read_bytes()) + b"appended"
    (tmp_path / "tampered.png").write_bytes(data)
    ran = run("check", tmp_path / "tampered.png", "--json", home=studio.home_path)
    assert (ran.code, ran.json["verdict"]) == (3, "tampered")


def test_check_finds_its_way_back_from_a_stripped_copy(run: Run, studio: Studio, tmp_path: Path) -> None:
    rgb = read_picture(studio.people[0].path.read_bytes()).rgb
    (tmp_path / "copy.jpg").write_bytes(encode_picture(rgb, "jpeg", 80))
    ran = run("check", tmp_path / "copy.jpg", "--json", home=studio.home_path)
    assert ran.json["verdict"] == "synthetic_by_mark"
    assert ran.json["evidence"]["ledger"]["index"] == studio.people[0].receipt.index
    assert ran.json["evidence"]["ledger"]["found_by"] == "mark"


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_files_give_their_code(run: Run, studio: Studio, tmp_path: Path, name: str) -> None:
    make, code = HOSTILE[name]
    read_as_video = {"mp4_with_hostile_box": "media.damaged"}
    code = {"empty": "file.empty", "too_many_bytes": "file.too_large", **read_as_video}.get(name, code)
    path = tmp_path / "hostile.png"
    path.write_bytes(make())
    ran = run("check", path, "--json", home=studio.home_path)
    assert ran.code == 2
    assert ran.json["error"]["code"] == code
    assert ran.json["error"]["next"]


@pytest.mark.parametrize("name", sorted(HOSTILE)[::8])
def test_hostile_files_are_no_source_and_leave_the_ledger_sound(
    run: Run, studio: Studio, tmp_path: Path, name: str
) -> None:
    make, code = HOSTILE[name]
    path, out = tmp_path / "hostile.jpg", tmp_path / "out.jpg"
    path.write_bytes(make())
    fused = run(
        "fuse", "--source", path, "--target", studio.people[0].path, "-o", out, "--purpose", "test", "--json",
        home=studio.home_path,
    )  # fmt: skip
    assert (fused.code, fused.json["error"]["code"]) == (2, code)
    assert not out.exists()
    with Home.open(studio.home_path) as home:
        assert fsck.verify(home).ok


@pytest.mark.parametrize(
    ("kind", "code"), [("missing", "file.missing"), ("folder", "file."), ("empty", "file.empty")]
)
def test_files_that_are_none_are_told_apart(
    run: Run, studio: Studio, tmp_path: Path, kind: str, code: str
) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    ran = run(
        "fuse", "--source", path, "--target", path, "-o", tmp_path / "o.jpg", "--purpose", "test", "--json",
        home=studio.home_path,
    )  # fmt: skip
    assert ran.code == 2
    assert ran.json["error"]["code"].startswith(code)


def test_an_output_never_overwrites_an_input(run: Run, studio: Studio) -> None:
    target = studio.people[0].path
    before = target.read_bytes()
    ran = run(
        "fuse", "--source", studio.people[1].path, "--target", target, "-o", target, "--purpose", "test", "--json",
        home=studio.home_path,
    )  # fmt: skip
    assert (ran.code, ran.json["error"]["code"]) == (2, "usage.output_is_input")
    assert target.read_bytes() == before


def test_a_size_that_is_not_offered_is_bad_input(run: Run, studio: Studio, tmp_path: Path) -> None:
    ran = run("sample", "-o", tmp_path / "people", "--size", "300", "--json", home=studio.home_path)
    assert (ran.code, ran.json["error"]["code"]) == (2, "faceset.size")


def test_a_refusal_names_every_failed_rule(run: Run, studio: Studio, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.png"
    stranger.write_bytes(encode_picture(read_picture(studio.people[0].path.read_bytes()).rgb, "png"))
    ran = run(
        "fuse", "--source", stranger, "--target", stranger, "-o", tmp_path / "o.jpg", "--purpose", "test", "--json",
        home=studio.home_path,
    )  # fmt: skip
    assert ran.code == 1
    assert ran.json["error"]["rules"] == ["face.accounted"]
    assert not (tmp_path / "o.jpg").exists()


def test_the_life_of_a_grant(run: Run, studio: Studio, tmp_path: Path) -> None:
    """Two nobodies stand in for people; their files are stripped, so that only grants can speak for them."""
    pictures = []
    for number, person in enumerate(studio.people[:2]):
        pictures.append(tmp_path / f"person_{number}.png")
        pictures[-1].write_bytes(encode_picture(read_picture(person.path.read_bytes()).rgb, "png"))
    run("init", "--organisation", ORGANISATION, home=tmp_path / "home")
    grants = []
    for picture, scope in zip(pictures, ("source", "target"), strict=True):
        enrolled = run(
            "subject", "enrol", "--name", "Nobody", "--image", picture, "--adult-verified", "in_person", "--json",
        ).json  # fmt: skip
        draft = run(
            "grant", "issue", "--subject", enrolled["subject"], "--grantee", ORGANISATION, "--purpose", "research",
            "--scope", scope, "--media", "still", "--use", "internal", "--until", "2999-01-01",
            "--evidence", "tests", "--lang", "zh", "--draft", "--json",
        ).json  # fmt: skip
        assert "同意书" in draft["text"]
        for so_far in ((), ("--draft",)):
            late = run(
                "grant", "issue", "--subject", enrolled["subject"], "--grantee", ORGANISATION, "--purpose",
                "research", "--scope", scope, "--media", "still", "--use", "internal", "--until", "2020-01-01",
                "--evidence", "tests", *so_far, "--json",
            )  # fmt: skip
            assert (late.code, late.json["error"]["code"]) == (2, "grant.past")
        assert len(run("grant", "list", "--json").json["grants"]) == len(grants)
        issued = run(
            "grant", "issue", "--subject", enrolled["subject"], "--grantee", ORGANISATION, "--purpose", "research",
            "--scope", scope, "--media", "still", "--use", "internal", "--until", "2999-01-01",
            "--evidence", "tests", "--json",
        ).json  # fmt: skip
        assert ORGANISATION in issued["text"]
        grants.append(issued["grant"])
    fuse = ["fuse", "--source", pictures[0], "--target", pictures[1], "-o", tmp_path / "o.jpg", "--json"]
    done = run(*fuse, "--purpose", "research", "--grant", *grants)
    assert done.code == 0, done.err
    assert sorted(done.json["grants"]) == sorted(grants)
    other = run(*fuse, "--purpose", "advertising", "--grant", *grants)
    assert (other.code, other.json["error"]["rules"]) == (1, ["grant.purpose"])
    swapped = run(
        "fuse", "--source", pictures[1], "--target", pictures[0], "-o", tmp_path / "o.jpg", "--json",
        "--purpose", "research", "--grant", *grants,
    )  # fmt: skip
    assert swapped.code == 1
    assert {"grant.scope_role", "face.match"} & set(swapped.json["error"]["rules"])
    assert run("grant", "revoke", grants[0], "--reason", "test").code == 0
    revoked = run(*fuse, "--purpose", "research", "--grant", *grants)
    assert (revoked.code, revoked.json["error"]["rules"]) == (1, ["grant.revoked"])
    receipt, status_list = tmp_path / "receipt.jwt", tmp_path / "list.jwt"
    assert run("grant", "receipt", grants[0], "-o", receipt).code == 0
    told = run("grant", "verify", receipt, "--json").json
    assert (told["grant"], told["withdrawn"]) == (grants[0], True)
    assert ORGANISATION in told["text"]
    assert run("grant", "status-list", "-o", status_list).code == 0
    looked_up = [run("grant", "verify", status_list, "--grant", grant, "--json").json for grant in grants]
    assert [each["status"] for each in looked_up] == ["invalid", "valid"]
    assert run("grant", "verify", pictures[0], "--json").json["error"]["code"] == "token.signature"
    assert set(run("grant", "key", "--json").json) == {"grant_key", "ledger_key"}
    listed = {row["grant"]: row["revoked"] for row in run("grant", "list", "--json").json["grants"]}
    assert listed[grants[0]]
    assert not listed[grants[1]]
    assert run("audit", "verify", "--json").json["ok"] is True


def test_doctor_tells_the_device_the_weights_and_the_ledger(run: Run, studio: Studio) -> None:
    told = run("doctor", "--json", home=studio.home_path).json
    assert told["device"].startswith(("cpu", "cuda"))
    assert {row["name"]: row["state"] for row in told["weights"]} == dict.fromkeys(
        (*REGISTRY, "detector"), "sound"
    )
    assert told["ledger"]["state"] == "sound"
    assert told["ledger"]["certificate until"] > "2026-01-01"
    assert told["libraries"]["c2pa-python"] == "0.38.1"


def test_doctor_without_a_home_says_what_to_do(run: Run) -> None:
    told = run("doctor", "--json")
    assert told.code == 0
    assert "home.missing" in told.json["ledger"]["state"]


def test_audit_shows_entries_checkpoint_and_proof(run: Run, studio: Studio) -> None:
    index = studio.people[0].receipt.index
    entries = run("audit", "entries", "--json", home=studio.home_path).json["entries"]
    proof = run("audit", "proof", str(index), "--json", home=studio.home_path).json
    assert entries[index]["body"]["asset_id"] == studio.people[0].asset_id
    assert proof["leaf_sha256"] == entries[index]["leaf_sha256"]
    assert "Facsimile" in run("audit", "checkpoint", home=studio.home_path).out or proof["checkpoint"]


def test_declared_folder_lets_its_faces_take_part(run: Run, studio: Studio, tmp_path: Path) -> None:
    folder = tmp_path / "declared"
    folder.mkdir()
    shifted = np.roll(read_picture(studio.people[0].path.read_bytes()).rgb, 3, axis=1)
    (folder / "a.png").write_bytes(encode_picture(shifted, "png"))
    declared = run(
        "faceset", "declare", folder, "--synthetic", "--evidence", "drawn by the tests", "--json",
        home=studio.home_path,
    )  # fmt: skip
    assert declared.json["files"] == 1
    fused = run(
        "fuse", "--source", folder / "a.png", "--target", studio.people[1].path, "-o", tmp_path / "o.webp",
        "--purpose", "test", "--json",
        home=studio.home_path,
    )  # fmt: skip
    assert fused.code == 0, fused.err


def test_the_report_is_one_page_without_scripts(run: Run, studio: Studio, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    run("check", studio.people[0].path, "--report", page, home=studio.home_path)
    text = page.read_text()
    assert studio.people[0].asset_id in text
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', text)
    refused = run("check", studio.people[0].path, "--report", tmp_path / "r.docx", home=studio.home_path)
    assert (refused.code, "check.report_format" in refused.err) == (2, True)
