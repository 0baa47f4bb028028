"""Engine `warp`: the source's face drawn into the target by geometry and colour alone; knows no network, no file.

The target's mesh takes on part of the source's identity (pose and expression stay), both pictures are warped to
that shape, the source is lit like the target and blended in where it is skin, brow, nose or lip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from fusion import blend, mask, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.pose import ShapeModel, blend_identity, fit_head, load_shape_model, mesh_depth
from provenance.errors import FaceError

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class WarpOptions:
    """Settings of the engine; lengths are shares of the face's width.

    shape_blend     0 keeps the target's head shape, 1 takes the source's
    gain_cap        greatest brightening or darkening of a channel by the match of light
    light_scale     finest light that follows the target (Gaussian sigma)
    feather         width of the seam inside the outline
    bands           octaves of the blend
    keep_mouth      mouth interior of the target
    keep_eyes       eyeballs of the target, with the source's iris colour
    ring            how far around the outline the picture may bend to meet it (1 = not at all)
    min_face_px     smaller faces are refused
    grid_px         longest side of the grid on which the geometry is computed
    """

    shape_blend: float = 0.7
    gain_cap: float = 2.5
    light_scale: float = 0.10
    feather: float = 0.10
    bands: int = 6
    keep_mouth: bool = True
    keep_eyes: bool = True
    ring: float = 1.25
    min_face_px: float = 24.0
    grid_px: int = 288


@dataclass(frozen=True, eq=False)
class WarpResult:
    """rgb uint8 [H, W, 3]; mask float32 [h, w] over roi_xyxy, share of the source; timings_ms by stage.

    altered [h, w] bool over the same region: pixels outside it equal the target's to the bit.
    """

    rgb: UInt8Array
    mask: FloatArray
    roi_xyxy: tuple[int, int, int, int]
    altered: npt.NDArray[np.bool_]
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where each pixel of the region comes from, on a coarse grid.

    roi_xyxy      region of the target's picture
    scale         grid pixels per picture pixel
    points        float32 [504, 2], new mesh and ring in grid pixels
    from_target   float32 [h, w, 2], picture coordinates (x, y) in the target's picture
    from_source   the same in the source's picture
    hull          float32 [h, w], inside of the new outline
    """

    roi_xyxy: tuple[int, int, int, int]
    scale: float
    points: FloatArray
    from_target: FloatArray
    from_source: FloatArray
    hull: FloatArray


def warp_face(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    options: WarpOptions | None = None,
    *,
    shape: ShapeModel | None = None,
) -> WarpResult:
    """Put the source's face on one face of the target.

    Pictures uint8 [H, W, 3] of any two sizes, landmarks [478, 2] in pixels of their picture. FaceError
    `swap.no_landmarks` (wrong shape or not finite), `swap.face_too_small`, `swap.face_outside`.
    """
    options = options or WarpOptions()
    shape = shape or load_shape_model()
    _check_face(target_rgb, target_landmarks, "target", options)
    _check_face(source_rgb, source_landmarks, "source", options)
    geometry = plan_geometry(target_rgb.shape[:2], target_landmarks, source_landmarks, options, shape)
    return _compose(target_rgb, source_rgb, target_landmarks, geometry, options)


def _check_face(rgb: UInt8Array, landmarks: FloatArray, role: str, options: WarpOptions) -> None:
    again = "Run the landmark finder on this face again."
    if landmarks.shape[0] != mesh.NUM_LANDMARKS or landmarks.ndim != 2 or landmarks.shape[1] < 2:
        raise FaceError("swap.no_landmarks", f"the {role}'s landmarks have shape {landmarks.shape}", again)
    if not np.isfinite(landmarks[:, :2]).all():
        raise FaceError("swap.no_landmarks", f"the {role}'s landmarks are not finite", again)
    width = mesh.face_width(landmarks)
    if width < options.min_face_px:
        cause = f"the {role}'s face is {width:.0f} px wide, {options.min_face_px:.0f} are needed"
        raise FaceError("swap.face_too_small", cause, "Use a larger picture of this person.")
    height, width_px = rgb.shape[:2]
    centre = landmarks[:, :2].mean(0)
    if not (0 <= centre[0] < width_px and 0 <= centre[1] < height):
        raise FaceError("swap.face_outside", f"the {role}'s face lies outside its picture", again)


def plan_geometry(
    size: tuple[int, int],
    target_landmarks: FloatArray,
    source_landmarks: FloatArray,
    options: WarpOptions,
    shape: ShapeModel,
) -> Geometry:
    """Shape blend, region and the two coordinate maps; `size` (height, width) of the target's picture."""
    target_fit, source_fit = fit_head(target_landmarks, shape), fit_head(source_landmarks, shape)
    points = blend_identity(target_landmarks, target_fit, source_fit, shape, options.shape_blend)
    target_mesh, source_mesh = target_landmarks[: mesh.NUM_MESH, :2], source_landmarks[: mesh.NUM_MESH, :2]
    ring = mesh.ring_around(target_mesh, max(options.ring, 1.02))
    source_ring = mesh.ring_around(source_mesh, max(options.ring, 1.02))
    new = np.concatenate([points, ring])
    roi = _region(new, size)
    scale = min(1.0, options.grid_px / max(roi[2] - roi[0], roi[3] - roi[1]))
    grid = (round((roi[3] - roi[1]) * scale), round((roi[2] - roi[0]) * scale))
    in_grid = ((new - roi[:2] + 0.5) * scale - 0.5).astype(np.float32)
    triangles = mesh.triangles_with_ring(shape.triangles)
    depth = np.concatenate([mesh_depth(target_fit, shape), np.full(len(ring), -9, np.float32)])
    raster = mesh.rasterise(in_grid, triangles, grid, depth)
    both = np.concatenate(
        [np.concatenate([target_mesh, ring]), np.concatenate([source_mesh, source_ring])], 1
    )
    maps = mesh.interpolate(raster, triangles, both.astype(np.float32))
    straight = _straight_map(grid, roi, scale)
    from_target = np.where(raster.covered[..., None], maps[..., :2], straight)
    hull = mask.fill_contour(in_grid, mesh.OVAL, grid)
    return Geometry(roi, scale, in_grid, from_target, _extend(maps[..., 2:], raster), hull)


def _region(points: FloatArray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    low = np.clip(np.floor(points.min(0)) - 2, 0, [size[1], size[0]]).astype(int)
    high = np.clip(np.ceil(points.max(0)) + 3, 0, [size[1], size[0]]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _straight_map(grid: tuple[int, int], roi: tuple[int, int, int, int], scale: float) -> FloatArray:
    """Picture coordinates [h, w, 2] of the grid's own pixel centres."""
    x = (np.arange(grid[1], dtype=np.float32) + 0.5) / scale - 0.5 + roi[0]
    y = (np.arange(grid[0], dtype=np.float32) + 0.5) / scale - 0.5 + roi[1]
    return np.stack(np.meshgrid(x, y), -1).astype(np.float32)


def _extend(coordinates: FloatArray, raster: mesh.Raster) -> FloatArray:
    """Fill what no triangle covers with the nearest covered pixel's coordinates."""
    uncovered = (~raster.covered).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(uncovered, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    lookup = np.zeros((labels.max() + 1, 2), np.float32)
    lookup[labels[raster.covered]] = coordinates[raster.covered]
    return np.asarray(lookup[labels], np.float32)


def _compose(
    target_rgb: UInt8Array,
    source_rgb: UInt8Array,
    target_landmarks: FloatArray,
    geometry: Geometry,
    options: WarpOptions,
) -> WarpResult:
    """Masks and light on the grid, then the two pictures at full resolution."""
    width = mesh.face_width(geometry.points[: mesh.NUM_MESH])
    size = geometry.hull.shape
    under, over = (
        _sample(target_rgb, geometry.from_target, size),
        _sample(source_rgb, geometry.from_source, size),
    )
    share, skin = plan_masks(over, under, geometry, width, options)
    gain = blend.relighting_gain(over, under, skin, options.light_scale * width, options.gain_cap)
    x0, y0, x1, y1 = geometry.roi_xyxy
    full = (y1 - y0, x1 - x0)
    over, under = (
        _sample(source_rgb, geometry.from_source, full),
        _sample(target_rgb, geometry.from_target, full),
    )
    share = _resize(share, full)
    over = np.clip(over * _resize(gain, full), 0, 1)
    merged = blend.blend_bands(over, under, share, options.bands)
    bent = np.abs(geometry.from_target - _straight_map(size, geometry.roi_xyxy, geometry.scale)).max(-1)
    touch = _resize(_touched(bent, geometry), full)
    kept = target_rgb[y0:y1, x0:x1]
    original = kept.astype(np.float32) / 255
    mixed = original + touch[..., None] * (merged - original)
    altered = touch > 0
    rgb = target_rgb.copy()
    new = np.clip(np.rint(mixed * 255), 0, 255).astype(np.uint8)
    rgb[y0:y1, x0:x1] = np.where(altered[..., None], new, kept)
    return WarpResult(rgb, share, geometry.roi_xyxy, altered)


def _touched(bent: FloatArray, geometry: Geometry) -> FloatArray:
    """1 where the result may differ from the target, falling to 0 at the ring."""
    size = geometry.hull.shape
    ring = mask.fill_contour(geometry.points, range(mesh.NUM_MESH, len(geometry.points)), size)
    width = mesh.face_width(geometry.points[: mesh.NUM_MESH])
    return mask.feather_inside(ring, 0.06 * width)


def plan_masks(
    over: FloatArray, under: FloatArray, geometry: Geometry, width: float, options: WarpOptions
) -> tuple[FloatArray, FloatArray]:
    """(share of the source, skin of both pictures) on the grid."""
    size = geometry.hull.shape
    points = geometry.points
    share = mask.feather_inside(geometry.hull, options.feather * width)
    features = mask.feature_mask(points, size, width)
    skin = geometry.hull * (1 - features)
    holes = []
    if options.keep_eyes:
        holes += [mesh.LEFT_EYE, mesh.RIGHT_EYE]
    if options.keep_mouth:
        holes += [mesh.INNER_LIPS]
    for contour in holes:
        hole = blend.blur(mask.fill_contour(points, contour, size), 0.006 * width)
        share = share * (1 - hole)
    return share, skin


def _resize(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def _sample(rgb: UInt8Array, coordinates: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Picture at picture coordinates given on a grid, drawn at `size`, float32 [h, w, 3] in [0, 1]."""
    x, y = coordinates[..., 0], coordinates[..., 1]
    low = np.floor([x.min(), y.min()]).astype(int) - 3
    high = np.ceil([x.max(), y.max()]).astype(int) + 4
    low = np.clip(low, 0, [rgb.shape[1] - 1, rgb.shape[0] - 1])
    high = np.clip(high, low + 1, [rgb.shape[1], rgb.shape[0]])
    part = rgb[low[1] : high[1], low[0] : high[0]]
    finer = float(np.sqrt(_map_area(coordinates) / (size[0] * size[1])))
    local = coordinates - low.astype(np.float32)
    if finer > 1.5:
        shrunk = (max(1, round(part.shape[1] / finer)), max(1, round(part.shape[0] / finer)))
        ratio = np.array([shrunk[0] / part.shape[1], shrunk[1] / part.shape[0]], np.float32)
        part = np.asarray(cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
        local = (local + 0.5) * ratio - 0.5
    if size != coordinates.shape[:2]:
        local = _resize(local, size)
    x, y = np.ascontiguousarray(local[..., 0]), np.ascontiguousarray(local[..., 1])
    drawn = cv2.remap(part, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(drawn, np.float32) / np.float32(255)


def _map_area(coordinates: FloatArray) -> float:
    """Picture area that a map covers, in square pixels (sum of its cells)."""
    across, down = np.diff(coordinates, axis=1)[:-1], np.diff(coordinates, axis=0)[:, :-1]
    return float(np.abs(across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]).sum())
