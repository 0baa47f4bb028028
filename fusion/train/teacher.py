"""A published face recogniser, teacher and second opinion; its weights come from the user, never from here.

MobileFaceNet (arXiv 1804.07573, table 1) in its 112 x 96 variant. For training and measuring: nothing of the
pipeline imports this file, and no tensor of it goes into a network that ships.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from provenance.errors import WeightsError

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

# Five points in a picture 112 high and 96 wide: the 112 x 112 template of ArcFace moved 8 px to the left.
TEACHER_POINTS_112X96 = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]],
    dtype=np.float32,
)

# (expansion t, channels c, repeats n, first stride s), arXiv 1804.07573 table 1
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class ConvBlock(nn.Module):
    """Convolution, batch norm and (unless `linear`) PReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        groups = in_channels if depthwise else 1
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.prelu = nn.Identity() if linear else nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.prelu(self.bn(self.conv(x)))
        return y


class Bottleneck(nn.Module):
    """Inverted residual of MobileNetV2 with PReLU; residual where stride is 1 and widths agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.connect = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.connect else y


class MobileFaceNet(nn.Module):
    """[N, 3, 112, 96] RGB, (x - 127.5) / 128 → [N, 128], not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, (3, 3), stride=2, padding=1)
        self.dw_conv1 = ConvBlock(64, 64, (3, 3), padding=1, depthwise=True)
        blocks: list[nn.Module] = []
        width = 64
        for expansion, channels, repeats, first_stride in BOTTLENECKS:
            for index in range(repeats):
                blocks.append(Bottleneck(width, channels, first_stride if index == 0 else 1, expansion))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = ConvBlock(128, 512, (1, 1))
        self.linear7 = ConvBlock(512, 512, (7, 6), depthwise=True, linear=True)
        self.linear1 = ConvBlock(512, 128, (1, 1), linear=True)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Last map of each resolution: [N, 64, 28, 24], [N, 128, 14, 12], [N, 128, 7, 6]."""
        fine = self.blocks[:5](self.dw_conv1(self.conv1(x)))
        middle = self.blocks[5:12](fine)
        return fine, middle, self.blocks[12:](middle)

    def head(self, features: Tensor) -> Tensor:
        """[N, 128, 7, 6] → [N, 128]."""
        y: Tensor = self.linear1(self.linear7(self.conv2(features)))
        return y.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x)[-1])


def load_teacher(path: Path) -> MobileFaceNet:
    """The teacher from a safetensors file the user supplies, every name and shape equal, in evaluation mode.

    Raises WeightsError `weights.missing`, `weights.unreadable` or `weights.mismatch`.
    """
    next_step = "Give the file of MobileFaceNet as safetensors; the suite neither ships nor fetches it."
    net = MobileFaceNet()
    try:
        net.load_state_dict(safetensors.torch.load_file(str(path)), strict=True)
    except FileNotFoundError as error:
        raise WeightsError("weights.missing", f"no teacher at {path}", next_step) from error
    except (SafetensorError, OSError) as error:
        raise WeightsError("weights.unreadable", f"{path.name} is no safetensors file", next_step) from error
    except RuntimeError as error:
        raise WeightsError("weights.mismatch", f"{path.name} is no MobileFaceNet", next_step) from error
    return net.eval().requires_grad_(False)


def teacher_input(crops: UInt8Array) -> Tensor:
    """uint8 [N, 112, 96, 3] RGB → float32 [N, 3, 112, 96]."""
    x = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()
    return (x - 127.5) / 128


@torch.inference_mode()
def embed_teacher(net: MobileFaceNet, crops: UInt8Array) -> FloatArray:
    """Flip-averaged embeddings.

    crops uint8 [N, 112, 96, 3] RGB, five points on TEACHER_POINTS_112X96 → float32 [N, 256] of unit length
    (of the picture, then of its mirror image).
    """
    x = teacher_input(crops)
    embeddings: FloatArray = F.normalize(torch.cat([net(x), net(x.flip(3))], dim=1)).numpy()
    return embeddings
