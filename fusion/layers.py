"""Convolution units whose normalisation folds away for inference; knows no task and no file."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.optim.swa_utils import AveragedModel

N = TypeVar("N", bound=nn.Module)


class ConvUnit(nn.Module):
    """Convolution, batch normalisation (training form only), ReLU (unless `active` is False)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        active: bool = True,
        folded: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=folded
        )
        self.norm: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(out_channels)
        self.act: nn.Module = nn.ReLU(inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class ResidualUnit(nn.Module):
    """relu(x + conv(conv(x))), both convolutions plain 3x3 of one width (He et al. 2016, figure 2)."""

    def __init__(self, channels: int, *, folded: bool = False) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, folded=folded)
        self.second = ConvUnit(channels, channels, active=False, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        return torch.relu(x + self.second(self.first(x)))


class SeparableUnit(nn.Module):
    """relu(x + conv(conv(x))), each convolution a 3x3 of every channel by itself, then a 1x1 (arXiv 1704.04861)."""

    def __init__(self, channels: int, *, folded: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvUnit(channels, channels, groups=channels, active=False, folded=folded),
            ConvUnit(channels, channels, kernel=1, folded=folded),
            ConvUnit(channels, channels, groups=channels, active=False, folded=folded),
            ConvUnit(channels, channels, kernel=1, active=False, folded=folded),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        return torch.relu(x + self.body(x))


def folded_form(net: nn.Module, folded: N) -> N:
    """`folded`, the same network built with folded=True, in evaluation mode with the state of a network under training.

    Of a running average the averaged network is taken.
    """
    folded.load_state_dict(folded_state(net.module if isinstance(net, AveragedModel) else net))
    return folded.to(memory_format=torch.channels_last).eval()


def folded_state(net: nn.Module) -> dict[str, Tensor]:
    """State of the same network built with folded=True: normalisations inside their convolutions."""
    state = {name: value.detach().clone() for name, value in net.state_dict().items()}
    for name, unit in net.named_modules():
        if not isinstance(unit, ConvUnit) or not isinstance(unit.norm, nn.BatchNorm2d):
            continue
        norm = unit.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            unit.conv.weight,
            unit.conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        for key in [key for key in state if key.startswith(f"{name}.norm.")]:
            del state[key]
        state[f"{name}.conv.weight"], state[f"{name}.conv.bias"] = weight.detach(), bias.detach()
    return state
