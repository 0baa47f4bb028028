"""The generators' recipe: every term has a gradient, runs resume exactly, collapse is noticed, pairs are true."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fusion.identity import load_identity
from fusion.landmark import load_landmarker
from fusion.train import generator, generator_losses
from fusion.train.generator import PAINTERS, GeneratorRun
from fusion.train.generator_batches import Batch, Supply, mirror, recolour
from fusion.train.generator_gate import CollapseGate, HeldOut, Verdict
from fusion.train.generator_losses import Judges
from fusion.train.generator_material import PairMaker, lay, read_shard, write_shard
from fusion.train.generator_terms import GeneratorRecipe, terms, total
from fusion.train.teacher import MobileFaceNet
from provenance.errors import InputError, UsageError

RECIPE = GeneratorRecipe(pairs=2, swaps=2, judged=3, steps=50, minutes=60)


PEOPLE = 6


def unit_vectors(count: int, size: int, seed: int = 4) -> torch.Tensor:
    return F.normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture(scope="module")
def judges() -> Judges:
    """Our networks, and a second recogniser of the teacher's shape with random weights."""
    torch.manual_seed(1)
    teacher = MobileFaceNet().eval().requires_grad_(False)
    landmarker = load_landmarker().requires_grad_(False)
    return Judges(load_identity(), landmarker, unit_vectors(PEOPLE, 512), teacher, unit_vectors(PEOPLE, 128))


def batch(seed: int = 0, pairs: int = 2, swaps: int = 2) -> Batch:
    """Smooth random pictures; the composite differs from the target in the middle."""
    rng, count = torch.Generator().manual_seed(seed), pairs + swaps
    coarse = [torch.rand(count, 3, 16, 16, generator=rng) for _ in range(2)]
    target, other = (F.interpolate(c, size=(128, 128), mode="bilinear") for c in coarse)
    trust = torch.zeros(count, 1, 128, 128)
    trust[:, :, 24:104, 28:100] = 1
    composite = target + trust * (other - target)
    told = F.normalize(torch.randn(count, 512, generator=rng))
    truth = (0.5 * target + 0.5 * composite)[:pairs]
    person = torch.arange(count) % PEOPLE
    return Batch(target, composite, trust, told, person, truth, (person[pairs:] + 1) % PEOPLE)


def test_every_term_reaches_the_generator(judges: Judges) -> None:
    recipe = replace(RECIPE, allowed_leak=-1.0)
    run = GeneratorRun(recipe, judges)
    torch.nn.init.normal_(run.painter.net.out.weight, std=0.02)
    made = run.painter(batch())
    found = terms(made, run.painter.finish(made, batch()), batch(), judges, recipe, step=0)
    of_recognisers = {
        f"{who}{what}" for who in ("", "teacher_") for what in ("identity", "retrieval", "leak")
    }
    names = {"pixel", "slope", "energy", "anchor", "tint", "feature", "landmark", "attribute"}
    assert set(found) == names | of_recognisers
    parameters = list(run.painter.parameters())
    for name, term in found.items():
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        sizes = [float(g.abs().sum()) for g in gradients if g is not None]
        assert all(np.isfinite(sizes)), name
        assert len(sizes) == len(parameters), name
        assert sum(sizes) > 0, name
        assert float(getattr(recipe, name)) > 0, name
    frozen = (judges.identity, judges.landmark, judges.teacher)
    assert not any(p.requires_grad for net in frozen if net is not None for p in net.parameters())


def test_recognisers_see_swaps_as_the_engine_hands_them_out() -> None:
    given = batch()
    made = given.target + 0.1
    hybrid, style = (PAINTERS[name]() for name in ("hybrid", "style"))
    shown = hybrid.finish(made, given)
    assert torch.equal(shown[:2], made[:2])
    step = (shown - given.target)[2:].mean((0, 1))
    assert float(step[64, 64]) == pytest.approx(0.1, abs=1e-4)
    assert abs(float(step[64, 29])) < 0.06  # at the trust's rim
    assert float(step[64, 10]) == pytest.approx(0.1, abs=1e-4)  # beyond it nothing is closed
    assert style.finish(made, given) is made


def test_terms_are_zero_where_nothing_is_wrong(judges: Judges) -> None:
    given = batch()
    perfect = torch.cat([given.truth, given.composite[2:]])
    known = judges.look_as_ours(perfect)
    right = Judges(judges.identity, judges.landmark, torch.cat([known, judges.gallery[len(known) :]]))
    recipe = replace(RECIPE, allowed_leak=1.0, wobble=0.0)
    found = terms(perfect, perfect, given, right, recipe, step=0)
    for name in ("pixel", "slope", "energy", "anchor", "tint", "leak", "identity", "feature", "landmark"):
        assert float(found[name]) < 1e-5, name
    worse = terms(perfect + 0.05, perfect + 0.05, given, right, recipe, step=0)
    assert float(worse["pixel"]) > 0.01
    assert float(worse["slope"]) < 1e-5
    assert float(total(worse, recipe)) > float(total(found, recipe))


def test_the_recognisers_crop_is_the_one_of_the_pipeline() -> None:
    from test_fusion_warp import PALE, landmarks, picture

    from fusion.align import arcface_crop_from_image, five_points, warp_crop
    from fusion.native import generator_crop_from_image

    points = landmarks(5, (256, 260), 100)
    rgb = picture(points, (512, 512), PALE, 5)
    direct = warp_crop(rgb, arcface_crop_from_image(five_points(points)), 112)[:, 8:-8]
    crop = warp_crop(rgb, generator_crop_from_image(points), 128)
    x = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
    through = generator_losses.resample(
        x, generator_losses.identity_from_crop(), generator_losses.IDENTITY_HW
    )
    away = np.abs(through[0].permute(1, 2, 0).numpy() - direct)
    assert away.mean() < 6
    shifted = np.abs(through[0, :, :, 2:].permute(1, 2, 0).numpy() - direct[:, :-2])
    assert away.mean() < 0.6 * shifted.mean()


def test_a_resumed_run_equals_one_that_went_on(judges: Judges, tmp_path: Path) -> None:
    one = GeneratorRun(RECIPE, judges)
    for seed in range(2):
        one.step(batch(seed))
    one.elapsed_s = 12.5
    one.save(tmp_path / "checkpoint.pt")
    parameters = sum(p.numel() for p in one.painter.parameters())
    assert (tmp_path / "checkpoint.pt").stat().st_size <= 10 * parameters + 2**21
    other = GeneratorRun(replace(RECIPE, seed=99), judges)
    other.load(tmp_path / "checkpoint.pt")
    assert (other.steps, other.samples, other.elapsed_s) == (2, 8, 12.5)
    for run in (one, other):
        torch.manual_seed(5)
        run.step(batch(7))
    for name in ("painter", "average"):
        for a, b in zip(getattr(one, name).parameters(), getattr(other, name).parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_run_begins_with_given_weights(judges: Judges, tmp_path: Path) -> None:
    one = GeneratorRun(RECIPE, judges)
    one.step(batch())
    path, _ = generator.export(one, tmp_path)
    other = GeneratorRun(replace(RECIPE, seed=99), judges)
    other.start_from(path)
    for a, b in zip(one.average.parameters(), other.painter.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)
    assert other.steps == 0


def test_training_lowers_the_error_and_the_average_follows(judges: Judges) -> None:
    others = ("anchor", "tint", "identity", "leak", "retrieval", "feature", "attribute", "landmark")
    others += ("teacher_identity", "teacher_leak", "teacher_retrieval")
    recipe = replace(RECIPE, steps=0, learning_rate=3e-3, **dict.fromkeys(others, 0.0))
    run = GeneratorRun(recipe, judges)
    run.steps = 60  # the warm-up is over
    start = [p.clone() for p in run.average.parameters()]
    errors = [run.step(batch())["pixel"] for _ in range(12)]
    assert errors[-1] < 0.95 * errors[0]
    moved = [not torch.equal(a, b) for a, b in zip(start, run.average.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_the_style_generator_takes_a_step(judges: Judges, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusion.generator import StyleConfig

    small = StyleConfig(128, (32, 32, 16, 16, 16), (16, 16, 16, 16, 16))
    monkeypatch.setattr(generator, "STYLE_128", small)
    run = GeneratorRun(GeneratorRecipe.of("style", pairs=2, swaps=2, judged=3, steps=50, minutes=60), judges)
    before = [p.clone() for p in run.painter.parameters()]
    found = run.step(batch())
    assert all(np.isfinite(list(found.values())))
    moved = [not torch.equal(a, b) for a, b in zip(before, run.painter.parameters(), strict=True)]
    assert all(moved)


def test_adam_sees_every_layer_of_a_fresh_style_generator() -> None:
    """Once weights began at a deviation of 1: gradients of 1e-9 drowned in the epsilon, and nothing was learnt."""
    torch.manual_seed(0)
    painter, given = generator.StylePainter(), batch()
    F.l1_loss(painter(given), given.composite).backward()  # type: ignore[no-untyped-call]
    recipe = GeneratorRecipe.of("style")
    for name, parameter in painter.net.named_parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().mean()) > 100 * recipe.epsilon, name
    for layer in painter.net.layers:
        assert recipe.learning_rate > 0.01 * float(
            layer.weight.detach().abs().mean()
        )  # a step moves a layer by 1 %


def test_recipes_of_both_engines() -> None:
    assert GeneratorRecipe.of("style").anchor > GeneratorRecipe.of("hybrid").anchor
    assert GeneratorRecipe.of("hybrid", seed=9) == GeneratorRecipe(seed=9)
    for engine in ("hybrid", "style"):
        first, later = GeneratorRecipe.of(engine), GeneratorRecipe.further(engine, minutes=3)
        assert later.teacher_identity > first.teacher_identity
        assert (later.engine, later.minutes, later.epsilon) == (engine, 3, first.epsilon)
        assert later.judged_from == 0


def test_recognisers_look_from_their_share_of_the_run_on(judges: Judges) -> None:
    run = GeneratorRun(replace(RECIPE, judged_from=0.5, landmark_every=9), judges)
    run.steps = 24
    assert "identity" not in run.step(batch())
    assert {"identity", "teacher_retrieval", "leak"} <= run.step(batch()).keys()


def test_the_gate_rolls_back_after_three_falls_in_a_row() -> None:
    gate = CollapseGate()
    verdicts = [gate.judge(0.5 - leak) for leak in (0.5, 0.3, 0.4, 0.5, 0.45, 0.6, 0.7, 0.8, 0.3)]
    best, on, back = Verdict.BEST, Verdict.GO_ON, Verdict.ROLL_BACK
    assert verdicts == [best, best, on, on, on, on, on, back, on]


def test_being_found_among_all_is_the_cross_entropy_of_the_cosines() -> None:
    gallery = torch.eye(3)
    seen = F.normalize(torch.tensor([[0.6, 0.8, 0.0]]))
    loss = generator_losses.retrieval_loss(seen, gallery, torch.tensor([1]), scale=10.0, margin=0.1)
    odds = np.exp([10 * 0.6, 10 * (0.8 - 0.1), 0.0])
    assert float(loss) == pytest.approx(-np.log(odds[1] / odds.sum()), abs=1e-5)


def test_held_out_swaps_are_judged_by_each_recogniser() -> None:
    given = batch()
    here = F.normalize(given.composite[2:].mean((2, 3)) - 0.5)
    gallery = torch.zeros(PEOPLE, 3)
    gallery[given.person[2:]] = torch.stack([here[0], -here[1]])

    def recognise(pictures: torch.Tensor) -> torch.Tensor:
        return F.normalize(pictures.mean((2, 3)) - 0.5)

    held_out = HeldOut(given, {"first": recognise, "watch": recognise}, {"first": gallery, "watch": gallery})
    row = held_out.judge(given.composite[2:])
    assert row["cos_source_first"] == pytest.approx(0.0, abs=1e-6)  # found, and its very opposite
    assert row["top1_watch"] == 0.5
    assert held_out.margin(row) == pytest.approx(row["cos_source_watch"] - row["cos_target_watch"])


def test_fields_are_not_drawn_between_lips_and_lids() -> None:
    trust = torch.zeros(1, 1, 128, 128)
    trust[:, :, 16:116, 24:104] = 1
    trust[:, :, 88:96, 52:76] = 0  # mouth
    trust[:, :, 48:56, 36:52] = 0  # an eye
    share = generator.spared_holes(trust)[0, 0]
    assert float(share[90:94, 58:70].max()) < 0.05
    assert float(share[51:53, 42:46].max()) < 0.05
    assert float(share[60:66, 36:52].min()) > 0.95
    assert float(share[70, 64]) == 1


def test_small_falls_are_noise_and_nan_is_collapse() -> None:
    gate = CollapseGate()
    assert gate.judge(0.4) is Verdict.BEST
    assert [gate.judge(0.4 - 0.001 * i) for i in range(1, 6)] == [Verdict.GO_ON] * 5
    assert gate.judge(float("nan")) is Verdict.ROLL_BACK


def test_a_mirrored_and_recoloured_batch_stays_consistent() -> None:
    given = batch()
    turned = mirror(given, torch.tensor([True, False, True, False]))
    assert torch.equal(turned.target[0], given.target[0].flip(2))
    assert torch.equal(turned.truth[0], given.truth[0].flip(2))
    assert torch.equal(turned.composite[1], given.composite[1])
    assert torch.equal(turned.trust[2], given.trust[2].flip(2))
    tinted = recolour(given, torch.full((4, 3), 0.5))
    assert torch.allclose(tinted.target, 0.5 * given.target)
    assert torch.allclose(tinted.truth, 0.5 * given.truth)
    assert torch.equal(tinted.trust, given.trust)


def test_what_lies_on_a_face_stays_on_top() -> None:
    over, under = np.full((8, 8, 3), 200, np.uint8), np.full((8, 8, 3), 100, np.uint8)
    cover = np.zeros((8, 8), np.float32)
    cover[2:4] = 1
    laid = lay(over, under, cover)
    assert (laid[2:4] == 200).all()
    assert (laid[4:] == 100).all()


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as unknown:
        generator.train(tmp_path, tmp_path, GeneratorRecipe(engine="magic"))
    assert unknown.value.code == "train.engine"


@pytest.mark.shared
def test_pairs_hold_a_swap_and_its_truth(shared_folder: Path, tmp_path: Path) -> None:
    from fusion.train.generator_material import PICTURE_PX
    from fusion.train.portraitset import read_portraits

    maker = PairMaker(read_portraits(shared_folder / "data", "val", PICTURE_PX))
    rng = np.random.default_rng(3)
    records = [maker.draw(rng) for _ in range(10)]
    for record in records:
        assert record["truth"].shape == record["target"].shape == (128, 128, 3)
        rim = np.abs(record["target"].astype(int) - record["truth"])[:, :3]
        assert rim.mean() < 1
        inside = record["regained"] > 200
        if record["same"]:
            assert (record["target"] == record["truth"]).all()
            assert record["trust"].max() == 0
        else:
            assert np.abs(record["target"][inside].astype(int) - record["truth"][inside]).mean() > 3
        mended = np.abs(record["mended"][inside].astype(int) - record["target"][inside]).mean()
        assert mended > 1
    assert any(record["same"] for record in records)
    assert not all(record["same"] for record in records)


@pytest.mark.shared
def test_shards_repeat_and_feed_batches(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusion.train import generator_material
    from fusion.train.portraitset import read_portraits

    monkeypatch.setattr(generator_material, "SHARD", 6)
    portraits = read_portraits(shared_folder / "data", "val", generator_material.PICTURE_PX)
    maker, folder = PairMaker(portraits), tmp_path / "val"
    folder.mkdir()
    with pytest.raises(InputError) as none:
        Supply(shared_folder / "data", tmp_path, "val", load_identity(), 0)
    assert none.value.code == "train.pairs"
    assert write_shard(maker, folder, 0, seed=1)
    assert not write_shard(maker, folder, 0, seed=1)
    first = read_shard(folder / "pairs_0000.npz")
    (folder / "pairs_0000.npz").rename(tmp_path / "kept.npz")
    write_shard(maker, folder, 0, seed=1)
    again = read_shard(folder / "pairs_0000.npz")
    assert (first.mended == again.mended).all()
    supply = Supply(shared_folder / "data", tmp_path, "val", load_identity(), 0)
    drawn = supply.draw(np.random.default_rng(0), 3, 2)
    assert drawn.target.shape == (5, 3, 128, 128)
    assert drawn.num_pairs == 3
    assert drawn.leaving.shape == (2,)
    assert not (drawn.leaving == drawn.person[3:]).any()
    assert float((drawn.identity * supply.identities[drawn.person]).sum(1).min()) > 0.95
    assert 0 <= float(drawn.target.min()) <= float(drawn.target.max()) <= 1
    style_is_held_to_what_hybrid_makes(supply)


def style_is_held_to_what_hybrid_makes(supply: Supply) -> None:
    guide, places = generator.load_guide("cpu"), supply.swap_places[:2]
    plain = supply.gather([], places)
    with torch.inference_mode():
        wanted = guide(replace(plain, identity=supply.identities[plain.person])).clamp(0, 1)
    supply.guide = guide
    told = supply.gather(supply.places[:1], places)
    assert float((told.composite[1:] - wanted).abs().max()) <= 0.5 / 255 + 1e-6
    assert float((told.composite[1:] - plain.composite).abs().max()) > 0.01
    assert torch.equal(told.target[1:], plain.target)
    assert torch.equal(supply.gather([], places).composite, told.composite[1:])  # cast once, not twice


def test_the_critic_learns_to_tell_made_from_true(judges: Judges) -> None:
    recipe = replace(RECIPE, learning_rate=0.0)
    run = GeneratorRun(recipe, judges)
    with torch.no_grad():
        run.painter.net.out.bias[:3] = 1.0  # swaps come out much too bright
    losses = [run.step(batch(seed))["critic"] for seed in range(12)]
    assert losses[0] > 1.8
    assert losses[-1] < 0.8 * losses[0]
    with torch.inference_mode():
        given = batch(40)
        real, made = run.critic(given.target[2:]), run.critic(run.painter(given)[2:])
    assert float(real.mean()) > float(made.mean()) + 0.3
