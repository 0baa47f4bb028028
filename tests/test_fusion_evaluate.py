"""The bench's measures on pictures whose answer is known."""

import numpy as np
import pytest
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion import evaluate, mesh
from fusion.warp import WarpResult, warp_face


@pytest.fixture(scope="module")
def people() -> dict[str, evaluate.Portrait]:
    made = {}
    for k, skin in enumerate((PALE, BROWN, (190, 150, 120))):
        points = landmarks(20 + k, (160, 160), 70)
        made[f"p{k}"] = evaluate.Portrait(f"p{k}", picture(points, (320, 320), skin, k), points)
    return made


def test_pairs_are_fixed_by_the_seed_and_differ() -> None:
    many = {f"n{k}": landmarks(k, (160, 160), 70, yaw_degrees=4.0 * k) for k in range(6)}
    pairs = evaluate.choose_pairs(many, 20, similar=False)
    assert pairs == evaluate.choose_pairs(dict(reversed(many.items())), 20, similar=False)
    assert len(set(pairs)) == 20
    assert all(p.source != p.target for p in pairs)
    near = evaluate.choose_pairs(many, 8, similar=True)
    assert all(abs(int(p.source[1:]) - int(p.target[1:])) <= 2 for p in near)
    with pytest.raises(ValueError, match="pairs"):
        evaluate.choose_pairs(many, 31, similar=False)


def test_no_change_has_no_seam_and_a_hard_edge_has(people: dict[str, evaluate.Portrait]) -> None:
    target = people["p0"]
    inside = np.zeros((320, 320), np.float32)
    inside[100:220, 100:220] = 1
    width = mesh.face_width(target.landmarks_px)
    same = WarpResult(target.rgb, inside, (0, 0, 320, 320), inside > 0)
    assert evaluate.seam_delta_e(same, target.rgb, width) == 0
    brighter = np.where(inside[..., None] > 0, np.clip(target.rgb.astype(int) + 30, 0, 255), target.rgb)
    edge = WarpResult(brighter.astype(np.uint8), inside, (0, 0, 320, 320), inside > 0)
    assert evaluate.seam_delta_e(edge, target.rgb, width) > 5


def test_paste_changes_only_the_oval(people: dict[str, evaluate.Portrait]) -> None:
    source, target = people["p1"], people["p0"]
    out = evaluate.paste_face(target.rgb, target.landmarks_px, source.rgb, source.landmarks_px)
    assert (out.rgb[~out.altered] == target.rgb[~out.altered]).all()
    assert (out.rgb[out.altered] != target.rgb[out.altered]).any()


def test_high_frequencies(people: dict[str, evaluate.Portrait]) -> None:
    import cv2

    target = people["p0"]
    assert evaluate.high_frequency_ratio(target.rgb, target.rgb, target.landmarks_px) == pytest.approx(1)
    soft = cv2.GaussianBlur(target.rgb, (0, 0), 2.0)
    assert evaluate.high_frequency_ratio(soft, target.rgb, target.landmarks_px) < 0.4


def test_a_bench_ranks_a_recogniser_that_sees_the_source(people: dict[str, evaluate.Portrait]) -> None:
    names = list(people)
    codes = {people[n].rgb.tobytes(): np.eye(4, dtype=np.float32)[k] for k, n in enumerate(names)}
    seen: list[np.ndarray] = []

    def embed(rgb: np.ndarray, _: np.ndarray) -> np.ndarray:
        return codes.get(rgb.tobytes(), seen[-1] if seen else np.eye(4, dtype=np.float32)[3])

    bench = evaluate.Bench(people, {"oracle": embed}, lambda _, near: near)
    pairs = [evaluate.Pair("p1", "p0"), evaluate.Pair("p1", "p2")]
    gallery = bench.gallery()
    assert gallery["oracle"].shape == (3, 4)
    seen.append(gallery["oracle"][1] * 0.9)
    rows = list(evaluate.bench_engines(bench, {"warp": warp_face}, {"some": pairs}))
    table = {row.metric: row for row in rows}
    assert table["id_top1:oracle"].value == 1
    assert table["id_cos_source:oracle"].value == pytest.approx(0.9)
    assert table["id_cos_target:oracle"].value == 0
    assert table["pose_deg"].value == pytest.approx(0, abs=1e-3)
    assert table["landmark_nme"].value == 0
    assert table["ms_swap"].unit == "ms"
    assert {row.case for row in rows} == {"warp/some"}
    assert all(row.n == 2 for row in rows)


def test_intervals_cover_the_mean() -> None:
    samples = np.random.default_rng(0).normal(3, 1, 400).astype(np.float32)
    low, high = evaluate.bootstrap_interval(samples)
    assert low < samples.mean() < high
    assert 0.1 < high - low < 0.3
