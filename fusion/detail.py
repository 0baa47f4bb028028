"""Detail branch (MDRN): the target's finest bands on the result's skin, and a small network for the rest; knows no
engine, no network of identity, no file.

Two steps, both only where the source was painted. The rule exchanges the octaves that a recogniser cannot see by the
target's own, on skin. The network, a U-Net over Haar wavelets with CBAM (arXiv 1807.06521), adds a residual to the
finest two octaves, everywhere; it is weighted with 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion import blend, mask, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.octaves import LUMA, before_rounding, split_octaves

BoolArray = npt.NDArray[np.bool_]

TILE_PX: Final = 96
OVERLAP_PX: Final = 16
WEIGHT: Final = 0.1
RECOGNISED_PX: Final = (
    100.0  # a face is 75 px wide in a recogniser's crop; a pyramid's bands leak by half an octave
)
FOCUS: Final[tuple[int, ...]] = (33, 133, 159, 145, 263, 362, 386, 374, 98, 327, 64, 294, 61, 291)
WIDTHS: Final = (24, 40, 64)
DETAIL_GAIN: Final = 8.0
STEADIED: Final = 2  # octaves that are brought to their strength once more
STEADY_LIMITS: Final = (-0.6, 1.5)  # share of an octave that may be added for it
LEAST_SHARE: Final = 0.15  # of an octave, below which its strength is not the rule's to mend


@dataclass(frozen=True)
class DetailOptions:
    """Settings of the detail branch.

    keep      0 leaves the result's bands, 1 takes the target's own on skin
    weight    of the network's residual, where a network is given
    octaves   how many of the finest octaves are exchanged; None: as many as a recogniser cannot see
    gain      of the target's bands where nothing is known of how strong they were: what resampling took from them
    least, most  limits of the gain that gives each octave the strength it has in the target's picture (docs/log.md)
    """

    keep: float = 1.0
    weight: float = WEIGHT
    octaves: float | None = None
    gain: float = 1.08
    least: float = 0.7
    most: float = 2.5


def hidden_octaves(face_width_px: float) -> float:
    """Octaves finer than a recogniser's crop shows, 1 to 5, for a face this wide; the last may be a part of one."""
    return float(np.clip(np.log2(max(face_width_px, 1.0) / RECOGNISED_PX), 1, 5))


def exchanged_octaves(landmarks_px: FloatArray, options: DetailOptions) -> float:
    """How many octaves the rule exchanges on a face of these landmarks [478, 2]."""
    return options.octaves or hidden_octaves(mesh.face_width(landmarks_px))


def judged_octaves(landmarks_px: FloatArray, options: DetailOptions) -> int:
    """Octaves whose strength in the target `restore_detail` asks for: those it exchanges and those it steadies."""
    return max(math.ceil(exchanged_octaves(landmarks_px, options)), STEADIED)


def skin_gate(
    target: FloatArray, share: FloatArray, landmarks_px: FloatArray, width: float, grid_px: int = 160
) -> FloatArray:
    """Where the target's own bands belong: its bare skin, as far as the source was painted. float32 [H, W].

    target float32 [H, W, 3] in the result's shape, share [H, W], landmarks [468+, 2] and `width` (mesh.face_width)
    in its pixels. Eyes, brows, lips and nostrils are the source's.
    """
    size = (target.shape[0], target.shape[1])
    scale = min(1.0, grid_px / max(size))
    grid = (max(8, round(size[0] * scale)), max(8, round(size[1] * scale)))
    ratio = np.array([grid[1] / size[1], grid[0] / size[0]], np.float32)
    points = ((landmarks_px[: mesh.NUM_MESH, :2] + 0.5) * ratio - 0.5).astype(np.float32)
    small = np.asarray(cv2.resize(target, (grid[1], grid[0]), interpolation=cv2.INTER_AREA), np.float32)
    hull = mask.fill_contour(points, mesh.OVAL, grid)
    skin = mask.skin_likelihood(small, points, hull, width * scale)
    likely = np.minimum(1.6 * skin, 1).astype(np.float32)
    bare = likely * (1 - mask.feature_mask(points, grid, width * scale))
    soft = blend.resize(blend.blur(bare, 0.01 * width * scale), size)
    return np.asarray(soft * np.minimum(8 * share, 1), np.float32)


def restore_bands(
    result: FloatArray,
    target: FloatArray,
    gate: FloatArray,
    octaves: float,
    options: DetailOptions,
    wanted: tuple[FloatArray, BoolArray] | None = None,
) -> FloatArray:
    """The rule: pictures float32 [H, W, 3] in one shape, the finest octaves exchanged where `gate` [H, W] is.

    `wanted` is (amplitude of each octave [K], where it is to be reached [H, W]): bending a picture takes grain from it,
    and of the last octave only a part is the target's.
    """
    change = np.zeros_like(result)
    both = zip(split_octaves(target, octaves), split_octaves(result, octaves), strict=True)
    for k, ((share, theirs), (_, mine)) in enumerate(both):
        part = options.keep * share * gate
        gain = options.gain
        if wanted is not None and share >= LEAST_SHARE:
            amplitude, where = wanted
            gain = match_gain(theirs, mine, part, where, float(amplitude[k]), options)
        change += part[..., None] * (gain * theirs - mine)
    merged = np.asarray(result + change, np.float32)
    return merged if wanted is None else steady_bands(merged, options.keep * gate, wanted, options)


def steady_bands(
    picture: FloatArray, gate: FloatArray, wanted: tuple[FloatArray, BoolArray], options: DetailOptions
) -> FloatArray:
    """A merged picture with its own finest octaves brought to an amplitude, where `gate` [H, W] is.

    Octaves of a Gaussian pyramid overlap: what the exchange adds to one is partly measured in its neighbours. Here the
    strengths of all are solved for together.
    """
    amplitude, where = wanted
    if not where.any():
        return picture
    bands = [band for _, band in split_octaves(picture, STEADIED)]
    moves = [gate[..., None] * band for band in bands]
    echoes = [split_octaves(np.asarray(move @ LUMA, np.float32), STEADIED) for move in moves]
    vectors = [
        np.stack([bands[j][where] @ LUMA, *(echo[j][1][where] for echo in echoes)]) for j in range(STEADIED)
    ]
    products = np.stack([v @ v.T / v.shape[1] for v in vectors]).astype(np.float64)
    more = solve_strengths(products, amplitude[:STEADIED], STEADY_LIMITS)
    change = sum(share * move for share, move in zip(more, moves, strict=True))
    return np.asarray(picture + change, np.float32)


def solve_strengths(
    products: npt.NDArray[np.float64], amplitude: FloatArray, limits: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """How much of each move to add, float64 [K] within limits, so that octave j has the rms amplitude[j].

    products [K, K + 1, K + 1]: of octave j the mean products of (itself, its echo of each move). Newton's method, one
    octave after the other, so that one at its limit leaves the others to reach theirs.
    """
    more = np.zeros(len(amplitude))
    for _ in range(8):
        for k, wanted in enumerate(amplitude):
            weights = np.concatenate([[1.0], more])
            seen = products[k] @ weights
            rms = float(np.sqrt(max(float(seen @ weights), 1e-12)))
            slope = float(seen[k + 1]) / rms
            if slope > 1e-9:
                more[k] = np.clip(more[k] + (float(wanted) - rms) / slope, *limits)
    return more


def match_gain(
    theirs: FloatArray,
    mine: FloatArray,
    part: FloatArray,
    where: BoolArray,
    amplitude: float,
    options: DetailOptions,
) -> float:
    """g such that (1 - part) mine + g part theirs has this rms luma `where`, within the options' limits.

    Bands float32 [H, W, 3], part [H, W]; the greater root of |rest + g own|² = amplitude².
    """
    if not where.any():
        return options.gain
    own = part[where] * (theirs[where] @ LUMA)
    rest = (1 - part[where]) * (mine[where] @ LUMA)
    a, b = float((own * own).mean()), float((own * rest).mean())
    c = float((rest * rest).mean()) - amplitude**2
    if a < 1e-12:
        return options.gain
    root = (-b + np.sqrt(max(b * b - a * c, 0.0))) / a
    return float(np.clip(root, options.least, options.most))


def haar(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, 4C, H/2, W/2]: mean, then details across, down and both (orthonormal; Haar 1910)."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


def inverse_haar(bands: Tensor) -> Tensor:
    """The inverse of `haar`."""
    low, across, down, both = bands.chunk(4, 1)
    out = torch.stack(
        [
            low + across + down + both,
            low - across + down - both,
            low + across - down - both,
            low - across - down + both,
        ],
        2,
    )
    n, channels, _, height, width = out.shape
    return F.pixel_shuffle(out.reshape(n, channels * 4, height, width) / 2, 2)


class Attention(nn.Module):
    """CBAM: which channels, then which places (Woo et al. 2018, eq. 2 and 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels)
        )
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        channel = torch.sigmoid(self.squeeze(x.mean((2, 3))) + self.squeeze(x.amax((2, 3))))
        x = x * channel[:, :, None, None]
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        y: Tensor = 4 * x * torch.sigmoid(self.place(summary))
        return y


class Level(nn.Module):
    """Two convolutions and attention at one scale."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = Attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(F.relu(self.second(F.relu(self.first(x)))))
        return y


class DetailNet(nn.Module):
    """Result, target and two maps to a residual in the finest two octaves; 0.24 M parameters.

    forward: result and target [N, 3, H, W] in [0, 1], gate and focus [N, 1, H, W], H and W multiples of 8 →
    residual [N, 3, H, W], to be multiplied by WEIGHT.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.enter = Level(24 + 8, first)
        self.down = Level(first + 24, second)
        self.bottom = Level(second, third)
        self.up = Level(third + second, second)
        self.leave = Level(second + first, first)
        self.coarse = nn.Conv2d(second, 9, 3, padding=1)
        self.fine = nn.Conv2d(first, 9, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.out_channels > 1:
                nn.init.kaiming_normal_(
                    layer.weight
                )  # attention halves twice: the usual start fades to nothing
        for head in (self.coarse, self.fine):
            nn.init.normal_(head.weight, std=1e-4)  # larger, and the first hundred steps undo what it paints
            if head.bias is not None:
                nn.init.zeros_(head.bias)

    def forward(self, result: Tensor, target: Tensor, gate: Tensor, focus: Tensor) -> Tensor:
        mine, other = haar(result), haar(target)
        edges = [DETAIL_GAIN * x for x in (*edge_clues(result), *edge_clues(target))]
        clues = [F.avg_pool2d(x, 2) for x in (*edges, gate, focus)]
        top = self.enter(torch.cat([lifted(mine), lifted(other), *clues], 1))  # [N, 24, H/2, W/2]
        second = torch.cat([lifted(haar(mine[:, :3]) / 2), lifted(haar(other[:, :3]) / 2)], 1)
        middle = self.down(torch.cat([F.avg_pool2d(top, 2), second], 1))
        bottom = self.bottom(F.avg_pool2d(middle, 2))
        up = self.up(torch.cat([F.interpolate(bottom, scale_factor=2.0), middle], 1))
        leave = self.leave(torch.cat([F.interpolate(up, scale_factor=2.0), top], 1))
        coarse = self.coarse(up)  # [N, 9, H/4, W/4]
        low = inverse_haar(torch.cat([torch.zeros_like(coarse[:, :3]), coarse], 1))
        return inverse_haar(torch.cat([low, self.fine(leave)], 1))


def lifted(bands: Tensor) -> Tensor:
    """Haar bands [N, 12, H, W] on one scale: unlifted, details are a fiftieth of the mean and hardly learned from."""
    return torch.cat([bands[:, :3] - 1, DETAIL_GAIN * bands[:, 3:]], 1)


def edge_clues(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges at two scales and local contrast of the luma, each [N, 1, H, W]."""
    luma = x.mean(1, keepdim=True)
    soft = F.avg_pool2d(luma, 3, 1, 1)
    wide = F.avg_pool2d(luma, 5, 1, 2)
    contrast = (F.avg_pool2d(luma * luma, 5, 1, 2) - wide * wide).clamp_min(1e-6).sqrt()
    return _gradient(luma), _gradient(soft), contrast


def _gradient(luma: Tensor) -> Tensor:
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return (across * across + down * down + 1e-8).sqrt()


def focus_map(landmarks_px: FloatArray, size: tuple[int, int], width: float) -> FloatArray:
    """Bumps of 6 % of the face's width on eyes, nose wings and mouth corners, float32 [H, W] in [0, 1]."""
    height, across = size
    focus = np.zeros(size, np.float32)
    sigma = max(0.06 * width, 1.0)
    for x, y in landmarks_px[list(FOCUS), :2]:
        low = np.maximum(np.floor([x - 3 * sigma, y - 3 * sigma]), 0).astype(int)
        high = np.minimum(np.ceil([x + 3 * sigma, y + 3 * sigma]) + 1, [across, height]).astype(int)
        if (high <= low).any():
            continue
        row, column = np.arange(low[1], high[1])[:, None], np.arange(low[0], high[0])[None]
        bump = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2)).astype(np.float32)
        part = focus[low[1] : high[1], low[0] : high[0]]
        np.maximum(part, bump, out=part)
    return focus


@torch.inference_mode()
def predict_residual(
    net: DetailNet, result: FloatArray, target: FloatArray, gate: FloatArray, focus: FloatArray
) -> FloatArray:
    """The network over a picture of any size, in overlapping tiles that fade into each other. float32 [H, W, 3]."""
    height, width = gate.shape
    total = np.zeros((height, width, 3), np.float32)
    weights = np.full((height, width, 1), 1e-6, np.float32)
    ramp = np.minimum(np.arange(TILE_PX) + 1, np.arange(TILE_PX, 0, -1)) / OVERLAP_PX
    fade = np.minimum(ramp, 1).astype(np.float32)
    window = (fade[:, None] * fade[None])[..., None]
    everything = np.concatenate([result, target, gate[..., None], focus[..., None]], -1)  # [H, W, 8]
    device = next(net.parameters()).device
    for top in _starts(height):
        for left in _starts(width):
            part = everything[top : top + TILE_PX, left : left + TILE_PX]
            rows, columns = part.shape[:2]
            wide = (
                cv2.copyMakeBorder(
                    np.ascontiguousarray(part[..., :4]),
                    0,
                    TILE_PX - rows,
                    0,
                    TILE_PX - columns,
                    cv2.BORDER_REPLICATE,
                ),
                cv2.copyMakeBorder(
                    np.ascontiguousarray(part[..., 4:]),
                    0,
                    TILE_PX - rows,
                    0,
                    TILE_PX - columns,
                    cv2.BORDER_REPLICATE,
                ),
            )
            x = torch.from_numpy(np.concatenate(wide, -1)).permute(2, 0, 1)[None].to(device)
            residual = (
                net(x[:, :3], x[:, 3:6], x[:, 6:7], x[:, 7:8])[0].permute(1, 2, 0).float().cpu().numpy()
            )
            place = (slice(top, top + rows), slice(left, left + columns))
            total[place] += window[:rows, :columns] * residual[:rows, :columns]
            weights[place] += window[:rows, :columns]
    return np.asarray(total / weights, np.float32)


def _starts(length: int) -> Sequence[int]:
    """Where tiles begin so that they overlap and the last ends at the edge."""
    if length <= TILE_PX:
        return [0]
    return [*range(0, length - TILE_PX, TILE_PX - OVERLAP_PX), length - TILE_PX]


def restore_detail(
    rgb: UInt8Array,
    target_in_shape: FloatArray,
    share: FloatArray,
    roi_xyxy: tuple[int, int, int, int],
    landmarks_px: FloatArray,
    options: DetailOptions | None = None,
    net: DetailNet | None = None,
    amplitudes: FloatArray | None = None,
) -> UInt8Array:
    """The result's picture uint8 [H, W, 3] with the detail branch applied in its region; a new picture.

    target_in_shape float32 [h, w, 3]: the target's picture over the region, bent to the result's shape; share
    [h, w] of the source; landmarks [478, 2] of the result in picture pixels. Where share is 0 nothing changes.
    `amplitudes`: octaves.band_energies of the target's own picture, which the result's skin is to have too.
    """
    options = options or DetailOptions()
    x0, y0, x1, y1 = roi_xyxy
    kept = rgb[y0:y1, x0:x1]
    result = kept.astype(np.float32) / np.float32(255)
    points = (landmarks_px[:, :2] - [x0, y0]).astype(np.float32)
    width = mesh.face_width(landmarks_px)
    gate = skin_gate(target_in_shape, share, points, width)
    octaves = exchanged_octaves(landmarks_px, options)
    wanted = None
    if amplitudes is not None:
        wanted = before_rounding(amplitudes), mask.cheek_mask(points[: mesh.NUM_MESH], gate.shape) > 0.5
    merged = restore_bands(result, target_in_shape, gate, octaves, options, wanted)
    if net is not None and options.weight > 0:
        focus = focus_map(points, (y1 - y0, x1 - x0), width)
        residual = predict_residual(net, np.clip(merged, 0, 1), target_in_shape, gate, focus)
        merged = merged + options.weight * share[..., None] * residual
    out = rgb.copy()
    new = np.clip(np.rint(merged * 255), 0, 255).astype(np.uint8)
    out[y0:y1, x0:x1] = np.where(share[..., None] > 0, new, kept)
    return out
