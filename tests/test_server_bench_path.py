"""`bench fuse`: the whole path of one picture is measured by stage, with medians that can be checked."""

from pathlib import Path

import numpy as np

from fusion.media import read_picture
from fusion.stopwatch import Stopwatch
from server.bench_path import measure_path, path_rows, scene_1080p

STAGES = ["read", "perceive", "consent", "swap", "mark", "encode", "sign", "record", "release", "whole"]


def test_rows_are_medians_of_wall_and_cpu() -> None:
    watches = [Stopwatch() for _ in range(3)]
    for watch, taken in zip(watches, (5.0, 9.0, 7.0), strict=True):
        watch.timings_ms["swap"], watch.cpu_ms["swap"] = taken, taken / 2
    wall, cpu = path_rows("film_1080p", watches)
    assert (wall.case, wall.metric, wall.value, wall.n) == ("film_1080p", "ms_swap", 7.0, 3)
    assert (cpu.metric, cpu.value) == ("cpu_ms_swap", 3.5)
    assert wall.ci95 is not None
    assert wall.ci95[0] <= 7 <= wall.ci95[1]


def test_a_stage_is_timed_by_both_clocks() -> None:
    watch = Stopwatch()
    with watch.stage("work"):
        np.linalg.svd(np.ones((200, 200)))
    assert watch.cpu_ms["work"] > 0
    assert watch.timings_ms["work"] > 0


def test_the_whole_path_is_measured_stage_by_stage(tmp_path: Path) -> None:
    rows = measure_path(tmp_path, ["mobile"], 1)
    assert [row["metric"] for row in rows] == [f"{kind}_{s}" for kind in ("ms", "cpu_ms") for s in STAGES]
    by_metric = {row["metric"]: row["value"] for row in rows}
    stages = sum(by_metric[f"ms_{stage}"] for stage in STAGES[:-1])
    assert 0 < stages <= by_metric["ms_whole"] + 1
    assert {row["case"] for row in rows} == {"mobile_1080p"}
    face = next((tmp_path / "people").glob("*.png")).read_bytes()
    assert read_picture(scene_1080p(face)).rgb.shape == (1080, 1920, 3)
    assert read_picture((tmp_path / "out.jpg").read_bytes()).rgb.shape == (1080, 1920, 3)
