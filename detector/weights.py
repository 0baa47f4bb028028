"""The detector's row of the weights registry, what its file's header says, and pretrained backbones of a user's own.

Opens local files only, each hashed before it is read; there is no download and no hub call.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
from torch import nn

from detector.model import SIZES, EvidenceNet, NetConfig
from fusion.weights import (
    RETRAIN,
    WeightSpec,
    file_sha256,
    load_tensors,
    load_weights,
    verify_file,
    write_weights,
)
from provenance.errors import WeightsError

WEIGHTS_FOLDER: Final = Path(__file__).resolve().parent / "weights"

DETECTOR: Final = WeightSpec(
    name="detector",
    file="detector.safetensors",
    sha256="9cc699aae833e9c253893a1d2123b5f0d4fe3ce04545a718875328cb653b73b3",
    licence="Apache-2.0",
    card="detector.md",
    input_size_px=(192, 192),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)
"""Profile `fast`; its header holds the network's configuration and the calibration record."""


def read_note(spec: WeightSpec, folder: Path = WEIGHTS_FOLDER) -> dict[str, Any]:
    """The JSON values in the header of a verified file; WeightsError `weights.missing`, `.altered`, `.unreadable`."""
    path = verify_file(spec, folder)
    try:
        with safetensors.safe_open(str(path), framework="pt") as opened:
            return {key: json.loads(value) for key, value in (opened.metadata() or {}).items()}
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise WeightsError(
            "weights.unreadable", f"{path.name} has no readable header: {error}", RETRAIN
        ) from error


def load_network(spec: WeightSpec = DETECTOR, folder: Path = WEIGHTS_FOLDER) -> EvidenceNet:
    """The network of a verified file in evaluation form; WeightsError as `read_note`, and `weights.mismatch`."""
    note = read_note(spec, folder)
    net = EvidenceNet(config_from_note(note))
    load_weights(net, spec, folder)
    return net.eval()


def config_from_note(note: dict[str, Any]) -> NetConfig:
    """The configuration that a header names in full, or by one of SIZES; WeightsError `weights.mismatch`."""
    try:
        if "config" not in note:
            return SIZES[note["size"]]
        config = dict(note["config"])
        for name in ("mean", "std"):
            config[name] = tuple(config[name])
        return NetConfig(**config)
    except (KeyError, TypeError) as error:
        raise WeightsError(
            "weights.mismatch", f"the header describes no network: {error}", RETRAIN
        ) from error


def load_pretrained(backbone: nn.Module, path: Path, sha256: str) -> list[str]:
    """Fill a timm backbone from a user's own safetensors file; names of tensors in the file that it has no place for.

    `sha256` is the digest that the user expects. A feature extractor has no classifier, so tensors of `head`, `fc`
    and `norm` at the end may be left over; every tensor of the backbone must be found, in its shape. WeightsError
    `weights.missing`, `weights.altered`, `weights.unreadable`, `weights.mismatch`.
    """
    own_copy = "Fetch the file again from where you have it, and give the sha256 that is stated there."
    found = file_sha256(path)
    if found != sha256.lower():
        raise WeightsError(
            "weights.altered", f"{path.name} has sha256 {found[:12]}…, not {sha256[:12]}…", own_copy
        )
    try:
        tensors = safetensors.torch.load_file(str(path), device="cpu")
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            "weights.unreadable", f"{path.name} is no safetensors file: {error}", own_copy
        ) from error
    wanted = backbone.state_dict()
    renamed = {_name_in_backbone(name, set(wanted)): tensor for name, tensor in tensors.items()}
    missing = sorted(name for name, tensor in wanted.items() if _misfits(tensor.shape, renamed.get(name)))
    if missing:
        cause = (
            f"{path.name} does not fill {len(missing)} of {len(wanted)} tensors, the first is {missing[0]}"
        )
        raise WeightsError("weights.mismatch", cause, "Name the backbone that this file was trained as.")
    backbone.load_state_dict({name: renamed[name] for name in wanted})
    return sorted(set(renamed) - set(wanted))


def _name_in_backbone(name: str, wanted: set[str]) -> str:
    """timm's extractors flatten the first level of a name: `stages.0.blocks…` becomes `stages_0.blocks…`."""
    flat = name.replace(".", "_", 1)
    return name if name in wanted or flat not in wanted else flat


def _misfits(shape: tuple[int, ...], tensor: Any) -> bool:
    return tensor is None or tuple(tensor.shape) != tuple(shape)


def write_calibrated(spec: WeightSpec, folder: Path, out: Path, calibration: dict[str, Any]) -> str:
    """Copy a verified file to `out` with `calibration` in its header; the copy's sha256 hex.

    StoreError where `out` cannot be written; WeightsError as `read_note`.
    """
    note = read_note(spec, folder) | {"calibration": calibration}
    tensors = load_tensors(spec, folder)
    return write_weights(out, tensors, {key: json.dumps(value) for key, value in note.items()})
