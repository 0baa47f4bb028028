"""The registry and its loader: every file is hashed before it is read; knows no particular network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fusion.weights import (
    IDENTITY,
    REGISTRY,
    WEIGHTS_FOLDER,
    WeightSpec,
    file_sha256,
    find_spec,
    load_tensors,
    load_weights,
    weights_path,
    write_weights,
)
from provenance.errors import WeightsError


@pytest.fixture
def written(tmp_path: Path) -> tuple[WeightSpec, Path]:
    """A small file of two tensors with its registry row."""
    tensors = {"weight": torch.linspace(-2, 2, 6).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}
    sha256 = write_weights(tmp_path / "small.safetensors", tensors, {"network": "small"})
    return replace(IDENTITY, name="small", file="small.safetensors", sha256=sha256), tmp_path


def test_half_precision_on_disk_becomes_float32(written: tuple[WeightSpec, Path]) -> None:
    spec, folder = written
    tensors = load_tensors(spec, folder)
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    torch.testing.assert_close(
        tensors["weight"], torch.linspace(-2, 2, 6).reshape(2, 3), atol=1e-3, rtol=1e-3
    )
    assert b'"F16"' in weights_path(spec, folder).read_bytes()[:300]


def test_integers_are_kept(tmp_path: Path) -> None:
    sha256 = write_weights(tmp_path / "n.safetensors", {"steps": torch.tensor(70_000)})
    spec = replace(IDENTITY, file="n.safetensors", sha256=sha256)
    assert load_tensors(spec, tmp_path)["steps"].item() == 70_000


@pytest.mark.parametrize("position", [9, -1])
def test_one_altered_byte_is_refused(written: tuple[WeightSpec, Path], position: int) -> None:
    spec, folder = written
    data = bytearray(weights_path(spec, folder).read_bytes())
    data[position] ^= 1
    weights_path(spec, folder).write_bytes(bytes(data))
    with pytest.raises(WeightsError) as caught:
        load_tensors(spec, folder)
    assert caught.value.code == "weights.altered"
    assert spec.sha256[:12] in caught.value.cause


def test_missing_file(written: tuple[WeightSpec, Path]) -> None:
    spec, folder = written
    with pytest.raises(WeightsError) as caught:
        load_tensors(replace(spec, file="absent.safetensors"), folder)
    assert caught.value.code == "weights.missing"


def test_a_file_of_another_kind_is_unreadable_even_when_its_hash_agrees(tmp_path: Path) -> None:
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04 not safetensors")
    spec = replace(IDENTITY, file="pickle.safetensors", sha256=file_sha256(tmp_path / "pickle.safetensors"))
    with pytest.raises(WeightsError) as caught:
        load_tensors(spec, tmp_path)
    assert caught.value.code == "weights.unreadable"


def test_load_weights_is_strict(written: tuple[WeightSpec, Path]) -> None:
    spec, folder = written
    fits = torch.nn.Linear(3, 2)
    load_weights(fits, spec, folder)
    torch.testing.assert_close(fits.bias.detach(), torch.tensor([1.0, -1.0]))
    for module in (torch.nn.Linear(2, 2), torch.nn.Linear(3, 2, bias=False)):
        with pytest.raises(WeightsError) as caught:
            load_weights(module, spec, folder)
        assert caught.value.code == "weights.mismatch"


def test_values_beyond_half_precision_are_not_written(tmp_path: Path) -> None:
    for value in (1e6, float("nan")):
        with pytest.raises(WeightsError) as caught:
            write_weights(tmp_path / "x.safetensors", {"x": torch.tensor([value])})
        assert caught.value.code == "weights.range"
    assert not (tmp_path / "x.safetensors").exists()


def test_unknown_name_lists_the_known() -> None:
    assert find_spec("identity") is IDENTITY
    with pytest.raises(WeightsError) as caught:
        find_spec("inswapper")
    assert "identity" in caught.value.next_step


@pytest.mark.parametrize("spec", REGISTRY.values(), ids=lambda s: s.name)
def test_every_shipped_row_has_its_file_and_its_card(spec: WeightSpec) -> None:
    assert file_sha256(weights_path(spec)) == spec.sha256
    card = (WEIGHTS_FOLDER / spec.card).read_text(encoding="utf-8")
    assert "licence" in card.lower()
    assert sum(t.numel() for t in load_tensors(spec).values()) > 0


def test_no_stray_file_in_the_folder_of_weights() -> None:
    known = {s.file for s in REGISTRY.values()} | {s.card for s in REGISTRY.values()}
    found = {p.name for p in WEIGHTS_FOLDER.glob("*")} if WEIGHTS_FOLDER.is_dir() else set()
    assert found <= known
