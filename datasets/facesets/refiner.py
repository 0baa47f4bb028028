"""The network that turns a statistical portrait into a sharp one; knows no shapes, no files and no people.

A U-Net at a quarter of the size (PixelUnshuffle 4 in, two PixelShuffle 2 out) that adds a residual. Beside the picture
it is told where each pixel lies on the mean face, through a learned atlas that it reads there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 192)
ATLAS_CHANNELS = 8


class Block(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class Refiner(nn.Module):
    """Statistical portrait [N, 3, 256, 256] in [0, 1], place on the mean face [N, 2, 64, 64] in [-1, 1] -> portrait."""

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.atlas = nn.Parameter(0.1 * torch.randn(1, ATLAS_CHANNELS, 64, 64))
        self.stem = nn.Conv2d(48 + 2 + ATLAS_CHANNELS + 1, w0, 3, padding=1)
        self.down1 = nn.Sequential(nn.Conv2d(w0, w1, 3, stride=2, padding=1), Block(w1))
        self.down2 = nn.Sequential(nn.Conv2d(w1, w2, 3, stride=2, padding=1), Block(w2))
        self.down3 = nn.Sequential(nn.Conv2d(w2, w3, 3, stride=2, padding=1), Block(w3), Block(w3))
        self.up2, self.mix2 = nn.Conv2d(w3, w2, 1), Block(w2)
        self.up1, self.mix1 = nn.Conv2d(w2, w1, 1), Block(w1)
        self.up0, self.mix0 = nn.Conv2d(w1, w0, 1), nn.Conv2d(w0, w0, 3, padding=1)
        self.wide = nn.Conv2d(w0, 48, 3, padding=1)
        self.fine = nn.Conv2d(12 + 12, 20, 3, padding=1)
        self.out = nn.Conv2d(20, 12, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def forward(self, picture: Tensor, place: Tensor, noise: Tensor) -> Tensor:
        x = picture * 2 - 1
        grid = place.permute(0, 2, 3, 1)
        atlas = F.grid_sample(self.atlas.expand(len(x), -1, -1, -1), grid, align_corners=False)
        h0 = self.stem(torch.cat([F.pixel_unshuffle(x, 4), place, atlas, noise], dim=1))
        h1 = self.down1(h0)
        h2 = self.down2(h1)
        h = self.down3(h2)
        h = self.mix2(F.interpolate(self.up2(h), scale_factor=2.0) + h2)
        h = self.mix1(F.interpolate(self.up1(h), scale_factor=2.0) + h1)
        h = h0 + self.mix0(F.silu(F.interpolate(self.up0(h), scale_factor=2.0) + h0))
        h = F.pixel_shuffle(F.silu(self.wide(h)), 2)
        h = F.silu(self.fine(torch.cat([h, F.pixel_unshuffle(x, 2)], dim=1)))
        residual: Tensor = F.pixel_shuffle(self.out(h), 2)
        return picture + 0.5 * residual


class Critic(nn.Module):
    """Patch discriminator of portraits [N, 3, 256, 256]; returns logits at two scales and features to match."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.ModuleList(
            [
                norm(nn.Conv2d(14, width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(2 * width, 3 * width, 4, stride=2, padding=1)),
                norm(nn.Conv2d(3 * width, 3 * width, 3, padding=1)),
            ]
        )
        self.head_fine = norm(nn.Conv2d(2 * width, 1, 3, padding=1))
        self.head_coarse = norm(nn.Conv2d(3 * width, 1, 3, padding=1))

    def forward(self, picture: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x = F.pixel_unshuffle(picture * 2 - 1, 2)
        line = torch.linspace(-1, 1, x.shape[-1])
        where = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(len(x), -1, -1, -1)
        h, features = torch.cat([x, where], dim=1), []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
            features.append(h)
        return [self.head_fine(features[1]), self.head_coarse(features[3])], features


def place_grid(place: Tensor) -> Tensor:
    """Map to the mean face in pixels [N, 256, 256, 2] -> [N, 2, 64, 64] in [-1, 1]."""
    return F.avg_pool2d(place.permute(0, 3, 1, 2), 4) / (place.shape[1] / 2 - 0.5) - 1


def build_refiner(tensors: dict[str, npt.NDArray[np.float16]]) -> Refiner:
    """Refiner ready to use from stored fp16 tensors."""
    net = Refiner()
    net.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()})
    return net.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def refine(
    net: Refiner, picture: npt.NDArray[np.float32], place: npt.NDArray[np.float32], seed: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Sharpened picture float32 [256, 256, 3] (not clipped) of a statistical one; `place` is its map [256, 256, 2]."""
    noise = np.random.default_rng([*seed, 1]).standard_normal((1, 1, 64, 64)).astype(np.float32)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None]
    y = net(x, place_grid(torch.from_numpy(place)[None]), torch.from_numpy(noise))
    return np.asarray(y[0].permute(1, 2, 0).numpy(), np.float32)
