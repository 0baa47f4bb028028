"""`bench video`: its rows on a small clip, and what jitter and drift measure."""

from pathlib import Path

import numpy as np
import pytest
from clips import clip, filmed
from conftest import Studio

from fusion.media import read_picture
from server.bench_video import EACH_FRAME, id_drift, jitter_px, measure_video

WHOLE = ["read", "consent", "read_back", "sign", "record", "release"]


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    rows = measure_video(tmp_path_factory.mktemp("bench"), ["mobile"], 8, (320, 256))
    assert {row["case"] for row in rows} == {"mobile_256p_cpu"}
    return {row["metric"]: row["value"] for row in rows}


def test_every_stage_and_frame_is_measured(values: dict[str, float]) -> None:
    stages = {*EACH_FRAME, *WHOLE}
    assert {f"{kind}_{stage}" for kind in ("ms", "cpu_ms") for stage in stages} <= set(values)
    a_frame = sum(values[f"ms_{stage}"] for stage in EACH_FRAME)
    assert 0 < values["fps"] < 1e3 / a_frame
    assert 0.5 * a_frame < values["p95_ms"]
    assert values["peak_mb"] > 100


def test_points_of_a_moving_head_are_steadier_than_they_were_found(values: dict[str, float]) -> None:
    assert 0 < values["jitter_px"] < 0.8 * values["jitter_unsteadied_px"]
    assert values["jitter_px"] < 0.5
    assert 0 <= values["id_drift_target"] < 0.1
    assert 0 <= values["id_drift"] < 0.1


def test_jitter_is_what_the_known_motion_does_not_explain() -> None:
    rng = np.random.default_rng(0)
    face = rng.uniform(0, 200, (478, 2))
    turns = [np.array([[c, -s, 9.0 * k], [s, c, -k]]) for k in range(6) for c, s in [(np.cos(k), np.sin(k))]]
    moves = [np.asarray(2 * turn, np.float32) for turn in turns]
    exact = np.stack([face @ move[:, :2].T + move[:, 2] for move in moves]).astype(np.float32)
    assert jitter_px(exact, moves) < 1e-3
    shaken = exact + rng.normal(0, 0.5, exact.shape).astype(np.float32)
    assert jitter_px(shaken, moves) == pytest.approx(0.5 * 2, rel=0.05)  # two axes, two frames a step


def test_drift_tells_one_person_from_two(studio: Studio, tmp_path: Path) -> None:
    one, other = (read_picture(person.path.read_bytes()).rgb for person in studio.people[1:3])
    same = clip(tmp_path / "same.mp4", [filmed(one, number) for number in range(4)])
    mixed = clip(tmp_path / "mixed.mp4", [filmed((one, other)[number % 2], number) for number in range(4)])
    assert id_drift(mixed, studio.perception) > id_drift(same, studio.perception) + 0.05
