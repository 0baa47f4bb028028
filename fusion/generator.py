"""The generator of the engine `style`: identity in the coarse layers, the target's life in the fine ones; no I/O.

StyleGAN2 layers (arXiv 1912.04958, eq. 1-3), three per resolution from 8 px up: 18 at 256 px, 15 at 128 px. Layers 1-6
(8 and 16 px) are modulated by the identity, all later ones by codes of the target. There is no learned constant: the
picture grows from the target's own 8 px feature without its statistics (instance norm), so that pose stays and the
target's identity goes. What the layers paint is a change of the target, almost 0 at the start: grain and
light need not be learnt anew. Each resolution paints its share, and the shares are summed (output skips, arXiv
1912.04958, section 4.1): so the coarse layers learn from the first step. Knows no geometry, no weights file and no
training.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IDENTITY_SIZE: Final = 512
IDENTITY_LAYERS: Final = 6
LAYERS_PER_RESOLUTION: Final = 3
COARSEST_PX: Final = 8
WEIGHT_DEVIATION: Final = 0.05


@dataclass(frozen=True)
class StyleConfig:
    """Size of a generator; channels per resolution, from 8 px up.

    skip_width  channels that the target's features are squeezed through at the two finest resolutions
    skip_cap    greatest share of the target's features there inside the face
    """

    size_px: int
    channels: tuple[int, ...]
    encoder: tuple[int, ...]
    skip_width: int = 8
    skip_cap: float = 0.3

    @property
    def resolutions(self) -> tuple[int, ...]:
        """8, 16 … size_px."""
        return tuple(COARSEST_PX << level for level in range(len(self.channels)))


STYLE_256: Final = StyleConfig(256, (512, 128, 64, 32, 16, 12), (192, 128, 64, 32, 12, 8))
STYLE_128: Final = StyleConfig(128, (512, 128, 64, 32, 16), (192, 128, 64, 32, 12))
STYLE_SIZES: Final = {config.size_px: config for config in (STYLE_128, STYLE_256)}


class ModulatedConv(nn.Module):
    """3x3 convolution whose weights a style scales per input channel and then normalises per output channel.

    w' = s_i w (eq. 1), w'' = w' / sqrt(sum_ik w'² + e) (eq. 3). Both are applied beside the convolution, which then
    shares its weights across the batch: the same numbers, and no grouped convolution. Eq. 3 undoes the deviation that
    weights begin with: it only says how large a share of them a step of Adam moves, in every layer the same (equalised
    rate, arXiv 1710.10196, 4.1). At a deviation of 1 nothing is learnt in a thousand steps (docs/log.md).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT_DEVIATION * torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = nn.Linear(IDENTITY_SIZE, in_channels)
        nn.init.normal_(self.affine.weight, std=IDENTITY_SIZE**-0.5)
        nn.init.ones_(self.affine.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x [N, I, H, W] and code [N, 512] → [N, O, H, W] after a leaky ReLU."""
        scale = self.affine(code)  # [N, I]
        scale = scale / (
            scale.abs().amax(dim=1, keepdim=True) + 1e-4
        )  # eq. 3 undoes it; fp16 does not overflow
        energy = self.weight.square().sum(dim=(2, 3))  # [O, I]
        demodulation = torch.rsqrt(scale.square() @ energy.T + 1e-6)  # [N, O]
        y = F.conv2d(x * scale[:, :, None, None], self.weight, padding=1) * demodulation[:, :, None, None]
        return F.leaky_relu(y + self.bias[:, None, None], 0.2) * 2**0.5


class TargetEncoder(nn.Module):
    """Target picture to features at every resolution, finest first computed, coarsest first returned."""

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        widths = config.encoder[::-1]  # finest first
        self.enter = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths)
        )
        self.again = nn.ModuleList(nn.Conv2d(coarse, coarse, 3, padding=1) for coarse in widths[1:])
        for layer in (self.enter, *self.down, *self.again):
            nn.init.kaiming_normal_(layer.weight, a=0.2)

    def forward(self, target: Tensor) -> list[Tensor]:
        """[N, 3, S, S] in [0, 1] → [N, C, r, r] for r = 8 … S."""
        h = F.leaky_relu(self.enter(target * 2 - 1), 0.2)
        found = [h]
        for down, again in zip(self.down, self.again, strict=True):
            h = F.leaky_relu(down(h), 0.2)
            h = h + F.leaky_relu(again(h), 0.2)
            found.append(h)
        return found[::-1]


class AttentionGate(nn.Module):
    """h ← (1 - M) h + M f(target), M predicted from both (AAD of FaceShifter, arXiv 1912.13457, eq. 5).

    `width` squeezes the target's features; `cap` [1, 1, r, r] bounds M, both against "output = target".
    """

    cap: Tensor

    def __init__(self, channels: int, features: int, width: int | None, cap: Tensor) -> None:
        super().__init__()
        squeeze: list[nn.Module] = [] if width is None else [nn.Conv2d(features, width, 1)]
        self.project = nn.Sequential(*squeeze, nn.Conv2d(features if width is None else width, channels, 1))
        self.mask = nn.Conv2d(2 * channels, 1, 3, padding=1)
        self.register_buffer("cap", cap, persistent=False)

    def forward(self, h: Tensor, features: Tensor) -> Tensor:
        """h [N, C, r, r] and the target's features [N, F, r, r] → [N, C, r, r]."""
        seen = self.project(features)
        share = torch.sigmoid(self.mask(torch.cat([h, seen], dim=1))) * self.cap
        out: Tensor = h + share * (seen - h)
        return out


def face_cap(resolution: int, inside: float) -> Tensor:
    """1 outside the face, `inside` on it, float32 [1, 1, r, r]: an ellipse where fusion/native.py puts the face."""
    line = (torch.arange(resolution) + 0.5) / resolution
    y, x = torch.meshgrid(line, line, indexing="ij")
    away = torch.sqrt(((x - 0.5) / 0.36) ** 2 + ((y - 0.5) / 0.42) ** 2)
    outside = ((away - 0.9) / 0.2).clamp(0, 1)
    return (inside + (1 - inside) * outside)[None, None]


class StyleGenerator(nn.Module):
    """Target [N, 3, S, S] in [0, 1] and identity [N, 512] of unit length → picture [N, 3, S, S], not clipped."""

    def __init__(self, config: StyleConfig = STYLE_256) -> None:
        super().__init__()
        self.config = config
        self.encoder = TargetEncoder(config)
        first = config.encoder[0]
        self.start = nn.Conv2d(first, config.channels[0], 1)
        self.identity = nn.Sequential(
            nn.Linear(IDENTITY_SIZE, IDENTITY_SIZE),
            nn.LeakyReLU(0.2),
            nn.Linear(IDENTITY_SIZE, IDENTITY_SIZE),
        )
        self.codes = nn.ModuleList(nn.Linear(2 * width, IDENTITY_SIZE) for width in config.encoder[2:])
        self.layers = nn.ModuleList()
        self.gates = nn.ModuleList()
        incoming = config.channels[0]
        finest = config.resolutions[-2]
        for level, (width, resolution) in enumerate(zip(config.channels, config.resolutions, strict=True)):
            for _ in range(LAYERS_PER_RESOLUTION):
                self.layers.append(ModulatedConv(incoming, width))
                incoming = width
            if level == 0:
                continue
            fine = resolution >= finest
            cap = face_cap(resolution, config.skip_cap) if fine else torch.ones(1, 1, 1, 1)
            narrow = config.skip_width if fine else None
            self.gates.append(AttentionGate(width, config.encoder[level], narrow, cap))
        self.paint = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in config.channels)
        with torch.no_grad():
            for painter in self.paint:
                for parameter in painter.parameters():
                    parameter.normal_(std=0.02)

    def styles(self, features: list[Tensor], identity: Tensor) -> list[Tensor]:
        """One code [N, 512] per layer: the identity's for layers 1-6, the target's own for the rest.

        A target's code is the mean and spread of its features at the layer's resolution.
        """
        mapped = self.identity(identity * IDENTITY_SIZE**0.5)
        codes = [mapped] * IDENTITY_LAYERS
        for layer, level in zip(self.codes, features[2:], strict=True):
            spread, mean = torch.std_mean(level.float(), dim=(2, 3))
            codes += [layer(torch.cat([mean, spread], dim=1).to(level.dtype))] * LAYERS_PER_RESOLUTION
        return codes

    def forward(self, target: Tensor, identity: Tensor) -> Tensor:
        """ValueError on another size."""
        size = self.config.size_px
        if tuple(target.shape[1:]) != (3, size, size):
            raise ValueError(f"target [N, 3, {size}, {size}] needed, got {tuple(target.shape)}")
        features = self.encoder(target)
        codes = self.styles(features, identity)
        h = self.start(F.instance_norm(features[0]))
        change = torch.zeros_like(target[:, :, :COARSEST_PX, :COARSEST_PX])
        for level, paint in enumerate(self.paint):
            if level:
                change = F.interpolate(change, scale_factor=2.0, mode="bilinear")
                h = F.interpolate(h, scale_factor=2.0, mode="bilinear")
            for number in range(LAYERS_PER_RESOLUTION * level, LAYERS_PER_RESOLUTION * (level + 1)):
                h = self.layers[number](h, codes[number])
                if level and number % LAYERS_PER_RESOLUTION == 0:
                    h = self.gates[level - 1](h, self._skip(features, level))
            change = change + paint(h) * (0.5 * h.shape[1] ** -0.5)  # equalised rate here too
        picture: Tensor = target + change
        return picture

    def _skip(self, features: list[Tensor], level: int) -> Tensor:
        """Target features that enter: without their statistics where the identity rules (16 px)."""
        return F.instance_norm(features[level]) if level == 1 else features[level]
