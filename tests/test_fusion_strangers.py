"""Drawn nobodies resemble no training person; who does is drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from facesets.errors import FacesetError
from facesets.portraits import PortraitModel
from fusion import strangers
from fusion.strangers import Strangers, TrainingPeople, load_training_people
from fusion.train.identity_people import as_bytes, nearest_other
from fusion.weights import IDENTITY, PEOPLE, write_weights
from provenance.errors import WeightsError


@pytest.fixture(scope="module")
def drawer() -> Strangers:
    return Strangers(PortraitModel.load())


def embedding_of(drawer: Strangers, seed: int, number: int) -> np.ndarray:
    """Of the first candidate, whether or not it is taken."""
    portrait = drawer.model.render(next(drawer.model.candidates(seed, number)))
    return drawer._embed(portrait.rgb, portrait.landmarks_px)


def test_the_shipped_people_are_unit_vectors_and_the_limit_is_theirs() -> None:
    people = load_training_people()
    assert people.embeddings.shape == (2561, 512)
    np.testing.assert_allclose(np.linalg.norm(people.embeddings, axis=1), 1, atol=1e-5)
    assert people.limit == pytest.approx(nearest_other(people.embeddings), abs=2e-3)


def test_a_face_that_resembles_somebody_is_drawn_again(drawer: Strangers) -> None:
    first = embedding_of(drawer, 5, 0)
    taken = Strangers(drawer.model)
    taken.people = TrainingPeople(first[None], 0.95)
    again = taken.draw(5, 0, 256)
    assert not np.array_equal(again, drawer.model.render(next(drawer.model.candidates(5, 0))).rgb)
    assert taken.people.nearest(first) == pytest.approx(1, abs=1e-5)


def test_a_face_that_resembles_nobody_is_taken_at_once(drawer: Strangers) -> None:
    free = Strangers(drawer.model)
    free.people = TrainingPeople(-np.ones((1, 512), np.float32) / np.sqrt(np.float32(512)), 1.0)
    np.testing.assert_array_equal(
        free.draw(5, 0, 256), drawer.model.render(next(drawer.model.candidates(5, 0))).rgb
    )


def test_candidates_run_out_with_an_error(drawer: Strangers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facesets.portraits.MAX_REDRAWS", 2)
    crowded = Strangers(drawer.model)
    crowded.people = TrainingPeople(drawer.people.embeddings, -1.0)
    with pytest.raises(FacesetError) as caught:
        crowded.draw(5, 0, 256)
    assert caught.value.code == "faceset.copies"


def test_people_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {
        "embeddings": torch.ones(2, 512, dtype=torch.int8),
        "limit": torch.tensor([0.8]),
        "identity_sha256": torch.zeros(32, dtype=torch.uint8),
    }
    sha256 = write_weights(tmp_path / PEOPLE.file, tensors)
    monkeypatch.setattr(strangers, "load_tensors", lambda spec: torch_tensors(tmp_path / spec.file))
    assert sha256 != PEOPLE.sha256
    with pytest.raises(WeightsError) as caught:
        load_training_people()
    assert caught.value.code == "weights.mismatch"


def torch_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(path))


def test_the_record_names_what_decided(drawer: Strangers) -> None:
    assert drawer.models["identity"] == IDENTITY.sha256
    assert set(drawer.models) == {"portraits", "identity", "people"}


def test_bytes_keep_directions_and_the_limit_is_a_median() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    raw = as_bytes(rows).astype(np.float32)
    cosines = (raw * rows).sum(1) / np.linalg.norm(raw, axis=1)
    assert cosines.min() > np.cos(np.radians(1))
    pairs = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    assert nearest_other(pairs) == pytest.approx(0.8)
