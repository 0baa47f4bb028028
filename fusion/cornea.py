"""Where the corneas of a face are: limbus, gaze and what the lids leave open; knows no light and no network.

Axes are the picture's: x right, y down, z to the viewer; the camera is scaled orthographic. Lengths of the eye are
in limbus radii (5.9 mm), after Atchison & Smith, Optics of the Human Eye (2000): eyeball 12 mm, cornea 7.8 mm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fusion import mesh
from fusion.face import FloatArray, UInt8Array
from fusion.pose import HeadFit, load_shape_model, project_points

BoolArray = npt.NDArray[np.bool_]

LIMBUS_MM: Final = 5.9
EYEBALL: Final = 12.0 / LIMBUS_MM
CORNEA: Final = 7.8 / LIMBUS_MM
LIMBUS_FROM_EYEBALL: Final = float(np.sqrt(EYEBALL**2 - 1))  # eyeball's centre to the plane of the limbus
LIMBUS_FROM_CORNEA: Final = float(np.sqrt(CORNEA**2 - 1))  # centre of the cornea's sphere to that plane
# Centre of the eyeball from the middle between the eye's corners, in widths of the eye, head axes (up, to the viewer);
# fitted on the irises of 700 portraits as if everyone looked into the camera.
EYEBALL_UP: Final = 0.055
EYEBALL_NEAR: Final = -0.22
EYES: Final = ((mesh.LEFT_IRIS, mesh.LEFT_EYE), (mesh.RIGHT_IRIS, mesh.RIGHT_EYE))
SAME_GAZE: Final = float(np.cos(np.radians(15)))
_MARGIN: Final = 1.35  # half the box's side in limbus radii
_TURNS: Final = np.linspace(-0.8, 0.8, 9).astype(np.float32)  # of the arcs beside the iris, rad
_STEPS: Final = np.linspace(-0.24, 0.24, 7).astype(np.float32)  # of the centre, in radii
_RADII: Final = np.linspace(0.74, 1.34, 11).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Cornea:
    """One cornea in a picture.

    centre_px  float32 [2], middle of the limbus
    radius_px  radius of the limbus, seen face on
    gaze       float32 [3], unit vector out of the pupil
    lids_px    float32 [16, 2], contour of the opening
    size       (height, width) of the picture
    """

    centre_px: FloatArray
    radius_px: float
    gaze: FloatArray
    lids_px: FloatArray
    size: tuple[int, int]

    @property
    def sphere_px(self) -> FloatArray:
        """Centre of the cornea's sphere [2]."""
        return self.centre_px - LIMBUS_FROM_CORNEA * self.radius_px * self.gaze[:2]

    @property
    def sphere_radius_px(self) -> float:
        return CORNEA * self.radius_px

    @cached_property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Whole pixels around the limbus, cut to the picture."""
        reach = _MARGIN * self.radius_px
        low = np.clip(np.floor(self.centre_px - reach), 0, [self.size[1], self.size[0]]).astype(int)
        high = np.clip(np.ceil(self.centre_px + reach) + 1, 0, [self.size[1], self.size[0]]).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    @cached_property
    def grid_px(self) -> tuple[FloatArray, FloatArray]:
        """Picture coordinates x, y of the box's pixels, each [h, w]."""
        x0, y0, x1, y1 = self.box_xyxy
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        return x, y

    @cached_property
    def disc(self) -> FloatArray:
        """Inside of the limbus over the box, lids ignored: a disc seen along the gaze, float32 [h, w]."""
        return np.asarray(np.clip((1 - self.eccentricity) * self.radius_px + 0.5, 0, 1), np.float32)

    @cached_property
    def eccentricity(self) -> FloatArray:
        """0 in the middle of the limbus, 1 on it, over the box, float32 [h, w]."""
        x, y = self.grid_px
        dx, dy = (x - self.centre_px[0]) / self.radius_px, (y - self.centre_px[1]) / self.radius_px
        along = dx * self.gaze[0] + dy * self.gaze[1]
        square = dx * dx + dy * dy + (along / max(float(self.gaze[2]), 0.2)) ** 2
        return np.asarray(np.sqrt(square), np.float32)

    @cached_property
    def opening(self) -> FloatArray:
        """Between the lids over the box, float32 [h, w]."""
        x0, y0, x1, y1 = self.box_xyxy
        canvas = np.zeros((y1 - y0, x1 - x0), np.uint8)
        outline = np.rint((self.lids_px - np.array([x0, y0], np.float32)) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [outline], 255, lineType=cv2.LINE_AA, shift=4)
        return np.asarray(canvas, np.float32) / np.float32(255)

    @cached_property
    def visible(self) -> FloatArray:
        """The cornea that is seen, over the box, float32 [h, w]."""
        return self.disc * self.opening

    @property
    def openness(self) -> float:
        """Share of the cornea that the lids leave open; 0 for a closed eye."""
        return float(self.visible.sum()) / max(float(self.disc.sum()), 1e-6)

    def normal(self, points_px: FloatArray) -> FloatArray:
        """x, y of the unit normal of the cornea's sphere at picture points [..., 2]."""
        return np.asarray((points_px - self.sphere_px) / self.sphere_radius_px, np.float32)

    def place(self, normal_xy: FloatArray) -> FloatArray:
        """Picture points [..., 2] where the sphere has these normals."""
        return np.asarray(self.sphere_px + self.sphere_radius_px * normal_xy, np.float32)

    def mask(self) -> FloatArray:
        """`visible` on the whole picture, float32 [H, W]."""
        x0, y0, x1, y1 = self.box_xyxy
        whole = np.zeros(self.size, np.float32)
        whole[y0:y1, x0:x1] = self.visible
        return whole


def find_corneas(
    rgb: UInt8Array, landmarks_px: FloatArray, head: HeadFit | None = None, *, refine: bool = True
) -> tuple[Cornea | None, Cornea | None]:
    """Both corneas of a face, that on the picture's left first; None where the eye is outside or under 2 px.

    rgb uint8 [H, W, 3]; landmarks [478, 2]. `head` places the eyeballs; without one the face is taken as frontal.
    Both eyes look the same way unless they are seen to differ by 15°: halves the noise of the landmarks.
    """
    left, right = (
        find_cornea(
            rgb, landmarks_px[list(iris), :2], landmarks_px[list(lids), :2], head, lids, refine=refine
        )
        for iris, lids in EYES
    )
    if left is None or right is None or float(left.gaze @ right.gaze) < SAME_GAZE:
        return left, right
    mean = left.gaze + right.gaze
    gaze = np.asarray(mean / np.linalg.norm(mean), np.float32)
    return dataclasses.replace(left, gaze=gaze), dataclasses.replace(right, gaze=gaze)


def find_cornea(
    rgb: UInt8Array,
    iris_px: FloatArray,
    lids_px: FloatArray,
    head: HeadFit | None = None,
    indices: Sequence[int] = mesh.LEFT_EYE,
    *,
    refine: bool = True,
) -> Cornea | None:
    """One cornea from the iris' landmarks [5, 2] (centre first) and the contour of the lids [16, 2].

    `refine` moves the limbus to where the pixels brighten outwards. `indices`: the contour's numbers in the mesh.
    """
    iris, lids = np.asarray(iris_px, np.float32), np.asarray(lids_px, np.float32)
    centre = (iris[0] + iris[1:].mean(0)) / 2
    radius = 0.5 * float(max(np.linalg.norm(iris[1] - iris[3]), np.linalg.norm(iris[2] - iris[4])))
    size = (rgb.shape[0], rgb.shape[1])
    inside = (centre >= 0).all() and centre[0] < size[1] and centre[1] < size[0]
    if not np.isfinite(iris).all() or not np.isfinite(lids).all() or not inside or radius < 2:
        return None
    if refine:
        centre, radius = _refine(rgb, centre, radius, lids)
    eyeball = _eyeball(lids, head, indices)
    return Cornea(centre, radius, _gaze(centre, radius, eyeball), lids, size)


def _eyeball(lids: FloatArray, head: HeadFit | None, indices: Sequence[int]) -> FloatArray:
    """Picture point [2] of the eyeball's centre, from the corners of the eye (first and ninth of the contour).

    With a head, its corners are moved by the mean difference of all 16 points: one point's noise counts a quarter.
    """
    corners = lids[[0, 8]].astype(np.float64)
    if head is None:
        flat = corners[1] - corners[0]
        x, y = flat / max(float(np.linalg.norm(flat)), 1e-6)
        turn = np.array([[x, y, 0], [-y, x, 0], [0, 0, 1]])  # y up: the picture's y is turned over
    else:
        turn = head.rotation
        smooth = project_points(head, load_shape_model(), indices)
        corners = smooth[[0, 8]] + (lids - smooth).mean(0)
    width = float(np.linalg.norm(corners[1] - corners[0])) / max(float(np.linalg.norm(turn[:2, 0])), 0.4)
    step = width * (EYEBALL_UP * turn[:2, 1] + EYEBALL_NEAR * turn[:2, 2]) * [1, -1]
    return np.asarray(corners.mean(0) + step, np.float32)


def _gaze(centre: FloatArray, radius: float, eyeball: FloatArray) -> FloatArray:
    """Unit vector [3] from the eyeball's centre to the middle of the limbus; at most 45° off the viewer."""
    flat = (centre - eyeball) / (LIMBUS_FROM_EYEBALL * radius)
    length = float(np.linalg.norm(flat))
    flat = flat * min(1.0, 0.7 / max(length, 1e-6))
    return np.array([*flat, np.sqrt(max(1 - float(flat @ flat), 0.0))], np.float32)


def _refine(rgb: UInt8Array, centre: FloatArray, radius: float, lids: FloatArray) -> tuple[FloatArray, float]:
    """Circle of the greatest brightening outwards on the arcs beside the iris (Daugman 1993, eq. 3).

    The landmarks hold it: a quarter of a radius away it must be clearly better. Arcs behind the lids don't count.
    """
    grey, shift = _grey_around(rgb, centre, 1.9 * radius)
    turns = np.concatenate([_TURNS, _TURNS + np.float32(np.pi)])
    away = np.stack([np.cos(turns), np.sin(turns)], -1)  # [A, 2]
    steps = np.stack(np.meshgrid(_STEPS, _STEPS, indexing="ij"), -1).reshape(-1, 2)  # [S, 2]
    points = centre + radius * (steps[:, None, None] + _RADII[:, None, None] * away)  # [S, R, A, 2]
    flat = np.ascontiguousarray((points - shift).reshape(len(steps), -1, 2), np.float32)
    seen = cv2.remap(grey, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = np.asarray(seen, np.float32).reshape(points.shape[:3])
    free = _within(lids, np.asarray(centre + radius * away, np.float32))
    if free[: len(_TURNS)].sum() < 3 or free[len(_TURNS) :].sum() < 3:
        return centre, radius
    rise = np.clip(seen[:, 2:] - seen[:, :-2], 0, 0.4)[..., free].mean(-1)  # [S, R - 2]
    radii = _RADII[1:-1]
    pull = (steps**2).sum(-1)[:, None] / 0.2**2 + (radii - 1) ** 2 / 0.2**2
    score = rise - 0.12 * float(rise.max()) * pull
    best, ring = np.unravel_index(int(score.argmax()), score.shape)
    plane = score.reshape(len(_STEPS), len(_STEPS), -1)
    i, j = divmod(int(best), len(_STEPS))
    step = np.array([_STEPS[i], _STEPS[j]], np.float32)
    step += (_STEPS[1] - _STEPS[0]) * np.array(
        [_peak(plane[:, j, ring], i), _peak(plane[i, :, ring], j)], np.float32
    )
    size = float(radii[ring] + (radii[1] - radii[0]) * _peak(score[best], int(ring)))
    return np.asarray(centre + radius * step, np.float32), radius * size


def _peak(values: FloatArray, at: int) -> float:
    """Offset in [-0.5, 0.5] of the maximum of the parabola through three neighbours."""
    if not 0 < at < len(values) - 1:
        return 0.0
    below, here, above = (float(v) for v in values[at - 1 : at + 2])
    bend = below - 2 * here + above
    return float(np.clip(0.5 * (below - above) / bend, -0.5, 0.5)) if bend < -1e-9 else 0.0


def _grey_around(rgb: UInt8Array, centre: FloatArray, reach: float) -> tuple[FloatArray, FloatArray]:
    """(soft luma float32 [h, w] in [0, 1] of the square around a point, its corner's picture coordinates)."""
    low = np.clip(np.floor(centre - reach), 0, [rgb.shape[1] - 1, rgb.shape[0] - 1]).astype(int)
    high = np.clip(np.ceil(centre + reach) + 1, low + 1, [rgb.shape[1], rgb.shape[0]]).astype(int)
    part = np.ascontiguousarray(rgb[low[1] : high[1], low[0] : high[0]])
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), max(0.05 * reach, 0.5)), np.float32), low.astype(
        np.float32
    )


def _within(outline: FloatArray, points: FloatArray) -> BoolArray:
    """Which points [N, 2] lie inside a closed outline."""
    contour = outline.reshape(-1, 1, 2).astype(np.float32)
    return np.array([cv2.pointPolygonTest(contour, (float(x), float(y)), False) > 0 for x, y in points])
