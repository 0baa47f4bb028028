"""Clips through H.264, faces drawn whole and photographs in the detector's bench, on drawn people."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from detector import statistics
from detector.bench import draw_people
from detector.beyond import CLIPS, LOOKS, band_rows, clip_rows, clip_samples, draw_curve, photo_samples
from detector.cases import make_cases
from detector.clips import CLIP_PX, film, redeliver
from detector.pairs import ENGINES, Person
from detector.samples import Sample
from detector.score import Calibration, Scorer, load_scorer
from fusion.face import Face, UInt8Array
from server.cli import build_app

RECORD = Calibration(1.0, 0.0, -1.0, 1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return draw_people(2, seed=9)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load_scorer()


def look(kind: str, person: str, raw: float, delivery: str) -> Sample:
    altered = kind.startswith("own")
    return Sample(kind, person, person, delivery, "", altered, raw, float("nan"), 5.0, 0.1, 20.0, 18.0)


def test_a_filmed_face_lies_in_its_box(people: list[Person]) -> None:
    person = people[0]
    marked = person.rgb // 4
    x0, y0, x1, y1 = person.box_xyxy.astype(int)
    marked[y0:y1, x0:x1] = 250
    shown = film(marked, np.random.default_rng(1))
    places = []
    for frame in (shown[0], shown[-1]):
        assert frame.rgb.shape == (CLIP_PX, CLIP_PX, 3)
        ys, xs = np.nonzero(frame.rgb.min(2) > 200)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        np.testing.assert_allclose(frame.box(person.box_xyxy), found, atol=3)
        places.append(found)
    assert np.abs(places[0] - places[1]).max() > 3
    again = film(marked, np.random.default_rng(1))
    np.testing.assert_array_equal(again[5].rgb, shown[5].rgb)


def test_a_higher_rate_factor_loses_more(people: list[Person]) -> None:
    frames = [each.rgb for each in film(people[0].rgb, np.random.default_rng(2), frames=6)]
    errors = []
    for crf in (23, 28, 40):
        back = redeliver(frames, crf)
        assert len(back) == 6
        errors.append(
            float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(frames, back, strict=True)]))
        )
    assert 0.3 < errors[0] < errors[1] < errors[2] < 12


def test_clips_are_scored_by_frame_and_by_clip(people: list[Person], scorer: Scorer) -> None:
    cases = list(make_cases(people, {"warp": ENGINES["warp"]}, 0, ("real", "own")))
    samples = list(clip_samples(cases[:2], scorer))
    assert len(samples) == 2 * len(CLIPS) * len(LOOKS)
    assert {s.delivery for s in samples} == set(CLIPS)
    assert [s.altered for s in samples if s.kind == "real"] == [False] * (len(samples) // 2)
    assert np.isfinite([s.raw for s in samples]).all()
    assert len({round(s.raw, 6) for s in samples}) > len(CLIPS)


def test_clip_rows_of_known_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ROUNDS", 20)
    samples = []
    for person in ("a", "b", "c"):
        for kind, middle in (("real", -3.0), ("own_warp", 4.0)):
            for step in range(len(LOOKS)):
                off = 5.0 if (person, kind, step) == ("a", "own_warp", 0) else 0.0
                samples.append(look(kind, person, middle - off, "clip_crf23"))
    rows = {row.metric: row for row in clip_rows(samples, RECORD)}
    assert rows["auc_frame"].n == 6 * len(LOOKS)
    assert rows["auc_clip"].n == 6
    assert rows["auc_clip"].value == 1.0
    assert rows["tpr_shipped_frame"].value == pytest.approx(11 / 12)
    assert rows["tpr_shipped_clip"].value == pytest.approx(2 / 3)
    assert rows["fpr_shipped_clip"].value == 0.0
    assert rows["one_band"].value == pytest.approx(5 / 6)


def test_the_curve_shows_swapped_above_untouched() -> None:
    samples = [look("real", "a", -3.0, "clip_raw") for _ in LOOKS]
    samples += [look("own_warp", "a", 3.0, "clip_raw") for _ in LOOKS]
    circles = [e for e in ET.fromstring(draw_curve(samples, RECORD)).iter() if e.tag.endswith("circle")]
    heights = [float(circle.attrib["cy"]) for circle in circles]
    assert len(heights) == 2 * len(LOOKS)
    assert min(heights[: len(LOOKS)]) > max(heights[len(LOOKS) :])


def test_only_faces_large_enough_are_looked_at_in_photographs(people: list[Person], scorer: Scorer) -> None:
    small = np.array([10, 10, 40, 40], np.float32)

    def find(rgb: UInt8Array) -> list[Face]:
        return [Face(box, np.zeros((5, 2), np.float32), 1.0) for box in (people[0].box_xyxy, small)]

    samples = list(photo_samples([("p.jpg", people[0].rgb)], find, scorer))
    assert [(s.kind, s.person, s.altered) for s in samples] == [("photo", "p.jpg", False)] * 2


def test_bands_sum_up_and_gates_withhold() -> None:
    samples = [look("drawn", "a", -2.0, "clean"), look("drawn", "b", 5.0, "clean")]
    gated = replace(look("drawn", "c", 5.0, "clean"), flat=0.95)
    record = replace(RECORD, max_flat=0.9)
    rows = {row.metric: row.value for row in band_rows("drawn", [*samples, gated], record)}
    assert sum(rows.values()) == pytest.approx(1)
    assert (
        rows["band_strong"] == rows["band_none_found"] == rows["band_not_applicable"] == pytest.approx(1 / 3)
    )


def test_cases_of_the_bench_keep_each_others_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ROUNDS", 20)
    monkeypatch.setattr("server.commands.detector.QUICK_PEOPLE", 2)
    out = tmp_path / "bench"
    other = {"case": "own_clean", "metric": "auc_frame", "value": 0.5, "unit": "share", "n": 3, "ci95": None}
    stale = {**other, "case": "drawn", "metric": "band_weak", "value": 9.0}
    out.mkdir()
    (out / "bench.json").write_text(json.dumps({"suite": "detector", "rows": [other, stale]}))
    run = CliRunner().invoke(
        build_app(), ["bench", "detector", "--quick", "--case", "drawn", "--out", str(out), "--json"]
    )
    assert run.exit_code == 0, run.output
    rows = json.loads((out / "bench.json").read_text())["rows"]
    assert other in rows
    assert stale not in rows
    assert {row["case"] for row in rows} == {"own_clean", "drawn", "drawn_q60_r75"}
    assert len((out / "samples_drawn.jsonl").read_text().splitlines()) == 4
    for wrong, code in ((["--case", "videos"], "bench.case"), (["--case", "photos"], "bench.photos")):
        refused = CliRunner().invoke(build_app(), ["bench", "detector", *wrong, "--out", str(out)])
        assert refused.exit_code == 2
        assert code in refused.stderr
