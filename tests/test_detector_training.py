"""Pairs, blends, deliveries, batches, losses and the recipe of the detector, on drawn people; knows no shared data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from detector import pairs
from detector.batches import BatchMaker
from detector.bench import draw_people
from detector.blend import ALL_FAMILIES, FAMILIES, draw_mask, self_blend
from detector.cases import DELIVERIES, OTHER_ENGINES, arrive, make_cases
from detector.crop import cut, face_window, reduce_square
from detector.delivery import Delivery, deliver, draw_delivery
from detector.held_out import HELD_OUT, held_out_of
from detector.losses import LossWeights, boundary, detector_loss, dice_loss
from detector.model import SIZES, Evidence, EvidenceNet, NetConfig, block_dct_filters, srm_filters
from detector.pairs import IDENTITY_PASS, Person, StoredPairs
from detector.train import DetectorRecipe, Learner, _keep_best
from detector.weights import DETECTOR, load_pretrained, read_note
from fusion.swap import ENGINES
from fusion.weights import file_sha256
from provenance.errors import UsageError, WeightsError


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return draw_people(3, seed=4)


@pytest.fixture(scope="module")
def stored(people: list[Person], tmp_path_factory: pytest.TempPathFactory) -> StoredPairs:
    """One small shard by the real writer."""
    folder = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "SHARD", 6)
        done = list(
            pairs.write_shards(
                {p.name: p for p in people}, {"warp": pairs.ENGINES["warp"]}, folder, 6, seed=0
            )
        )
    assert done == [6]
    return StoredPairs.open(folder)


def test_pairs_differ_in_the_face_only(stored: StoredPairs) -> None:
    planes = np.asarray(stored.planes[0])
    assert planes.shape == (6, 320, 320, 7)
    for pair, recipe in zip(planes, stored.recipes[0], strict=True):
        rim = np.r_[pair[:4].reshape(-1, 7), pair[:, :4].reshape(-1, 7)]
        assert (
            np.abs(rim[:, :3].astype(int) - rim[:, 3:6]).mean() < 3
        )  # the engine bends up to 1.5 outlines around it
        truth = pair[..., 6] > 127
        if recipe["engine"] == IDENTITY_PASS:
            assert recipe["source"] == recipe["target"]
            assert not truth.any()
        else:
            assert recipe["source"] != recipe["target"]
            change = np.abs(pair[..., :3].astype(int) - pair[..., 3:6]).mean(2)
            assert change[truth].mean() > 2 * change[~truth].mean()


def test_the_mark_falls_on_members_of_either_label(people: list[Person], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "SHARD", 12)
        named = {p.name: p for p in people}
        list(
            pairs.write_shards(named, {"warp": pairs.ENGINES["warp"]}, tmp_path, 12, 0, lambda rgb: 255 - rgb)
        )
    planes = np.asarray(StoredPairs.open(tmp_path).planes[0])[:, :4].astype(int)
    plain = [
        reduce_square(np.ascontiguousarray(cut(p.rgb, face_window((512, 512), p.box_xyxy))), 320)[:4]
        for p in people
    ]
    marked = np.array(
        [
            [min(np.abs(pair[..., k : k + 3] - p).mean() for p in plain) > 10 for k in (0, 3)]
            for pair in planes
        ]
    )
    assert 0 < marked[:, 0].sum() < 12
    assert 0 < marked[:, 1].sum() < 12
    assert (marked[:, 0] != marked[:, 1]).any()


def test_identity_passes_change_pixels_but_nothing_to_see(people: list[Person]) -> None:
    rng = np.random.default_rng(1)
    recipe = pairs.Recipe("a", "a", IDENTITY_PASS, "seen", pairs.draw_options(rng))
    made = pairs.pass_through(people[0], rng, recipe)
    change = np.abs(made.rgb.astype(int) - people[0].rgb)
    assert not made.share.any()
    assert 0 < change.mean() < 3
    assert (change > 0).mean() > 0.02


def test_held_out_settings_are_never_drawn_in_training() -> None:
    rng = np.random.default_rng(0)
    seen = [pairs.draw_options(rng) for _ in range(300)]
    assert all(o.keep_eyes and o.feather <= 0.10 for o in seen)
    assert not pairs.draw_options(rng, "source_eyes").keep_eyes
    assert pairs.draw_options(rng, "soft_seam").feather > 0.10


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_blends_alter_where_their_mask_says(people: list[Person], family: str) -> None:
    person = people[0]
    points = person.landmarks_px.astype(np.float32)
    before = person.rgb.copy()
    blended, mask = self_blend(person.rgb, points, np.random.default_rng(3), family, 1.5)
    np.testing.assert_array_equal(person.rgb, before)
    change = np.abs(blended.astype(int) - person.rgb).sum(2)
    assert 0.0 <= float(mask.min()) <= float(mask.max()) <= 1.001
    assert 0.002 < float((mask > 0.5).mean()) < 0.6
    assert change[mask > 0.5].mean() > 1
    assert change[mask == 0].max() <= 3


def test_a_mask_depends_on_the_draw(people: list[Person]) -> None:
    points = people[0].landmarks_px.astype(np.float32)
    first, second = (draw_mask(points, 512, np.random.default_rng(seed), "hull") for seed in (0, 1))
    again = draw_mask(points, 512, np.random.default_rng(0), "hull")
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).mean() > 0.005


def test_a_delivery_is_the_same_for_both_members(people: list[Person]) -> None:
    for seed in range(6):
        delivery = draw_delivery(np.random.default_rng(seed), 1.0)
        first, second = deliver(people[0].rgb, delivery), deliver(people[0].rgb.copy(), delivery)
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(deliver(people[0].rgb, Delivery()), people[0].rgb)
    assert deliver(people[0].rgb, Delivery(resize=0.75)).shape == (384, 384, 3)


def test_arrival_moves_box_and_truth_along(people: list[Person]) -> None:
    case = next(iter(make_cases(people, {"warp": pairs.ENGINES["warp"]}, 0, ("default",))))
    assert case.altered
    assert case.share is not None
    cropped = arrive(case, DELIVERIES["crop_10"])
    halved = arrive(case, DELIVERIES["resize_0.5"])
    assert halved.share is not None
    np.testing.assert_allclose(halved.box_xyxy, case.box_xyxy / 2, atol=0.01)
    assert halved.rgb.shape[:2] == halved.share.shape == (256, 256)
    np.testing.assert_allclose(cropped.box_xyxy, case.box_xyxy - 35, atol=0.01)


def test_batches_hold_pairs_half_of_them_real(stored: StoredPairs) -> None:
    maker = BatchMaker(stored)
    batch = maker.draw(np.random.default_rng(0), 8, 0.5)
    assert batch.pictures.shape == (16, 128, 128, 3)
    assert not batch.masks[0::2].any()
    assert (batch.label[0::2] == 0).all()
    asked = batch.label[1::2]
    assert set(asked[~np.isnan(asked)].tolist()) == {1.0}
    again = maker.draw(np.random.default_rng(0), 8, 0.5)
    np.testing.assert_array_equal(batch.pictures, again.pictures)
    untouched = np.abs(batch.pictures[0::2].astype(int) - batch.pictures[1::2]).mean(3)
    outside = batch.masks[1::2] == 0
    inside = batch.masks[1::2] > 0.5
    assert untouched[inside].mean() > 3 * untouched[outside].mean()


def test_filters_see_no_flat_colour() -> None:
    assert srm_filters().sum((1, 2, 3)).abs().max() < 1e-6
    basis = block_dct_filters().reshape(64, 64)
    torch.testing.assert_close(basis @ basis.T, torch.eye(64), atol=1e-5, rtol=0)


def evidence(mask: torch.Tensor, logit: torch.Tensor) -> Evidence:
    return Evidence(mask, torch.zeros_like(mask), logit, logit)


def test_the_loss_falls_where_truth_is_met() -> None:
    masks = torch.zeros(2, 32, 32)
    masks[1, 8:24, 8:24] = 1
    truth = torch.nn.functional.adaptive_avg_pool2d(masks[:, None], 8)
    good = evidence(20 * truth - 10, torch.tensor([-5.0, 5.0]))
    bad = evidence(10 - 20 * truth, torch.tensor([5.0, -5.0]))
    label = torch.tensor([0.0, 1.0])
    assert detector_loss(good, masks, label, LossWeights()) < 0.2
    assert detector_loss(bad, masks, label, LossWeights()) > 5
    assert dice_loss(20 * truth - 10, truth) < 0.01
    assert (
        int(boundary(truth)[1].sum()) == 36 - 4
    )  # a ring two wide around the 4 x 4 square: 6 x 6 less 2 x 2
    nothing = detector_loss(
        good, masks, torch.tensor([0.0, float("nan")]), LossWeights(mask=0, dice=0, boundary=0)
    )
    assert torch.isfinite(nothing)


def test_a_step_learns_and_a_checkpoint_goes_on(stored: StoredPairs, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    learner = Learner(DetectorRecipe(pairs_per_batch=2), "cpu")
    rng = np.random.default_rng(0)
    before = learner.net.mask.weight.detach().clone()
    losses = [learner.learn(BatchMaker(stored), rng, 0.0) for _ in range(2)]
    assert np.isfinite(losses).all()
    assert not torch.equal(before, learner.net.mask.weight)
    learner.save(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").stat().st_size < 16 << 20
    other = Learner(DetectorRecipe(pairs_per_batch=2), "cpu")
    other.load(tmp_path / "checkpoint.pt")
    assert (other.step, other.seen) == (2, 8)
    torch.testing.assert_close(other.net.mask.weight, learner.net.mask.weight)


def test_a_new_run_begins_with_an_earlier_network_and_keeps_its_best(
    stored: StoredPairs, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    recipe = DetectorRecipe(pairs_per_batch=2, held_out_pairs=4)
    learner = Learner(recipe, "cpu")
    learner.learn(BatchMaker(stored), np.random.default_rng(0), 0.0)
    learner.save(tmp_path / "checkpoint.pt")
    later = Learner(recipe, "cpu")
    later.begin_with(tmp_path / "checkpoint.pt")
    assert (later.step, later.seen, later.spent_s) == (0, 4, 0.0)
    assert later.recipe.mask_first == 0.0
    assert later.recipe.learning_rate == recipe.learning_rate / 2
    averaged = learner.average.module.mask.weight
    torch.testing.assert_close(
        later.net.mask.weight, averaged, atol=2e-3, rtol=1e-3
    )  # kept in half precision
    path = tmp_path / "detector.safetensors"
    figures = _keep_best(later, stored, path, seed=0)
    assert later.best == pytest.approx(np.mean(list(figures.values())))
    note = read_note(replace(DETECTOR, file=path.name, sha256=file_sha256(path)), tmp_path)
    assert held_out_of(note) == HELD_OUT
    written, later.best = path.read_bytes(), 2.0
    _keep_best(later, stored, path, seed=0)
    assert path.read_bytes() == written
    later.save(tmp_path / "checkpoint.pt")
    again = Learner(recipe, "cpu")
    again.load(tmp_path / "checkpoint.pt")
    assert (again.best, again.recipe) == (2.0, later.recipe)


def test_every_engine_of_the_suite_is_learnt_from_or_judged() -> None:
    assert set(ENGINES) <= {*pairs.taught_engines(), *OTHER_ENGINES}
    assert not {*pairs.taught_engines()} & {*OTHER_ENGINES}


def test_pairs_are_made_by_paste_too_and_by_nothing_held_out() -> None:
    assert {"warp", "paste"} <= set(pairs.pair_engines())
    assert not set(pairs.pair_engines()) & set(HELD_OUT.engines)
    assert not set(FAMILIES) & set(HELD_OUT.families)
    assert list(pairs.pair_engines(["paste"])) == ["paste"]
    with pytest.raises(UsageError) as caught:
        pairs.pair_engines(["collage"])
    assert caught.value.code == "pairs.engine"


def test_making_pairs_stops_after_its_time_and_goes_on(tmp_path: Path, people: list[Person]) -> None:
    named, engines = {p.name: p for p in people}, pairs.pair_engines(["paste"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "SHARD", 2)
        first = pairs.write_shards(named, engines, tmp_path, 4, seed=0)
        assert next(first) == 2
        kept = (tmp_path / "0000.npy").read_bytes()
        assert list(pairs.write_shards(named, engines, tmp_path, 4, seed=9)) == [2, 4]
    assert (tmp_path / "0000.npy").read_bytes() == kept
    stored = StoredPairs.open(tmp_path)
    assert len(stored) == 4
    assert {str(recipe["engine"]) for shard in stored.recipes for recipe in shard} <= {"paste", IDENTITY_PASS}


def test_a_collage_keeps_to_the_outline(people: list[Person]) -> None:
    case = next(
        case
        for case in make_cases(people, {"warp": pairs.ENGINES["warp"]}, 0, ("engine",))
        if case.kind == "engine_collage"
    )
    target = next(person for person in people if person.name == case.person)
    change = np.abs(case.rgb.astype(int) - target.rgb).sum(2)
    assert case.share is not None
    assert change[case.share == 0].max() == 0
    assert change[case.share > 0.9].mean() > 20


def test_sizes_are_named() -> None:
    assert DetectorRecipe.of_size("resnet18d", "cuda").pairs_per_batch > DetectorRecipe().pairs_per_batch
    with pytest.raises(UsageError) as caught:
        DetectorRecipe.of_size("huge", "cpu")
    assert caught.value.code == "train.size"


STAND_IN = NetConfig("convnext_atto", tune="norms")


def test_a_users_own_backbone_is_loaded_and_only_its_norms_learn(tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = timm.create_model("convnext_atto", pretrained=False)
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(published.state_dict(), str(path))
    net = EvidenceNet(STAND_IN)
    left = load_pretrained(net.backbone, path, file_sha256(path))
    assert left
    assert all(name.startswith(("head", "norm")) for name in left)
    own = dict(net.backbone.state_dict())
    torch.testing.assert_close(own["stem_0.weight"], published.state_dict()["stem.0.weight"])
    learning = [name for name, value in net.backbone.named_parameters() if value.requires_grad]
    assert learning
    assert all("norm" in name or name.startswith("stem_1") or ".0." in name for name in learning)
    assert all(dict(net.backbone.named_parameters())[name].ndim == 1 for name in learning)
    assert net(torch.rand(1, 3, 64, 64)).mask.shape == (1, 1, 16, 16)


def test_a_backbone_that_is_not_the_one_expected_is_refused(tmp_path: Path) -> None:
    net = EvidenceNet(STAND_IN)
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file({"stem.0.weight": torch.zeros(3)}, str(path))
    with pytest.raises(WeightsError) as altered:
        load_pretrained(net.backbone, path, "0" * 64)
    assert altered.value.code == "weights.altered"
    with pytest.raises(WeightsError) as other:
        load_pretrained(net.backbone, path, file_sha256(path))
    assert other.value.code == "weights.mismatch"
    with pytest.raises(WeightsError) as unknown:
        EvidenceNet(replace(SIZES["narrow"], backbone="no_such_backbone"))
    assert unknown.value.code == "weights.backbone"
