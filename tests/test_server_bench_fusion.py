"""`bench fusion` as a long run: kept pair by pair, cut off, gone on with, and never mixed with another run."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_fusion_warp import BROWN, PALE, landmarks, picture
from typer.testing import CliRunner

from fusion.evaluate import Bench, Gallery, Pair, Portrait, Sample
from fusion.media import Format, encode_picture
from fusion.train.judge import judge_file
from fusion.warp import WarpResult
from provenance.errors import UsageError
from server.bench_journal import Journal
from server.cli import build_app
from server.commands.bench_fusion import measured

RUN = {"seed": 1, "code": "a"}
PAIR = Pair("a.png", "b.png")


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    Journal(path, RUN).add(
        "warp", PAIR, {"x": 0.25, "none": float("nan"), "feature": np.array([1, 2.5], np.float32)}
    )
    found = Journal(path, RUN).get("warp", PAIR)
    assert found is not None
    assert found["x"] == 0.25
    assert np.isnan(found["none"])
    assert np.asarray(found["feature"]).tolist() == [1, 2.5]
    assert Journal(path, RUN).get("paste", PAIR) is None


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    journal = Journal(path, RUN)
    journal.add("warp", PAIR, {"x": 1.0})
    journal.add("paste", PAIR, {"x": 2.0})
    path.write_bytes(path.read_bytes()[:-9])
    again = Journal(path, RUN)
    assert again.get("warp", PAIR) == {"x": 1.0}
    assert again.get("paste", PAIR) is None
    again.add("paste", PAIR, {"x": 3.0})
    assert Journal(path, RUN).get("paste", PAIR) == {"x": 3.0}


def test_rows_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    Journal(tmp_path / "pairs.jsonl", RUN)
    with pytest.raises(UsageError) as caught:
        Journal(tmp_path / "pairs.jsonl", {**RUN, "code": "b"})
    assert caught.value.code == "bench.other_run"


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    points = landmarks(1, (160, 160), 70)
    people = {name: Portrait(name, picture(points, (320, 320), PALE, 1), points) for name in "abc"}
    bench = Bench(people, {"ours": lambda *_: np.array([1, 0], np.float32)}, lambda _, near: near)
    gallery = Gallery.of(people.values(), bench.recognisers)
    done: list[int] = []

    def engine(target_rgb: np.ndarray, *_: object, identity: np.ndarray) -> WarpResult:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        inside = np.ones((320, 320), np.float32)
        return WarpResult(target_rgb, inside, (0, 0, 320, 320), inside > 0)

    def stream(tasks: list[tuple[str, Pair]]) -> Iterator[tuple[str, Pair, Sample]]:
        return ((way, pair, bench.measure_pair(engine, pair, gallery)) for way, pair in tasks)

    pairs = [Pair("a", "b"), Pair("b", "c"), Pair("c", "a")]
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(measured(bench, ["mine"], pairs, Journal(path, RUN), {}, stream))
    assert len(path.read_text().splitlines()) == 3
    done.clear()
    (rows,) = measured(bench, ["mine"], pairs, Journal(path, RUN), {}, stream)
    assert len(done) == 1
    assert {row["n"] for row in rows if row["case"] == "mine"} <= {1, 2, 3}
    assert next(row for row in rows if row["metric"] == "hf_corr" and row["case"] == "mine")["n"] == 3


def labelled_set(folder: Path, count: int) -> Path:
    (folder / "portraits").mkdir(parents=True)
    points = []
    with (folder / "portraits.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", "group_label"])
        for k in range(count):
            points.append(landmarks(k, (160, 160), 70))
            rgb = picture(points[-1], (320, 320), (PALE, BROWN)[k % 2], k)
            (folder / "portraits" / f"p{k}.png").write_bytes(encode_picture(rgb, Format.PNG))
            table.writerow([f"p{k}.png", "test", ("x", "y")[k % 2]])
    names = np.array([f"p{k}.png" for k in range(count)])
    np.savez(folder / "portraits_landmarks478.npz", name=names, points=np.stack(points))
    return folder


def untimed(rows: list[dict[str, Any]]) -> list[tuple[str, str, int, Any]]:
    """What two runs must agree on: no time, no memory; a network's sums may differ in their last digits."""
    return [
        (row["case"], row["metric"], row["n"], pytest.approx(row["value"], abs=2e-3))
        for row in rows
        if not row["metric"].startswith(("ms_", "peak"))
    ]


def test_the_command_writes_tables_and_reads_its_gallery_again(tmp_path: Path) -> None:
    data, out = labelled_set(tmp_path / "set", 4), tmp_path / "out"
    command = [
        "bench",
        "fusion",
        "--data",
        str(data),
        "--pairs",
        "4",
        "--engine",
        "default",
        "--out",
        str(out),
    ]
    first = CliRunner().invoke(build_app(), [*command, "--json"])
    assert first.exit_code == 0, first.output
    made = (out / "gallery.npz").stat().st_mtime_ns
    lines = (out / "pairs.jsonl").read_text().splitlines()
    assert len(lines) == 5
    second = CliRunner().invoke(build_app(), [*command, "--json"])
    assert second.exit_code == 0, second.output
    assert (out / "gallery.npz").stat().st_mtime_ns == made
    assert (out / "pairs.jsonl").read_text().splitlines() == lines
    payload = json.loads((out / "bench.json").read_text())
    assert json.loads(second.stdout) == payload
    assert payload["gallery"] == 4
    assert payload["in_training_loss"] == {"default": ["ours", "teacher"]}
    assert "| ours | default |" in (out / "bench.md").read_text()
    dlib = "none" if judge_file() is not None else "not here: `pip install facsimile[judge]`"
    assert f"| dlib | {dlib} |" in (out / "bench.md").read_text()
    assert {"default", "group_x", "pose_0_10", "process"} <= {row["case"] for row in payload["rows"]}
    crowd = CliRunner().invoke(
        build_app(), [*command[:-1], str(tmp_path / "by two"), "--json", "--jobs", "2"]
    )
    assert crowd.exit_code == 0, crowd.output
    assert untimed(json.loads(crowd.stdout)["rows"]) == untimed(payload["rows"])
    refused = CliRunner().invoke(build_app(), [*command, "--seed", "5"])
    assert "bench.other_run" in refused.output
