"""The network: face crops → altered mask, reliability map and logits; knows no files, thresholds or labels.

A timm backbone without its first pooling sees the pixels; beside it a residual branch sees only what a high pass
(SRM filters) and an 8 x 8 block DCT leave. Both join late, at a quarter and an eighth of the size. Three heads: the
mask at H/4, a map of where the mask is right, and an L2-normalised linear image logit. The score is that logit joined
with the top of the mask, in logit space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from provenance.errors import WeightsError

NORM_TYPES: Final = (nn.LayerNorm,)
TOP_SHARE: Final = 0.05
"""Share of the mask's positions that speak for the picture: a seam is thin."""


@dataclass(frozen=True)
class NetConfig:
    """What is built. `backbone` is a timm name, `backbone_args` go to its constructor as they are.

    residual_width   channels of each part of the residual branch; neck_width: of the joined map
    working_px       side that crops of large faces are reduced to
    tune             `all`, or `norms`: only the LayerNorms of a pretrained backbone, and the heads
    """

    backbone: str
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    residual_width: int = 24
    neck_width: int = 48
    working_px: int = 192
    tune: str = "all"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a weights file's header."""
        return asdict(self) | {"backbone_args": dict(self.backbone_args)}


SIZES: Final[Mapping[str, NetConfig]] = {
    "narrow": NetConfig("resnet18d", {"channels": (16, 40, 80, 160), "stem_width": 8}),
    "resnet18d": NetConfig("resnet18d", residual_width=32, neck_width=96),
    "convnext": NetConfig(
        "convnext_tiny", tune="norms", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
}
"""`narrow` is what a CPU core learns in an hour (profile `fast`); `resnet18d` is for an accelerator; `convnext`
needs a file of pretrained weights (profile `accurate`). Any other timm backbone: give a NetConfig."""


class Evidence(NamedTuple):
    """mask, reliability: logits float [N, 1, H/4, W/4]; image, score: logits float [N], score is the joined one."""

    mask: Tensor
    reliability: Tensor
    image: Tensor
    score: Tensor


class ResidualBranch(nn.Module):
    """High-pass residuals of luma and chroma at H/4, block-DCT magnitudes of luma at H/8.

    Filters: Fridrich and Kodovsky 2012 (SRM), section II: first order, second order, KV; cosines: ITU T.81, A.3.3.
    The grid of the blocks starts at the crop's corner, so it says nothing of a JPEG's own grid.
    """

    srm: Tensor
    dct: Tensor
    ycc: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("srm", srm_filters(), persistent=False)
        self.register_buffer("dct", block_dct_filters(), persistent=False)
        self.register_buffer("ycc", torch.tensor(YCC_FROM_RGB).view(3, 3, 1, 1), persistent=False)
        half = max(8, width // 2)
        self.high = nn.Sequential(*_unit(9, half, 3, 2), *_unit(half, width, 3, 2))
        self.blocks = nn.Sequential(nn.BatchNorm2d(64), *_unit(64, width, 1, 1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, H, W] in [0, 1] to [N, width, H/4, W/4] and [N, width, H/8, W/8]."""
        n, _, height, width = pictures.shape
        ycc = F.conv2d(pictures, self.ycc)
        padded = F.pad(ycc.reshape(n * 3, 1, height, width), (2, 2, 2, 2), mode="replicate")
        residuals = torch.tanh(30.0 * F.conv2d(padded, self.srm)).reshape(n, 9, height, width)
        cosines = F.conv2d(ycc[:, :1], self.dct, stride=8)
        return self.high(residuals), self.blocks(torch.log1p(100.0 * cosines.abs()))


class EvidenceNet(nn.Module):
    """Crops float [N, 3, H, W] in [0, 1], RGB, sides multiples of 16, to Evidence."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: NetConfig = SIZES["narrow"]) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))
        self.backbone = build_backbone(config)
        info: Any = self.backbone.feature_info
        channels = [int(c) for c in info.channels()][-3:]
        width = config.neck_width
        self.residual = ResidualBranch(config.residual_width)
        extra = (config.residual_width, config.residual_width, 0)
        self.lateral = nn.ModuleList(nn.Conv2d(c + e, width, 1) for c, e in zip(channels, extra, strict=True))
        self.neck = nn.Sequential(*_unit(width, width, 3, 1))
        self.mask = nn.Conv2d(width, 1, 1)
        self.reliability = nn.Conv2d(width, 1, 1)
        self.image = nn.Parameter(torch.randn(channels[-1] + 2 * width))
        self.image_scale = nn.Parameter(torch.tensor(8.0))
        self.image_bias = nn.Parameter(torch.tensor(0.0))
        self.join = nn.Parameter(torch.tensor([0.6, 0.4, 0.0]))
        nn.init.constant_(_bias(self.mask), -1.0)
        if config.tune == "norms":
            freeze_all_but_norms(self.backbone)

    def forward(self, pictures: Tensor) -> Evidence:
        """ValueError on sides that are no multiples of 16."""
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] % 16 or pictures.shape[3] % 16:
            raise ValueError(f"crops [N, 3, 16 a, 16 b] needed, got {tuple(pictures.shape)}")
        quarter = (pictures.shape[2] // 4, pictures.shape[3] // 4)
        levels = list(self.backbone((pictures - self.mean) / self.std))[-3:]
        high, blocks = self.residual(pictures)
        beside = (high, blocks, None)
        joined = None
        for level, extra, lateral in zip(levels, beside, self.lateral, strict=True):
            both = level if extra is None else torch.cat([level, _resize(extra, _size(level))], 1)
            brought = _resize(lateral(both), quarter)
            joined = brought if joined is None else joined + brought
        assert joined is not None
        features = self.neck(torch.relu(joined))  # [N, width, H/4, W/4]
        mask = self.mask(features)
        image = self._image_logit(levels[-1], features, mask)
        top = mask.flatten(1).topk(max(1, math.ceil(TOP_SHARE * mask[0].numel())), dim=1).values.mean(1)
        score = self.join[0] * image + self.join[1] * top + self.join[2]
        return Evidence(mask, self.reliability(features), image, score)

    def _image_logit(self, deepest: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """scale · cos(pooled, w) + bias; pooled = mean of the deepest map, mean and mask-weighted mean of the neck."""
        weights = torch.softmax(mask.detach().flatten(2), dim=2)  # [N, 1, P]
        pooled = torch.cat(
            [deepest.mean((2, 3)), features.mean((2, 3)), (features.flatten(2) * weights).sum(2)], 1
        )
        cosine = F.normalize(pooled, dim=1) @ F.normalize(self.image, dim=0)
        return self.image_scale * cosine + self.image_bias


def build_backbone(config: NetConfig) -> nn.Module:
    """A timm feature extractor with random weights, its first pooling taken out; WeightsError `weights.backbone`."""
    try:
        net: nn.Module = timm.create_model(
            config.backbone, pretrained=False, features_only=True, **dict(config.backbone_args)
        )
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise WeightsError(
            "weights.backbone",
            f"timm builds no feature extractor {config.backbone!r}: {error}",
            "Name a timm backbone that supports features_only, with arguments that it knows.",
        ) from error
    for name, _ in list(net.named_children()):
        if name == "maxpool":
            setattr(net, name, nn.Identity())
    return net


def freeze_all_but_norms(backbone: nn.Module) -> None:
    """Only the affine parameters of LayerNorms learn (GenD, arXiv 2508.06248)."""
    backbone.requires_grad_(False)
    for module in backbone.modules():
        if isinstance(module, NORM_TYPES):
            module.requires_grad_(True)


def srm_filters() -> Tensor:
    """Three high passes [3, 1, 5, 5], each scaled to peak 1: first order, second order (3 x 3), KV (5 x 5)."""
    first = torch.zeros(5, 5)
    first[2, 2], first[2, 3] = -1.0, 1.0
    second = torch.zeros(5, 5)
    second[1:4, 1:4] = torch.tensor([[-1.0, 2.0, -1.0], [2.0, -4.0, 2.0], [-1.0, 2.0, -1.0]]) / 4
    kv = torch.tensor(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]],
        dtype=torch.float32,
    )
    return torch.stack([first, second, kv / 12])[:, None]


def block_dct_filters() -> Tensor:
    """The 64 orthonormal cosines of an 8 x 8 block as filters [64, 1, 8, 8]."""
    place = torch.arange(8, dtype=torch.float32)
    rows = torch.cos((2 * place[None] + 1) * place[:, None] * math.pi / 16) / 2  # [frequency, place]
    rows[0] /= math.sqrt(2)
    return torch.einsum("ui,vj->uvij", rows, rows).reshape(64, 1, 8, 8)


def _unit(n_in: int, n_out: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if _size(maps) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


# ITU-R BT.601, rows Y, Cb, Cr.
YCC_FROM_RGB: Final = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
