"""Face crop to 478 points in one or two passes; knows no detector, no identity and no training data.

The crop is upright and holds the mean shape at a fixed place: pass 1 fits it to the detector's five points. Where
the points of pass 1 ask for another crop, pass 2 looks there, which takes out most of the detector's error (the
idea of arXiv 1907.06724, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fusion.align import (
    Matrix,
    Points,
    apply_matrix,
    five_points,
    invert_matrix,
    similarity_from_points,
    warp_crop,
)
from fusion.face import Face, FloatArray, UInt8Array
from fusion.layers import ConvUnit, ResidualUnit
from fusion.weights import LANDMARK, load_weights

CROP_PX = 128
NUM_LANDMARKS = 478
BASIS = 160  # directions of shape that the last layer may mix
PASSES = 2  # at most
SETTLED_PX = 3.0  # mean move of the crop's points, in crop px, below which another pass is not worth its time


class LandmarkNet(nn.Module):
    """Crops float [N, 3, 128, 128] in [0, 1], RGB, to points [N, 478, 2] in pixels of the crop.

    `mean_shape` [478, 2] is where the average face lies in the crop; the network predicts offsets from it.
    0.13 G multiply-adds. `folded` builds the form for inference (no batch normalisation).
    """

    mean_shape: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, *, folded: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean_shape", torch.zeros(NUM_LANDMARKS, 2))
        self.register_buffer("mean", torch.tensor(LANDMARK.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(LANDMARK.std).view(1, 3, 1, 1))
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),  # [N, 48, 32, 32]
            ConvUnit(48, 48, folded=folded),
            ConvUnit(48, 80, stride=2, folded=folded),  # [N, 80, 16, 16]
            ResidualUnit(80, folded=folded),
            ConvUnit(80, 136, stride=2, folded=folded),  # [N, 136, 8, 8]
            ResidualUnit(136, folded=folded),
            ResidualUnit(136, folded=folded),
            ConvUnit(136, 192, stride=2, folded=folded),  # [N, 192, 4, 4]
            ResidualUnit(192, folded=folded),
            ConvUnit(192, 96, kernel=1, folded=folded),
            nn.Flatten(),
        )
        self.code = nn.Linear(96 * 16, BASIS)
        self.basis = nn.Linear(BASIS, NUM_LANDMARKS * 2)

    def forward(self, crops: Tensor) -> Tensor:
        """Points [N, 478, 2]; ValueError on another crop size."""
        if crops.ndim != 4 or tuple(crops.shape[1:]) != (3, CROP_PX, CROP_PX):
            raise ValueError(f"crops [N, 3, {CROP_PX}, {CROP_PX}] needed, got {tuple(crops.shape)}")
        features = self.body((crops - self.mean) / self.std)
        offsets: Tensor = self.basis(self.code(features))  # [N, 956]
        return self.mean_shape + offsets.view(-1, NUM_LANDMARKS, 2)


def load_landmarker(device: str | torch.device = "cpu") -> LandmarkNet:
    """The shipped network, ready for `find_landmarks`; WeightsError if the file is missing or altered."""
    net = LandmarkNet(folded=True)
    load_weights(net, LANDMARK)
    return net.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def landmark_crop_from_image(points_px: Points, mean_shape: Points) -> Matrix:
    """crop_from_image of the region around a face, from its five points [5, 2] or its 478 [478, 2]."""
    template = np.asarray(mean_shape)
    return similarity_from_points(points_px, five_points(template) if len(points_px) == 5 else template)


def find_landmarks(rgb: UInt8Array, face: Face, net: LandmarkNet, passes: int = PASSES) -> FloatArray:
    """478 points float32 [478, 2] in pixels of `rgb` uint8 [H, W, 3]; they may lie outside the picture."""
    return find_landmarks_of_all(rgb, [face], net, passes)[0]


def find_landmarks_of_all(
    rgb: UInt8Array, faces: Sequence[Face], net: LandmarkNet, passes: int = PASSES
) -> list[FloatArray]:
    """`find_landmarks` of several faces of one picture, each pass in one batch of the faces that need it."""
    points: list[FloatArray] = [np.asarray(face.points_px, np.float32) for face in faces]
    template = net.mean_shape.cpu().numpy()
    matrices = [landmark_crop_from_image(known, template) for known in points]
    open_faces = list(range(len(faces)))
    for _ in range(passes):
        if not open_faces:
            break
        crops = np.stack([warp_crop(rgb, matrices[i], CROP_PX) for i in open_faces])  # [N, 128, 128, 3]
        unsettled = []
        for i, found in zip(open_faces, predict_points(crops, net), strict=True):
            points[i] = apply_matrix(invert_matrix(matrices[i]), found)
            closer = landmark_crop_from_image(points[i], template)
            if np.linalg.norm(apply_matrix(closer, points[i]) - found, axis=1).mean() > SETTLED_PX:
                unsettled.append(i)
            matrices[i] = closer
        open_faces = unsettled
    return points


def predict_points(crops: UInt8Array, net: LandmarkNet) -> FloatArray:
    """One pass: crops uint8 [N, 128, 128, 3] to points float32 [N, 478, 2] in pixels of the crops."""
    batch = torch.from_numpy(np.ascontiguousarray(crops)).to(net.mean.device)
    with torch.inference_mode():
        found: FloatArray = net(batch.permute(0, 3, 1, 2).float() / 255).float().cpu().numpy()
    return found
