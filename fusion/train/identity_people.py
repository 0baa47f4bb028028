"""Embeddings of the training people, kept so that no drawn nobody resembles one; knows no portrait model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fusion.face import FloatArray
from fusion.identity import IdentityNet
from fusion.train.identity import embed_views
from fusion.train.identity_crops import centre_crop, read_portraits
from fusion.weights import write_weights


def write_people(data: Path, path: Path, net: IdentityNet, identity_sha256: str) -> str:
    """Write the people of split train as `net` (the form that ships) sees them; the file's sha256.

    Embeddings int8 [N, 512] (a unit vector's largest entry is 127), the limit (median similarity of a person to the
    nearest other one) float16 [1], and the digest of the network's own file, uint8 [32].
    """
    embeddings = embed_views(net, centre_crop(read_portraits(data, "train").crops))
    tensors = {
        "embeddings": torch.from_numpy(as_bytes(embeddings)),
        "limit": torch.tensor([nearest_other(embeddings)]),
        "identity_sha256": torch.tensor(list(bytes.fromhex(identity_sha256)), dtype=torch.uint8),
    }
    return write_weights(path, tensors)


def as_bytes(embeddings: FloatArray) -> npt.NDArray[np.int8]:
    """float32 [N, D] → int8 [N, D], each row scaled by its largest entry; directions stay within half a degree."""
    scaled = embeddings / np.abs(embeddings).max(axis=1, keepdims=True) * 127
    return np.asarray(np.round(scaled), np.int8)


def nearest_other(embeddings: FloatArray) -> float:
    """Median over the rows [N, D] of the similarity to the nearest other row."""
    similarities = embeddings @ embeddings.T
    np.fill_diagonal(similarities, -1)
    return float(np.median(similarities.max(axis=1)))
