"""Hands and held things in front of a face, found by a small network; knows no engine and no training data.

Glasses, hair and what has another colour than a face are the rule's (`mask.uncovered_share`); a hand has skin's colour.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.face import FloatArray, UInt8Array
from fusion.layers import ConvUnit, SeparableUnit

OCCLUSION_PX: Final = 128  # side of the crop that the network sees
MAP_PX: Final = 64  # side of its answer
WIDTHS: Final = (12, 24, 40, 64)


class OcclusionNet(nn.Module):
    """Crops float [N, 3, 128, 128] in [0, 1], RGB, to logits [N, 1, 64, 64]: does something lie before the face here?

    A U-Net of separable convolutions from 64 to 8 px and back. The crop is `native.generator_crop_from_image`.
    `folded` builds the form for inference (no batch normalisation).
    """

    def __init__(self, *, folded: bool = False) -> None:
        super().__init__()
        w0, w1, w2, w3 = WIDTHS
        self.stem = ConvUnit(3, w0, stride=2, folded=folded)  # [N, 12, 64, 64]
        self.down1 = ConvUnit(w0, w1, stride=2, folded=folded)  # [N, 24, 32, 32]
        self.enter1 = SeparableUnit(w1, folded=folded)
        self.down2 = ConvUnit(w1, w2, stride=2, folded=folded)  # [N, 40, 16, 16]
        self.enter2 = nn.Sequential(*(SeparableUnit(w2, folded=folded) for _ in range(2)))
        self.down3 = nn.Sequential(  # [N, 64, 8, 8]
            ConvUnit(w2, w2, stride=2, groups=w2, active=False, folded=folded),
            ConvUnit(w2, w3, kernel=1, folded=folded),
        )
        self.deep = nn.Sequential(*(SeparableUnit(w3, folded=folded) for _ in range(3)))
        self.up2 = ConvUnit(w3, w2, kernel=1, active=False, folded=folded)
        self.leave2 = SeparableUnit(w2, folded=folded)
        self.up1 = ConvUnit(w2, w1, kernel=1, active=False, folded=folded)
        self.leave1 = SeparableUnit(w1, folded=folded)
        self.up0 = ConvUnit(w1, w0, kernel=1, active=False, folded=folded)
        self.leave0 = ConvUnit(w0, w0, folded=folded)
        self.out = nn.Conv2d(w0, 1, 3, padding=1)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits [N, 1, 64, 64]; ValueError on another crop size."""
        if crops.ndim != 4 or tuple(crops.shape[1:]) != (3, OCCLUSION_PX, OCCLUSION_PX):
            raise ValueError(f"crops [N, 3, {OCCLUSION_PX}, {OCCLUSION_PX}] needed, got {tuple(crops.shape)}")
        h0 = self.stem(2 * crops - 1)
        h1 = self.enter1(self.down1(h0))
        h2 = self.enter2(self.down2(h1))
        h = self.deep(self.down3(h2))
        h = self.leave2(_twice(self.up2(h)) + h2)
        h = self.leave1(_twice(self.up1(h)) + h1)
        h = self.leave0(_twice(self.up0(h)) + h0)
        out: Tensor = self.out(h)
        return out


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def predict_cover(crops: UInt8Array, net: OcclusionNet) -> FloatArray:
    """Chance that something lies before the face, float32 [N, 64, 64] in [0, 1]; crops uint8 [N, 128, 128, 3]."""
    like = net.out.weight
    batch = torch.from_numpy(np.ascontiguousarray(crops)).to(like.device).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = net((batch.float() / 255).to(like.dtype).contiguous(memory_format=torch.channels_last))
    return np.asarray(torch.sigmoid(logits[:, 0].float()).cpu().numpy(), np.float32)
