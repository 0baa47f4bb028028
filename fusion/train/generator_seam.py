"""The seam's membrane (fusion/seam.py) over a generator's pictures, with a gradient; trains nothing.

What a swap looks like at its rim is decided after the network: identity that it paints there is taken away again.
A network that is judged by the finished picture paints it where it stays.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusion import mask
from fusion.native import TEMPLATE_PX
from fusion.seam import SeamOptions, membrane_rim

FACE_WIDTH: Final = 86.4 / TEMPLATE_PX  # share of the generator's crop, median of 200 val portraits
SHRUNK: Final = 2  # the membrane has no fine bands


def close_seams(made: Tensor, target: Tensor, trust: Tensor, options: SeamOptions | None = None) -> Tensor:
    """Pictures [N, 3, S, S] without the colour step to the target at the rim of trust [N, 1, S, S], not clipped.

    The target is taken as it is, not bent to the swap's shape: at the scale of the membrane that is little.
    """
    options = options or SeamOptions()
    width = FACE_WIDTH * made.shape[-1] / SHRUNK
    shares = F.avg_pool2d(trust, SHRUNK)[:, 0].cpu().numpy()
    inside = np.stack([mask.fill_outlines(share > options.level) for share in shares])
    rims = [membrane_rim(one, width, options) for one in inside]
    within, fade, near = (
        torch.from_numpy(maps).to(made)[:, None]
        for maps in (inside, np.stack([rim[0] for rim in rims]), np.stack([rim[1] for rim in rims]))
    )
    added = membrane_steps(F.avg_pool2d(target - made, SHRUNK), fade, near, width, options)
    step, place = (F.interpolate(x, scale_factor=float(SHRUNK), mode="bilinear") for x in (added, within))
    return made + step * place


def membrane_steps(
    missing: Tensor, fade: Tensor, near: Tensor, width_px: float, options: SeamOptions
) -> Tensor:
    """`membrane_step` of fusion/seam.py for a batch: missing [N, 3, h, w], fade and near [N, 1, h, w]."""
    sigma, floor = options.scale * width_px, 1e-4
    below = gaussian(near, sigma) + floor
    total = near.sum((2, 3), keepdim=True).clamp(min=1e-6)
    added = torch.zeros_like(missing)
    for _ in range(options.rounds):
        left = (missing - added) * near
        lacking = (gaussian(left, sigma) + floor * left.sum((2, 3), keepdim=True) / total) / below
        added = added + lacking.clamp(-options.cap, options.cap) * fade
    return added


def gaussian(x: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur [N, C, h, w] with OpenCV's kernel and mirrored rims."""
    size = round(8 * sigma_px + 1) | 1
    line = torch.from_numpy(cv2.getGaussianKernel(size, sigma_px, cv2.CV_32F)).to(x).flatten()
    flat = F.pad(x.flatten(0, 1)[:, None], (size // 2,) * 4, mode="reflect")
    blurred = F.conv2d(F.conv2d(flat, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return blurred.view_as(x)
