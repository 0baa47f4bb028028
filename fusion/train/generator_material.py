"""Training pairs for a generator without a teacher swapper: pseudo-swaps, made by the engine `warp`; knows no network.

A real portrait R gets another face X: P. Then P is the target, a moved and relit view of R the source, and R itself
the truth (the idea of ReliableSwap, arXiv 2306.05356, section 3.1). Every record also holds the first swap, R as target
and X as source, for which no truth is known. One record in four is of one identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fusion import mesh
from fusion.align import Matrix, apply_matrix, invert_matrix, similarity_from_points, warp_crop
from fusion.face import FloatArray, UInt8Array
from fusion.native import crop_share, generator_crop_from_image
from fusion.pose import fit_head, head_angles_degrees, load_shape_model
from fusion.train import shapes
from fusion.train.augment import Rng, chance, degrade, occlude, random_texture, relight, tone
from fusion.train.portraitset import PortraitSet, read_portraits
from fusion.warp import WarpOptions, WarpResult, warp_face

PICTURE_PX = 192  # portraits are reduced to this: the face is then as fine as in the crop
CROP_PX = 128
VIEW_PX, VIEW_SCALE = 192, 1.25  # moved view of the source: side, and pixels per pixel of the 128 px frame
FACE_HEIGHT_PX = 96.0
SHARD = 64


@dataclass(frozen=True, eq=False)
class Shard:
    """N records; pictures uint8 [N, 128, 128, 3] RGB in the target's crop, masks uint8 [N, 128, 128].

    truth     R                               portrait  int [N], index of R in the split
    swapped   P, or R again where `same`      other     int [N], index of X (of R where `same`)
    trust     share of X in P                 same      bool [N], one identity
    target    P with what lies on the face on top    hidden  bool [N], something does lie there
    mended    the view of R drawn into `target` by the engine `warp`
    regained  share of that view in `mended`
    """

    truth: UInt8Array
    target: UInt8Array
    swapped: UInt8Array
    trust: UInt8Array
    mended: UInt8Array
    regained: UInt8Array
    portrait: np.ndarray
    other: np.ndarray
    same: np.ndarray
    hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)


class PairMaker:
    """Draws records; state: the portraits, their yaw and what the warps share."""

    def __init__(self, portraits: PortraitSet) -> None:
        self.portraits = portraits
        self.mean = shapes.mean_shape(portraits.points, CROP_PX, FACE_HEIGHT_PX)
        self.mirror = shapes.mirror_index(self.mean)
        frames = [similarity_from_points(p[:, :2], self.mean) for p in portraits.points]
        aligned = [apply_matrix(m, p[:, :2]) for m, p in zip(frames, portraits.points, strict=True)]
        self.warper = shapes.make_warper(self.mean, np.stack(aligned))
        model = load_shape_model()
        self.yaws = np.array([head_angles_degrees(fit_head(p, model))[0] for p in portraits.points])

    def draw(self, rng: Rng) -> dict[str, np.ndarray]:
        """One record by field name of Shard."""
        index = int(rng.choice(len(self.portraits), p=self.portraits.weights))
        picture, points = self.portraits.pictures[index], self.portraits.points[index, :, :2]
        same, hidden = chance(rng, 0.25), chance(rng, 0.2)
        cover = (
            draw_cover(rng, points, picture.shape[:2]) if hidden else np.zeros(picture.shape[:2], np.float32)
        )
        patch = self.portraits.pictures[int(rng.integers(len(self.portraits)))]
        lying = np.asarray(cv2.resize(patch, None, fx=1.6, fy=1.6), np.uint8)[: len(picture), : len(picture)]
        if chance(rng, 0.4):
            lying = random_texture(rng, *picture.shape[:2])
        truth = lay(lying, picture, cover)
        crop = jitter(rng, generator_crop_from_image(points, CROP_PX))
        other, swap = index, None
        target, target_points = truth, points
        if not same:
            other = self._pick_other(rng, index)
            source = self.portraits.pictures[other]
            swap = warp_face(truth, points, source, self.portraits.points[other, :, :2], draw_options(rng))
            assert swap.landmarks_px is not None
            target, target_points = lay(lying, swap.rgb, cover), swap.landmarks_px
        view, view_points = self.view(rng, index)
        mended = warp_face(target, target_points, view, view_points, draw_options(rng, plain=0.7))
        return {
            "truth": warp_crop(truth, crop, CROP_PX, border="replicate"),
            "swapped": warp_crop(target if swap is None else swap.rgb, crop, CROP_PX, border="replicate"),
            "trust": share_as_bytes(swap, crop),
            "mended": warp_crop(mended.rgb, crop, CROP_PX, border="replicate"),
            "regained": share_as_bytes(mended, crop),
            "target": warp_crop(target, crop, CROP_PX, border="replicate"),
            "portrait": np.array(index, np.int32),
            "other": np.array(other, np.int32),
            "same": np.array(same),
            "hidden": np.array(hidden),
        }

    def _pick_other(self, rng: Rng, index: int) -> int:
        """Another portrait; in 70 % the one of six whose head is turned most alike."""
        some = rng.integers(len(self.portraits), size=6)
        some = some[some != index]
        if len(some) == 0:
            return (index + 1) % len(self.portraits)
        near = np.abs(self.yaws[some] - self.yaws[index])
        return int(some[near.argmin()] if chance(rng, 0.7) else some[0])

    def view(self, rng: Rng, index: int) -> tuple[UInt8Array, FloatArray]:
        """The person of a portrait once more: perhaps mirrored, turned, with another mouth, in other light.

        uint8 [192, 192, 3] and its landmarks [478, 2].
        """
        picture, xyz = self.portraits.pictures[index], self.portraits.points[index]
        if chance(rng, 0.5):
            picture = np.ascontiguousarray(picture[:, ::-1])
            xyz = (xyz * [-1, 1, 1] + [picture.shape[1] - 1, 0, 0])[self.mirror].astype(np.float32)
        frame_from_image = similarity_from_points(xyz[:, :2], self.mean)
        scale = float(np.hypot(frame_from_image[0, 0], frame_from_image[1, 0]))
        flat = apply_matrix(frame_from_image, xyz[:, :2])
        field, points = self._move(rng, np.concatenate([flat, scale * xyz[:, 2:]], axis=1).astype(np.float32))
        middle = (VIEW_PX - VIEW_SCALE * CROP_PX) / 2
        view_from_frame = np.array([[VIEW_SCALE, 0, middle], [0, VIEW_SCALE, middle]])
        axis = np.arange(VIEW_PX, dtype=np.float64)
        grid = apply_matrix(invert_matrix(view_from_frame), np.stack(np.meshgrid(axis, axis), axis=2))
        seen = grid + shapes.field_in_crop(field, view_from_frame, VIEW_PX)
        at = apply_matrix(invert_matrix(frame_from_image), seen)
        view = cv2.remap(picture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return spoil(rng, np.asarray(view, np.uint8)), apply_matrix(view_from_frame, points)

    def _move(self, rng: Rng, xyz: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Backward field of a random turn and expression, weakened until it does not fold; the points it leads to."""
        moved = np.zeros((len(xyz), 2), np.float32)
        if chance(rng, 0.7):
            moved += shapes.turn_head(xyz, float(rng.normal(0, 14)), float(rng.normal(0, 7)))
        if chance(rng, 0.3):
            moved += shapes.blink(xyz[:, :2], np.full(2, rng.uniform(-0.2, 0.6)))
        if chance(rng, 0.5):
            moved += shapes.move_mouth(xyz[:, :2], float(rng.uniform(-1, 1)))
        nodes = -(self.warper.nodes_from_points @ moved[: mesh.NUM_MESH])
        field = nodes.reshape(shapes.NODES, shapes.NODES, 2).astype(np.float32)
        for strength in (1.0, 0.5):
            points, error = shapes.follow_field(field * np.float32(strength), xyz[:, :2])
            if error < 0.3:
                return field * np.float32(strength), points
        return np.zeros_like(field), xyz[:, :2]


def draw_options(rng: Rng, plain: float = 0.5) -> WarpOptions:
    """Settings of the engine: as shipped with probability `plain`, else drawn around that."""
    if chance(rng, plain):
        return WarpOptions(grid_px=160)
    return WarpOptions(
        shape_blend=float(rng.uniform(0.3, 1.0)),
        light_scale=float(rng.uniform(0.1, 0.35)),
        lips_match=float(rng.uniform(0.1, 0.8)),
        iris_match=float(rng.uniform(0, 1)),
        feather=float(rng.uniform(0.04, 0.1)),
        grid_px=160,
    )


def draw_cover(rng: Rng, points: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Where something lies on the face: a strand or an ellipse across the outline, float32 [H, W] in [0, 1]."""
    width = mesh.face_width(points)
    canvas = np.zeros((*size, 3), np.uint8)
    rim = points[int(rng.choice(mesh.OVAL))]
    inside = points[: mesh.NUM_MESH].mean(0) + rng.normal(0, 0.22 * width, 2)
    start, end = (np.rint(p).astype(int).tolist() for p in (rim + 0.3 * (rim - inside), inside))
    if chance(rng, 0.6):
        cv2.line(canvas, start, end, (255, 255, 255), max(2, int(width * rng.uniform(0.02, 0.16))))
    else:
        axes = (int(width * rng.uniform(0.08, 0.25)), int(width * rng.uniform(0.08, 0.25)))
        cv2.ellipse(canvas, start, axes, float(rng.uniform(0, 180)), 0, 360, (255, 255, 255), -1)
    soft = cv2.GaussianBlur(canvas[..., 0], (0, 0), float(rng.uniform(0.5, 1.5)))
    return np.asarray(soft, np.float32) / np.float32(255)


def lay(over: UInt8Array, under: UInt8Array, cover: FloatArray) -> UInt8Array:
    """`over` where `cover` is 1."""
    if not cover.any():
        return under
    mixed = under + cover[..., None] * (over.astype(np.float32) - under)
    return np.asarray(np.rint(mixed).clip(0, 255), np.uint8)


def spoil(rng: Rng, view: UInt8Array) -> UInt8Array:
    """Another light, white balance and camera; half of the views stay sharp."""
    if chance(rng, 0.7):
        view = relight(view, rng, float(rng.uniform(0.05, 0.3)))
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    view = tone(view, gain.astype(np.float32), 0.0, float(rng.uniform(0.8, 1.25)))
    if chance(rng, 0.1):
        view = occlude(view, rng)
    return degrade(view, rng, 0.4) if chance(rng, 0.4) else view


def jitter(rng: Rng, crop_from_image: Matrix) -> Matrix:
    """The crop turned, scaled and shifted a little, as landmarks err."""
    angle, scale = np.radians(rng.normal(0, 2.0)), np.exp(rng.normal(0, 0.03))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    middle = (CROP_PX - 1) / 2
    linear = np.array([[c, -s], [s, c]])
    shift = np.array([middle, middle]) - linear @ [middle, middle] + rng.normal(0, 1.5, 2)
    return np.concatenate(
        [linear @ crop_from_image[:, :2], (linear @ crop_from_image[:, 2] + shift)[:, None]], axis=1
    )


def share_as_bytes(result: WarpResult | None, crop: Matrix) -> UInt8Array:
    """Trust map uint8 [128, 128]; zeros where there was no swap."""
    if result is None:
        return np.zeros((CROP_PX, CROP_PX), np.uint8)
    return np.asarray(np.rint(crop_share(result, crop, CROP_PX).clip(0, 1) * 255), np.uint8)


def write_shard(maker: PairMaker, folder: Path, number: int, seed: int) -> bool:
    """Make shard `number` unless it is there; the same for the same seed. False if it was there."""
    path = folder / f"pairs_{number:04d}.npz"
    if path.exists():
        return False
    rng = np.random.default_rng([seed, number])
    records = [maker.draw(rng) for _ in range(SHARD)]
    part = path.with_name(f".{path.stem}.part.npz")
    columns = {name: np.stack([record[name] for record in records]) for name in records[0]}
    with part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **columns)
    part.replace(path)
    return True


def read_shard(path: Path) -> Shard:
    """A shard as written."""
    with np.load(path, allow_pickle=False) as archive:
        return Shard(**{name: archive[name] for name in archive.files})


def make_shards(data: Path, folder: Path, split: str, count: int, seed: int) -> None:
    """Make shards 0 … count-1 of a split into `folder`; those that are there are skipped."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    maker = PairMaker(read_portraits(data, split, PICTURE_PX))
    for number in range(count):
        write_shard(maker, folder, number, seed)
