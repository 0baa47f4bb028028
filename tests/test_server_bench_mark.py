"""`bench mark` as a long run: every part has its items, a run goes on where it was cut off, none are mixed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fusion.media import Format, encode_picture
from provenance.mark_bench import Found, drawn_picture
from server.bench_mark_parts import PARTS, Gallery, h264_crf28
from server.bench_pictures import Shown, listed
from server.cli import build_app


def run(*arguments: str | Path) -> tuple[int, str]:
    ended = CliRunner().invoke(build_app(), ["bench", "mark", *(str(each) for each in arguments)])
    return ended.exit_code, ended.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small pictures."""
    made = tmp_path / "photos"
    made.mkdir()
    for k in range(3):
        (made / f"{k}.png").write_bytes(encode_picture(drawn_picture(k, 160, 160), Format.PNG))
    return made


def test_groups_take_turns_and_are_taken_evenly(folder: Path) -> None:
    shown = listed([folder], None, 2, 4, 1, 7)
    assert [each.group for each in shown] == [
        "drawn",
        "photos",
        "drawn",
        "nobodies",
        "drawn",
        "photos",
        "drawn",
    ]
    assert {each.name for each in shown} >= {
        "photos/0.png",
        "photos/1.png",
        "drawn/7",
        "drawn/10",
        "nobodies/7-0",
    }
    assert shown[1].read().shape == (160, 160, 3)
    assert shown[1].seed(0) == shown[1].seed(0) != shown[0].seed(0)


def test_every_part_names_its_items_once() -> None:
    pictures = [Shown(f"drawn/{k}", lambda: drawn_picture(0, 128, 128)) for k in range(70)]
    for part, items in PARTS.items():
        names = [name for name, _ in items(Gallery(pictures, 0, 20_000, 5))]
        assert len(names) == len(set(names)), part
    wanted = {"pictures": 70, "large": 12, "video": 60, "unmarked": 50, "adversaries": 20}
    found = {part: len(list(PARTS[part](Gallery(pictures, 0, 20_000, 5)))) for part in wanted}
    assert found == wanted


def test_a_run_goes_on_where_it_was_cut_off(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def pictures(shown: Gallery) -> Iterator[tuple[str, object]]:
        def work(name: str) -> list[Found]:
            done.append(name)
            return [{"clean": {"id_recovered": float(len(done) != 2)}}]

        for each in shown.pictures:
            yield each.name, lambda name=each.name: work(name)

    monkeypatch.setitem(PARTS, "pictures", pictures)
    command = (
        "--images",
        folder,
        "--drawn",
        "1",
        "--nobodies",
        "0",
        "--part",
        "pictures",
        "--out",
        tmp_path / "out",
    )
    assert run(*command)[0] == 0
    assert len(done) == 4
    journal = tmp_path / "out" / "measured.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    assert run(*command)[0] == 0
    assert len(done) == 5
    assert done[4] == done[3]
    payload = json.loads((tmp_path / "out" / "bench.json").read_text())
    rows = {row["case"]: row for row in payload["rows"]}
    assert (rows["clean"]["value"], rows["clean"]["n"]) == (0.75, 4)
    assert {"photos/clean", "drawn/clean"} <= set(rows)
    assert payload["missing"]["pictures"] == 0 < payload["missing"]["unmarked"]
    code, output = run(*command, "--seed", "1")
    assert code == 2
    assert "bench.other_run" in output


def test_a_real_part_of_a_run(tmp_path: Path) -> None:
    code, _ = run("--drawn", "2", "--nobodies", "0", "--part", "large", "--out", tmp_path, "--json")
    assert code == 0
    rows = {(r["case"], r["metric"]): r for r in json.loads((tmp_path / "bench.json").read_text())["rows"]}
    assert rows["1080p_clean", "id_recovered"]["value"] == 1.0
    assert rows["1080p_quality", "embed_cpu_ms"]["n"] == 2
    assert rows["1080p_unmarked", "extract_cpu_ms"]["value"] > 0


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    code, output = run("--part", "pixels", "--out", tmp_path)
    assert code == 2
    assert "bench.part" in output


def test_the_codec_gives_back_as_many_frames() -> None:
    frames = [drawn_picture(k, 128, 128) for k in range(3)]
    seen = h264_crf28(frames)
    assert [each.shape for each in seen] == [(128, 128, 3)] * 3
