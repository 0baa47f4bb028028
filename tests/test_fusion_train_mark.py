"""The learned mark's recipe runs, resumes, keeps its schedule, and its attacks are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.face import UInt8Array
from fusion.train.mark import ATTACKS, Course, MarkRecipe, attacked, drawn, misplaced, train_mark
from fusion.train.mark_nets import BITS, CELL, TILE, MarkEmbedder, MarkExtractor, fold, message_plane

SMALL = MarkRecipe(steps=6, batch=2, side=64, threads=1, minutes=5)


def drawings(count: int, rng: np.random.Generator) -> UInt8Array:
    return np.stack([drawn(128, rng) for _ in range(count)])


def test_shapes_at_any_size_and_place() -> None:
    luma = torch.rand(2, 1, 70, 90)
    signs = torch.ones(2, BITS)
    assert MarkEmbedder()(luma, signs, (3, 61)).shape == luma.shape
    net = MarkExtractor()
    assert net(luma, (3, 61)).shape == (2, BITS)
    assert net.everywhere(luma).shape == (2, 2, 63, 83)


def test_the_message_lies_where_it_is_looked_for() -> None:
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (1, BITS)).astype(np.float32))
    for offset in ((0, 0), (5, 62), (17, 8)):
        plane = message_plane(signs, (100, 120), offset)
        y, x = (-offset[0] % CELL, -offset[1] % CELL)
        cells = plane[..., y : y + 88 : CELL, x : x + 104 : CELL]
        first = ((offset[0] + y) // CELL % 8, (offset[1] + x) // CELL % 8)
        assert torch.equal(fold(cells, first).sign(), signs)


def test_cells_and_everywhere_are_one_reading() -> None:
    luma, net = torch.rand(1, 1, 80, 80), MarkExtractor()
    y, x = -3 % CELL, -61 % CELL
    torch.testing.assert_close(
        net.cells(luma, (3, 61)), net.everywhere(luma)[..., y::CELL, x::CELL], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_changes_the_picture_and_lets_gradients_through(name: str) -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(drawings(2, rng)[:, None].astype(np.float32) / 255).requires_grad_()
    y = ATTACKS[name](x, rng)
    assert y.shape == x.shape
    assert float((y - x).detach().abs().max()) > 1e-3
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0


def test_no_ramp_no_attack_and_a_misplaced_picture_stays_near() -> None:
    rng = np.random.default_rng(0)
    x = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(attacked(x, 0.0, rng), x)
    smooth = torch.nn.functional.avg_pool2d(x, 15, 1, 7)
    assert 0 < float((misplaced(smooth, rng) - smooth).abs().mean()) < 0.05


def test_the_schedule_holds_back_attacks_and_strength_until_the_bits_are_learnt() -> None:
    course = Course(MarkRecipe(steps=1000))
    course.step = 900
    assert (course.ramp, course.strength, course.extractor_alone) == (0.0, 5.0, False)
    course.attacks_from = 0.1
    course.step = 225
    assert course.ramp == pytest.approx(0.5)
    assert course.strength == pytest.approx(5.0)
    course.step = 900
    assert (course.ramp, course.strength, course.extractor_alone) == (1.0, 1.0, True)


def test_the_last_strength_costs_what_the_recipe_says() -> None:
    course = Course(SMALL)
    course.attacks_from, course.step = 0.0, SMALL.steps
    luma = torch.full((1, 1, 128, 128), 0.5)
    change = (course.marked(luma, torch.ones(1, BITS), (0, 0)) - luma) * 255
    wanted = (SMALL.deficit * 58.5) ** 0.5  # a flat picture: all of SSIM's denominator is its constant
    assert float(change.detach().pow(2).mean().sqrt()) == pytest.approx(wanted, rel=0.3)  # rounding, resizing
    assert TILE == 64


def test_a_few_steps_train_resume_and_leave_weights(tmp_path: Path) -> None:
    first = train_mark(tmp_path, tmp_path / "run", SMALL, pictures=drawings, report=lambda line: None)
    assert first.step == 6
    before = first.extractor.head.weight.detach().clone()
    longer = MarkRecipe(**{**vars(SMALL), "steps": 8})
    second = train_mark(
        tmp_path, tmp_path / "run", longer, resume=True, pictures=drawings, report=lambda line: None
    )
    assert second.step == 8
    assert not torch.equal(before, second.extractor.head.weight)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "course.pt", "curve.jsonl", "run.json", "mark_embedder.safetensors", "mark_extractor.safetensors",
    }  # fmt: skip


def test_bits_are_learnt_in_forty_steps() -> None:
    torch.set_num_threads(1)
    course, rng = Course(MarkRecipe(steps=100_000, batch=4, side=64)), np.random.default_rng(0)
    for _ in range(40):
        seen = course.learn(torch.from_numpy(drawings(4, rng)[:, None].astype(np.float32) / 255), rng)
    assert seen["bits"] > 0.8
