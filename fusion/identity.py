"""Face crop → 512-d unit vector, close for two pictures of one person; knows no names, files or consent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.align import arcface_crop_from_image, warp_crop
from fusion.face import Face, FloatArray, UInt8Array
from fusion.weights import IDENTITY, load_weights

EMBEDDING_SIZE = 512
CROP_PX = 112
SIDE_PX = 8  # columns on either side of the crop that show no face; dropped before the first layer
WIDTHS = (32, 64, 128, 256)
# Similarity (dot product) above which two faces count as one person: one impostor pair in 10 000 of the test split
# lies above it, with a 95 % bootstrap over people (identity.md).
MATCH_THRESHOLD = 0.8313
MATCH_THRESHOLD_CI95 = (0.7811, 0.8370)


def conv(in_channels: int, out_channels: int, kernel: int, stride: int, norms: bool) -> nn.Sequential:
    """Convolution with its batch norm, or with a bias where the norm is folded into it."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norms)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels)) if norms else nn.Sequential(layer)


class Block(nn.Module):
    """Two 3x3 convolutions that halve the side; the shortcut is ResNet-D's (mean, then 1x1; 1812.01187)."""

    def __init__(self, in_channels: int, out_channels: int, norms: bool) -> None:
        super().__init__()
        self.first = conv(in_channels, out_channels, 3, 2, norms)
        self.second = conv(out_channels, out_channels, 3, 1, norms)
        self.shortcut = conv(in_channels, out_channels, 1, 1, norms)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        return F.relu(y + self.shortcut(F.avg_pool2d(x, 2)))


class IdentityNet(nn.Module):
    """Plain residual network, 123 MMAC; places are weighed at the end as in MobileFaceNet (1804.07573).

    `norms` builds the trainable form with batch norms; without it, the form that ships, norms folded into the
    convolutions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, norms: bool = False) -> None:
        super().__init__()
        self.stem = conv(3, WIDTHS[0], 3, 2, norms)
        self.blocks = nn.Sequential(*(Block(i, o, norms) for i, o in pairwise(WIDTHS)))
        self.expand = conv(WIDTHS[-1], EMBEDDING_SIZE, 1, 1, norms)
        self.weigh = nn.Conv2d(EMBEDDING_SIZE, EMBEDDING_SIZE, (7, 6), groups=EMBEDDING_SIZE)
        self.project = nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE)
        self.register_buffer("mean", torch.tensor(IDENTITY.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IDENTITY.std).reshape(1, 3, 1, 1), persistent=False)

    def maps(self, x: Tensor) -> list[Tensor]:
        """[N, 3, 112, 96] RGB in [0, 1] → [N, 64, 28, 24], [N, 128, 14, 12], [N, 256, 7, 6]."""
        y = F.relu(self.stem((x - self.mean) / self.std))
        found = []
        for block in self.blocks:
            y = block(y)
            found.append(y)
        return found

    def head(self, features: Tensor) -> Tensor:
        """[N, 256, 7, 6] → [N, 512], not normalised."""
        y = self.weigh(F.relu(self.expand(features))).flatten(1)
        z: Tensor = self.project(y)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 112, 112] RGB in [0, 1], points on ARCFACE_112 → [N, 512] of unit length."""
        return F.normalize(self.head(self.maps(x[:, :, :, SIDE_PX:-SIDE_PX])[-1]))


def load_identity(device: str = "cpu") -> IdentityNet:
    """The network that ships, in evaluation mode; WeightsError when its file is missing or altered."""
    net = IdentityNet()
    load_weights(net, IDENTITY)
    net.to(memory_format=torch.channels_last)
    return net.eval().requires_grad_(False).to(device)


def crop_face(rgb: UInt8Array, face: Face) -> UInt8Array:
    """uint8 [112, 112, 3] RGB, five points on ARCFACE_112; beyond the picture its nearest pixels."""
    return warp_crop(rgb, arcface_crop_from_image(face.points_px, CROP_PX), CROP_PX, border="replicate")


@torch.inference_mode()
def embed_crops(crops: UInt8Array, net: IdentityNet) -> FloatArray:
    """Aligned crops uint8 [N, 112, 112, 3] RGB → float32 [N, 512], each of unit length."""
    if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX, 3):
        raise ValueError(f"crops uint8 [N, {CROP_PX}, {CROP_PX}, 3] needed, got {crops.dtype} {crops.shape}")
    if len(crops) == 0:
        return np.zeros((0, EMBEDDING_SIZE), np.float32)
    x = torch.from_numpy(np.ascontiguousarray(crops)).to(net.mean.device).permute(0, 3, 1, 2)
    embeddings: FloatArray = net(x.float().div_(255)).cpu().numpy()
    return embeddings


def embed_faces(rgb: UInt8Array, faces: Sequence[Face], net: IdentityNet) -> FloatArray:
    """Faces of one picture uint8 [H, W, 3] RGB → float32 [N, 512], each of unit length, in their order."""
    if not faces:
        return np.zeros((0, EMBEDDING_SIZE), np.float32)
    return embed_crops(np.stack([crop_face(rgb, face) for face in faces]), net)


def embed_face(rgb: UInt8Array, face: Face, net: IdentityNet) -> FloatArray:
    """One face of a picture uint8 [H, W, 3] RGB → float32 [512] of unit length."""
    embedding: FloatArray = embed_faces(rgb, [face], net)[0]
    return embedding


def mean_embedding(embeddings: FloatArray) -> FloatArray:
    """Several pictures of one person, float32 [N, 512] → their direction float32 [512] of unit length."""
    total = np.asarray(embeddings, np.float32).mean(axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise ValueError("the embeddings cancel out; they cannot be of one person")
    return np.asarray(total / length, np.float32)
