"""Landmarks: the crop's geometry is exact, the network folds, warped labels follow their pixels, teacher is met."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fusion import weights
from fusion.align import apply_matrix, five_points, landmarks_box
from fusion.face import Face
from fusion.landmark import (
    CROP_PX,
    LandmarkNet,
    find_landmarks,
    find_landmarks_of_all,
    landmark_crop_from_image,
    load_landmarker,
)
from fusion.layers import folded_state
from fusion.train import augment, landmark, shapes
from fusion.train.portraitset import PortraitSet, read_portraits
from provenance.errors import InputError

SHARED = Path(os.environ.get("FACSIMILE_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
needs_weights = pytest.mark.skipif(not weights.LANDMARK.sha256, reason="no landmark weights shipped yet")


@pytest.fixture(scope="module")
def mean() -> np.ndarray:
    """A mirror-symmetric stand-in for the mean face: 468 + 10 points in the crop."""
    rng = np.random.default_rng(0)
    half = rng.uniform([18, 18], [60, 110], (234, 2))
    iris = np.array([[40.0, 50.0], [43, 50], [40, 47], [37, 50], [40, 53]])
    mesh = np.concatenate([half, half * [-1, 1] + [CROP_PX - 1, 0]])
    return np.concatenate([mesh, iris, iris * [-1, 1] + [CROP_PX - 1, 0]]).astype(np.float32)


class MeanNet(LandmarkNet):
    """Always answers with the mean shape."""

    def forward(self, crops: Tensor) -> Tensor:
        return self.mean_shape.expand(len(crops), -1, -1)


def make_face(points: np.ndarray) -> Face:
    return Face(landmarks_box(points), five_points(points), 1.0)


def test_network_shape_and_refusal() -> None:
    net = LandmarkNet().eval()
    assert net(torch.rand(2, 3, CROP_PX, CROP_PX)).shape == (2, 478, 2)
    with pytest.raises(ValueError, match="crops"):
        net(torch.rand(1, 3, 96, 96))


def test_folded_network_gives_the_same_points() -> None:
    torch.manual_seed(0)
    net = LandmarkNet()
    for _ in range(2):
        net.train()(torch.rand(4, 3, CROP_PX, CROP_PX))
    folded = landmark.inference_form(net)
    crops = torch.rand(2, 3, CROP_PX, CROP_PX)
    assert torch.allclose(folded(crops), net.eval()(crops), atol=1e-3)
    assert not any("norm" in name for name in folded_state(net))


@pytest.mark.parametrize("angle", [0.0, 40.0, 180.0])
def test_points_come_back_through_the_crop(mean: np.ndarray, angle: float) -> None:
    net = MeanNet()
    net.mean_shape.copy_(torch.from_numpy(mean))
    cos, sin = 2 * np.cos(np.radians(angle)), 2 * np.sin(np.radians(angle))
    truth = apply_matrix(np.array([[cos, -sin, 300], [sin, cos, 260.0]]), mean)
    picture = np.zeros((500, 640, 3), np.uint8)
    assert find_landmarks(picture, make_face(truth), net) == pytest.approx(truth, abs=0.02)
    fitted = landmark_crop_from_image(truth, mean)
    assert apply_matrix(fitted, truth) == pytest.approx(mean, abs=0.01)


class TiltedNet(MeanNet):
    """Sees every face `tilt` degrees further round than its crop; counts the crops of each pass."""

    def __init__(self, mean: np.ndarray, tilt: float) -> None:
        super().__init__()
        self.mean_shape.copy_(torch.from_numpy(mean))
        cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        self.turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float32)
        self.crops: list[int] = []

    def forward(self, crops: Tensor) -> Tensor:
        self.crops.append(len(crops))
        turn = self.turn if len(self.crops) == 1 else torch.eye(2)
        middle = self.mean_shape.mean(0)
        return ((self.mean_shape - middle) @ turn.T + middle).expand(len(crops), -1, -1)


@pytest.mark.parametrize(("tilt", "looks"), [(2.0, [2]), (15.0, [2, 2])])
def test_a_second_look_only_where_the_crop_was_off(mean: np.ndarray, tilt: float, looks: list[int]) -> None:
    net, truth = TiltedNet(mean, tilt), mean * 2 + 40
    middle = truth.mean(0)
    for points in find_landmarks_of_all(np.zeros((400, 400, 3), np.uint8), [make_face(truth)] * 2, net):
        assert points == pytest.approx((truth - middle) @ net.turn.numpy().T + middle, abs=0.02)
    assert net.crops == looks


def test_no_faces_no_landmarks() -> None:
    assert find_landmarks_of_all(np.zeros((9, 9, 3), np.uint8), [], MeanNet()) == []


def test_mirror_index_is_its_own_inverse(mean: np.ndarray) -> None:
    index = shapes.mirror_index(mean)
    assert (index[index] == np.arange(478)).all()
    assert mean[index] == pytest.approx(mean * [-1, 1] + [CROP_PX - 1, 0], abs=1e-3)
    assert (index[468], index[473]) == (473, 468)


def make_warper(mean: np.ndarray) -> shapes.Warper:
    rng = np.random.default_rng(1)
    return shapes.make_warper(mean, mean[None] + rng.normal(0, 1, (5, 478, 2)))


def test_labels_follow_the_pixels(mean: np.ndarray) -> None:
    """A dot painted at a point of the old picture is found at the warped label in the new one."""
    warper = make_warper(mean)
    rng = np.random.default_rng(2)
    xyz = np.concatenate([mean, np.zeros((478, 1), np.float32)], axis=1)
    checked = 0
    for _ in range(12):
        field = warper.draw_field(rng, xyz)
        new, error = shapes.follow_field(field, mean)
        if error > 0.25:
            continue
        for i in (3, 77, 240, 400):
            picture = np.zeros((CROP_PX, CROP_PX, 3), np.uint8)
            cv2.circle(picture, tuple(int(v) for v in mean[i].round()), 4, (255, 255, 255), -1)
            warped = landmark.resample(picture, np.eye(2, 3), field, np.eye(2, 3))[..., 0].astype(float)
            yy, xx = np.mgrid[:CROP_PX, :CROP_PX]
            seen = np.array([(warped * xx).sum(), (warped * yy).sum()]) / max(warped.sum(), 1)
            if warped.sum() > 2000:
                assert np.linalg.norm(seen - new[i]) < 2.0
                checked += 1
    assert checked > 10


def test_turned_blinking_and_speaking_faces(mean: np.ndarray) -> None:
    xyz = np.concatenate([mean, np.full((478, 1), 5, np.float32)], axis=1)
    assert shapes.turn_head(xyz, 0, 0)[:468] == pytest.approx(np.zeros((468, 2)), abs=1e-3)
    assert np.abs(shapes.turn_head(xyz, 30, 0)[:468, 0]).max() > 1
    assert (shapes.blink(mean, np.zeros(2)) == 0).all()
    assert shapes.move_mouth(mean, 1.0)[14, 1] == pytest.approx(14, abs=1e-3)


def test_augmentations_keep_shape_and_repeat() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for seed in range(25):
        first = augment.degrade(
            augment.occlude(picture, np.random.default_rng(seed)), np.random.default_rng(seed)
        )
        again = augment.degrade(
            augment.occlude(picture, np.random.default_rng(seed)), np.random.default_rng(seed)
        )
        assert first.shape == picture.shape
        assert first.dtype == np.uint8
        assert (first == again).all()
    assert (augment.tone(picture, np.ones(3, np.float32), 0.0, 1.0) == picture).all()


def make_portraits(mean: np.ndarray, count: int = 4) -> PortraitSet:
    rng = np.random.default_rng(4)
    pictures = rng.integers(0, 256, (count, CROP_PX, CROP_PX, 3), dtype=np.uint8)
    points = np.concatenate([mean + rng.normal(0, 0.3, (count, 478, 2)), np.zeros((count, 478, 1))], axis=2)
    names = tuple(f"{i}.jpg" for i in range(count))
    return PortraitSet(names, pictures, points.astype(np.float32), np.full(count, 1 / count))


def test_every_part_of_the_network_learns(mean: np.ndarray) -> None:
    maker, rng = landmark.CropMaker(make_portraits(mean)), np.random.default_rng(5)
    net = LandmarkNet()
    landmark.start_basis(net, maker, rng, count=200)
    crops, labels = landmark.make_batch(maker, rng, 6)
    landmark.point_loss(net.train()(crops), labels, landmark.point_weights()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def write_data(folder: Path, portraits: PortraitSet) -> None:
    (folder / "portraits").mkdir(parents=True)
    with (folder / "portraits.csv").open("w", newline="") as stream:
        rows = csv.DictWriter(stream, ["file", "split", "gender_label", "group_label"])
        rows.writeheader()
        for i, name in enumerate(portraits.names):
            split = "val" if i == 0 else "train"
            rows.writerow({"file": name, "split": split, "gender_label": "a", "group_label": "b"})
            cv2.imwrite(str(folder / "portraits" / name), portraits.pictures[i])
    np.savez(
        folder / "portraits_landmarks478.npz",
        name=np.array(portraits.names),
        points=portraits.points.astype(np.float16),
        score=np.ones(len(portraits), np.float16),
    )


def test_recipe_runs_resumes_and_writes_weights(
    mean: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data", make_portraits(mean))
    monkeypatch.setattr(landmark, "BATCH", 4)
    monkeypatch.setattr(landmark, "BASIS_DRAWS", 200)
    lines: list[str] = []
    landmark.train(tmp_path / "data", tmp_path / "run", steps=1, report=lines.append)
    path = landmark.train(tmp_path / "data", tmp_path / "run", steps=2, resume=True, report=lines.append)
    assert any(line.startswith("step 2 samples 8") for line in lines)
    spec = weights.WeightSpec(
        "t", path.name, weights.file_sha256(path), "", "", (128, 128), (0,) * 3, (1,) * 3
    )
    weights.load_weights(LandmarkNet(folded=True), spec, tmp_path / "run")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_portraits(tmp_path, "train")
    assert caught.value.code == "train.data"


@needs_weights
def test_shipped_file_is_small_and_carded() -> None:
    assert weights.weights_path(weights.LANDMARK).stat().st_size <= 8_000_000
    card = weights.weights_path(weights.LANDMARK).with_suffix(".md").read_text()
    for word in ("Data", "Hours", "Failures", "val"):
        assert word in card
    load_landmarker()


def quarter_quality(rgb: np.ndarray) -> np.ndarray:
    return augment.jpeg(rgb, 40)


def soften(rgb: np.ndarray) -> np.ndarray:
    return augment.blur(rgb, 2.0 * rgb.shape[0] / 512)


def darken(rgb: np.ndarray) -> np.ndarray:
    return augment.tone(rgb, np.full(3, 0.7, np.float32), 0.0, 1.0)


def brighten(rgb: np.ndarray) -> np.ndarray:
    return augment.tone(rgb, np.full(3, 1.3, np.float32), 0.0, 1.0)


@needs_weights
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="training material ../shared is absent")
@pytest.mark.parametrize("spoil", [None, quarter_quality, soften, darken, brighten])
def test_teacher_is_met_on_held_out_portraits(spoil: object) -> None:
    portraits = read_portraits(SHARED / "data", "test", 512)
    some = PortraitSet(
        portraits.names[:24], portraits.pictures[:24], portraits.points[:24], portraits.weights[:24]
    )
    error = landmark.measure(load_landmarker(), some, spoil)  # type: ignore[arg-type]
    assert error.mean() <= 0.025
    assert error[:, [468, 473, 1, 61, 291]].mean() <= 0.03
