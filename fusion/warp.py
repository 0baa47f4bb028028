"""Engine `warp`: the source's face drawn into the target by geometry and colour alone; knows no network, no file.

The target's mesh takes on part of the source's identity (pose and expression stay), both pictures are warped to
that shape, the source is lit like the target and blended in where it is skin, brow, nose or lip.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from fusion import blend, mask, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.pose import ShapeModel, blend_identity, fit_head, load_shape_model, mesh_depth, mesh_facing
from provenance.errors import FaceError

IntArray = npt.NDArray[np.int32]

OUTLINE_REACH = 0.12  # of the face's width


@dataclass(frozen=True)
class WarpOptions:
    """Settings of the engine; lengths are shares of the face's width.

    shape_blend     0 keeps the target's head shape, 1 takes the source's
    outline         share of that at the face's outline, where hair, neck and ground stay the target's
    gain_cap        greatest brightening or darkening of a channel by the match of light
    light_scale     finest light that follows the target (Gaussian sigma)
    rim_scale       the same at the outline, so that no colour step shows there; not below 0.02
    rim             over what width inside the outline the light changes from rim_scale to light_scale
    feather         width of the seam inside the outline
    bands           octaves of the blend
    keep_mouth      mouth interior of the target
    keep_eyes       eyeballs of the target, with the source's iris colour
    mirror          what the source's picture shows edge-on comes from the other half of the face
    lips_match      0 lips keep the source's colour against its skin, 1 take the target's
    iris_match      0 irises keep the target's colour, 1 take the source's
    ring            how far around the outline the picture may bend to meet it (1 = not at all)
    min_face_px     smaller faces are refused
    grid_px         longest side of the grid on which the geometry is computed
    """

    shape_blend: float = 0.7
    outline: float = 0.6
    gain_cap: float = 2.5
    light_scale: float = 0.25
    rim_scale: float = 0.07
    rim: float = 0.2
    feather: float = 0.06
    bands: int = 6
    keep_mouth: bool = True
    keep_eyes: bool = True
    mirror: bool = True
    lips_match: float = 0.4
    iris_match: float = 0.8
    ring: float = 1.25
    min_face_px: float = 24.0
    grid_px: int = 240


@dataclass(frozen=True, eq=False)
class WarpResult:
    """rgb uint8 [H, W, 3]; mask float32 [h, w] over roi_xyxy, share of the source; timings_ms by stage.

    altered [h, w] bool over the same region: pixels outside it equal the target's to the bit.
    landmarks_px [478, 2]: where the face's landmarks lie in the result; None: where the target has them.
    from_target [gh, gw, 2]: a grid over the region, where in the target's picture each place comes from; None: from
    the same place.
    """

    rgb: UInt8Array
    mask: FloatArray
    roi_xyxy: tuple[int, int, int, int]
    altered: npt.NDArray[np.bool_]
    landmarks_px: FloatArray | None = None
    from_target: FloatArray | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where each pixel of the region comes from, on a coarse grid.

    roi_xyxy      region of the target's picture
    scale         grid pixels per picture pixel
    points        float32 [504, 2], new mesh and ring in grid pixels
    from_target   float32 [h, w, 2], picture coordinates (x, y) in the target's picture
    from_source   the same in the source's picture
    from_mirror   the same place on the other half of the source's face
    turned_away   float32 [h, w], share of that mirrored half: 1 where the source's picture does not show the place
    hull          float32 [h, w], inside of the new outline
    """

    roi_xyxy: tuple[int, int, int, int]
    scale: float
    points: FloatArray
    from_target: FloatArray
    from_source: FloatArray
    from_mirror: FloatArray
    turned_away: FloatArray
    hull: FloatArray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the grid."""
        return self.hull.shape[0], self.hull.shape[1]

    @property
    def width(self) -> float:
        """mesh.face_width of the new shape in grid pixels."""
        return mesh.face_width(self.points[: mesh.NUM_MESH])


def warp_face(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    options: WarpOptions | None = None,
    *,
    identity: FloatArray | None = None,
    shape: ShapeModel | None = None,
    cover: mask.CoverMap | None = None,
) -> WarpResult:
    """Put the source's face on one face of the target; `identity` is of no use to geometry and ignored.

    `cover` is what is known to lie before the target's face; the rule finds more (`mask.uncovered_share`).
    Pictures uint8 [H, W, 3] of any two sizes, landmarks [478, 2] in pixels of their picture. FaceError
    `swap.no_landmarks` (wrong shape or not finite), `swap.face_too_small`, `swap.face_outside`.
    """
    del identity
    options = options or WarpOptions()
    shape = shape or load_shape_model()
    check_face(target_rgb, target_landmarks, "target", options)
    check_face(source_rgb, source_landmarks, "source", options)
    clock = [time.perf_counter()]
    geometry = plan_geometry(target_rgb.shape[:2], target_landmarks, source_landmarks, options, shape)
    clock.append(time.perf_counter())
    under_rgb = target_rgb
    if options.keep_eyes and options.iris_match > 0:
        under_rgb = blend.match_iris_colour(
            target_rgb, target_landmarks, source_rgb, source_landmarks, options.iris_match
        )
    over = _sample_source(source_rgb, geometry, geometry.size)
    under = _sample(under_rgb, geometry.from_target, geometry.size)
    covered = None if cover is None else cover.at(geometry.from_target)
    share, light = plan_look(over, under, geometry, options, covered)
    clock.append(time.perf_counter())
    result = _render(target_rgb, under_rgb, source_rgb, geometry, share, light, options.bands)
    clock.append(time.perf_counter())
    spent = {name: 1e3 * (clock[i + 1] - clock[i]) for i, name in enumerate(("geometry", "look", "render"))}
    landmarks = move_landmarks(geometry, target_landmarks)
    return dataclasses.replace(
        result, landmarks_px=landmarks, from_target=geometry.from_target, timings_ms=spent
    )


def check_face(rgb: UInt8Array, landmarks: FloatArray, role: str, options: WarpOptions) -> None:
    """FaceError `swap.no_landmarks`, `swap.face_too_small` or `swap.face_outside` for a face that no engine can use."""
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
    target_mesh, source_mesh = target_landmarks[: mesh.NUM_MESH, :2], source_landmarks[: mesh.NUM_MESH, :2]
    points = blend_identity(target_landmarks, target_fit, source_fit, shape, options.shape_blend)
    points = target_mesh + outline_share(shape, options.outline) * (points - target_mesh)
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
    away = _turned_away(mesh_facing(source_fit, shape), shape) if options.mirror else np.zeros(mesh.NUM_MESH)
    values = np.concatenate(
        [
            np.concatenate([target_mesh, ring]),
            np.concatenate([source_mesh, source_ring]),
            np.concatenate([source_mesh[shape.mirror], source_ring[::-1]]),
            np.concatenate([away, np.zeros(len(ring))])[:, None],
        ],
        axis=1,
    )
    maps = mesh.interpolate(raster, triangles, values.astype(np.float32))
    straight = _straight_map(grid, roi, scale)
    from_target = np.where(raster.covered[..., None], maps[..., :2], straight)
    hull = mask.fill_contour(in_grid, mesh.OVAL, grid)
    from_source, from_mirror = _extend(maps[..., 2:4], raster), _extend(maps[..., 4:6], raster)
    return Geometry(roi, scale, in_grid, from_target, from_source, from_mirror, maps[..., 6], hull)


def outline_share(shape: ShapeModel, outline: float) -> FloatArray:
    """How far each mesh point joins the blend of shapes: `outline` on the oval, 1 from 12 % of the width inwards,
    float32 [468, 1]."""
    points = shape.mean[: mesh.NUM_MESH, :2].astype(np.float32)
    away = np.linalg.norm(points[:, None] - points[list(mesh.OVAL)][None], axis=-1).min(1)
    inner = mask.smooth_step(np.asarray(away / (OUTLINE_REACH * mesh.face_width(points)), np.float32))
    return np.asarray(outline + (1 - outline) * inner, np.float32)[:, None]


def move_landmarks(geometry: Geometry, target_landmarks: FloatArray) -> FloatArray:
    """The target's landmarks [478, 2] in the new shape, picture pixels; each iris moves along with its lids."""
    points = (geometry.points[: mesh.NUM_MESH] + 0.5) / geometry.scale - 0.5 + geometry.roi_xyxy[:2]
    moved = np.concatenate([points, target_landmarks[mesh.NUM_MESH : mesh.NUM_LANDMARKS, :2]])
    for iris, lids in ((mesh.LEFT_IRIS, mesh.LEFT_EYE), (mesh.RIGHT_IRIS, mesh.RIGHT_EYE)):
        before, after = target_landmarks[list(lids), :2], moved[list(lids)]
        ones = np.ones((len(lids), 1))
        affine = np.linalg.lstsq(np.hstack([before - before.mean(0), ones]), after, rcond=None)[0]
        own = target_landmarks[list(iris), :2] - before.mean(0)
        moved[list(iris)] = np.hstack([own, np.ones((len(iris), 1))]) @ affine
    return np.asarray(moved, np.float32)


def _turned_away(facing: FloatArray, shape: ShapeModel) -> FloatArray:
    """How far the mirrored point [468] serves better: this one is seen edge-on, the other is not."""
    edge_on = mask.smooth_step((0.5 - facing) / np.float32(0.3))
    return edge_on * mask.smooth_step((facing[shape.mirror] - facing) / np.float32(0.3))


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


def _render(
    target_rgb: UInt8Array,
    under_rgb: UInt8Array,
    source_rgb: UInt8Array,
    geometry: Geometry,
    share: FloatArray,
    light: blend.Light,
    bands: int,
) -> WarpResult:
    """The region at full resolution: both pictures warped, the source relit, blended, and set into the target.

    `under_rgb` is the target with its irises painted.
    """
    x0, y0, x1, y1 = geometry.roi_xyxy
    full = (y1 - y0, x1 - x0)
    over = blend.relight(_sample_source(source_rgb, geometry, full), light.resized(full))
    under = _sample(under_rgb, geometry.from_target, full)
    share = blend.resize(share, full)
    merged = blend.blend_bands(over, under, share, bands)
    merged = under + np.minimum(8 * share, 1)[..., None] * (
        merged - under
    )  # no band leaks into teeth, eyes, hair
    touch = blend.resize(_touched(geometry), full)
    kept = target_rgb[y0:y1, x0:x1]
    altered = touch > 0
    merged -= kept / np.float32(255)
    merged *= touch[..., None]
    merged += kept / np.float32(255)
    new = np.clip(np.rint(merged * 255), 0, 255).astype(np.uint8)
    rgb = target_rgb.copy()
    rgb[y0:y1, x0:x1] = np.where(altered[..., None], new, kept)
    return WarpResult(rgb, share * altered, geometry.roi_xyxy, altered)


def _touched(geometry: Geometry) -> FloatArray:
    """1 where the result may differ from the target, falling to 0 at the ring."""
    ring = mask.fill_contour(geometry.points, range(mesh.NUM_MESH, len(geometry.points)), geometry.size)
    return mask.feather_inside(ring, 0.06 * geometry.width)


def plan_look(
    over: FloatArray,
    under: FloatArray,
    geometry: Geometry,
    options: WarpOptions,
    covered: FloatArray | None = None,
) -> tuple[FloatArray, blend.Light]:
    """(share of the source, light to paint it in) on the grid, from the two pictures in the new shape.

    `covered` [h, w]: what lies before the target's face; it is no skin to take light from.
    """
    points, width, size = geometry.points, geometry.width, geometry.size
    skin_over = mask.skin_likelihood(over, points, geometry.hull, width)
    skin_under = mask.skin_likelihood(under, points, geometry.hull, width)
    share = mask.feather_inside(geometry.hull, options.feather * width)
    share = share * (1 - mask.occluder_mask(skin_over, points, geometry.hull, width))
    share = share * (1 - mask.fringe_mask(skin_over, points, geometry.hull, width))
    share = share * mask.uncovered_share(under, skin_under, points, geometry.hull, width)
    if covered is not None:
        share, skin_under = share * (1 - covered), skin_under * (1 - covered)
    holes: list[tuple[int, ...]] = list(mask.EYES) if options.keep_eyes else []
    holes += [mesh.INNER_LIPS] if options.keep_mouth else []
    for contour in holes:
        share = share * (1 - blend.blur(mask.fill_contour(points, contour, size), 0.006 * width))
    sigma, near = options.light_scale * width, max(options.rim_scale, 0.02) * width
    light = blend.match_light(over, under, skin_over, skin_under, sigma, options.gain_cap)
    if near < sigma:
        at_rim = blend.match_light(over, under, skin_over, skin_under, near, options.gain_cap)
        bare = blend.blur(skin_over * skin_under, near)  # without skin of both there is no light to follow
        inside = mask.feather_inside(geometry.hull, options.rim * width)
        light = light.mixed(at_rim, (1 - inside) * mask.smooth_step(2 * bare))
    lips = mask.lips_mask(points, size, width)
    return share, blend.match_region(light, over, under, lips, options.lips_match, options.gain_cap)


def _sample_source(source_rgb: UInt8Array, geometry: Geometry, size: tuple[int, int]) -> FloatArray:
    """The source in the new shape at `size`, the half it hides filled with the half it shows."""
    over = _sample(source_rgb, geometry.from_source, size)
    if float(geometry.turned_away.max()) < 0.02:
        return over
    share = blend.resize(geometry.turned_away, size)[..., None]
    return over + share * (_sample(source_rgb, geometry.from_mirror, size) - over)


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
        local = blend.resize(local, size)
    x, y = np.ascontiguousarray(local[..., 0]), np.ascontiguousarray(local[..., 1])
    drawn = cv2.remap(part, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(drawn, np.float32) / np.float32(255)


def target_in_shape(
    target_rgb: UInt8Array, result: WarpResult, size: tuple[int, int] | None = None
) -> FloatArray:
    """The untouched target over the result's region, bent to the result's shape, float32 [h, w, 3] in [0, 1].

    `size` (height, width): drawn at another size than the region's own.
    """
    x0, y0, x1, y1 = result.roi_xyxy
    size = size or (y1 - y0, x1 - x0)
    if result.from_target is not None:
        return _sample(target_rgb, result.from_target, size)
    part = target_rgb[y0:y1, x0:x1]
    if size != part.shape[:2]:
        part = np.asarray(cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.uint8)
    return part.astype(np.float32) / np.float32(255)


def _map_area(coordinates: FloatArray) -> float:
    """Picture area that a map covers, in square pixels (sum of its cells)."""
    across, down = np.diff(coordinates, axis=1)[:-1], np.diff(coordinates, axis=0)[:, :-1]
    return float(np.abs(across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]).sum())
