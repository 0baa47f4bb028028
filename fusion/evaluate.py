"""Measures of a swap and the tables of `facsimile bench fusion`; knows no files, no policy and no particular network.

Recognisers and the landmark finder are handed in as functions. `source` gives the identity, `target` is altered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fusion import align, blend, mask, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.pose import HeadFit, fit_head, load_shape_model, pose_difference_degrees
from fusion.swap import Engine
from fusion.warp import WarpOptions, WarpResult

Embed = Callable[[UInt8Array, FloatArray], FloatArray]  # picture, landmarks [478, 2] → unit vector
Locate = Callable[
    [UInt8Array, FloatArray], FloatArray
]  # picture, landmarks nearby [478, 2] → landmarks found

SIMILAR_POSE_DEGREES: Final = 8.0
SIMILAR_MOUTH: Final = 0.08  # difference of mouth opening, in mouth widths
PAIRS_SEED: Final = 20260
BOOTSTRAP_ROUNDS: Final = 1000
UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("id_top1", "id_top5"), "share"),
    **dict.fromkeys(("id_cos_source", "id_cos_target"), "cosine"),
    **{"pose_deg": "degree", "pose_within_4": "share", "landmark_nme": "inter-ocular distance"},
    **{"seam_delta_e": "CIE76", "hf_ratio": "ratio"},
}


@dataclass(frozen=True, eq=False)
class Portrait:
    """A picture uint8 [H, W, 3] of one face and its landmarks float32 [478, 2]."""

    name: str
    rgb: UInt8Array
    landmarks_px: FloatArray


@dataclass(frozen=True)
class Pair:
    """Names of two portraits."""

    source: str
    target: str


@dataclass(frozen=True)
class Row:
    """One number of a bench table; ci95 by bootstrap over pairs, None where there is none."""

    case: str
    metric: str
    value: float
    unit: str
    n: int
    ci95: tuple[float, float] | None


def choose_pairs(
    landmarks: Mapping[str, FloatArray], count: int, *, similar: bool, seed: int = PAIRS_SEED
) -> list[Pair]:
    """`count` different ordered pairs of the named faces, fixed by names, landmarks and seed.

    `similar`: head poses within SIMILAR_POSE_DEGREES and mouths opened alike. ValueError where there are fewer.
    """
    names = sorted(landmarks)
    model = load_shape_model()
    fits = [fit_head(landmarks[name], model) for name in names]
    mouths = [mouth_opening(landmarks[name]) for name in names]
    order = np.random.default_rng(seed).permutation(len(names) * len(names))
    pairs: list[Pair] = []
    for code in order.tolist():
        if len(pairs) == count:
            break
        a, b = divmod(code, len(names))
        if a != b and (not similar or _alike(fits[a], fits[b], mouths[a], mouths[b])):
            pairs.append(Pair(names[a], names[b]))
    if len(pairs) < count:
        raise ValueError(f"only {len(pairs)} pairs of {count} can be made from {len(names)} portraits")
    return pairs


def _alike(fit: HeadFit, other: HeadFit, mouth: float, other_mouth: float) -> bool:
    near = pose_difference_degrees(fit, other) <= SIMILAR_POSE_DEGREES
    return near and abs(mouth - other_mouth) <= SIMILAR_MOUTH


def mouth_opening(landmarks_px: FloatArray) -> float:
    """Distance of the inner lips in mouth widths."""
    return _distance(landmarks_px, 13, 14) / max(_distance(landmarks_px, 61, 291), 1e-6)


def interocular(landmarks_px: FloatArray) -> float:
    """Distance of the iris centres in pixels."""
    return _distance(landmarks_px, mesh.LEFT_IRIS[0], mesh.RIGHT_IRIS[0])


def _distance(points: FloatArray, a: int, b: int) -> float:
    return float(np.linalg.norm(points[a, :2] - points[b, :2]))


def paste_face(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    options: WarpOptions | None = None,
    *,
    identity: FloatArray | None = None,
) -> WarpResult:
    """Baseline: the source's face by one affine map into the target's oval, seam by Poisson (Pérez 2003)."""
    del options, identity
    oval = list(mesh.OVAL)
    seen, wanted = source_landmarks[:, :2].astype(np.float32), target_landmarks[:, :2].astype(np.float32)
    ones = np.ones((mesh.NUM_MESH, 1), np.float32)
    affine = np.linalg.lstsq(np.hstack([seen[: mesh.NUM_MESH], ones]), wanted[: mesh.NUM_MESH], rcond=None)[0]
    height, width = target_rgb.shape[:2]
    moved = cv2.warpAffine(source_rgb, affine.T, (width, height), borderMode=cv2.BORDER_REFLECT101)
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [np.rint(wanted[oval]).astype(np.int32)], 1)
    inside[[0, -1]] = 0
    inside[:, [0, -1]] = 0
    altered = inside > 0
    difference = target_rgb.astype(np.float32) - moved.astype(np.float32)
    seamless = np.clip(np.rint(moved + membrane(difference, altered)), 0, 255).astype(np.uint8)
    rgb = np.where(altered[..., None], seamless, target_rgb)
    return WarpResult(rgb, inside.astype(np.float32), (0, 0, width, height), altered)


def membrane(values: FloatArray, inside: npt.NDArray[np.bool_], rounds: int = 60) -> FloatArray:
    """Values [H, W, C] with the inside replaced by the harmonic function that meets them at its rim.

    The Poisson equation of Pérez, Gangnet and Blake 2003 (eq. 4) for a difference of pictures; Jacobi steps
    from coarse to fine. (cv2.seamlessClone of OpenCV 5.0.0 returns the target nearly unchanged.)
    """
    height, width = inside.shape
    start = values
    if min(height, width) > 16:
        half = (width // 2, height // 2)
        small_inside = cv2.resize(inside.astype(np.float32), half, interpolation=cv2.INTER_AREA) > 0
        small_values = cv2.resize(values, half, interpolation=cv2.INTER_AREA)
        small = membrane(np.asarray(small_values, np.float32), small_inside, rounds)
        start = np.asarray(cv2.resize(small, (width, height)), np.float32)
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
    solved = np.where(inside[..., None], start, values)
    for _ in range(rounds):
        solved = np.where(inside[..., None], cv2.filter2D(solved, -1, cross), values)
    return np.asarray(solved, np.float32)


def seam_delta_e(output: WarpResult, target_rgb: UInt8Array, width_px: float, level: float = 0.05) -> float:
    """Colour step that the seam adds: mean along the seam of the CIE76 distance between the step in the output
    and the step in the untouched target, each from a band within to a band without.

    The seam is the outer line where the source's share passes `level`; eyes and mouth within are no seam. The
    bands are 4 % of the face's width wide. 0 for a swap that changes nothing.
    """
    x0, y0, x1, y1 = output.roi_xyxy
    scale = min(1.0, 80.0 / width_px)
    size = (max(8, round((y1 - y0) * scale)), max(8, round((x1 - x0) * scale)))
    inside = _filled(blend.resize(output.mask, size) > level)
    line = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    if not line.any():
        return 0.0
    steps = [
        _step(picture[y0:y1, x0:x1], inside, 0.04 * width_px * scale) for picture in (output.rgb, target_rgb)
    ]
    return float(np.linalg.norm(steps[0] - steps[1], axis=-1)[line].mean())


def _filled(inside: npt.NDArray[np.bool_]) -> FloatArray:
    """Outermost outlines of a region, filled; the picture's rim is always outside."""
    bits = inside.astype(np.uint8)
    bits[[0, -1]] = 0
    bits[:, [0, -1]] = 0
    outlines, _ = cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(bits, outlines, -1, 1, cv2.FILLED), np.float32)


def _step(rgb: UInt8Array, inside: FloatArray, band_px: float) -> FloatArray:
    """Lab within less Lab without, each a local mean over a band at the rim, float32 [h, w, 3]."""
    size = (inside.shape[1], inside.shape[0])
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
    lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2Lab), np.float32)
    return blend.masked_blur(lab, inside, band_px) - blend.masked_blur(lab, 1 - inside, band_px)


def high_frequency_ratio(output: UInt8Array, target: UInt8Array, landmarks_px: FloatArray) -> float:
    """Energy of the finest octave on the cheeks, output over target (amplitude): 1 keeps, below 1 is too smooth."""
    oval = landmarks_px[: mesh.NUM_MESH, :2]
    low = np.floor(np.clip(oval.min(0), 0, None)).astype(int)
    high = np.ceil(oval.max(0)).astype(int) + 1
    cut = (slice(low[1], high[1]), slice(low[0], high[0]))
    energies = []
    for picture in (output, target):
        grey = cv2.cvtColor(picture[cut], cv2.COLOR_RGB2GRAY).astype(np.float32)
        skin = mask.cheek_mask((oval - low).astype(np.float32), grey.shape) > 0.5
        detail = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
        energies.append(float(np.sqrt((detail[skin] ** 2).mean())) if skin.any() else 0.0)
    return energies[0] / max(energies[1], 1e-6)


@dataclass(frozen=True, eq=False)
class Bench:
    """What a bench is run with: portraits by name, recognisers by name, and the finder of landmarks."""

    portraits: Mapping[str, Portrait]
    recognisers: Mapping[str, Embed]
    locate: Locate

    def gallery(self) -> dict[str, FloatArray]:
        """Embeddings [N, D] of every portrait per recogniser, in the order of `portraits`."""
        everyone = self.portraits.values()
        return {
            name: np.stack([embed(p.rgb, p.landmarks_px) for p in everyone])
            for name, embed in self.recognisers.items()
        }

    def measure(
        self, engine: Engine, pairs: Sequence[Pair], gallery: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Every metric's value per pair [P]; identity metrics are named `metric:recogniser`."""
        samples = [self.measure_pair(engine, pair, gallery) for pair in pairs]
        return {key: np.array([sample[key] for sample in samples], np.float32) for key in samples[0]}

    def measure_pair(self, engine: Engine, pair: Pair, gallery: Mapping[str, FloatArray]) -> dict[str, float]:
        """Swap one pair and measure the output."""
        source, target = self.portraits[pair.source], self.portraits[pair.target]
        begun = time.perf_counter()
        output = engine(target.rgb, target.landmarks_px, source.rgb, source.landmarks_px)
        sample = {"ms_swap": 1e3 * (time.perf_counter() - begun)}
        sample |= {f"ms_{stage}": value for stage, value in output.timings_ms.items()}
        found = self.locate(output.rgb, target.landmarks_px)
        sample |= self._geometry(target, found)
        width = mesh.face_width(target.landmarks_px)
        sample["seam_delta_e"] = seam_delta_e(output, target.rgb, width)
        sample["hf_ratio"] = high_frequency_ratio(output.rgb, target.rgb, target.landmarks_px)
        names = list(self.portraits)
        for name, embed in self.recognisers.items():
            cosines = gallery[name] @ embed(output.rgb, found)
            to_source, to_target = cosines[names.index(pair.source)], cosines[names.index(pair.target)]
            rank = int((cosines > to_source).sum())
            sample |= {f"id_top1:{name}": float(rank < 1), f"id_top5:{name}": float(rank < 5)}
            sample |= {f"id_cos_source:{name}": float(to_source), f"id_cos_target:{name}": float(to_target)}
        return sample

    def _geometry(self, target: Portrait, found: FloatArray) -> dict[str, float]:
        """Pose and landmark errors, both pictures seen by the same finder."""
        model = load_shape_model()
        before = self.locate(target.rgb, target.landmarks_px)
        angle = pose_difference_degrees(fit_head(found, model), fit_head(before, model))
        error = np.linalg.norm(found[: mesh.NUM_MESH, :2] - before[: mesh.NUM_MESH, :2], axis=1).mean()
        return {
            "pose_deg": angle,
            "pose_within_4": float(angle <= 4.0),
            "landmark_nme": float(error) / max(interocular(target.landmarks_px), 1e-6),
        }


def tabulate(case: str, values: Mapping[str, FloatArray], seed: int = 0) -> list[Row]:
    """One row per metric: mean over pairs (median for ms) with its bootstrap interval."""
    rows = []
    for name, samples in values.items():
        metric = name.split(":")[0]
        timed = metric.startswith("ms_")
        statistic = np.median if timed else np.mean
        interval = bootstrap_interval(samples, statistic, seed)
        unit = "ms" if timed else UNITS.get(metric, "")
        rows.append(Row(case, name, float(statistic(samples)), unit, len(samples), interval))
    return rows


def bootstrap_interval(
    samples: FloatArray, statistic: Callable[..., npt.NDArray[np.floating]] = np.mean, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval over samples drawn with replacement (Efron 1979)."""
    rng = np.random.default_rng(seed)
    drawn = samples[rng.integers(len(samples), size=(BOOTSTRAP_ROUNDS, len(samples)))]
    low, high = np.percentile(statistic(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def bench_engines(
    bench: Bench, engines: Mapping[str, Engine], pairs: Mapping[str, Sequence[Pair]]
) -> Iterable[Row]:
    """Rows of every engine on every set of pairs; case = `engine/pairs`."""
    gallery = bench.gallery()
    for engine_name, engine in engines.items():
        for pairs_name, chosen in pairs.items():
            yield from tabulate(f"{engine_name}/{pairs_name}", bench.measure(engine, chosen, gallery))


def five_point_embed(embed: Callable[[UInt8Array, FloatArray], FloatArray]) -> Embed:
    """A recogniser that takes five points, made to take the 478 landmarks."""
    return lambda rgb, landmarks: embed(rgb, align.five_points(landmarks))
