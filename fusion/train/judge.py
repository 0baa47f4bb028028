"""A face recogniser outside every loss: dlib's published ResNet, for measuring; nothing of the pipeline imports it.

Its file comes with the extra `judge` (`face_recognition_models`), not with this project, and is read here without dlib:
same layers, same chips, in torch, an order of magnitude faster than dlib's own loops. It knows no generator.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.align import Matrix, similarity_from_points, warp_crop
from fusion.face import FloatArray, UInt8Array
from fusion.native import TEMPLATE_PX
from fusion.weights import file_sha256
from provenance.errors import WeightsError

JUDGE: Final = "dlib"
JUDGE_FILE: Final = "dlib_face_recognition_resnet_model_v1.dat"
JUDGE_SHA256: Final = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
CHIP_PX: Final = 150
BATCH: Final = 32

# (width, first stride) of the residual blocks in their order: alevel4 to alevel0 of dlib's dnn_face_recognition_ex.
BLOCKS: Final = (
    *((32, 1), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1)),
    *((128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1), (256, 2)),
)
# Corners of the picture's right eye (outer, inner), of its left eye, foot of the nose: dlib's order, our numbers.
POINTS_OF_478: Final = (263, 362, 33, 133, 2)
# dlib marks the outer corners that much nearer to each other, in their distance (30 portraits of val).
OUTER_INWARD: Final = 0.027
# Where they lie in a chip, before a quarter of its size is left free all around (dlib, get_face_chip_details).
_CHIP_UNIT: Final = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
CHIP_POINTS: Final = CHIP_PX * (0.25 + _CHIP_UNIT) / 1.5
# Where they lie on average in a crop of TEMPLATE_128, over 60 portraits of val; standard deviations are 0.6 to 2 px.
CROP_POINTS: Final = np.array([[91.1, 45.3], [74.5, 46.8], [36.4, 46.2], [52.6, 47.2], [63.5, 75.3]])


class Block(nn.Module):
    """Two 3x3 convolutions beside a path that is halved by averaging where the first one strides."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # dlib pads only where it does not stride
        self.first = nn.Conv2d(inner, width, 3, stride, padding=1 if stride == 1 else 0)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        made = self.second(F.relu(self.first(x)))
        past = x if self.stride == 1 else F.avg_pool2d(x, 2)
        return F.relu(_padded(made, past) + _padded(past, made))


def _padded(x: Tensor, like: Tensor) -> Tensor:
    """`x` [N, C, H, W] with zeros where `like` has more channels, rows or columns, as dlib adds unlike tensors."""
    more = [max(0, other - mine) for mine, other in zip(x.shape[1:], like.shape[1:], strict=True)]
    return F.pad(x, (0, more[2], 0, more[1], 0, more[0]))


class JudgeNet(nn.Module):
    """Chips [N, 3, 150, 150] in [0, 1] → vectors [N, 128], about 1.5 long; 5.6 M parameters.

    The affine layers of dlib's network are folded into the convolutions before them.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor([122.782, 117.001, 104.298])[:, None, None] / 255
        self.register_buffer("mean", mean)
        self.stem = nn.Conv2d(3, 32, 7, 2)
        widths = [32] + [width for width, _ in BLOCKS]
        blocks = [
            Block(inner, width, stride) for inner, (width, stride) in zip(widths[:-1], BLOCKS, strict=True)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(256, 128, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem((chips - self.mean) * (255 / 256))), 3, 2)
        vectors: Tensor = self.last(self.blocks(x).mean((2, 3)))
        return vectors

    def convolutions(self) -> list[nn.Conv2d]:
        """In the order of the pixels' way, which is the file's."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]


class Judge:
    """The network as a recogniser of our own form: unit vectors [128] of faces, compared by their cosine.

    Two strangers have 0.89. Among 2 740 portraits, spoilt pictures of val find their own first as often by the
    cosine as by dlib's Euclidean distance or by the cosine of centred vectors: 95.5 % each (n 179).
    """

    def __init__(self, net: JudgeNet) -> None:
        self._net = net

    def embed(self, rgb: UInt8Array, landmarks_px: FloatArray) -> FloatArray:
        """Picture uint8 [H, W, 3] and landmarks [478, 2] → unit vector float32 [128]."""
        chip_from_image = similarity_from_points(judged_points(landmarks_px), CHIP_POINTS)
        vector: FloatArray = self.vectors([_chip(rgb, chip_from_image)])[0]
        return vector

    def embed_crops(self, crops: Tensor) -> Tensor:
        """Crops [N, 3, S, S] in [0, 1], aligned as fusion/native.py TEMPLATE_128 → unit vectors [N, 128].

        A crop carries no landmarks, so that its eyes and nose are taken to be where most faces have them.
        """
        points = (CROP_POINTS + 0.5) * (crops.shape[-1] / TEMPLATE_PX) - 0.5
        chip_from_crop = similarity_from_points(points, CHIP_POINTS)
        pictures = (crops.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        chips = [_chip(np.ascontiguousarray(one), chip_from_crop) for one in pictures.cpu().numpy()]
        return torch.from_numpy(self.vectors(chips)).to(crops.device)

    @torch.inference_mode()
    def vectors(self, chips: list[UInt8Array]) -> FloatArray:
        """Chips uint8 [150, 150, 3] → unit vectors float32 [N, 128]."""
        found = []
        for start in range(0, len(chips), BATCH):
            batch = torch.from_numpy(np.stack(chips[start : start + BATCH])).permute(0, 3, 1, 2)
            found.append(F.normalize(self._net(batch.float() / 255)).numpy())
        return np.asarray(np.concatenate(found), np.float32)


def judged_points(landmarks_px: FloatArray) -> FloatArray:
    """The five points [5, 2] that dlib aligns by, of landmarks [478, 2]."""
    points = np.asarray(landmarks_px, np.float32)[list(POINTS_OF_478), :2]
    inward = np.float32(OUTER_INWARD) * (points[2] - points[0])
    points[[0, 2]] += np.stack([inward, -inward])
    return points


def _chip(rgb: UInt8Array, chip_from_picture: Matrix) -> UInt8Array:
    return warp_crop(rgb, chip_from_picture, CHIP_PX, border="replicate")


def find_judge() -> Judge | None:
    """The recogniser where its file is installed; WeightsError `weights.altered` for another file."""
    file = judge_file()
    return None if file is None else load_judge(file)


def load_judge(file: Path) -> Judge:
    """The recogniser of dlib's own file; WeightsError `weights.altered` for another one."""
    if file_sha256(file) != JUDGE_SHA256:
        raise WeightsError(
            "weights.altered", f"{file} is not dlib's published network.", "Install the extra `judge` again."
        )
    return Judge(read_net(file.read_bytes()))


def judge_file() -> Path | None:
    """The network's file, found without importing its package, which needs the absent pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / "models" / JUDGE_FILE
    return file if file.exists() else None


def read_net(data: bytes) -> JudgeNet:
    """The network of dlib's file. Its layers lie there in the pixels' order, each a name, then its parameters."""
    net = JudgeNet().eval().requires_grad_(False)
    filters, scales = _tensors(data, b"\x05con_4"), _tensors(data, b"\x07affine_")
    for layer, packed, scale in zip(net.convolutions(), filters, scales, strict=True):
        size = layer.weight.numel()
        gain, shift = scale.chunk(2)
        layer.weight.copy_(packed[:size].view_as(layer.weight) * gain[:, None, None, None])
        if layer.bias is not None:
            layer.bias.copy_(packed[size:] * gain + shift)
    (last,) = _tensors(data, b"\x04fc_2", numbers_before=2)
    net.last.weight.copy_(last.view(256, 128).T)
    return net


def _tensors(data: bytes, name: bytes, numbers_before: int = 0) -> Iterator[Tensor]:
    """The tensor [n] after each place of a layer's name: version, four sizes, little-endian floats (dlib, tensor.h)."""
    at = data.find(name)
    while at >= 0:
        at += len(name)
        for _ in range(numbers_before + 1):
            _, at = _whole_number(data, at)
        count = 1
        for _ in range(4):
            size, at = _whole_number(data, at)
            count *= size
        yield torch.from_numpy(np.frombuffer(data, "<f4", count, at).copy())
        at = data.find(name, at + 4 * count)


def _whole_number(data: bytes, at: int) -> tuple[int, int]:
    """(a number that tells first of how many bytes it is, lowest first; where it ends)."""
    end = at + 1 + data[at]
    return int.from_bytes(data[at + 1 : end], "little"), end
