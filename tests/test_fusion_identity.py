"""Identity network, its recipe and the numbers it is judged by; only shared tests touch the portraits."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch

from fusion.align import ARCFACE_112
from fusion.face import Face
from fusion.identity import (
    EMBEDDING_SIZE,
    MATCH_THRESHOLD,
    MATCH_THRESHOLD_CI95,
    IdentityNet,
    crop_face,
    embed_crops,
    embed_face,
    embed_faces,
    load_identity,
    mean_embedding,
)
from fusion.pose import load_shape_model
from fusion.train.identity import Student, fold, losses, measure, train_identity
from fusion.train.identity_crops import POINT_COLUMNS, Blender, Portraits, centre_crop, read_portraits
from fusion.train.identity_head import (
    choose_readout,
    install,
    penultimate,
    project,
    refresh_norms,
    solve_readout,
)
from fusion.train.identity_material import IdentityRecipe, Labelled
from fusion.train.identity_report import (
    binomial_interval,
    fit_threshold,
    rank_agreement,
    roc_auc,
    verification_scores,
)
from fusion.train.identity_swaps import Swapper
from fusion.train.identity_views import expose, move, strong_view, worsen
from fusion.train.teacher import MobileFaceNet, embed_teacher, load_teacher
from fusion.weights import IDENTITY
from provenance.errors import InputError, WeightsError

SHARED = Path(os.environ.get("FACSIMILE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
TEACHER_FILE = SHARED / "teachers" / "mobilefacenet_128d.safetensors"
shipped = pytest.mark.skipif(not IDENTITY.sha256, reason="no identity weights have been shipped yet")


def face_at(points: np.ndarray) -> Face:
    box = np.concatenate([points.min(0) - 20, points.max(0) + 20]).astype(np.float32)
    return Face(box_xyxy=box, points_px=points.astype(np.float32), score=1.0)


def noise(seed: int, *shape: int) -> np.ndarray:
    """Smooth colour noise, uint8."""
    rng = np.random.default_rng(seed)
    flat = rng.integers(0, 256, (shape[0], shape[1], 3)).astype(np.float32)
    soft = cv2.GaussianBlur(flat, (0, 0), 3)
    return ((soft - soft.min()) / (soft.max() - soft.min()) * 255).astype(np.uint8)


# --- the network


def test_embeddings_are_512_unit_numbers_and_the_network_is_small() -> None:
    net = IdentityNet().eval()
    crops = np.stack([noise(i, 112, 112) for i in range(3)])
    embeddings = embed_crops(crops, net)
    assert embeddings.shape == (3, EMBEDDING_SIZE)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert sum(p.numel() for p in net.parameters()) * 2 <= 8 * 2**20


def test_one_by_one_or_together_gives_the_same_embedding() -> None:
    torch.manual_seed(0)
    net = IdentityNet().eval()
    crops = np.stack([noise(i, 112, 112) for i in range(3)])
    single = np.concatenate([embed_crops(crop[None], net) for crop in crops])
    np.testing.assert_allclose(single, embed_crops(crops, net), atol=1e-5)


def test_columns_beyond_the_face_do_not_count() -> None:
    net = IdentityNet().eval()
    crop = noise(1, 112, 112)
    other = crop.copy()
    other[:, :8] = 0
    other[:, -8:] = 255
    np.testing.assert_array_equal(embed_crops(crop[None], net), embed_crops(other[None], net))


def test_crop_of_points_on_the_template_is_the_picture_itself() -> None:
    picture = noise(2, 200, 180)
    crop = crop_face(picture, face_at(ARCFACE_112 + np.array([30, 50], np.float32)))
    np.testing.assert_array_equal(crop, picture[50:162, 30:142])


def test_a_turned_and_enlarged_picture_gives_nearly_the_same_crop() -> None:
    picture = cv2.GaussianBlur(noise(3, 240, 240), (0, 0), 2)
    points = ARCFACE_112 + 60
    matrix = cv2.getRotationMatrix2D((120, 120), 30, 1.6)
    matrix[:, 2] += 100
    turned = np.asarray(cv2.warpAffine(picture, matrix, (440, 440)), np.uint8)
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    a, b = crop_face(picture, face_at(points)), crop_face(turned, face_at(moved))
    assert np.abs(a.astype(int) - b.astype(int)).mean() < 1.5


def test_a_face_at_the_edge_of_the_picture_is_embedded() -> None:
    net = IdentityNet().eval()
    embedding = embed_face(noise(4, 80, 70), face_at(ARCFACE_112 - 40), net)
    assert np.isfinite(embedding).all()
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)


def test_no_faces_no_rows_and_wrong_crops_are_refused() -> None:
    net = IdentityNet().eval()
    assert embed_faces(noise(0, 20, 20), [], net).shape == (0, EMBEDDING_SIZE)
    assert embed_crops(np.zeros((0, 112, 112, 3), np.uint8), net).shape == (0, EMBEDDING_SIZE)
    for wrong in (np.zeros((1, 112, 96, 3), np.uint8), np.zeros((1, 112, 112, 3), np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            embed_crops(wrong, net)


def test_several_pictures_of_one_person_average_to_a_unit_vector() -> None:
    rows = np.eye(4, 512, dtype=np.float32)
    mean = mean_embedding(rows)
    np.testing.assert_allclose(mean[:4], 0.5, atol=1e-6)
    with pytest.raises(ValueError, match="cancel"):
        mean_embedding(np.stack([rows[0], -rows[0]]))


def test_folding_the_norms_changes_no_number() -> None:
    torch.manual_seed(1)
    net = IdentityNet(norms=True)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    crops = np.stack([noise(i, 112, 112) for i in range(2)])
    np.testing.assert_allclose(embed_crops(crops, fold(net)), embed_crops(crops, net.eval()), atol=1e-5)


# --- the numbers it is judged by


def test_scores_of_perfect_and_of_blind_embeddings() -> None:
    rng = np.random.default_rng(0)
    people = rng.standard_normal((60, 16)).astype(np.float32)
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    assert roc_auc(*verification_scores(people, people)) == 1.0
    assert 0.3 < roc_auc(*verification_scores(people, np.roll(people, 1, axis=0)[:, ::-1])) < 0.7
    turned = people @ np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)
    assert rank_agreement(people, turned) == pytest.approx(1, abs=1e-6)


def test_threshold_leaves_the_asked_share_of_impostors() -> None:
    rng = np.random.default_rng(0)
    people = rng.standard_normal((150, 32)).astype(np.float32)
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    fit = fit_threshold(people, fmr=1e-3, draws=50)
    scores = (people @ people.T)[np.triu_indices(150, k=1)]
    assert fit.impostors == 150 * 149 // 2
    assert (scores > fit.value).mean() <= 1e-3
    assert fit.ci95[0] <= fit.value <= fit.ci95[1]
    assert fit.fmr_ci95[0] < 1e-3 < fit.fmr_ci95[1]


def test_exact_interval_of_a_proportion() -> None:
    assert binomial_interval(0, 10) == (0.0, pytest.approx(0.30850, abs=1e-4))  # Clopper-Pearson, tabulated
    assert binomial_interval(10, 10) == (pytest.approx(0.69150, abs=1e-4), 1.0)
    assert binomial_interval(1, 10) == (pytest.approx(0.00253, abs=1e-4), pytest.approx(0.44502, abs=1e-4))


# --- the recipe


def seen_head(rng: np.random.Generator) -> np.ndarray:
    """Landmarks [478, 3] of a head near the mean, 140 px wide in a picture of 256 px; irises at the eyes' corners."""
    model = load_shape_model()
    head = model.mean + np.tensordot(rng.normal(0, 0.7, len(model.identity)), model.identity, 1)
    head = np.concatenate([head, head[[33] * 5 + [263] * 5]]) * [1, -1, 1]
    return head / np.ptp(head[:, 0]) * 140 + [128, 128, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like the portraits, of noise, and a teacher with random weights."""
    root = tmp_path_factory.mktemp("portraits")
    (root / "portraits").mkdir()
    rng = np.random.default_rng(0)
    points = (ARCFACE_112 - 56) * 2 + np.array([128, 120])
    rows, names, landmarks = [], [], []
    for number in range(12):
        name = f"{number}.jpg"
        cv2.imwrite(str(root / "portraits" / name), noise(number, 256, 256))
        five = (points + rng.normal(0, 2, (5, 2))).ravel()
        row = dict(zip(POINT_COLUMNS, five, strict=True))
        split = "val" if number > 8 else "train"
        rows.append(
            {"file": name, "split": split, "gender_label": "x", "group_label": "abc"[number % 3], **row}
        )
        names.append(name)
        landmarks.append(seen_head(rng))
    with (root / "portraits.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    points16 = np.stack(landmarks).astype(np.float16)
    scores = np.ones(len(names), np.float32)
    np.savez(root / "portraits_landmarks478.npz", name=np.array(names), points=points16, score=scores)
    torch.manual_seed(3)
    safetensors.torch.save_file(MobileFaceNet().state_dict(), str(root / "teacher.safetensors"))
    return root


def test_reading_aligns_the_portraits_of_one_split(folder: Path) -> None:
    train, val = read_portraits(folder, "train"), read_portraits(folder, "val")
    assert train.crops.shape == (9, 136, 120, 3)
    assert val.crops.shape == (3, 136, 120, 3)
    template = ARCFACE_112 + np.array([4, 12], np.float32)
    assert np.abs(train.points - template).mean() < 1.5
    with pytest.raises(InputError) as caught:
        read_portraits(folder, "test")
    assert caught.value.code == "train.data"
    with pytest.raises(InputError):
        read_portraits(folder / "portraits", "train")


def grid_portraits() -> Portraits:
    """Two plain pictures whose landmarks lie on a grid."""
    y, x = np.mgrid[10:126:26j, 8:112:18j]
    grid = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
    crops = np.stack([np.full((136, 120, 3), value, np.uint8) for value in (40, 200)])
    points = np.stack([ARCFACE_112 + np.array([4, 12], np.float32)] * 2).astype(np.float32)
    return Portraits(crops, points, np.stack([grid, grid]), ("a", "a"))


def test_warping_onto_the_own_shape_is_the_identity() -> None:
    portraits = grid_portraits()
    picture = cv2.GaussianBlur(noise(5, 136, 120), (0, 0), 2)
    blender = Blender(replace(portraits, crops=np.stack([picture, picture])))
    warped = blender.warp(0, portraits.landmarks[0])
    assert np.abs(warped.astype(int) - picture.astype(int)).max() <= 2


def test_a_blend_lies_between_its_parents() -> None:
    blender = Blender(grid_portraits())
    rng = np.random.default_rng(0)
    means = [float(blender.draw(rng).mean()) for _ in range(40)]
    assert all(39 <= mean <= 201 for mean in means)
    assert sum(60 < mean < 180 for mean in means) >= 12


def test_a_swap_has_the_targets_surroundings_and_the_sources_face(folder: Path) -> None:
    swapper = Swapper(folder, "train")
    drawn = [swapper.draw(np.random.default_rng([3, n])) for n in range(4)]
    again = swapper.draw(np.random.default_rng([3, 0]))
    np.testing.assert_array_equal(drawn[0], again)
    portraits = read_portraits(folder, "train").crops.astype(int)
    for crop in drawn:
        away = np.abs(portraits - crop)
        assert away[:, :12].mean((1, 2, 3)).min() < 30  # one portrait's hair
        assert away[:, 50:90, 40:80].mean((1, 2, 3)).min() > 2  # and no portrait's own face


def test_pairs_that_the_engine_refuses_end_in_an_error(folder: Path) -> None:
    swapper = Swapper(folder, "train")
    swapper.portraits = replace(swapper.portraits, points=swapper.portraits.points * 0)
    with pytest.raises(InputError) as caught:
        swapper.draw(np.random.default_rng(0))
    assert caught.value.code == "train.data"


def test_the_networks_own_last_layer_can_be_kept() -> None:
    net, x = IdentityNet(), torch.rand(3, 3, 112, 96)
    ours = project(net, penultimate(net, x).detach().numpy())
    with torch.no_grad():
        np.testing.assert_allclose(ours, torch.nn.functional.normalize(net.head(net.maps(x)[-1])), atol=1e-5)


def test_views_are_worse_pictures_of_the_same_size() -> None:
    crop = noise(6, 136, 120)
    moved = move(crop, np.random.default_rng(0))
    for view, original in ((strong_view, crop), (worsen, moved), (expose, moved)):
        first = view(original, np.random.default_rng(1))
        np.testing.assert_array_equal(first, view(original, np.random.default_rng(1)))
        assert first.shape == (112, 96, 3)
        assert first.dtype == np.uint8
        assert np.abs(first.astype(int) - centre_crop(crop[None])[0].astype(int)).mean() > 1


def test_the_last_layer_is_solved_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((900, 512)).astype(np.float32)
    wanted = features @ rng.standard_normal((512, 256)).astype(np.float32) + 5
    readout = solve_readout(features, wanted, ridge=1e-6)
    truth = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(readout.read(features), truth, atol=1e-3)
    chosen = choose_readout(features, wanted, lambda r: rank_agreement(r.read(features[:50]), truth[:50]))
    assert chosen.gain == 1.0
    net = IdentityNet()
    install(net, readout)
    ours = torch.nn.functional.normalize(net.project(torch.from_numpy(features[:40]))).detach().numpy()
    np.testing.assert_allclose(ours @ ours.T, truth[:40] @ truth[:40].T, atol=1e-3)


def test_norms_are_measured_again_on_given_batches() -> None:
    net = IdentityNet(norms=True)
    batches = [torch.rand(4, 3, 112, 96) for _ in range(2)]
    refresh_norms(net, batches)
    stem = torch.cat([net.stem[0]((x - 0.5) / 0.5) for x in batches])
    torch.testing.assert_close(net.stem[1].running_mean, stem.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert not net.training


@pytest.mark.parametrize("term", ["cosine", "relation", "bank", "hint"])
def test_every_loss_term_reaches_the_network(term: str) -> None:
    torch.manual_seed(0)
    student = Student()
    unit = torch.nn.functional.normalize(torch.randn(12, 256))
    x = torch.rand(8, 3, 112, 96)
    maps = [torch.randn(4, 64, 28, 24), torch.randn(4, 128, 14, 12), torch.randn(4, 128, 7, 6)]
    losses(student, x, unit[:8], maps, unit[4:])[term].backward()  # type: ignore[no-untyped-call]
    grown = torch.cat([p.grad.ravel() for p in student.net.parameters() if p.grad is not None])
    assert torch.isfinite(grown).all()
    assert grown.abs().sum() > 0


def test_a_run_can_be_cut_and_resumed(folder: Path, tmp_path: Path) -> None:
    recipe = IdentityRecipe(
        minutes=60, steps=2, batch=4, blends=8, shard=4, shard_every=1, check_every_s=0, readout_views=12
    )
    train_identity(folder, tmp_path, folder / "teacher.safetensors", recipe)
    before = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    longer = replace(recipe, steps=4)
    net = train_identity(folder, tmp_path, folder / "teacher.safetensors", longer, resume=True)
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (before["step"], after["step"]) == (2, 4)
    assert after["spent_s"] > before["spent_s"]
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert {"val_spearman", "val_auc_strong", "cosine", "minutes"} <= set(curve[-1])
    assert np.isfinite(embed_crops(noise(0, 112, 112)[None], net)).all()


def test_a_run_begins_with_an_earlier_ones_networks(folder: Path, tmp_path: Path) -> None:
    recipe = replace(
        IdentityRecipe.further(60), steps=1, batch=4, blends=8, shard=4, check_every_s=0, readout_views=12
    )
    first, second = tmp_path / "first", tmp_path / "second"
    train_identity(folder, first, folder / "teacher.safetensors", recipe)
    still = replace(recipe, learning_rate=0.0)
    train_identity(folder, second, folder / "teacher.safetensors", still, start=first / "checkpoint.pt")
    before, after = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (first, second))
    assert after["step"] == 1
    for name, value in before["student"].items():
        if name.endswith("weight"):
            torch.testing.assert_close(after["student"][name], value)


def test_a_teacher_must_fit_to_the_last_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_teacher(tmp_path / "absent.safetensors")
    assert caught.value.code == "weights.missing"
    tensors = safetensors.torch.load_file(str(folder / "teacher.safetensors"))
    tensors.pop("conv1.bn.weight")
    safetensors.torch.save_file(tensors, str(tmp_path / "less.safetensors"))
    with pytest.raises(WeightsError) as caught:
        load_teacher(tmp_path / "less.safetensors")
    assert caught.value.code == "weights.mismatch"
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(WeightsError) as caught:
        load_teacher(tmp_path / "text.safetensors")
    assert caught.value.code == "weights.unreadable"


def test_the_mirror_image_swaps_the_halves_of_the_teachers_embedding(folder: Path) -> None:
    teacher = load_teacher(folder / "teacher.safetensors")
    crop = noise(7, 112, 96)
    plain = embed_teacher(teacher, crop[None])
    mirrored = embed_teacher(teacher, crop[None, :, ::-1])
    np.testing.assert_allclose(mirrored[0], np.roll(plain[0], 128), atol=1e-5)


# --- what ships


@shipped
def test_the_shipped_network_loads_and_the_threshold_is_inside_its_interval() -> None:
    net = load_identity()
    assert not net.training
    assert MATCH_THRESHOLD_CI95[0] <= MATCH_THRESHOLD <= MATCH_THRESHOLD_CI95[1]
    embeddings = embed_crops(np.stack([noise(i, 112, 112) for i in range(2)]), net)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


@shipped
@pytest.mark.shared
@pytest.mark.skipif(not TEACHER_FILE.is_file(), reason=f"no teacher at {TEACHER_FILE}")
def test_the_shipped_network_agrees_with_the_teacher_on_unseen_portraits() -> None:
    portraits = read_portraits(SHARED / "data", "test")
    teacher = load_teacher(TEACHER_FILE)
    crops = portraits.crops[:64]
    embeddings = embed_teacher(teacher, centre_crop(crops))
    numbers = measure(load_identity(), Labelled(crops, embeddings))
    assert numbers["spearman"] > 0.72
    assert numbers["auc_strong"] > 0.985
