"""The learned mark's recipe runs, resumes, keeps its schedule, and its attacks are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.face import UInt8Array
from fusion.train.mark import ATTACKS, Course, MarkRecipe, attacked, drawn, train_mark
from fusion.train.mark_nets import BITS, MarkEmbedder, MarkExtractor, room

SMALL = MarkRecipe(steps=6, batch=2, side=64, threads=1, minutes=5)


def drawings(count: int, rng: np.random.Generator) -> UInt8Array:
    return np.stack([drawn(64, rng) for _ in range(count)])


def test_shapes_and_ranges_at_any_side() -> None:
    luma = torch.rand(2, 1, 64, 64)
    change = MarkEmbedder()(luma, torch.ones(2, BITS))
    assert change.shape == luma.shape
    assert float(change.detach().abs().max()) <= 1
    assert MarkExtractor()(luma).shape == (2, BITS + 1)
    assert room(luma).mean().item() == pytest.approx(1, abs=1e-4)


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


def test_no_ramp_no_attack() -> None:
    x = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(attacked(x, 0.0, np.random.default_rng(0)), x)


def test_the_schedule_holds_back_attacks_and_strength_until_the_bits_are_learnt() -> None:
    course = Course(MarkRecipe(steps=1000))
    course.step = 900
    assert (course.ramp, course.strength, course.extractor_alone) == (0.0, 10.0, False)
    course.attacks_from = 100
    course.step = 175
    assert course.ramp == pytest.approx(0.5)
    assert course.strength == pytest.approx(10.0)
    course.step = 900
    assert (course.ramp, course.extractor_alone) == (1.0, True)
    assert course.strength == pytest.approx(2.2)


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
