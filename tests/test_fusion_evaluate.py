"""The bench's measures on pictures whose answer is known."""

import os
from pathlib import Path

import numpy as np
import pytest
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion import evaluate, measures, mesh, paste, tables
from fusion.octaves import band_energies
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
    assert measures.seam_delta_e(same, target.rgb, width) == 0
    brighter = np.where(inside[..., None] > 0, np.clip(target.rgb.astype(int) + 30, 0, 255), target.rgb)
    edge = WarpResult(brighter.astype(np.uint8), inside, (0, 0, 320, 320), inside > 0)
    assert measures.seam_delta_e(edge, target.rgb, width) > 5


def test_paste_changes_only_the_oval(people: dict[str, evaluate.Portrait]) -> None:
    source, target = people["p1"], people["p0"]
    out = paste.paste_face(target.rgb, target.landmarks_px, source.rgb, source.landmarks_px)
    assert (out.rgb[~out.altered] == target.rgb[~out.altered]).all()
    assert (out.rgb[out.altered] != target.rgb[out.altered]).any()


def test_a_membrane_is_harmonic_within_and_untouched_without() -> None:
    y, x = np.mgrid[:96, :80].astype(np.float32)
    linear = np.stack([x, y, x - y], -1)  # harmonic, so it must come back
    inside = np.hypot(x - 40, y - 48) < 30
    dented = np.where(inside[..., None], 0, linear).astype(np.float32)
    solved = paste.membrane(dented, inside, rounds=200)
    assert (solved[~inside] == linear[~inside]).all()
    assert np.abs(solved - linear).max() < 4
    assert np.abs(solved - linear).mean() < 0.5


def test_the_paste_takes_the_sources_texture(people: dict[str, evaluate.Portrait]) -> None:
    source, target = people["p1"], people["p0"]
    out = paste.paste_face(target.rgb, target.landmarks_px, source.rgb, source.landmarks_px)
    x, y = np.rint(target.landmarks_px[468]).astype(int)
    change = np.abs(out.rgb.astype(int) - target.rgb)
    assert change[y - 15 : y + 15, x - 20 : x + 20].mean() > 5


def test_fine_bands_are_measured_against_the_target(people: dict[str, evaluate.Portrait]) -> None:
    import cv2

    target = people["p0"]
    everywhere = np.ones((320, 320), np.float32)

    def measured(rgb: np.ndarray) -> dict[str, float]:
        result = WarpResult(rgb, everywhere, (0, 0, 320, 320), everywhere > 0)
        own = band_energies(target.rgb, target.landmarks_px, measures.OCTAVES)
        return measures.fine_band_measures(result, target.rgb, target.landmarks_px, own)

    same = measured(target.rgb)
    assert same["hf_ratio"] == pytest.approx(1)
    assert same["hf_off"] == pytest.approx(0, abs=1e-6)
    assert same["hf_corr"] == pytest.approx(1, abs=1e-3)
    soft = measured(cv2.GaussianBlur(target.rgb, (0, 0), 2.0))
    assert soft["hf_ratio"] < 0.4
    assert soft["hf_ratio_1"] < soft["hf_ratio_2"]
    noise = np.random.default_rng(0).integers(-4, 5, target.rgb.shape)
    other = measured(np.clip(cv2.GaussianBlur(target.rgb, (0, 0), 3.0) + noise, 0, 255).astype(np.uint8))
    assert other["hf_ratio"] > 0.7
    assert other["hf_corr"] < 0.4


def test_eyes_are_measured_in_their_own_frame(people: dict[str, evaluate.Portrait]) -> None:
    points = people["p0"].landmarks_px
    assert measures.eye_measures(points + 7, points) == pytest.approx(
        {"eye_aperture_err": 0, "iris_err": 0}, abs=1e-5
    )
    half = points.copy()
    for _, _, upper, lower in measures.LIDS:
        middle = (points[upper] + points[lower]) / 2
        half[[upper, lower]] = middle + 0.5 * (points[[upper, lower]] - middle)
    assert measures.eye_measures(half, points)["eye_aperture_err"] == pytest.approx(0.5, abs=0.02)
    aside = points.copy()
    aside[468:] += np.float32([0.1 * np.linalg.norm(points[33] - points[133]), 0])
    assert measures.eye_measures(aside, points)["iris_err"] == pytest.approx(0.1, abs=0.02)


def test_a_catch_light_is_kept_or_lost() -> None:
    from fusion.rendered_eyes import EyeScene, draw_eyes

    lit, dark = draw_eyes(EyeScene(seed=3)), draw_eyes(EyeScene(seed=3, lamp=None))
    elsewhere = draw_eyes(EyeScene(seed=3, lamp=(-35.0, 5.0)))
    points = lit.landmarks_px
    wanted = measures.eye_lights(lit.rgb, points)
    assert measures.catchlight_kept(lit.rgb, points, wanted) == 1
    assert measures.catchlight_kept(dark.rgb, points, wanted) == 0
    assert measures.catchlight_kept(elsewhere.rgb, points, wanted) == 0
    assert np.isnan(measures.catchlight_kept(lit.rgb, points, measures.eye_lights(dark.rgb, points)))
    radius = float(np.linalg.norm(points[469] - points[468]))
    missed = points + np.array([0, 1.2 * radius], np.float32)  # as if the finder had lost the limbus
    assert measures.catchlight_kept(lit.rgb, missed, wanted) == 0
    assert measures.catchlight_kept(lit.rgb, missed, wanted, [points]) == 1
    assert measures.catchlight_kept(dark.rgb, missed, wanted, [points]) == 0
    assert measures.catchlight_kept(elsewhere.rgb, missed, wanted, [points]) == 0


def test_kernel_distance_tells_two_distributions_apart() -> None:
    rng = np.random.default_rng(0)
    one, same, other = (rng.normal(m, 1, (80, 6)).astype(np.float32) for m in (0, 0, 1))
    assert abs(measures.kernel_distance(one, same)) < 0.2
    assert measures.kernel_distance(one, other) > 1


def test_rougher_skin_looks_older(people: dict[str, evaluate.Portrait]) -> None:
    import cv2

    person = people["p0"]
    grain = np.random.default_rng(0).normal(0, 60, person.rgb.shape[:2]).astype(np.float32)
    folds = cv2.GaussianBlur(grain, (0, 0), 2.0)[..., None]
    rough = np.clip(person.rgb + folds, 0, 255).astype(np.uint8)
    smoother, rougher = (measures.age_proxy(each, person.landmarks_px) for each in (person.rgb, rough))
    assert rougher > 1.5 * smoother


def test_a_bench_ranks_a_recogniser_that_sees_the_source(people: dict[str, evaluate.Portrait]) -> None:
    names = list(people)
    codes = {people[n].rgb.tobytes(): np.eye(4, dtype=np.float32)[k] for k, n in enumerate(names)}
    seen: list[np.ndarray] = []

    def embed(rgb: np.ndarray, _: np.ndarray) -> np.ndarray:
        return codes.get(rgb.tobytes(), seen[-1] if seen else np.eye(4, dtype=np.float32)[3])

    bench = evaluate.Bench(people, {"oracle": embed}, lambda _, near: near, lambda rgb, _: rgb.mean((0, 1)))
    pairs = [evaluate.Pair(*two) for two in (("p1", "p0"), ("p1", "p2"), ("p2", "p0"), ("p0", "p2"))]
    gallery = evaluate.Gallery.of(people.values(), {"oracle": embed})
    assert gallery.embeddings["oracle"].shape == (3, 4)
    seen.append(gallery.embeddings["oracle"][1] * 0.9)
    ways = {"default": evaluate.preset_engine(), "warp": warp_face}
    rows = tables.bench_engines(bench, ways, pairs, gallery, {"p0": "a", "p2": "b"})
    table = {(row.case, row.metric): row for row in rows}
    assert table["warp", "id_top1:oracle"].value == 0.5
    assert table["warp", "id_cos_source:oracle"].value == pytest.approx(0.45)
    assert table["warp", "id_cos_target:oracle"].value == 0
    assert table["warp", "pose_deg"].value == pytest.approx(0, abs=1e-3)
    assert table["warp", "landmark_nme"].value == 0
    assert table["warp", "eye_aperture_err"].value == 0
    assert table["warp", "ms_swap"].unit == "ms"
    assert table["warp", "kid"].n == 4
    assert table["process", "peak_mb"].value > 50
    assert table["default", "ms_detail"].n == 4
    cases = {row.case for row in rows}
    assert {"default", "warp", "process", "group_a", "group_b", "oldest_tenth", "the_rest"} <= cases
    assert table["group_a", "hf_corr"].n == 2
    assert table["default", "hf_corr"].value > table["warp", "hf_corr"].value


def test_unequal_pairs_fall_into_their_cases() -> None:
    points = {f"n{k}": landmarks(5, (160, 160), 70, yaw_degrees=6.0 * k) for k in range(6)}
    rgb = np.full((320, 320, 3), 128, np.uint8)
    portraits = {name: evaluate.Portrait(name, rgb, p) for name, p in points.items()}
    pairs = [evaluate.Pair("n0", "n1"), evaluate.Pair("n0", "n3"), evaluate.Pair("n0", "n5")]
    bench = evaluate.Bench(portraits, {}, lambda _, near: near)
    found = tables.cases_of(bench, pairs, {"n1": "x"})
    assert found["pose_0_10"].tolist() == [True, False, False]
    assert found["pose_10_25"].tolist() == [False, True, False]
    assert found["pose_25_up"].tolist() == [False, False, True]
    assert found["group_x"].tolist() == [True, False, False]
    assert (found["oldest_tenth"] ^ found["the_rest"]).all()
    assert (found["mouth_open"] ^ found["mouth_closed"]).all()


def test_intervals_cover_the_mean() -> None:
    samples = np.random.default_rng(0).normal(3, 1, 400).astype(np.float32)
    low, high = tables.mean_interval(samples)
    assert low < samples.mean() < high
    assert 0.1 < high - low < 0.3


SHARED = Path(os.environ.get("FACSIMILE_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "teachers").is_dir(), reason="needs the training material beside the checkout"
)
def test_swaps_of_portraits_keep_the_bars_on_a_few_pairs() -> None:
    """Near the bars of the bench on 12 pairs; the recogniser taught the network of the default engine."""
    import torch

    from fusion import align, landmark
    from fusion.face import Face
    from fusion.train.teacher import TEACHER_POINTS_112X96, load_teacher

    teacher = load_teacher(SHARED / "teachers" / "mobilefacenet_128d.safetensors")
    net = landmark.load_landmarker()

    def locate(rgb: np.ndarray, near: np.ndarray) -> np.ndarray:
        face = Face(align.landmarks_box(near), align.five_points(near), 1.0, near)
        return landmark.find_landmarks(rgb, face, net)

    def embed(rgb: np.ndarray, points: np.ndarray) -> np.ndarray:
        matrix = align.similarity_from_points(align.five_points(points), np.asarray(TEACHER_POINTS_112X96))
        crop = torch.from_numpy(align.warp_crop(rgb, matrix, (96, 112))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            x = (crop.float() - 127.5) / 128
            both = teacher(torch.cat([x, x.flip(3)])).reshape(-1).numpy()
        return np.asarray(both / np.linalg.norm(both), np.float32)

    people = read_test_portraits(40)
    bench = evaluate.Bench(people, {"teacher": embed}, locate)
    points = {name: portrait.landmarks_px for name, portrait in people.items()}
    pairs = evaluate.choose_pairs(points, 12, similar=False)
    ways = {"default": evaluate.preset_engine(), "warp": warp_face, "paste": paste.paste_face}
    rows = {(row.case, row.metric): row.value for row in tables.bench_engines(bench, ways, pairs)}
    assert rows["default", "id_top1:teacher"] >= 0.7
    assert rows["default", "id_cos_target:teacher"] <= 0.5
    assert rows["default", "pose_deg"] <= 4
    assert rows["default", "seam_delta_e"] < rows["paste", "seam_delta_e"]
    assert rows["default", "hf_corr"] > 0.7
    assert rows["warp", "hf_corr"] < 0.5
    assert rows["default", "id_cos_source:teacher"] > rows["warp", "id_cos_source:teacher"]


def read_test_portraits(count: int) -> dict[str, evaluate.Portrait]:
    """The first portraits of the test split by name, with their labels."""
    import csv

    import cv2

    with (SHARED / "data" / "portraits.csv").open(encoding="utf-8") as stream:
        names = sorted(row["file"] for row in csv.DictReader(stream) if row["split"] == "test")[:count]
    labels = np.load(SHARED / "data" / "portraits_landmarks478.npz")
    row_of = {str(name): k for k, name in enumerate(labels["name"])}
    people = {}
    for name in names:
        bgr = cv2.imread(str(SHARED / "data" / "portraits" / name))
        points = labels["points"][row_of[name]][:, :2].astype(np.float32)
        people[name] = evaluate.Portrait(name, np.ascontiguousarray(bgr[..., ::-1]), points)
    return people


def pairs_sha256(pairs: list[evaluate.Pair]) -> str:
    import hashlib

    return hashlib.sha256("\n".join(f"{p.source} {p.target}" for p in pairs).encode()).hexdigest()


def test_the_rule_of_the_pairs_stays_the_same() -> None:
    """Every published table rests on it: another shuffle would compare other pairs."""
    names = {f"n{k:03d}": np.zeros((478, 2), np.float32) for k in range(160)}
    pairs = evaluate.choose_pairs(names, 1000, similar=False)
    assert pairs[:3] == evaluate.choose_pairs(names, 3, similar=False)
    assert pairs_sha256(pairs) == "2631baf7f2e4a3098ae5cbdc9e62fd947fa3c4965728f853df3abc3b39a734ff"


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the portraits beside the checkout")
def test_the_pairs_of_the_shared_set_are_the_published_ones() -> None:
    points = {name: portrait.landmarks_px for name, portrait in read_test_portraits(160).items()}
    pairs = evaluate.choose_pairs(points, 1000, similar=False)
    assert pairs_sha256(pairs) == "60ab4638ce72cd0ee190e458499227a53bf7c5777ed71c13f6eb34ed454db297"
