"""Loss terms of a generator, each a function of pictures; knows no optimiser, no file and no recipe.

Pictures are [N, 3, 128, 128] RGB in [0, 1], aligned as fusion/native.py aligns them. Perceptual features come from our
own networks (fusion/identity.py, fusion/landmark.py); nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.align import ARCFACE_112, Matrix, five_points, invert_matrix, similarity_from_points
from fusion.identity import SIDE_PX, IdentityNet
from fusion.landmark import CROP_PX as LANDMARK_PX
from fusion.landmark import LandmarkNet
from fusion.native import TEMPLATE_128, TEMPLATE_PX
from fusion.train.teacher import MobileFaceNet

IDENTITY_HW = (112, 112 - 2 * SIDE_PX)


def resample(
    pictures: Tensor, inner_from_outer: Matrix, size_hw: tuple[int, int], wobble: float = 0.0
) -> Tensor:
    """Another aligned crop of the same pictures, bilinear and differentiable.

    `inner_from_outer` maps pixels of these crops to pixels of the wanted ones. `wobble` turns, scales and shifts each
    picture at random and mirrors half of them, so that a recogniser is not fooled by a pattern of single pixels.
    """
    outer_from_inner = invert_matrix(inner_from_outer)
    height, width = pictures.shape[2:]
    x, y = np.meshgrid(np.arange(size_hw[1]), np.arange(size_hw[0]))
    at = np.stack([x, y, np.ones_like(x)], axis=-1) @ outer_from_inner.T  # [h, w, 2] in pixels
    unit = (2 * at + 1) / [width, height] - 1
    grid = torch.from_numpy(unit.astype(np.float32)).to(pictures.device).expand(len(pictures), -1, -1, -1)
    if wobble > 0:
        angle, scale = (wobble * torch.randn(len(pictures), device=grid.device) for _ in range(2))
        c, s = torch.cos(angle) * torch.exp(scale), torch.sin(angle) * torch.exp(scale)
        mirror = torch.sign(torch.rand_like(c) - 0.5)
        turn = torch.stack([torch.stack([c * mirror, -s * mirror], -1), torch.stack([s, c], -1)], 1)
        shift = 0.5 * wobble * torch.randn(len(pictures), 1, 1, 2, device=grid.device)
        grid = torch.einsum("nhwi,nji->nhwj", grid, turn) + shift
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def roughen(crops: Tensor, grain: float = 0.02) -> Tensor:
    """Crops [N, 3, h, w] softened by a random amount, with grain: patterns that only a recogniser sees drown in it."""
    softness = torch.rand(len(crops), 1, 1, 1, device=crops.device)
    soft = F.avg_pool2d(F.pad(crops, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.lerp(crops, soft, softness) + grain * torch.randn_like(crops)


def at_128(pictures: Tensor) -> Tensor:
    """Larger crops reduced to the size that the recognisers' crops are cut from."""
    if pictures.shape[-1] == TEMPLATE_PX:
        return pictures
    return F.interpolate(pictures, size=(TEMPLATE_PX, TEMPLATE_PX), mode="bilinear", antialias=True)


def identity_from_crop() -> Matrix:
    """Pixels of the generator's crop to pixels of the recognisers' 112 x 96."""
    wanted = ARCFACE_112 - np.array([SIDE_PX, 0], np.float32)
    return similarity_from_points(TEMPLATE_128, wanted)


def recogniser_crops(pictures: Tensor, wobble: float = 0.0) -> Tensor:
    """The recognisers' crops [N, 3, 112, 96] in [0, 1] of a generator's pictures; moved and roughened by `wobble`."""
    crops = resample(at_128(pictures), identity_from_crop(), IDENTITY_HW, wobble)
    return roughen(crops) if wobble > 0 else crops


def teacher_input(crops: Tensor) -> Tensor:
    """Crops in [0, 1] in the teacher's units, (255 x - 127.5) / 128."""
    return crops * (255 / 128) - 127.5 / 128


@dataclass(frozen=True, eq=False)
class Judges:
    """Frozen networks, asked about a generator's picture.

    gallery  unit vectors [P, D] of the split's portraits by the same recogniser; a Batch counts its people in it
    teacher  the published recogniser, where it is to teach too
    """

    identity: IdentityNet
    landmark: LandmarkNet
    gallery: Tensor
    teacher: MobileFaceNet | None = None
    teacher_gallery: Tensor | None = None

    def look(self, pictures: Tensor, wobble: float = 0.0) -> tuple[Tensor, list[Tensor]]:
        """Unit embeddings [N, 512] and the identity network's maps."""
        maps = self.identity.maps(recogniser_crops(pictures, wobble))
        return F.normalize(self.identity.head(maps[-1])), maps

    def look_as_ours(self, pictures: Tensor) -> Tensor:
        """Unit embeddings [N, 512] alone."""
        return self.look(pictures)[0]

    def look_as_teacher(self, pictures: Tensor, wobble: float = 0.0) -> Tensor:
        """Unit embeddings [N, 128] by the teacher, which must be there."""
        assert self.teacher is not None
        return F.normalize(self.teacher(teacher_input(recogniser_crops(pictures, wobble))))

    def place(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks [N, 478, 2] in px of the landmark network's crop, and its features at 16 px."""
        wanted = five_points(self.landmark.mean_shape.cpu().numpy())
        inner_from_outer = similarity_from_points(TEMPLATE_128, wanted)
        crops = resample(at_128(pictures), inner_from_outer, (LANDMARK_PX, LANDMARK_PX))
        features = self.landmark.body[:4]((crops - self.landmark.mean) / self.landmark.std)
        offsets = self.landmark.basis(self.landmark.code(self.landmark.body[4:](features)))
        return self.landmark.mean_shape + offsets.view(len(crops), -1, 2), features


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours across and down."""
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def pixel_loss(made: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1."""
    return (weight * (made - truth).abs()).mean()


def slope_loss(made: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 between the slopes of both pictures: sharpness."""
    pairs = zip(slopes(made), slopes(truth), (weight[..., 1:], weight[..., 1:, :]), strict=True)
    return torch.stack([(w * (a - b).abs()).mean() for a, b, w in pairs]).mean()


def energy_loss(made: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """L1 between local means of the slopes' size: asks for texture where its place cannot be known."""
    pairs = zip(slopes(made), slopes(truth), (weight[..., 1:], weight[..., 1:, :]), strict=True)
    parts = [F.avg_pool2d(a.abs() * w, 8) - F.avg_pool2d(b.abs() * w, 8) for a, b, w in pairs]
    return torch.stack([part.abs().mean() for part in parts]).mean()


def tint_loss(made: Tensor, composite: Tensor, weight: Tensor) -> Tensor:
    """Weighted size of a colour cast, coarser than 4 px: what the change does to channels beyond their mean."""
    change = F.avg_pool2d(weight * (made - composite), 4)
    return (change - change.mean(dim=1, keepdim=True)).abs().mean()


def identity_loss(embedding: Tensor, wanted: Tensor) -> Tensor:
    """1 - cosine of unit vectors [N, 512]."""
    return (1 - (embedding * wanted).sum(1)).mean()


def retrieval_loss(embedding: Tensor, gallery: Tensor, person: Tensor, scale: float, margin: float) -> Tensor:
    """Cross-entropy of finding `person` [N] among unit vectors [P, D], its own cosine less `margin`.

    CosFace, arXiv 1801.09414, eq. 4, with portraits for classes.
    """
    cosines = embedding @ gallery.T
    own = F.one_hot(person, len(gallery)).to(cosines.dtype)
    return F.cross_entropy(scale * (cosines - margin * own), person)


def leak_loss(embedding: Tensor, target: Tensor, allowed: float) -> Tensor:
    """How far the cosine to the target's own identity lies above what is allowed."""
    return F.relu((embedding * target).sum(1) - allowed).mean()


def feature_loss(maps: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """L1 between feature maps, each in units of the wanted map's spread."""
    parts = [
        F.l1_loss(made / scale, truth / scale)
        for made, truth in zip(maps, wanted, strict=True)
        for scale in [truth.std(dim=(0, 2, 3), keepdim=True) + 1e-3]
    ]
    return torch.stack(parts).mean()


def landmark_loss(points: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance of points [N, 478, 2], smooth below one pixel."""
    return F.smooth_l1_loss(points, wanted)
