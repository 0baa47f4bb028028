"""Networks as ONNX files; knows no particular network and runs none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

OPSET = 18


def export_onnx(net: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> Path:
    """Write `net` for inputs of these names and shapes (the batch too is fixed); one file, weights inside.

    `net` in evaluation mode, tensors on the CPU in float32. Needs the package onnxscript (extra `dev`).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own future
        torch.onnx.export(
            net,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path
