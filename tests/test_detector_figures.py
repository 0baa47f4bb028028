"""Statistics, calibration, report card, leak gates, foreign sets and plots, on numbers whose answers are known."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from detector import statistics
from detector.calibrate import calibrate, fit_temperature
from detector.cases import CLEAN, DELIVERIES, Q60_R75, Case
from detector.deepfakebench import is_real, read_index
from detector.evaluate import BARS, judge_bars, report_card
from detector.foreign import ForeignFrame, foreign_rows
from detector.held_out import FIRST_HELD_OUT, HELD_OUT, held_out_of
from detector.plots import draw_sweep
from detector.probes import box_gate, file_gate, identity_gate, probe
from detector.samples import Sample, mask_iou, read_samples, write_samples
from detector.score import Calibration
from fusion.face import Face, UInt8Array
from provenance.errors import InputError, WeightsError


def sample(
    kind: str, person: str, raw: float, delivery: str = CLEAN, iou: float = float("nan"), group: str = ""
) -> Sample:
    altered = not kind.startswith(("real", "identity"))
    return Sample(kind, person, person, delivery, group, altered, raw, iou, 5.0, 0.1, 20.0, 18.0)


def many(rng: np.random.Generator, people: int = 120) -> list[Sample]:
    """Reals around 0, swaps around 4, spread 1, every delivery of the bars."""
    made = []
    for index in range(people):
        name, group = f"p{index}", f"group{index % 2}"
        for delivery in DELIVERIES:
            made += [
                sample("real", name, float(rng.normal(0, 1)), delivery, group=group),
                sample("identity_pass", name, float(rng.normal(0, 1)), delivery, group=group),
                sample("own_warp", name, float(rng.normal(4, 1)), delivery, 0.7, group),
            ]
    return made


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rough intervals are enough here."""
    monkeypatch.setattr(statistics, "ROUNDS", 40)


def test_auc_agrees_with_sklearn_and_halves_ties() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 200).astype(float), rng.integers(0, 2, 200).astype(float)
    assert statistics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert statistics.auc(np.ones(6), np.array([0.0, 1, 0, 1, 0, 1])) == 0.5
    assert np.isnan(statistics.auc(np.ones(3), np.zeros(3)))


def test_rates_of_a_known_ranking() -> None:
    scores, labels = np.array([0.0, 1, 2, 3, 4, 5, 6, 7]), np.array([0.0, 0, 0, 1, 0, 1, 1, 1])
    assert statistics.hit_rate_at(scores, labels, 0.0) == 0.75
    assert statistics.hit_rate_at(scores, labels, 0.25) == 1.0
    assert statistics.equal_error_rate(scores, labels) == pytest.approx(0.25)
    assert statistics.brier(np.array([0.0, 1.0]), np.array([0.0, 0.0])) == 0.5
    assert (
        statistics.expected_calibration_error(np.full(100, 0.7), (np.arange(100) < 70).astype(float), 1)
        < 1e-9
    )
    assert statistics.expected_calibration_error(
        np.full(100, 0.9), (np.arange(100) < 70).astype(float), 1
    ) == pytest.approx(0.2)


def test_conformal_thresholds_hold_on_new_scores() -> None:
    rng = np.random.default_rng(1)
    limits = [statistics.conformal_upper(rng.normal(size=199), 0.01) for _ in range(300)]
    exceeded = np.mean([rng.normal(size=2000) >= limit for limit in limits])
    assert exceeded <= 0.0115
    assert statistics.conformal_upper(np.zeros(50), 0.01) == np.inf
    assert statistics.conformal_lower(np.arange(99.0), 0.02) < 1.0


def test_intervals_follow_the_clusters() -> None:
    values = np.repeat(np.random.default_rng(2).normal(size=20), 50)
    clustered = statistics.clustered_interval(
        lambda i: float(values[i].mean()), [str(k // 50) for k in range(1000)]
    )
    loose = statistics.clustered_interval(lambda i: float(values[i].mean()), [str(k) for k in range(1000)])
    assert clustered is not None
    assert loose is not None
    assert clustered[1] - clustered[0] > 4 * (loose[1] - loose[0])


def test_temperature_is_found_again() -> None:
    rng = np.random.default_rng(3)
    logit = rng.normal(0, 3, 20000)
    label = rng.random(20000) < 1 / (1 + np.exp(-logit))
    raw = 2.5 * logit + 4
    temperature, offset = fit_temperature(raw[~label], raw[label])
    assert temperature == pytest.approx(2.5, rel=0.06)
    assert offset == pytest.approx(4, abs=0.25)


def test_calibration_keeps_its_promise_on_new_people() -> None:
    record = calibrate(many(np.random.default_rng(4)))
    fresh = many(np.random.default_rng(5), 250)
    rows = {(r.case, r.metric): r for r in report_card(fresh, record)}
    assert record.clear <= record.weak <= record.moderate <= record.strong
    assert rows["reals_all", "fpr_shipped"].value <= 0.01
    assert rows["own_clean", "auc_frame"].value > 0.99
    assert rows["own_all", "ece"].value < 0.05
    assert rows["own_all", "band_none_found"].value <= 0.08
    assert rows["own_clean", "mask_iou"].value == pytest.approx(0.7)
    assert {case for case, _ in rows if case.startswith("group_")} == {"group_group0", "group_group1"}


def test_a_blind_detector_mostly_abstains_and_never_alarms_much() -> None:
    rng = np.random.default_rng(6)
    blind = [replace(s, raw=float(rng.normal())) for s in many(rng)]
    record = calibrate(blind)
    fresh = [replace(s, raw=float(rng.normal())) for s in many(rng, 200)]
    rows = {(r.case, r.metric): r.value for r in report_card(fresh, record)}
    assert rows["reals_all", "fpr_shipped"] <= 0.01
    assert rows["own_all", "band_inconclusive"] > 0.85
    assert rows["own_all", "band_none_found"] <= 0.08


def test_too_few_people_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        calibrate(many(np.random.default_rng(0), 5))
    assert caught.value.code == "calibrate.samples"


def test_no_alarm_seen_is_not_called_certain() -> None:
    record = Calibration(1.0, 0.0, -9, 90, 91, 92)
    rows = {(r.case, r.metric): r for r in report_card(many(np.random.default_rng(7), 60), record)}
    assert rows["identity_pass", "fpr_shipped"].value == 0
    assert rows["identity_pass", "fpr_shipped"].ci95 == (0.0, pytest.approx(0.05))


def test_consistency_counts_variants_that_leave_their_band() -> None:
    record = Calibration(1.0, 0.0, -1.0, 1.0, 2.0, 3.0)
    steady = [sample("real", "a", -2.0, d) for d in DELIVERIES]
    torn = [sample("real", "b", -2.0 if d != Q60_R75 else 5.0, d) for d in DELIVERIES]
    unsure = [sample("real", "c", 0.0 if d != CLEAN else -2.0, d) for d in DELIVERIES]
    rows = {(r.case, r.metric): r.value for r in report_card([*steady, *torn, *unsure], record)}
    assert rows["all", "consistency"] == pytest.approx(1 - 1 / (3 * len(DELIVERIES)))


def test_the_check_abstains_where_its_copies_say_another_thing() -> None:
    record = Calibration(1.0, 0.0, -1.0, 1.0, 2.0, 3.0)
    seen_through = [  # one delivery leaves its band, and so does a copy of it
        replace(sample("own_warp", "a", 3.1 if d == Q60_R75 else 1.5, d), copies=(1.2, 1.2, 1.2))
        for d in DELIVERIES
    ]
    missed = [  # one delivery leaves its band with all of its copies
        replace(
            sample("own_warp", "b", 3.5 if d == CLEAN else 1.5, d), copies=(3.5 if d == CLEAN else 1.5,) * 3
        )
        for d in DELIVERIES
    ]
    reals = [sample("real", person, -2.0) for person in "ab"]
    rows = {(r.case, r.metric): r for r in report_card([*seen_through, *missed, *reals], record)}
    count = 2 * len(DELIVERIES)
    assert rows["all", "consistency"].value == pytest.approx(1 - 2 / (count + 2))
    assert rows["all", "consistency_check"].value == pytest.approx(1 - 1 / count)
    assert rows["own_all", "check_inconclusive"].value == pytest.approx(1 / count)
    assert rows["own_all", "check_weak"].value == pytest.approx(1 - 2 / count)


def test_bars_without_a_measurement_are_not_met() -> None:
    judged = judge_bars([], HELD_OUT)
    assert {bar.case for bar, _, _ in judged} >= {bar.case for bar in BARS} | {
        "leave_collage",
        "leave_pyramid",
    }
    assert not any(met for _, _, met in judged)


def test_a_row_says_leave_only_of_what_the_network_never_saw() -> None:
    samples = [
        made
        for i in range(8)
        for made in (
            sample("real", f"p{i}", 0.1 * i),
            sample("sbi_poisson", f"p{i}", 0.3 + 0.1 * i, iou=0.5),
            sample("engine_paste", f"p{i}", 2.0, iou=0.5),
            sample("engine_collage", f"p{i}", 1.0, iou=0.5),
        )
    ]
    record = Calibration(1.0, 0.0, -1.0, 1.0, 2.0, 3.0)
    before = {row.case for row in report_card(samples, record)}
    after = {row.case for row in report_card(samples, record, HELD_OUT)}
    assert {"leave_poisson", "leave_paste", "leave_collage"} <= before
    assert {"sbi_poisson", "engine_paste", "leave_collage"} <= after
    assert not {"leave_poisson", "leave_paste"} & after


def test_a_header_says_what_was_held_out() -> None:
    assert held_out_of({"config": {}}) == FIRST_HELD_OUT
    assert held_out_of({"held_out": json.loads(json.dumps(HELD_OUT.as_dict()))}) == HELD_OUT
    for wrong in ({"engines": ["paste"]}, ["paste"], {**HELD_OUT.as_dict(), "more": []}):
        with pytest.raises(WeightsError) as caught:
            held_out_of({"held_out": wrong})
        assert caught.value.code == "weights.mismatch"


def test_samples_are_kept_line_by_line(tmp_path: Path) -> None:
    samples = [sample("own_warp", "a", 1.25, iou=0.5), sample("real", "a", -1.0)]
    samples[0] = replace(samples[0], copies=(1.0, 2.0))
    write_samples(tmp_path / "s.jsonl", samples)
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 2
    again = read_samples(tmp_path / "s.jsonl")
    assert again[0] == samples[0]
    assert np.isnan(again[1].iou)


def test_mask_iou_of_known_squares() -> None:
    truth = np.zeros((64, 64), np.float32)
    truth[:32] = 1
    found = np.zeros((16, 16), np.float32)
    found[4:12] = 1
    assert mask_iou(found, truth) == pytest.approx(4 / 12)


def case(person: str, altered: bool, rgb: UInt8Array, source: str = "") -> Case:
    share = np.ones(rgb.shape[:2], np.float32) if altered else None
    return Case(
        "own_warp" if altered else "real",
        person,
        source or person,
        rgb,
        np.array([20, 20, 100, 100], np.float32),
        share,
    )


@pytest.fixture(scope="module")
def pictures() -> list[UInt8Array]:
    rng = np.random.default_rng(8)
    return [
        cv2.resize(
            rng.integers(0, 256, (16, 16, 3)).astype(np.uint8), (160, 160), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(30)
    ]


def test_the_file_gate_catches_a_label_in_the_format(pictures: list[UInt8Array]) -> None:
    reals = [case(f"p{i}", False, p) for i, p in enumerate(pictures)]
    honest = [case(f"p{i}", True, p) for i, p in enumerate(pictures)]
    smaller = [case(f"p{i}", True, p[:152, :152]) for i, p in enumerate(pictures)]
    assert file_gate(reals, honest).held
    leaking = file_gate(reals, smaller)
    assert leaking.value > 0.9
    assert not leaking.held


def test_the_box_gate_catches_a_shifted_face(pictures: list[UInt8Array]) -> None:
    reals = [case(f"p{i}", False, p) for i, p in enumerate(pictures)]
    fakes = [case(f"p{i}", True, p.copy()) for i, p in enumerate(pictures)]
    shown = {id(c.rgb): c.altered for c in (*reals, *fakes)}

    def leaky(rgb: UInt8Array) -> list[Face]:
        size = 70.0 if shown[id(rgb)] else 80.0
        return [Face(np.array([20, 20, 20 + size, 100], np.float32), np.zeros((5, 2), np.float32), 1.0)]

    assert box_gate(reals, fakes, lambda rgb: []).held
    assert not box_gate(reals, fakes, leaky).held


def test_the_identity_gate_needs_sources_and_targets_alike(pictures: list[UInt8Array]) -> None:
    from detector.pairs import Person

    rng = np.random.default_rng(9)
    people = [Person(f"p{i}", p, np.zeros((478, 2), np.float32)) for i, p in enumerate(pictures)]
    kinds = {person.name: rng.normal(size=8).astype(np.float32) for person in people}
    ring = [case(f"p{i}", True, p, f"p{(i + 1) % 30}") for i, p in enumerate(pictures)]
    assert identity_gate(people, ring, lambda person: kinds[person.name]).held
    for index in range(15, 30):
        kinds[f"p{index}"] = kinds[f"p{index}"] + 6
    apart = [case(f"p{i}", True, pictures[i], f"p{15 + i}") for i in range(15)]
    assert not identity_gate(people, apart, lambda person: kinds[person.name]).held


def test_a_probe_of_noise_finds_nothing() -> None:
    rng = np.random.default_rng(10)
    value, interval = probe(
        rng.normal(size=(400, 5)).astype(np.float32), np.arange(400) % 2.0, [str(i // 2) for i in range(400)]
    )
    assert abs(value - 0.5) < 0.1
    assert interval is not None
    assert interval[0] < 0.5 < interval[1] + 0.02


def write_index(folder: Path, content: object) -> Path:
    path = folder / "Mini.json"
    path.write_text(json.dumps(content))
    return path


def test_deepfakebench_layout_with_and_without_levels(tmp_path: Path) -> None:
    frames = [f"Mini\\real\\frames\\000\\{i:03d}.png" for i in range(40)]
    content = {
        "Mini": {
            "Mini-real": {"test": {"c23": {"000": {"label": "Mini-real", "frames": frames}}, "c40": {}}},
            "Mini-FS": {"test": {"000_003": {"label": "Mini-FS", "frames": ["Mini/fs/0.png"]}}, "train": {}},
        }
    }
    videos = read_index(write_index(tmp_path, content), tmp_path, compression=None)
    assert [(v.label, v.altered, len(v.frames)) for v in videos] == [
        ("Mini-real", False, 32),
        ("Mini-FS", True, 1),
    ]
    assert videos[0].frames[0] == tmp_path / "Mini" / "real" / "frames" / "000" / "000.png"
    assert videos[0].frames[-1].name == "039.png"
    assert len(read_index(write_index(tmp_path, content), tmp_path, compression="c40")) == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([], "foreign.index"),
        ({"Mini": {"Mini-real": {"test": {}}}}, "foreign.index"),
        ({"Mini": {"Mini-real": {"test": {"000": {"label": "x"}}}}}, "foreign.index"),
        ({"Mini": {"Mini-real": {"test": {"000": {"frames": ["../../etc/passwd"]}}}}}, "foreign.path"),
        ({"Mini": {"Mini-real": {"test": {"000": {"frames": ["C:\\x.png"]}}}}}, "foreign.path"),
        ({"Mini": 3}, "foreign.index"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, content: object, code: str) -> None:
    with pytest.raises(InputError) as caught:
        read_index(write_index(tmp_path, content), tmp_path)
    assert caught.value.code == code


def test_labels_of_the_known_sets() -> None:
    assert all(
        is_real(name) for name in ("FF-real", "CelebDFv2_real", "DFDC_Real", "YouTube-real", "original")
    )
    assert not any(is_real(name) for name in ("FF-DF", "CelebDFv2_fake", "DFDC_Fake", "FF-F2F"))


def test_foreign_rows_per_frame_and_per_video() -> None:
    frames = [
        ForeignFrame("Mini", "real", f"r{v}", False, f"{v}/{i}", -1.0 + 0.1 * i, "none found")
        for v in range(4)
        for i in range(5)
    ]
    frames += [
        ForeignFrame("Mini", "fs", f"f{v}", True, f"{v}/{i}", -0.8 + 0.5 * i, "weak")
        for v in range(4)
        for i in range(5)
    ]
    frames.append(ForeignFrame("Mini", "fs", "f0", True, "none", float("nan"), "not applicable"))
    rows = {row.metric: row for row in foreign_rows(frames, shipped=2.0)}
    assert rows["applicable"].value == pytest.approx(40 / 41)
    assert rows["auc_video"].value == 1.0
    assert rows["auc_video"].n == 8
    assert 0.5 < rows["auc_frame"].value < 1.0
    assert rows["fpr_shipped_frame"].value == 0.0


def test_a_sweep_is_well_formed_and_leaves_gaps() -> None:
    svg = draw_sweep(
        "A <title> & more", ["a", "b", "c"], {"x": [0.1, float("nan"), 0.9], "y": [0.5, 0.5, 2.0]}
    )
    root = ET.fromstring(svg)
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 5
    assert "<image" not in svg
    assert min(float(c.attrib["cy"]) for c in circles) == 34  # 2.0 is held at the top
    with pytest.raises(ValueError, match="2 values for 3"):
        draw_sweep("t", ["a", "b", "c"], {"x": [1, 2]})
