"""Recipe of the occlusion network: what it draws, what it asks, and that a run in slices equals one that went on."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion.occlusion import OcclusionNet
from fusion.train import occlusion
from fusion.train.occlusion_material import BARE_SHARE, CoverMaker, face_weight
from fusion.train.occlusion_shapes import GRID, THINGS, Canvas, Cover, Lamp, Look, cloth, finger, hand
from fusion.train.portraitset import PortraitSet
from fusion.weights import write_weights

MIDDLE = np.array([64.0, 64.0], np.float32)


def portraits(count: int = 4) -> PortraitSet:
    points = [landmarks(70 + k, (128, 130), 52) for k in range(count)]
    pictures = [picture(p, (256, 256), (PALE, BROWN)[k % 2], k) for k, p in enumerate(points)]
    deep = [np.concatenate([p, np.zeros((478, 1), np.float32)], axis=1) for p in points]
    names = tuple(f"{k}.png" for k in range(count))
    return PortraitSet(names, np.stack(pictures), np.stack(deep), np.full(count, 1 / count))


def write_data(folder: Path, known: PortraitSet) -> None:
    """A labelled set of them: the first is val, the others are train."""
    (folder / "portraits").mkdir(parents=True)
    with (folder / "portraits.csv").open("w", newline="") as stream:
        rows = csv.DictWriter(stream, ["file", "split", "gender_label", "group_label"])
        rows.writeheader()
        for k, name in enumerate(known.names):
            split = "train" if k else "val"
            rows.writerow({"file": name, "split": split, "gender_label": "a", "group_label": "b"})
            cv2.imwrite(str(folder / "portraits" / name), known.pictures[k][..., ::-1])
    np.savez(
        folder / "portraits_landmarks478.npz",
        name=np.array(known.names),
        points=known.points,
        score=np.ones(len(known), np.float32),
    )


@pytest.mark.parametrize("draw", [hand, cloth, *THINGS])
def test_what_is_drawn_covers_its_place_and_stays_in_range(draw) -> None:
    rng, sizes = np.random.default_rng(3), []
    for _ in range(12):
        cover: Cover = draw(rng, Lamp.draw(rng), MIDDLE, 88.0)
        assert cover.alpha.shape == (GRID, GRID)
        assert cover.alpha.min() >= 0
        assert cover.alpha.max() <= 1
        assert np.isfinite(cover.shade).all()
        assert cover.shade.min() >= 0
        assert np.isfinite(cover.tint).all()
        near = cover.alpha[34:94, 34:94]
        assert near.max() > 0.9
        sizes.append(float(cover.alpha.mean()))
    assert np.ptp(sizes) > 0.01  # no two alike
    assert np.mean(sizes) < 0.7


def test_a_finger_is_lit_from_where_the_lamp_is() -> None:
    look = Look(0.0, 0.0, False, 0.0, 0.98, 0.0, False, (1.0, 1.0, 1.0))
    shades = []
    for x in (-0.7, 0.7):
        canvas = Canvas()
        lamp = Lamp(x, 0.0, 0.714, 0.3)
        finger(
            canvas, np.random.default_rng(0), lamp, np.array([64, 110], np.float32), -np.pi / 2, 80, 9, look
        )
        shades.append(canvas.done())
    left, right = (float(shades[0].shade[70, 64 + dx]) for dx in (-6, 6))
    assert left > right + 0.3
    np.testing.assert_allclose(shades[0].shade[70, 51:78], shades[1].shade[70, 51:78][::-1], atol=1e-4)
    assert shades[0].alpha[70, 64] == 1
    assert shades[0].alpha[70, 80] == 0


def test_material_is_the_same_again_and_says_where_the_cover_is() -> None:
    maker, bare = CoverMaker(portraits()), 0
    for seed in range(60):
        crop, label, weight = maker.draw(np.random.default_rng(seed))
        again = maker.draw(np.random.default_rng(seed))
        assert (crop == again[0]).all()
        assert (label == again[1]).all()
        assert crop.shape == (128, 128, 3)
        assert label.shape == weight.shape == (64, 64)
        assert 0.15 < (weight == 1).mean() < 0.8
        bare += not label.any()
    assert abs(bare / 60 - BARE_SHARE) < 0.2


def test_only_the_cover_and_its_shadow_change_a_portrait() -> None:
    maker, rng = CoverMaker(portraits()), np.random.default_rng(0)
    plain = maker.crops[0][16:144, 16:144].astype(np.float32)
    points = maker.points[0] - 16
    for _ in range(12):
        drawn, alpha = maker.cover(plain, rng, points, 0)
        change = np.abs(drawn - plain).mean(2)
        far = cv2.dilate(alpha, np.ones((61, 61))) == 0
        assert change[far].max(initial=0) < 1
        if (alpha > 0.9).sum() > 50:
            assert change[alpha > 0.9].mean() > 2


def test_a_hand_has_the_colour_of_the_portraits_own_skin_more_often_than_not() -> None:
    maker, rng = CoverMaker(portraits()), np.random.default_rng(0)
    assert np.abs(maker.skins[0] - PALE).max() < 6
    assert np.abs(maker.skins[1] - BROWN).max() < 6
    colours = np.array([maker._skin_paint(rng, 1).mean((0, 1)) for _ in range(60)])
    ratio = colours / maker.skins[1]
    assert (np.abs(np.log(ratio)).max(1) < 0.4).mean() > 0.5
    assert np.log(ratio).std() > 0.1


def test_beyond_the_face_an_answer_weighs_little() -> None:
    weight = face_weight(CoverMaker(portraits()).points[0] - 16)
    assert weight[32, 32] == 1
    assert 0 < weight[1, 1] < 0.3


def test_the_loss_falls_towards_the_truth_and_reaches_every_parameter() -> None:
    label, weight = torch.zeros(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    label[0, :, 20:40, 20:40] = 1
    right, wrong = (
        occlusion.cover_loss(8 * (2 * label - 1), label, weight),
        occlusion.cover_loss(8 * (1 - 2 * label), label, weight),
    )
    blind = occlusion.cover_loss(torch.full_like(label, -8.0), label, weight)
    assert float(right) < 0.01 < float(blind) < float(wrong)
    bare = torch.zeros_like(label)
    assert float(occlusion.cover_loss(bare - 9, bare, weight)) < 0.001
    torch.manual_seed(0)
    net = OcclusionNet()
    occlusion.cover_loss(net(torch.rand(2, 3, 128, 128)), label, weight).backward()  # type: ignore[no-untyped-call]
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0 or "conv.bias" in name, name


def test_the_file_is_small_and_folding_changes_no_answer(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = OcclusionNet()
    for _ in range(3):
        net.train()(torch.rand(4, 3, 128, 128))
    folded, x = occlusion.inference_form(net), torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), net.eval()(x), atol=1e-4, rtol=1e-3)
    write_weights(tmp_path / "o.safetensors", folded.state_dict(), {"samples": "1000000"})
    assert (tmp_path / "o.safetensors").stat().st_size <= 140_000
    with pytest.raises(ValueError, match="128"):
        net(torch.rand(1, 3, 64, 64))


def test_a_run_in_slices_equals_one_that_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occlusion, "BATCH", 4)
    write_data(tmp_path / "data", portraits())
    lines: list[str] = []
    whole = occlusion.train(tmp_path / "data", tmp_path / "whole", steps=4, report=lines.append)
    occlusion.train(tmp_path / "data", tmp_path / "slices", steps=2, report=lines.append)
    cut = occlusion.train(tmp_path / "data", tmp_path / "slices", steps=4, resume=True, report=lines.append)
    assert cut.read_bytes() == whole.read_bytes()
    assert any(line.startswith("step 4 samples 16") for line in lines)
    assert any("fingers_iou" in line and "bare_alarms" in line for line in lines)
