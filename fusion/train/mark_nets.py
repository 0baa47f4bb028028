"""The learned mark's two networks: one draws 128 bits into a luma plane, one reads them back. Not used at run time.

The mark that ships is the keyed spread spectrum of `provenance/watermark.py`; docs/learned-mark.md holds both tables.
The message is two bits for each cell of 8 x 8 working pixels; a tile of 8 x 8 cells repeats over the plane. So the task
is local and the same everywhere: it can be learnt from small windows, and a larger plane is read by summing its tiles.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL, CELLS, PER_CELL = 8, 8, 2
TILE = CELL * CELLS
BITS = CELLS * CELLS * PER_CELL
Offset = tuple[int, int]
"""(y, x): pixel (0, 0) of a window is pixel (y, x) of its tile."""


def message_plane(signs: Tensor, size: tuple[int, int], offset: Offset) -> Tensor:
    """Signs [N, 128] in {-1, 1} → [N, 2, h, w], each cell filled with its two bits, repeated."""
    cells = signs.reshape(-1, PER_CELL, CELLS, CELLS).repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    return _tiled(cells, size, offset)


def _tiled(tile: Tensor, size: tuple[int, int], offset: Offset) -> Tensor:
    rows = (torch.arange(size[0], device=tile.device) + offset[0]) % tile.shape[-2]
    columns = (torch.arange(size[1], device=tile.device) + offset[1]) % tile.shape[-1]
    return tile[..., rows, :][..., columns]


def fold(cells: Tensor, first: Offset) -> Tensor:
    """Logits [N, 2, rows, columns] of cells, whose first is cell `first` of its tile → their sums [N, 128]."""
    count, _, rows, columns = cells.shape
    index = ((torch.arange(rows) + first[0]) % CELLS)[:, None] * CELLS + (
        (torch.arange(columns) + first[1]) % CELLS
    )
    sums = torch.zeros(count, PER_CELL, CELLS * CELLS, dtype=cells.dtype, device=cells.device)
    sums = sums.index_add(2, index.reshape(-1).to(cells.device), cells.reshape(count, PER_CELL, -1))
    return sums.reshape(count, BITS)


def band_of(luma: Tensor) -> Tensor:
    """Luma [N, 1, h, w] in [0, 1] → [N, 2, h, w]: what is finer than about eight pixels, evened out, and plain."""
    smooth = F.avg_pool2d(luma, 5, 1, 2, count_include_pad=False)
    band = luma - F.avg_pool2d(smooth, 5, 1, 2, count_include_pad=False)
    power = F.avg_pool2d(band * band, 7, 1, 3, count_include_pad=False)
    return torch.cat([band / (power + (2 / 255) ** 2).sqrt(), (band * 12).clamp(-2, 2)], 1)


def hidden(luma: Tensor) -> Tensor:
    """[N, 1, h, w], grey levels squared: SSIM's denominator (Wang 2004, eq. 13), what a change is weighed against."""
    mean = F.avg_pool2d(luma, 7, 1, 3, count_include_pad=False)
    variance = F.avg_pool2d((luma - mean) ** 2, 7, 1, 3, count_include_pad=False)
    return 2 * variance * 255**2 + 58.5


class MarkEmbedder(nn.Module):
    """Luma [N, 1, h, w] in [0, 1] and signs [N, 128] in {-1, 1} → change [N, 1, h, w], of no particular strength.

    A learnt stroke for either bit of a cell, and convolutions that see picture, message and place and correct it.
    """

    def __init__(self, width: int = 16, places: int = 4) -> None:
        super().__init__()
        self.strokes = nn.Parameter(torch.randn(PER_CELL, CELL, CELL) * 0.5)
        self.places = nn.Parameter(torch.randn(places, CELL, CELL) * 0.5)
        self.first = nn.Conv2d(2 + 2 * PER_CELL + places, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.normal_(self.last.weight, std=0.01)

    def forward(self, luma: Tensor, signs: Tensor, offset: Offset = (0, 0)) -> Tensor:
        size = (luma.shape[-2], luma.shape[-1])
        message = message_plane(signs, size, offset)
        drawn = message * _tiled(self.strokes[None], size, offset)
        places = _tiled(self.places[None], size, offset).expand(len(luma), -1, -1, -1)
        x = F.silu(self.first(torch.cat([band_of(luma), message, drawn, places], 1)))
        x = F.silu(self.middle(x))
        out: Tensor = (drawn.sum(1, keepdim=True) + self.last(x)) * hidden(luma) ** 0.25
        return out


class MarkExtractor(nn.Module):
    """Luma [N, 1, h, w] in [0, 1] → logits of cells; positive says that the bit is set."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, PER_CELL, CELL)

    def features(self, luma: Tensor) -> Tensor:
        """[N, width, h, w], all of the same place."""
        x = F.silu(self.first(band_of(luma)))
        x = x + F.silu(self.middle(x))
        out: Tensor = x + F.silu(self.last(x))
        return out

    def cells(self, luma: Tensor, offset: Offset = (0, 0)) -> Tensor:
        """[N, 2, rows, columns]: the whole cells of a window that lies at `offset` of its tile."""
        at = self.features(luma)[..., -offset[0] % CELL :, -offset[1] % CELL :]
        return F.conv2d(at, self.head.weight, self.head.bias, stride=CELL)

    def everywhere(self, luma: Tensor) -> Tensor:
        """[N, 2, h - 7, w - 7]: logits as if a cell began at each pixel, for who must look for the place."""
        out: Tensor = self.head(self.features(luma))
        return out

    def forward(self, luma: Tensor, offset: Offset = (0, 0)) -> Tensor:
        """[N, 128]: every bit's logits summed over the tiles of a window at `offset`."""
        return fold(self.cells(luma, offset), first_cell(offset))


def first_cell(offset: Offset) -> Offset:
    """Which cell of its tile is the first whole one of a window at `offset`."""
    y, x = (-(-each // CELL) % CELLS for each in offset)
    return y, x
