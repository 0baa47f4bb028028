"""Engines with a network, called like `warp_face`: crops in, fields out, drawn at native resolution; knows no policy.

A generator sees one aligned crop. What it changes there is enlarged and added to the picture's own pixels, so bands
finer than the generator's are those of the composite (`hybrid`) or of the target (`style`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ParamSpec

import numpy as np
import torch
from torch import Tensor

from fusion import mask, mesh
from fusion.align import five_points, landmarks_box, warp_crop
from fusion.blend import resize
from fusion.face import Face, FloatArray, UInt8Array
from fusion.generator import STYLE_SIZES, StyleGenerator
from fusion.hybrid import HYBRID_PX, HybridNet, drawn_share
from fusion.identity import IdentityNet, embed_face, load_identity
from fusion.native import (
    apply_fields,
    crop_share,
    face_window,
    fields_in_roi,
    generator_crop_from_image,
    spare,
)
from fusion.occlusion import OcclusionNet, find_cover, load_occlusion
from fusion.warp import WarpOptions, WarpResult, check_face, warp_face
from fusion.weights import HYBRID, STYLE, load_weights

P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class WarpEngine:
    """`warp_face` behind what a network finds before the target's face; without one, `warp_face` as it is."""

    occlusion: OcclusionNet | None

    def __call__(
        self,
        target_rgb: UInt8Array,
        target_landmarks: FloatArray,
        source_rgb: UInt8Array,
        source_landmarks: FloatArray,
        options: WarpOptions | None = None,
        *,
        identity: FloatArray | None = None,
    ) -> WarpResult:
        """FaceErrors of `warp_face`."""
        check_face(target_rgb, target_landmarks, "target", options or WarpOptions())
        begun = time.perf_counter()
        cover = None if self.occlusion is None else find_cover(target_rgb, target_landmarks, self.occlusion)
        spent = 1e3 * (time.perf_counter() - begun)
        result = warp_face(
            target_rgb,
            target_landmarks,
            source_rgb,
            source_landmarks,
            options,
            identity=identity,
            cover=cover,
        )
        return dataclasses.replace(result, timings_ms={"cover": spent, **result.timings_ms})


@dataclass(frozen=True, eq=False)
class HybridEngine:
    """The composite of `warp`, mended by a network; all networks on one device."""

    net: HybridNet
    identity: IdentityNet
    occlusion: OcclusionNet | None = None

    def __call__(
        self,
        target_rgb: UInt8Array,
        target_landmarks: FloatArray,
        source_rgb: UInt8Array,
        source_landmarks: FloatArray,
        options: WarpOptions | None = None,
        *,
        identity: FloatArray | None = None,
    ) -> WarpResult:
        """FaceErrors of `warp_face`."""
        engine = WarpEngine(self.occlusion)
        composite = engine(target_rgb, target_landmarks, source_rgb, source_landmarks, options)
        begun = time.perf_counter()
        vector = embed_source(source_rgb, source_landmarks, self.identity) if identity is None else identity
        crop = generator_crop_from_image(target_landmarks, HYBRID_PX)
        under, over = (
            warp_crop(rgb, crop, HYBRID_PX, border="replicate") for rgb in (target_rgb, composite.rgb)
        )
        fields = predict_fields(self.net, under, over, crop_share(composite, crop, HYBRID_PX), vector)
        if composite.landmarks_px is not None:
            spared = spared_contours(options or WarpOptions())
            fields = spare(fields, composite.landmarks_px, crop, spared)
        rgb = apply_fields(target_rgb, composite, fields, crop)
        keep = fields_in_roi(fields[..., 3:], crop, composite.roi_xyxy)[..., 0]
        spent = {**composite.timings_ms, "mend": 1e3 * (time.perf_counter() - begun)}
        share = composite.mask * (1 - np.clip(keep, 0, 1))
        return dataclasses.replace(composite, rgb=rgb, mask=share, timings_ms=spent)


def spared_contours(options: WarpOptions) -> list[tuple[int, ...]]:
    """What the engine keeps of the target within the face, so that the network must not draw there."""
    eyes = [mesh.LEFT_EYE, mesh.RIGHT_EYE] if options.keep_eyes else []
    return eyes + ([mesh.INNER_LIPS] if options.keep_mouth else [])


@torch.inference_mode()
def predict_fields(
    net: HybridNet, target: UInt8Array, composite: UInt8Array, trust: FloatArray, identity: FloatArray
) -> FloatArray:
    """Crops uint8 [S, S, 3], trust float32 [S, S], identity [512] → fields float32 [S, S, 4] as drawn."""
    like = net.stem.weight
    target_in, composite_in = picture_to_tensor(target, like), picture_to_tensor(composite, like)
    trust_in = torch.from_numpy(np.ascontiguousarray(trust)).to(like)[None, None]
    fields = net(target_in, composite_in, trust_in, torch.from_numpy(identity).to(like)[None])
    fields = fields * drawn_share(trust_in)
    return np.ascontiguousarray(fields[0].permute(1, 2, 0).float().cpu().numpy())


@dataclass(frozen=True, eq=False)
class StyleEngine:
    """The target's face altered by an identity vector alone: the source's picture is not drawn from.

    Coarse bands come from the generator, finer ones, eyes and what lies in front of the face stay the target's.
    """

    net: StyleGenerator
    identity: IdentityNet
    occlusion: OcclusionNet | None = None

    def __call__(
        self,
        target_rgb: UInt8Array,
        target_landmarks: FloatArray,
        source_rgb: UInt8Array,
        source_landmarks: FloatArray,
        options: WarpOptions | None = None,
        *,
        identity: FloatArray | None = None,
    ) -> WarpResult:
        """FaceErrors of `check_face`. Of `options`, `feather`, `keep_eyes`, `keep_mouth` and `grid_px` count."""
        options = options or WarpOptions()
        check_face(target_rgb, target_landmarks, "target", options)
        begun = time.perf_counter()
        size = self.net.config.size_px
        vector = embed_source(source_rgb, source_landmarks, self.identity) if identity is None else identity
        crop = generator_crop_from_image(target_landmarks, size)
        seen = warp_crop(target_rgb, crop, size, border="replicate")
        cover = None if self.occlusion is None else find_cover(target_rgb, target_landmarks, self.occlusion)
        region = face_region(target_rgb, target_landmarks, options, cover)
        fields = predict_change(self.net, seen, vector)
        fields = spare(fields, target_landmarks, crop, spared_contours(options))
        rgb = apply_fields(target_rgb, region, fields, crop)
        spent = {"generate": 1e3 * (time.perf_counter() - begun)}
        return dataclasses.replace(region, rgb=rgb, timings_ms=spent)


@torch.inference_mode()
def predict_change(net: StyleGenerator, target: UInt8Array, identity: FloatArray) -> FloatArray:
    """Fields float32 [S, S, 4] that turn the crop uint8 [S, S, 3] into the generator's picture; nothing is kept."""
    like = net.start.weight
    target_in = picture_to_tensor(target, like)
    made = net(target_in, torch.from_numpy(identity).to(like)[None]).clamp(0, 1)
    change = (made - target_in)[0].permute(1, 2, 0).float().cpu().numpy()
    change *= face_window(len(change))[..., None]
    return np.concatenate([change, np.zeros_like(change[..., :1])], axis=2)


def face_region(
    target_rgb: UInt8Array,
    landmarks_px: FloatArray,
    options: WarpOptions,
    cover: mask.CoverMap | None = None,
) -> WarpResult:
    """The untouched target with the region that a generator may alter: the face's oval but for what covers it."""
    oval = landmarks_px[list(mesh.OVAL), :2]
    limit = [target_rgb.shape[1], target_rgb.shape[0]]
    x0, y0 = np.clip(np.floor(oval.min(0)) - 2, 0, limit).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(oval.max(0)) + 3, 0, limit).astype(int).tolist()
    points = landmarks_px[: mesh.NUM_MESH, :2] - np.array([x0, y0], np.float32)
    inside = mask.fill_contour(points, mesh.OVAL, (y1 - y0, x1 - x0))
    share = mask.feather_inside(inside, options.feather * mesh.face_width(landmarks_px))
    share = share * _bare_share(target_rgb[y0:y1, x0:x1], points, options.grid_px)
    if cover is not None:
        share = share * (1 - cover.over((x0, y0, x1, y1)))
    return WarpResult(target_rgb, share, (x0, y0, x1, y1), share > 0, landmarks_px[:, :2])


def _bare_share(rgb: UInt8Array, points: FloatArray, grid_px: int) -> FloatArray:
    """`mask.uncovered_share` of a face's region uint8 [h, w, 3], found on a grid of that side, float32 [h, w]."""
    size = (rgb.shape[0], rgb.shape[1])
    scale = min(1.0, grid_px / max(size))
    grid = (max(2, round(size[0] * scale)), max(2, round(size[1] * scale)))
    small = resize(rgb.astype(np.float32) / np.float32(255), grid)
    there = (points * [grid[1] / size[1], grid[0] / size[0]]).astype(np.float32)
    hull, width = mask.fill_contour(there, mesh.OVAL, grid), mesh.face_width(there)
    skin = mask.skin_likelihood(small, there, hull, width)
    return resize(mask.uncovered_share(small, skin, there, hull, width), size)


def embed_source(rgb: UInt8Array, landmarks_px: FloatArray, net: IdentityNet) -> FloatArray:
    """Identity float32 [512] of one face of a picture."""
    points = landmarks_px[:, :2].astype(np.float32)
    return embed_face(rgb, Face(landmarks_box(points), five_points(points), 1.0), net)


def picture_to_tensor(crop: UInt8Array, like: Tensor) -> Tensor:
    """uint8 [S, S, 3] → [1, 3, S, S] in [0, 1], on the device and in the precision of `like`."""
    x = torch.from_numpy(np.ascontiguousarray(crop)).to(like.device).permute(2, 0, 1)[None]
    return (x.float() / 255).to(like.dtype).contiguous(memory_format=torch.channels_last)


@cache
def load_warp(device: str = "cpu") -> WarpEngine:
    """The engine with the network of occlusion that ships; WeightsError when its file is missing or altered."""
    return WarpEngine(load_occlusion(device))


@cache
def load_hybrid(device: str = "cpu") -> HybridEngine:
    """The engine that ships; half precision on an accelerator. WeightsError when a file is missing or altered."""
    net = HybridNet()
    load_weights(net, HYBRID)
    _place(net, device)
    return HybridEngine(net, load_identity(device), load_occlusion(device))


@cache
def load_style(device: str = "cpu") -> StyleEngine:
    """The generator that ships, of the size that its weights have; WeightsError as `load_weights`."""
    net = StyleGenerator(STYLE_SIZES[STYLE.input_size_px[0]])
    load_weights(net, STYLE)
    _place(net, device)
    return StyleEngine(net, load_identity(device), load_occlusion(device))


def _place(net: torch.nn.Module, device: str) -> None:
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    net.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.eval().requires_grad_(False)


def _shipped(load: Callable[[], Callable[P, WarpResult]]) -> Callable[P, WarpResult]:
    """An engine that is loaded when it is first called."""

    def swap(*given: P.args, **named: P.kwargs) -> WarpResult:
        return load()(*given, **named)

    return swap


# The engines with the weights that ship, on the CPU.
warp_behind_covers = _shipped(load_warp)
hybrid_face = _shipped(load_hybrid)
style_face = _shipped(load_style)
