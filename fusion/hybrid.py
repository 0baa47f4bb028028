"""Network of the engine `hybrid`: mends a warped composite of one aligned crop; knows no landmarks and no file.

A U-Net at a quarter of the crop's side. It sees the composite, the target and how far the composite is the source's,
and answers with a residual and with a gate that lets the target through where it must stay on top. The identity vector
modulates layers at 8 to 32 px, which is where identity lives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.native import face_window

HYBRID_PX = 128
IDENTITY_SIZE = 512
STYLE_SIZE = 64
STYLE_GAIN = 3.0  # with unit entries (22.6) each step of Adam upsets every layer that the identity modulates
WIDTHS = (40, 96, 144)
KEEP_BIAS = -3.0  # a fresh network lets 5 % of the target through


class Block(nn.Module):
    """Residual block of two 3x3 convolutions; a style [N, S], where there is one, scales and shifts its norm."""

    def __init__(self, width: int, style: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.affine = nn.Linear(style, 2 * width) if style else None
        nn.init.zeros_(self.conv2.weight)
        if self.affine is not None:
            nn.init.normal_(self.affine.weight, std=0.02)
            nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        h = self.norm1(x)
        if self.affine is not None and style is not None:
            scale, shift = self.affine(style)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift  # FiLM, arXiv 1709.07871, eq. 2
        h = self.conv1(F.silu(h))
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class HybridNet(nn.Module):
    """Target, composite [N, 3, S, S] in [0, 1], trust [N, 1, S, S], identity [N, 512] → fields [N, 4, S, S], S = 128.

    Fields: residual R, G, B, then `keep` in (0, 1), how much of the target shows; `mend` puts them to use. Any side
    that 16 divides works. 2.7 M parameters, 0.53 G multiply-adds.
    """

    def __init__(self, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        w0, w1, w2 = widths
        self.style = nn.Linear(IDENTITY_SIZE, STYLE_SIZE)
        self.stem = nn.Conv2d(7 * 16, w0, 3, padding=1)
        self.enter0 = Block(w0)
        self.down1 = nn.Conv2d(w0, w1, 3, stride=2, padding=1)
        self.enter1 = Block(w1, STYLE_SIZE)
        self.down2 = nn.Conv2d(w1, w2, 3, stride=2, padding=1)
        self.deep = nn.ModuleList(Block(w2, STYLE_SIZE) for _ in range(4))
        self.up1, self.leave1 = nn.Conv2d(w2, w1, 1), Block(w1, STYLE_SIZE)
        self.more1 = nn.ModuleList(Block(w1, STYLE_SIZE) for _ in range(2))
        self.up0, self.leave0 = nn.Conv2d(w1, w0, 1), Block(w0)
        self.more0 = nn.ModuleList(Block(w0, STYLE_SIZE) for _ in range(2))
        self.last = nn.GroupNorm(8, w0)
        self.wide = nn.Conv2d(w0, 48, 3, padding=1)
        self.fine = nn.Conv2d(12 + 7 * 4, 24, 3, padding=1)
        self.finer = nn.Conv2d(24, 32, 3, padding=1)
        self.out = nn.Conv2d(8, 4, 3, padding=1)  # after the last shuffle, so that no grid shows
        for layer in (self.stem, self.wide, self.fine, self.finer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        spread_evenly(self.wide, 2)
        spread_evenly(self.finer, 2)
        with torch.no_grad():
            for parameter in self.out.parameters():
                parameter.zero_()

    def forward(self, target: Tensor, composite: Tensor, trust: Tensor, identity: Tensor) -> Tensor:
        x = torch.cat([target * 2 - 1, composite * 2 - 1, trust], dim=1)
        style = F.silu(self.style(STYLE_GAIN * identity))
        h0 = self.enter0(self.stem(F.pixel_unshuffle(x, 4)))
        h1 = self.enter1(self.down1(h0), style)
        h = self.down2(h1)
        for block in self.deep:
            h = block(h, style)
        h = self.leave1(F.interpolate(self.up1(h), scale_factor=2.0) + h1, style)
        for block in self.more1:
            h = block(h, style)
        h = self.leave0(F.interpolate(self.up0(h), scale_factor=2.0) + h0)
        for block in self.more0:
            h = block(h, style)
        h = F.pixel_shuffle(F.silu(self.wide(F.silu(self.last(h)))), 2)
        h = F.silu(self.fine(torch.cat([h, F.pixel_unshuffle(x, 2)], dim=1)))
        raw = self.out(F.pixel_shuffle(F.silu(self.finer(h)), 2))
        return torch.cat([0.5 * raw[:, :3], torch.sigmoid(raw[:, 3:] + KEEP_BIAS)], dim=1)


def spread_evenly(layer: nn.Conv2d, factor: int) -> None:
    """Equal first weights for the pixels that a shuffle makes of one: no grid at the start (arXiv 1707.02937)."""
    with torch.no_grad():
        first = layer.weight[:: factor**2].repeat_interleave(factor**2, dim=0)
        layer.weight.copy_(first)
        if layer.bias is not None:
            layer.bias.zero_()


def closed_trust(trust: Tensor) -> tuple[Tensor, Tensor]:
    """A trust map [N, 1, S, S] without its holes, and the holes (eyes and mouth), [N, 1, S/4, S/4]."""
    small = F.avg_pool2d(trust, 4)
    closed = -F.max_pool2d(-F.max_pool2d(small, 7, 1, 3), 7, 1, 3)
    return closed, (closed - small).clamp(min=0)


def drawn_share(trust: Tensor) -> Tensor:
    """How much of the fields is drawn [N, 1, S, S]: what lies within the source's outline and within the face.

    Around the outline a network that is paid by recognisers brightens the ground; on top it paints a fringe.
    """
    closed, _ = closed_trust(trust)
    window = torch.tensor(face_window(trust.shape[-1]), device=trust.device, dtype=trust.dtype)
    return F.interpolate(closed, scale_factor=4.0, mode="bilinear") * window


def mend(target: Tensor, composite: Tensor, fields: Tensor) -> Tensor:
    """composite + keep * (target - composite) + residual, [N, 3, S, S], not clipped."""
    return composite + fields[:, 3:] * (target - composite) + fields[:, :3]
