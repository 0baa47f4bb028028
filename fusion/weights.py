"""Registry of the networks that ship, and the one loader that checks them; knows no network and no device.

A row names the file, its sha256, its licence and its card. A file is hashed before a tensor is read from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from provenance.errors import WeightsError

WEIGHTS_FOLDER = Path(__file__).resolve().parent / "weights"
RETRAIN = "Reinstall the package, or train the network again with `facsimile train`."


@dataclass(frozen=True)
class WeightSpec:
    """One weights file.

    file, card      names inside the folder of weights (card: Markdown with data, hours and failures)
    sha256          hex digest of the whole file
    input_size_px   height and width of the network's input
    mean, std       per channel R, G, B for inputs in [0, 1]; a module keeps its own copy in buffers
    """

    name: str
    file: str
    sha256: str
    licence: str
    card: str
    input_size_px: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


DETECT = WeightSpec(
    name="detect",
    file="detect.safetensors",
    sha256="59ac1c103be770a02cf7bc17946a6f8ee0e1fbd4bd41508ce3e0ecc88daf923b",
    licence="Apache-2.0",
    card="detect.md",
    input_size_px=(320, 320),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

LANDMARK = WeightSpec(
    name="landmark",
    file="landmark.safetensors",
    sha256="3cfb37fd87755f2fd97d38527b57f25c263929e54602391e14c32187ea0fe367",
    licence="Apache-2.0",
    card="landmark.md",
    input_size_px=(128, 128),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

IDENTITY = WeightSpec(
    name="identity",
    file="identity.safetensors",
    sha256="79fa157a2c3f6f61df0a54c63faed4ef7ac6c14d808647517c39c60f1f5afa5d",
    licence="Apache-2.0",
    card="identity.md",
    input_size_px=(112, 112),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

# Statistical head and triangulation of the warp engine (fusion/pose.py); no network, so no input size.
FACE_SHAPE = WeightSpec(
    name="face_shape",
    file="face_shape.safetensors",
    sha256="e20252f658e73e45d603c43cffc2f6af77fd895d01eea3fc157feb9ca9095bcd",
    licence="Apache-2.0",
    card="face_shape.md",
    input_size_px=(0, 0),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)

# The people that the portrait model learned from, as the identity network sees them (fusion/strangers.py); no network.
PEOPLE = WeightSpec(
    name="people",
    file="people.safetensors",
    sha256="06349a72c1ec3e60fa0c6f119b46661d2ef282b60b76d3e8efff16227b033b8e",
    licence="Apache-2.0",
    card="people.md",
    input_size_px=(0, 0),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)

# Mends the composite of the warp engine.
HYBRID = WeightSpec(
    name="hybrid",
    file="hybrid.safetensors",
    sha256="46dea76bf827c6f0630d4e44d740d0cd2059c70738fa8c513955ec40e5351a32",
    licence="Apache-2.0",
    card="hybrid.md",
    input_size_px=(128, 128),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

# Generator of the engine `style`.
STYLE = WeightSpec(
    name="style",
    file="style.safetensors",
    sha256="1b3c9fa981922c0ae69820b32a4829330e530b31f451611cd11c9622a8d3f1fb",
    licence="Apache-2.0",
    card="style.md",
    input_size_px=(128, 128),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

# Hands and held things before a face (fusion/occlusion.py).
OCCLUSION = WeightSpec(
    name="occlusion",
    file="occlusion.safetensors",
    sha256="c1b2fd14021afcae5a1bb1ed0b19992ff016d7ec6e4a27fc91780847f523488f",
    licence="Apache-2.0",
    card="occlusion.md",
    input_size_px=(128, 128),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

REGISTRY: Mapping[str, WeightSpec] = {
    spec.name: spec for spec in (DETECT, LANDMARK, IDENTITY, FACE_SHAPE, HYBRID, STYLE, PEOPLE, OCCLUSION)
}


def find_spec(name: str) -> WeightSpec:
    """Row of the registry; WeightsError `weights.unknown` for a name that is not in it."""
    if name not in REGISTRY:
        known = ", ".join(sorted(REGISTRY))
        raise WeightsError("weights.unknown", f"no network is called {name!r}", f"Use one of: {known}.")
    return REGISTRY[name]


def weights_path(spec: WeightSpec, folder: Path = WEIGHTS_FOLDER) -> Path:
    """Where the file of `spec` lies; it need not exist."""
    return folder / spec.file


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces; WeightsError `weights.missing` when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        cause = f"{path.name} cannot be read: {error.strerror or error}"
        raise WeightsError("weights.missing", cause, RETRAIN) from error


def verify_file(spec: WeightSpec, folder: Path = WEIGHTS_FOLDER) -> Path:
    """Path of the file of `spec`, its sha256 the registered one; else WeightsError `weights.altered`."""
    path = weights_path(spec, folder)
    found = file_sha256(path)
    if found != spec.sha256:
        cause = f"{path.name} has sha256 {found[:12]}…, registered is {spec.sha256[:12]}…"
        raise WeightsError("weights.altered", cause, RETRAIN)
    return path


def load_tensors(spec: WeightSpec, folder: Path = WEIGHTS_FOLDER) -> dict[str, torch.Tensor]:
    """Verified tensors on the CPU by name; half precision becomes float32, integers stay as they are."""
    path = verify_file(spec, folder)
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load_file(str(path), device="cpu")
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            "weights.unreadable", f"{path.name} is no safetensors file: {error}", RETRAIN
        ) from error
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def load_weights(module: torch.nn.Module, spec: WeightSpec, folder: Path = WEIGHTS_FOLDER) -> None:
    """Fill `module`, every name and shape equal, else WeightsError `weights.mismatch`."""
    tensors = load_tensors(spec, folder)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        cause = f"{spec.file} does not fit {type(module).__name__}: {str(error).splitlines()[-1].strip()}"
        raise WeightsError("weights.mismatch", cause, RETRAIN) from error


def write_weights(
    path: Path, tensors: Mapping[str, torch.Tensor], note: Mapping[str, str] | None = None
) -> str:
    """Write tensors as float16 safetensors (integers untouched), return the file's sha256 hex.

    `note` goes into the file's header as text. A value that float16 cannot hold raises `weights.range`.
    """
    halves = {}
    for name, tensor in tensors.items():
        half = tensor.detach().cpu().half() if tensor.is_floating_point() else tensor.detach().cpu()
        if half.is_floating_point() and not bool(torch.isfinite(half).all()):
            cause = f"{name} holds a value that float16 cannot"
            raise WeightsError(
                "weights.range", cause, "Train again with more weight decay, or look for a NaN."
            )
        halves[name] = half.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(halves, str(path), metadata=dict(note or {}))
    return file_sha256(path)
