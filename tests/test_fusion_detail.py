"""The detail branch: the target's own fine bands on skin, nothing elsewhere; wavelets, tiles and the recipe's parts."""

import cv2
import numpy as np
import pytest
import torch
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion import detail, mesh
from fusion.measures import fine_band_measures
from fusion.octaves import LUMA, band_energies, before_rounding, fine_bands, split_octaves
from fusion.swap import finish
from fusion.warp import target_in_shape, warp_face


def grainy(points: np.ndarray, skin: tuple[int, int, int], seed: int) -> np.ndarray:
    """A drawn face whose skin has a grain of its own."""
    rgb = picture(points, (512, 512), skin, seed)
    grain = np.random.default_rng(seed).normal(0, 8, (512, 512, 1))
    return np.clip(rgb + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def swap() -> dict[str, np.ndarray]:
    source, target = landmarks(1, (256, 260), 110), landmarks(2, (250, 262), 112)
    return {
        "source": grainy(source, BROWN, 1),
        "target": grainy(target, PALE, 2),
        "to": target,
        "from": source,
    }


def test_the_skin_keeps_the_targets_grain(swap: dict[str, np.ndarray]) -> None:
    result = warp_face(swap["target"], swap["to"], swap["source"], swap["from"])
    finished = finish(swap["target"], swap["to"], result, detail.DetailOptions(), None)
    own = band_energies(swap["target"], swap["to"], 2)
    plain, kept = (fine_band_measures(r, swap["target"], swap["to"], own) for r in (result, finished))
    assert plain["hf_corr"] < 0.5
    assert kept["hf_corr"] > 0.85
    assert 0.8 < kept["hf_ratio"] < 1.15


def test_each_octave_has_the_strength_it_has_in_the_target(swap: dict[str, np.ndarray]) -> None:
    smooth = cv2.GaussianBlur(swap["source"], (0, 0), 1.2)  # a source whose skin holds hardly any grain
    result = warp_face(swap["target"], swap["to"], smooth, swap["from"])
    own = band_energies(swap["target"], swap["to"], 2)
    matched = finish(swap["target"], swap["to"], result, detail.DetailOptions(), None)
    assert matched.landmarks_px is not None
    for k in range(2):
        before, after = (
            band_energies(one.rgb, matched.landmarks_px, 2)[k] / own[k] for one in (result, matched)
        )
        assert before < 0.9
        assert abs(after - 1) < 0.01


def test_a_gain_solves_for_the_amplitude_within_its_limits() -> None:
    rng = np.random.default_rng(1)
    theirs, mine = (rng.normal(0, s, (40, 40, 3)).astype(np.float32) for s in (0.02, 0.05))
    part, where = np.full((40, 40), 0.6, np.float32), np.ones((40, 40), bool)
    options = detail.DetailOptions()
    gain = detail.match_gain(theirs, mine, part, where, 0.018, options)
    mixed = (0.4 * mine + gain * 0.6 * theirs) @ LUMA
    assert options.least < gain < options.most
    assert np.sqrt((mixed**2).mean()) == pytest.approx(0.018, rel=1e-4)
    assert detail.match_gain(theirs, mine, part, where, 9.0, options) == options.most
    assert detail.match_gain(theirs, mine, part, where, 0.0, options) == options.least
    assert detail.match_gain(theirs, mine, part, ~where, 0.02, options) == options.gain


def test_strengths_of_overlapping_octaves_are_solved_for_together() -> None:
    rng = np.random.default_rng(6)
    picture = np.repeat(rng.normal(0.5, 0.02, (96, 96, 1)).astype(np.float32), 3, axis=2)
    gate, where = np.ones((96, 96), np.float32), np.zeros((96, 96), bool)
    where[16:80, 16:80] = True
    have = np.array([np.sqrt(np.square(b[where] @ LUMA).mean()) for _, b in split_octaves(picture, 2)])
    options = detail.DetailOptions()
    wanted = (have * [0.9, 1.3]).astype(np.float32)
    steady = detail.steady_bands(picture, gate, (wanted, where), options)
    found = [np.sqrt(np.square(b[where] @ LUMA).mean()) for _, b in split_octaves(steady, 2)]
    assert found == pytest.approx(wanted, rel=1e-3)
    far = detail.steady_bands(picture, gate, ((9 * have).astype(np.float32), where), options) - picture
    own = sum(band for _, band in split_octaves(picture, 2))
    assert np.abs(far).max() <= 1.5 * detail.STEADY_LIMITS[1] * np.abs(own).max()
    shut = detail.steady_bands(picture, 0 * gate, (wanted, where), options)
    nowhere = detail.steady_bands(picture, gate, (wanted, ~where & where), options)
    assert (shut == picture).all()
    assert (nowhere == picture).all()


def test_rounding_to_8_bits_is_reckoned_with() -> None:
    rng = np.random.default_rng(7)
    smooth = rng.normal(0.5, 0.004, (256, 256, 3)).astype(np.float32)
    rms = lambda x: np.array([np.sqrt(np.square(b @ LUMA).mean()) for _, b in split_octaves(x, 2)])  # noqa: E731
    rounded = np.rint(smooth * 255).astype(np.float32) / np.float32(255)
    assert before_rounding(rms(rounded)) == pytest.approx(rms(smooth), rel=0.01)
    assert rms(rounded)[0] > 1.02 * rms(smooth)[0]
    assert (before_rounding(np.zeros(3, np.float32)) == 0).all()


def test_only_bare_skin_of_the_painted_region_changes(swap: dict[str, np.ndarray]) -> None:
    result = warp_face(swap["target"], swap["to"], swap["source"], swap["from"])
    under = target_in_shape(swap["target"], result)
    assert result.landmarks_px is not None
    before = result.rgb.copy()
    out = detail.restore_detail(result.rgb, under, result.mask, result.roi_xyxy, result.landmarks_px)
    assert (result.rgb == before).all()
    changed = (out != result.rgb).any(-1)
    x0, y0, x1, y1 = result.roi_xyxy
    share = np.zeros((512, 512), np.float32)
    share[y0:y1, x0:x1] = result.mask
    assert changed.any()
    assert not changed[share == 0].any()
    for iris in (mesh.LEFT_IRIS[0], mesh.RIGHT_IRIS[0]):
        x, y = np.rint(result.landmarks_px[iris]).astype(int)
        assert not changed[y - 3 : y + 4, x - 3 : x + 4].any()
    off = detail.restore_detail(
        result.rgb, under, result.mask, result.roi_xyxy, result.landmarks_px, detail.DetailOptions(keep=0)
    )
    assert np.abs(off.astype(int) - result.rgb).max() <= 1


def test_more_octaves_are_hidden_in_a_larger_face() -> None:
    assert [detail.hidden_octaves(w) for w in (60, 160, 400, 800, 1600, 9000)] == [1, 1, 2, 3, 4, 5]
    assert detail.hidden_octaves(283) == pytest.approx(1.5, abs=0.01)


def test_a_part_of_an_octave_lies_between_two_whole_ones() -> None:
    picture = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    one, two = fine_bands(picture, 1), fine_bands(picture, 2)
    assert np.abs(fine_bands(picture, 1.25) - (0.75 * one + 0.25 * two)).max() < 1e-6
    assert (fine_bands(picture, 2.0) == two).all()


def test_fine_bands_leave_a_slow_gradient_alone() -> None:
    y, x = np.mgrid[:96, :96].astype(np.float32)
    slow = np.stack([x, y, x + y], -1) / 200
    assert np.abs(fine_bands(slow, 2)[12:-12, 12:-12]).max() < 0.01
    dots = ((x % 2 + y % 2) == 1).astype(np.float32)
    assert fine_bands(dots, 2)[20:-20, 20:-20].std() > 0.4


def test_haar_and_its_inverse() -> None:
    x = torch.rand(2, 3, 16, 24)
    bands = detail.haar(x)
    assert bands.shape == (2, 12, 8, 12)
    assert torch.allclose(detail.inverse_haar(bands), x, atol=1e-6)
    assert torch.allclose((bands**2).sum(), (x**2).sum(), rtol=1e-5)
    assert detail.haar(torch.ones(1, 1, 4, 4))[:, 1:].abs().max() == 0


def test_the_network_is_small_and_touches_only_the_finest_two_octaves() -> None:
    torch.manual_seed(0)
    net = detail.DetailNet().eval()
    for head in (net.coarse, net.fine):
        torch.nn.init.normal_(head.weight, std=0.1)
    assert sum(p.numel() for p in net.parameters()) <= 500_000
    x, one = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    with torch.inference_mode():
        residual = net(x, x.flip(3), one, one)
    assert residual.abs().max() > 0.01
    means = torch.nn.functional.avg_pool2d(residual, 4)
    assert means.abs().max() < 1e-4 * residual.abs().max() + 1e-5


def test_every_parameter_of_the_network_gets_a_gradient() -> None:
    from fusion.train.detail import detail_loss

    torch.manual_seed(1)
    net = detail.DetailNet()
    x, truth, maps = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32)
    detail_loss(x + detail.WEIGHT * net(x, truth, maps, maps), truth).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        if not name.startswith("bottom.attention.place.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_tiles_of_a_large_picture_meet_without_a_seam() -> None:
    class Flat(detail.DetailNet):
        def forward(self, result, target, gate, focus):  # type: ignore[no-untyped-def]
            return result - target

    rng = np.random.default_rng(0)
    result, target = rng.random((2, 150, 205, 3)).astype(np.float32)
    maps = np.ones((150, 205), np.float32)
    residual = detail.predict_residual(Flat(), result, target, maps, maps)
    assert np.abs(residual - (result - target)).max() < 1e-3


def test_the_focus_lies_on_eyes_nose_wings_and_mouth_corners() -> None:
    points = landmarks(3, (128, 130), 60)
    focus = detail.focus_map(points, (256, 256), mesh.face_width(points))
    for k in (33, 263, 98, 327, 61, 291):
        x, y = np.rint(points[k]).astype(int)
        assert focus[y, x] > 0.9
    x, y = np.rint(points[152]).astype(int)
    assert focus[y, x] < 0.1


@pytest.mark.shared
def test_the_recipe_learns_from_tiles_of_portraits(shared_folder, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from fusion.train import detail as recipe

    monkeypatch.setattr(recipe, "TRAIN_PORTRAITS", 3)
    monkeypatch.setattr(recipe, "VAL_PORTRAITS", 2)
    lines: list[str] = []
    path = recipe.train(shared_folder / "data", tmp_path, minutes=5, steps=2, report=lines.append)
    again = recipe.train(
        shared_folder / "data", tmp_path, minutes=5, steps=3, resume=True, report=lines.append
    )
    assert path == again
    assert path.stat().st_size < 1_000_000
    assert "rule_skin_corr" in lines[-1]
    assert "18 tiles" in lines[-1]


def test_the_network_learns_one_batch_in_sixty_steps() -> None:
    """Before its inputs were brought to one scale it had gained 0.3 % by then."""
    from fusion.train.detail import detail_loss

    torch.manual_seed(0)
    grain = torch.nn.functional.avg_pool2d(torch.randn(4, 3, 66, 66), 3, 1)
    truth = (0.5 + 0.15 * grain).clamp(0, 1)
    result = torch.nn.functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    gate = torch.zeros(4, 1, 64, 64)
    net = detail.DetailNet()
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    losses = []
    for _ in range(60):
        loss = detail_loss(result + detail.WEIGHT * net(result, result.flip(0), gate, gate), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert losses[0] < 1.02 * float(detail_loss(result, truth))
