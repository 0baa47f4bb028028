"""Hands and held things in front of a face, found by a small network; knows no engine and no training data.

Glasses, hair and what has another colour than a face are the rule's (`mask.uncovered_share`); a hand has skin's colour.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion import mask, mesh
from fusion.align import apply_matrix, warp_crop
from fusion.blend import blur
from fusion.face import FloatArray, UInt8Array
from fusion.layers import ConvUnit, SeparableUnit
from fusion.native import generator_crop_from_image
from fusion.weights import OCCLUSION, load_weights

OCCLUSION_PX: Final = 128  # side of the crop that the network sees
MAP_PX: Final = 64  # side of its answer
WIDTHS: Final = (12, 24, 40, 64)
LIKELY: Final = 0.5  # chance at which a place may belong to a cover
SURE: Final = 0.9  # chance that some place of each cover must reach
RIM: Final = (0.25, 0.6)  # chances at which a find's rim begins and is whole
THICK_PX: Final = 5  # an eighth of the face's width: what is thinner is no hand
LEAST_PX: Final = 12  # smallest cover on the face, in pixels of the map: a hundredth of the face


class OcclusionNet(nn.Module):
    """Crops float [N, 3, 128, 128] in [0, 1], RGB, to logits [N, 1, 64, 64]: does something lie before the face here?

    A U-Net of separable convolutions from 64 to 8 px and back. The crop is `native.generator_crop_from_image`.
    `folded` builds the form for inference (no batch normalisation).
    """

    def __init__(self, *, folded: bool = False) -> None:
        super().__init__()
        w0, w1, w2, w3 = WIDTHS
        self.stem = ConvUnit(3, w0, stride=2, folded=folded)  # [N, 12, 64, 64]
        self.down1 = ConvUnit(w0, w1, stride=2, folded=folded)  # [N, 24, 32, 32]
        self.enter1 = SeparableUnit(w1, folded=folded)
        self.down2 = ConvUnit(w1, w2, stride=2, folded=folded)  # [N, 40, 16, 16]
        self.enter2 = nn.Sequential(*(SeparableUnit(w2, folded=folded) for _ in range(2)))
        self.down3 = nn.Sequential(  # [N, 64, 8, 8]
            ConvUnit(w2, w2, stride=2, groups=w2, active=False, folded=folded),
            ConvUnit(w2, w3, kernel=1, folded=folded),
        )
        self.deep = nn.Sequential(*(SeparableUnit(w3, folded=folded) for _ in range(3)))
        self.up2 = ConvUnit(w3, w2, kernel=1, active=False, folded=folded)
        self.leave2 = SeparableUnit(w2, folded=folded)
        self.up1 = ConvUnit(w2, w1, kernel=1, active=False, folded=folded)
        self.leave1 = SeparableUnit(w1, folded=folded)
        self.up0 = ConvUnit(w1, w0, kernel=1, active=False, folded=folded)
        self.leave0 = ConvUnit(w0, w0, folded=folded)
        self.out = nn.Conv2d(w0, 1, 3, padding=1)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits [N, 1, 64, 64]; ValueError on another crop size."""
        if crops.ndim != 4 or tuple(crops.shape[1:]) != (3, OCCLUSION_PX, OCCLUSION_PX):
            raise ValueError(f"crops [N, 3, {OCCLUSION_PX}, {OCCLUSION_PX}] needed, got {tuple(crops.shape)}")
        h0 = self.stem(2 * crops - 1)
        h1 = self.enter1(self.down1(h0))
        h2 = self.enter2(self.down2(h1))
        h = self.deep(self.down3(h2))
        h = self.leave2(_twice(self.up2(h)) + h2)
        h = self.leave1(_twice(self.up1(h)) + h1)
        h = self.leave0(_twice(self.up0(h)) + h0)
        out: Tensor = self.out(h)
        return out


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def predict_cover(crops: UInt8Array, net: OcclusionNet) -> FloatArray:
    """Chance that something lies before the face, float32 [N, 64, 64] in [0, 1]; crops uint8 [N, 128, 128, 3]."""
    like = net.out.weight
    batch = torch.from_numpy(np.ascontiguousarray(crops)).to(like.device).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = net((batch.float() / 255).to(like.dtype).contiguous(memory_format=torch.channels_last))
    return np.asarray(torch.sigmoid(logits[:, 0].float()).cpu().numpy(), np.float32)


def load_occlusion(device: str | torch.device = "cpu") -> OcclusionNet:
    """The shipped network, ready for `find_cover`; WeightsError if the file is missing or altered."""
    net = OcclusionNet(folded=True)
    load_weights(net, OCCLUSION)
    net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)


def find_cover(rgb: UInt8Array, landmarks_px: FloatArray, net: OcclusionNet) -> mask.CoverMap | None:
    """What lies before a face of a picture uint8 [H, W, 3], landmarks [478, 2]; None: nothing does."""
    crop = warp_crop(
        rgb, generator_crop_from_image(landmarks_px, OCCLUSION_PX), OCCLUSION_PX, border="replicate"
    )
    map_from_image = generator_crop_from_image(landmarks_px, MAP_PX)
    points = apply_matrix(map_from_image, landmarks_px[: mesh.NUM_MESH, :2])
    face = mask.fill_contour(points, mesh.OVAL, (MAP_PX, MAP_PX))
    share = settle(predict_cover(crop[None], net)[0], face)
    return mask.CoverMap(share, map_from_image) if share.any() else None


def settle(chance: FloatArray, face: FloatArray) -> FloatArray:
    """The net's answer [S, S] made a share: doubtful, small and thin finds are dropped, the rest keeps a soft rim.

    A find counts where it is likely, joined to a sure place and large enough within the `face` [S, S]. Thin things
    (a frame, strands) are left to the rule, which sees them sharper. What is dropped is 0, so that a bare face stays
    as it would be without the network.
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (THICK_PX, THICK_PX))
    likely = cv2.morphologyEx((chance > LIKELY).astype(np.uint8), cv2.MORPH_OPEN, disc) > 0
    found = mask.joined_to(likely, (chance > SURE) & (face > 0.5) & likely)
    _, labels = cv2.connectedComponents(found.astype(np.uint8))
    sizes = np.bincount(labels[face > 0.5], minlength=int(labels.max()) + 1)
    found &= (sizes >= LEAST_PX)[labels]
    soft = mask.smooth_step((chance - RIM[0]) / np.float32(RIM[1] - RIM[0]))
    soft *= mask.widen(found.astype(np.float32), 1)
    return np.asarray(np.minimum(1.15 * blur(soft, 0.5), 1), np.float32)
