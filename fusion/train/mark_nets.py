"""The learned mark's two networks: one draws 128 bits into a luma picture, one reads them back. Not used at run time.

The mark that ships is the keyed spread spectrum of `provenance/watermark.py`; these would replace it where a training
reaches its table. Both look at 256 x 256, so that cost does not grow with the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 128
SIDE = 256


class Block(nn.Module):
    """ConvNeXt block (Liu 2022): depthwise 7 x 7, norm over channels, widen fourfold, narrow, add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.widen, self.narrow = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.narrow(F.gelu(self.widen(self.norm(self.mix(x)))))
        return out


def _unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(min(8, outputs), outputs), nn.SiLU()
    )


class MarkEmbedder(nn.Module):
    """U-Net: luma [N, 1, S, S] in [0, 1] and bits [N, 128] in {-1, 1} → change [N, 1, S, S] in [-1, 1]."""

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 96), message: int = 32) -> None:
        super().__init__()
        a, b, c, d = widths
        self.message = message
        self.first, self.down1, self.down2, self.down3 = (
            _unit(1, a),
            _unit(a, b, 2),
            _unit(b, c, 2),
            _unit(c, d, 2),
        )
        self.spread = nn.Linear(BITS, message * 64)
        self.middle = nn.Sequential(_unit(d + message, d), _unit(d, d))
        self.up3, self.up2, self.up1 = _unit(d + c, c), _unit(c + b, b), _unit(b + a, a)
        self.last = nn.Conv2d(a, 1, 3, padding=1)

    def forward(self, luma: Tensor, bits: Tensor) -> Tensor:
        one = self.first(luma)
        two = self.down1(one)
        three = self.down2(two)
        deep = self.down3(three)
        seed = self.spread(bits).reshape(-1, self.message, 8, 8)
        seed = F.interpolate(seed, size=deep.shape[-2:], mode="bilinear", align_corners=False)
        x = self.middle(torch.cat([deep, seed], 1))
        for unit, skip in ((self.up3, three), (self.up2, two), (self.up1, one)):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = unit(torch.cat([x, skip], 1))
        return torch.tanh(self.last(x))


class MarkExtractor(nn.Module):
    """Luma [N, 1, S, S] in [0, 1] → logits [N, 129]: 128 bits, then whether there is a mark at all."""

    def __init__(
        self, widths: tuple[int, int, int] = (64, 128, 192), depths: tuple[int, int, int] = (2, 2, 4)
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(1, widths[0], 4, 4)]
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stages += [Block(width) for _ in range(depth)]
            if number + 1 < len(widths):
                stages += [nn.GroupNorm(1, width), nn.Conv2d(width, widths[number + 1], 2, 2)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(2 * widths[-1], BITS + 1)

    def forward(self, luma: Tensor) -> Tensor:
        x = self.stages((luma - 0.5) * 4)
        out: Tensor = self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))
        return out


def room(luma: Tensor) -> Tensor:
    """[N, 1, S, S], mean 1: what each place hides, by its light (Weber) and its texture (contrast masking)."""
    mean = F.avg_pool2d(luma, 7, 1, 3, count_include_pad=False)
    variance = F.avg_pool2d((luma - mean) ** 2, 7, 1, 3, count_include_pad=False)
    hidden = (0.3 + mean) * (0.02 + variance.clamp_min(0).sqrt())
    out: Tensor = hidden / hidden.mean((1, 2, 3), keepdim=True)
    return out
