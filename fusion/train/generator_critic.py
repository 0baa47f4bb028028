"""A critic of patches: says of each patch whether a camera or a generator made it; trains nothing by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = (32, 64, 128)


class PatchCritic(nn.Module):
    """[N, 3, S, S] in [0, 1] → a grade per patch of 46 px [N, 1, S/8 - 1, S/8 - 1] (PatchGAN, arXiv 1611.07004).

    Spectral norms (arXiv 1802.05957) keep it smooth, so that it needs no penalty on its gradient. 0.17 M parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = 3
        for width in WIDTHS:
            layers += [spectral_norm(nn.Conv2d(incoming, width, 4, 2, 1)), nn.LeakyReLU(0.2)]
            incoming = width
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(incoming, 1, 4, 1, 1)))

    def forward(self, pictures: Tensor) -> Tensor:
        grades: Tensor = self.layers(pictures * 2 - 1)
        return grades


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of the grades of true and of made pictures (arXiv 1705.02894, section 3)."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()
