"""Eye branch (ERRS): the target's light mirrored in the corneas of the result; knows no engine, no network, no file.

Catch-lights belong to the target's light, the colour of the iris to the source. A highlight is a normal of the cornea's
sphere (fusion/cornea.py): it stays with the lamp when the eye turns. Where the result already shows the target's
highlights, it is left as it is, to the bit; closed and tiny eyes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from fusion import mask, mesh
from fusion.blend import masked_blur
from fusion.cornea import Cornea, find_corneas
from fusion.face import FloatArray, UInt8Array
from fusion.highlights import Highlight, agree, find_highlights
from fusion.pose import HeadFit, fit_head, load_shape_model, mesh_normals


@dataclass(frozen=True)
class EyeOptions:
    """Settings of the eye branch.

    strength      0 draws no highlight, 1 the target's own
    invent        draw one highlight, placed by the light on the face, where the target shows none
    min_radius_px smaller corneas are left alone
    min_openness  least share of the cornea between the lids
    keep_within   distance in limbus radii within which a highlight counts as the target's own
    lamp_degrees  angular radius of an invented lamp
    """

    strength: float = 1.0
    invent: bool = False
    min_radius_px: float = 3.0
    min_openness: float = 0.3
    keep_within: float = 0.2
    lamp_degrees: float = 6.0


@dataclass(frozen=True, eq=False)
class EyeResult:
    """rgb uint8 [H, W, 3]; what was done with the left and the right eye of the picture: one of ACTIONS."""

    rgb: UInt8Array
    actions: tuple[str, str]


ACTIONS: Final = ("closed", "small", "unlit", "kept", "cleared", "drawn")


def match_eyes(
    rgb: UInt8Array,
    landmarks_px: FloatArray,
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    options: EyeOptions | None = None,
    *,
    head: HeadFit | None = None,
) -> EyeResult:
    """Give the face in `rgb` the highlights that the target's eyes have.

    Pictures uint8 [H, W, 3] of one size, landmarks [478, 2] of one face before (target) and after, in one pose. Pixels
    outside the visible corneas of the result stay to the bit. `head`: the target's, where it is known.
    """
    options = options or EyeOptions()
    head = head or fit_head(target_landmarks, load_shape_model())
    corneas = find_corneas(rgb, landmarks_px, head)
    own = find_corneas(target_rgb, target_landmarks, head)
    lights = agree(
        [
            [] if cornea is None or _skip(cornea, options) else find_highlights(target_rgb, cornea)
            for cornea in own
        ]
    )
    lamp = None
    if options.invent and not any(lights):
        lamp = light_of_face(target_rgb, target_landmarks)
    painted, actions = rgb, []
    for cornea, target_cornea, wanted in zip(corneas, own, lights, strict=True):
        if cornea is None or target_cornea is None or (skip := _skip(cornea, options)):
            actions.append("small" if cornea is None or target_cornea is None else skip)
            continue
        painted, action = _match_one(painted, cornea, target_rgb, target_cornea, wanted, lamp, options)
        actions.append(action)
    return EyeResult(painted, (actions[0], actions[1]))


def _skip(cornea: Cornea, options: EyeOptions) -> str:
    """Why an eye is left alone, or ''."""
    if cornea.radius_px < options.min_radius_px:
        return "small"
    return "closed" if cornea.openness < options.min_openness else ""


def _match_one(
    rgb: UInt8Array,
    cornea: Cornea,
    target_rgb: UInt8Array,
    target_cornea: Cornea,
    wanted: list[Highlight],
    lamp: FloatArray | None,
    options: EyeOptions,
) -> tuple[UInt8Array, str]:
    present = find_highlights(rgb, cornea)
    if not wanted and lamp is None:
        if not present or _same_pixels(rgb, cornea, target_rgb):
            return rgb, "unlit"
        return _compose(rgb, cornea, _without(rgb, cornea, present)), "cleared"
    if wanted and _already(present, wanted, cornea, options):
        return rgb, "kept"
    bare = _without(rgb, cornea, present)
    if wanted:
        alpha, colour = move_layer(target_rgb, target_cornea, wanted, cornea)
    else:
        alpha, colour = lamp_layer(
            cornea, np.zeros(3, np.float32) if lamp is None else lamp, options.lamp_degrees
        )
    if float((alpha * cornea.visible).max(initial=0)) < 0.05:
        return rgb, "unlit"
    alpha = options.strength * alpha[..., None]
    return _compose(rgb, cornea, (1 - alpha) * bare + alpha * colour), "drawn"


def _same_pixels(rgb: UInt8Array, cornea: Cornea, target_rgb: UInt8Array) -> bool:
    """Whether the cornea's box is the target's own, unchanged."""
    x0, y0, x1, y1 = cornea.box_xyxy
    return rgb.shape == target_rgb.shape and bool((rgb[y0:y1, x0:x1] == target_rgb[y0:y1, x0:x1]).all())


def _already(present: list[Highlight], wanted: list[Highlight], cornea: Cornea, options: EyeOptions) -> bool:
    """Whether the eye shows the wanted highlights, about as strong, and no others."""
    if len(present) != len(wanted):
        return False
    for one in wanted:
        away = [float(np.linalg.norm(cornea.place(one.normal_xy) - other.place_px)) for other in present]
        nearest = int(np.argmin(away))
        alike = 0.6 * one.strength <= present[nearest].strength <= 1.7 * one.strength
        if away[nearest] > options.keep_within * cornea.radius_px or not alike:
            return False
    return True


def _part(rgb: UInt8Array, cornea: Cornea) -> FloatArray:
    x0, y0, x1, y1 = cornea.box_xyxy
    return np.asarray(rgb[y0:y1, x0:x1], np.float32) / np.float32(255)


def _spots(highlights: Sequence[Highlight], cornea: Cornea, reach: float) -> FloatArray:
    """Pixels of all highlights, grown by `reach` limbus radii, soft, float32 [h, w]."""
    spots = np.zeros(cornea.visible.shape, np.float32)
    for one in highlights:
        spots = np.maximum(spots, one.spot)
    return mask.widen(spots, max(reach * cornea.radius_px, 1.0))


def _without(rgb: UInt8Array, cornea: Cornea, highlights: Sequence[Highlight]) -> FloatArray:
    """The box's pixels [h, w, 3] with highlights filled from the iris around them."""
    part = _part(rgb, cornea)
    if not highlights:
        return part
    spots = _spots(highlights, cornea, 0.12)
    around = np.clip(cornea.disc * cornea.opening - spots, 0, 1)
    if around.sum() < 4:
        return part
    fill = masked_blur(part, around, 0.16 * cornea.radius_px, floor=1e-4)
    soft = cv2.GaussianBlur(spots, (0, 0), max(0.04 * cornea.radius_px, 0.4))[..., None]
    return np.asarray(part + np.minimum(1.4 * soft, 1) * (np.minimum(fill, part) - part), np.float32)


def move_layer(
    target_rgb: UInt8Array, target_cornea: Cornea, wanted: Sequence[Highlight], cornea: Cornea
) -> tuple[FloatArray, FloatArray]:
    """(alpha [h, w], colour [3]) over the result's box: the target's highlights moved from sphere to sphere.

    Equal normals correspond, so shape (a window, a ring) and size come along, and the eye may look elsewhere.
    """
    part = _part(target_rgb, target_cornea)
    bare = _without(target_rgb, target_cornea, wanted)
    near = _spots(wanted, target_cornea, 0.12) * target_cornea.visible
    core = np.maximum.reduce([one.spot for one in wanted])
    rise = np.clip(part - bare, 0, 1).mean(-1) * near
    brightest = core & (rise >= np.quantile(rise[core], 0.7))
    colour = np.asarray(part[brightest].mean(0), np.float32)
    room = np.maximum((colour - bare).mean(-1), 0.08)
    alpha = np.clip(rise / room, 0, 1).astype(np.float32)
    scale = target_cornea.radius_px / cornea.radius_px
    x, y = cornea.grid_px
    corner = target_cornea.box_xyxy
    there_x = (x - cornea.sphere_px[0]) * scale + target_cornea.sphere_px[0] - corner[0]
    there_y = (y - cornea.sphere_px[1]) * scale + target_cornea.sphere_px[1] - corner[1]
    if scale > 1.5:
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), 0.4 * scale), np.float32)
    moved = cv2.remap(
        alpha, there_x.astype(np.float32), there_y.astype(np.float32), cv2.INTER_LINEAR, borderValue=0
    )
    return np.asarray(moved, np.float32), colour


def lamp_layer(cornea: Cornea, lamp: FloatArray, lamp_degrees: float) -> tuple[FloatArray, FloatArray]:
    """(alpha [h, w], colour [3]) of a white round lamp in the direction `lamp` [3] mirrored on the sphere.

    The half vector of lamp and viewer is the normal there (Blinn 1977); a normal sweeps half the lamp's angle.
    It is held within the middle 0.7 of the limbus, where lids and rim don't cut it.
    """
    half = lamp + np.array([0, 0, 1], np.float32)
    normal = (half / max(float(np.linalg.norm(half)), 1e-6))[:2]
    place = cornea.place(np.asarray(normal, np.float32))
    off = place - cornea.centre_px
    place = cornea.centre_px + off * min(1.0, 0.7 * cornea.radius_px / max(float(np.linalg.norm(off)), 1e-6))
    size = max(np.radians(lamp_degrees) / 2 * cornea.sphere_radius_px, 0.7)
    x, y = cornea.grid_px
    away = np.hypot(x - place[0], y - place[1])
    return np.asarray(0.85 * np.clip(size - away + 0.5, 0, 1), np.float32), np.ones(3, np.float32)


def _compose(rgb: UInt8Array, cornea: Cornea, painted: FloatArray) -> UInt8Array:
    """A copy of the picture with the visible cornea's pixels exchanged; where nothing is visible, nothing changes."""
    x0, y0, x1, y1 = cornea.box_xyxy
    part = _part(rgb, cornea)
    merged = part + cornea.visible[..., None] * (painted - part)
    new = np.clip(np.rint(merged * 255), 0, 255).astype(np.uint8)
    out = rgb.copy()
    out[y0:y1, x0:x1] = np.where(cornea.visible[..., None] > 0, new, rgb[y0:y1, x0:x1])
    return out


def light_of_face(rgb: UInt8Array, landmarks_px: FloatArray) -> FloatArray:
    """Unit vector [3] to the main light of a face (picture axes), from the shading of its skin.

    Luma of the mesh points is fitted by a constant and the normal: the first-order harmonics of Ramamoorthi &
    Hanrahan 2001, eq. 13. Eyes, brows, lips and what is turned away don't count; outliers count less. Never
    from behind, and tilted towards the viewer, for the fit does not know a lamp beside the camera from fill light.
    """
    model = load_shape_model()
    normals = mesh_normals(fit_head(landmarks_px, model), model) * [1, -1, 1]
    points = landmarks_px[: mesh.NUM_MESH, :2]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    soft = max(0.012 * mesh.face_width(landmarks_px), 0.5)
    seen = cv2.remap(
        cv2.GaussianBlur(grey, (0, 0), soft),
        np.ascontiguousarray(points[None, :, 0], np.float32),
        np.ascontiguousarray(points[None, :, 1], np.float32),
        cv2.INTER_LINEAR,
    )
    luma = np.asarray(seen, np.float64)[0] / 255
    weight = (normals[:, 2] > 0.25).astype(np.float64)
    weight[list(NOT_SKIN)] = 0
    columns = np.concatenate([np.ones((len(luma), 1)), normals], 1)
    fit = np.zeros(4)
    for _ in range(5):
        rows = columns * weight[:, None]
        fit = np.linalg.solve(rows.T @ columns + 1e-2 * np.eye(4), rows.T @ luma)
        rest = np.abs(luma - columns @ fit)
        weight = np.where(weight > 0, 1 / (1 + (rest / 0.06) ** 2), 0)
    towards = fit[1:] + np.array([0, 0, 0.05 + 0.5 * float(np.linalg.norm(fit[1:]))])
    towards[2] = max(towards[2], 0.05)
    return np.asarray(towards / np.linalg.norm(towards), np.float32)


NOT_SKIN: Final = sorted(
    {*mesh.LEFT_EYE, *mesh.RIGHT_EYE, *mesh.LEFT_BROW, *mesh.RIGHT_BROW, *mesh.OUTER_LIPS, *mesh.INNER_LIPS}
)
