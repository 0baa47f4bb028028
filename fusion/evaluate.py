"""Measures of a swap and the tables of `facsimile bench fusion`; knows no files, no policy and no particular network.

Recognisers and the landmark finder are handed in as functions. `source` gives the identity, `target` is altered.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fusion import align, measures, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.pose import HeadFit, fit_head, load_shape_model, pose_difference_degrees
from fusion.swap import DEFAULT_PRESET, ENGINES, Engine, find_preset, finish, keeps_eyes
from fusion.warp import WarpOptions, WarpResult

Embed = Callable[[UInt8Array, FloatArray], FloatArray]  # picture, landmarks [478, 2] → unit vector
Locate = Callable[
    [UInt8Array, FloatArray], FloatArray
]  # picture, landmarks nearby [478, 2] → landmarks found

SIMILAR_POSE_DEGREES: Final = 8.0
SIMILAR_MOUTH: Final = 0.08  # difference of mouth opening, in mouth widths
PAIRS_SEED: Final = 20260
# Recognisers that an engine's training loss contained: their figures on it are not evidence.
IN_LOSS: Final[Mapping[str, frozenset[str]]] = {"style": frozenset({"ours"}), "hybrid": frozenset({"ours"})}
BOOTSTRAP_ROUNDS: Final = 1000
UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("id_top1", "id_top5"), "share"),
    **dict.fromkeys(("id_cos_source", "id_cos_target"), "cosine"),
    **{"pose_deg": "degree", "pose_within_4": "share", "landmark_nme": "inter-ocular distance"},
    **{"seam_delta_e": "CIE76", "hf_corr": "correlation", "catchlight_kept": "share"},
    **dict.fromkeys(("hf_ratio", "hf_ratio_1", "hf_ratio_2"), "ratio"),
    **{"eye_aperture_err": "share of the opening", "iris_err": "eye width"},
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


@dataclass(frozen=True, eq=False)
class Gallery:
    """Among whom a source is looked for: names, and unit vectors [N, D] per recogniser in their order."""

    names: tuple[str, ...]
    embeddings: Mapping[str, FloatArray]

    @classmethod
    def of(cls, portraits: Iterable[Portrait], recognisers: Mapping[str, Embed]) -> Gallery:
        """Embed every portrait by every recogniser; a stream of portraits is read once."""
        names, found = [], []
        for portrait in portraits:
            names.append(portrait.name)
            found.append([embed(portrait.rgb, portrait.landmarks_px) for embed in recognisers.values()])
        stacked = [np.stack(vectors) for vectors in zip(*found, strict=True)]
        return cls(tuple(names), dict(zip(recognisers, stacked, strict=True)))


@dataclass(frozen=True, eq=False)
class Bench:
    """What a bench is run with: portraits by name, recognisers by name, and the finder of landmarks.

    features   picture, landmarks → vector for kernel_distance; None leaves `kid` out
    """

    portraits: Mapping[str, Portrait]
    recognisers: Mapping[str, Embed]
    locate: Locate
    features: Embed | None = None

    def measure(self, engine: Engine, pairs: Sequence[Pair], gallery: Gallery) -> dict[str, FloatArray]:
        """Every metric's value per pair [P]; identity metrics are named `metric:recogniser`, NaN: does not apply.

        `feature` holds the vectors [P, D] for kernel_distance.
        """
        samples = [self.measure_pair(engine, pair, gallery) for pair in pairs]
        return {key: np.array([sample[key] for sample in samples], np.float32) for key in samples[0]}

    def measure_pair(self, engine: Engine, pair: Pair, gallery: Gallery) -> dict[str, float | FloatArray]:
        """Swap one pair and measure the output."""
        source, target = self.portraits[pair.source], self.portraits[pair.target]
        begun, worked = time.perf_counter(), time.process_time()
        output = engine(target.rgb, target.landmarks_px, source.rgb, source.landmarks_px)
        sample: dict[str, float | FloatArray] = {
            "ms_swap": 1e3 * (time.perf_counter() - begun),
            "ms_swap_cpu": 1e3 * (time.process_time() - worked),
        }
        sample |= {f"ms_{stage}": value for stage, value in output.timings_ms.items()}
        found = self.locate(output.rgb, target.landmarks_px)
        before = self.locate(target.rgb, target.landmarks_px)
        sample |= geometry_measures(found, before)
        sample |= measures.eye_measures(found, before)
        sample["catchlight_kept"] = measures.catchlight_kept(output.rgb, found, target.rgb, before)
        sample["seam_delta_e"] = measures.seam_delta_e(
            output, target.rgb, mesh.face_width(target.landmarks_px)
        )
        sample |= measures.fine_band_measures(output, target.rgb, target.landmarks_px)
        index = {name: k for k, name in enumerate(gallery.names)}
        for name, embed in self.recognisers.items():
            cosines = gallery.embeddings[name] @ embed(output.rgb, found)
            to_source, to_target = cosines[index[pair.source]], cosines[index[pair.target]]
            rank = int((cosines > to_source).sum())
            sample |= {f"id_top1:{name}": float(rank < 1), f"id_top5:{name}": float(rank < 5)}
            sample |= {f"id_cos_source:{name}": float(to_source), f"id_cos_target:{name}": float(to_target)}
        if self.features is not None:
            sample["feature"] = self.features(output.rgb, found)
        return sample


def geometry_measures(found: FloatArray, before: FloatArray) -> dict[str, float]:
    """Pose and landmark errors of an output's landmarks [478, 2] against the target's by the same finder."""
    model = load_shape_model()
    angle = pose_difference_degrees(fit_head(found, model), fit_head(before, model))
    error = np.linalg.norm(found[: mesh.NUM_MESH, :2] - before[: mesh.NUM_MESH, :2], axis=1).mean()
    return {
        "pose_deg": angle,
        "pose_within_4": float(angle <= 4.0),
        "landmark_nme": float(error) / max(interocular(before), 1e-6),
    }


def subsets(
    portraits: Mapping[str, Portrait], pairs: Sequence[Pair], groups: Mapping[str, str]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which pairs [P] fall under which case: difference of pose, mouth, age's look and group of the target.

    `oldest_tenth`: the tenth of the targets with the most wrinkled skin (measures.age_proxy); `the_rest` are the
    others. `similar`: pose and mouth alike. `groups`: label of each portrait.
    """
    model = load_shape_model()
    used = {name: portraits[name] for pair in pairs for name in (pair.source, pair.target)}
    fits = {name: fit_head(p.landmarks_px, model) for name, p in used.items()}
    mouths = {name: mouth_opening(p.landmarks_px) for name, p in used.items()}
    pose = np.array([pose_difference_degrees(fits[p.source], fits[p.target]) for p in pairs])
    mouth = np.array([abs(mouths[p.source] - mouths[p.target]) for p in pairs])
    looks = {p.target: 0.0 for p in pairs}
    looks = {name: measures.age_proxy(used[name].rgb, used[name].landmarks_px) for name in looks}
    border = float(np.quantile(list(looks.values()), 0.9))
    old = np.array([looks[p.target] >= border for p in pairs])
    found = {
        "pose_0_10": pose < 10,
        "pose_10_25": (pose >= 10) & (pose < 25),
        "pose_25_up": pose >= 25,
        "mouth_differs": mouth > SIMILAR_MOUTH,
        "similar": (pose <= SIMILAR_POSE_DEGREES) & (mouth <= SIMILAR_MOUTH),
        "oldest_tenth": old,
        "the_rest": ~old,
    }
    labels = [groups.get(p.target, "") for p in pairs]
    found |= {
        f"group_{label}": np.array([one == label for one in labels]) for label in sorted(set(labels)) if label
    }
    return found


def tabulate(case: str, values: Mapping[str, FloatArray], seed: int = 0) -> list[Row]:
    """One row per metric: mean over the pairs it applies to (median for ms) with its bootstrap interval."""
    rows = []
    for name, samples in values.items():
        if samples.ndim != 1 or not (known := samples[np.isfinite(samples)]).size:
            continue
        metric = name.split(":")[0]
        timed = metric.startswith("ms_")
        statistic = np.median if timed else np.mean
        interval = bootstrap_interval(known, statistic, seed)
        unit = "ms" if timed else UNITS.get(metric, "")
        rows.append(Row(case, name, float(statistic(known)), unit, len(known), interval))
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
    bench: Bench,
    engines: Mapping[str, Engine],
    pairs: Sequence[Pair],
    gallery: Gallery | None = None,
    groups: Mapping[str, str] | None = None,
    broken_down: str = "default",
) -> Iterator[Row]:
    """Rows of every engine (case: its name) and, for the one `broken_down`, of every subset of the pairs."""
    gallery = gallery or Gallery.of(bench.portraits.values(), bench.recognisers)
    real = None
    if bench.features is not None:
        targets = [bench.portraits[name] for name in sorted({pair.target for pair in pairs})]
        real = np.stack([bench.features(p.rgb, p.landmarks_px) for p in targets])
    for name, engine in engines.items():
        values = bench.measure(engine, pairs, gallery)
        yield from tabulate(name, values)
        if real is not None:
            yield kernel_row(name, values["feature"], real)
        if name != broken_down:
            continue
        for case, chosen in subsets(bench.portraits, pairs, groups or {}).items():
            if chosen.any():
                yield from tabulate(case, {key: samples[chosen] for key, samples in values.items()})
    yield Row("process", "peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB", 1, None)


def kernel_row(case: str, features: FloatArray, real: FloatArray, rounds: int = 60, seed: int = 0) -> Row:
    """`kid` of outputs against the real targets, both resampled for the interval."""
    rng = np.random.default_rng(seed)
    drawn = [
        measures.kernel_distance(
            features[rng.choice(len(features), max(2, len(features) // 2), replace=False)],
            real[rng.choice(len(real), max(2, len(real) // 2), replace=False)],
        )
        for _ in range(rounds)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = measures.kernel_distance(features, real)
    return Row(case, "kid", value, "squared MMD", len(features), (float(low), float(high)))


def preset_engine(
    preset: str = DEFAULT_PRESET, *, engine: str | None = None, detail: bool = True, eyes: bool | None = None
) -> Engine:
    """A preset with its finish as one engine; `engine` overrides the preset's; `eyes` None: as swap_faces decides."""
    chosen = find_preset(preset)
    name = engine or chosen.engine
    paint = ENGINES[name]
    lit = not keeps_eyes(name, chosen.warp) if eyes is None else eyes

    def run(
        target_rgb: UInt8Array,
        target_landmarks: FloatArray,
        source_rgb: UInt8Array,
        source_landmarks: FloatArray,
        options: WarpOptions | None = None,
        *,
        identity: FloatArray | None = None,
    ) -> WarpResult:
        painted = paint(
            target_rgb,
            target_landmarks,
            source_rgb,
            source_landmarks,
            options or chosen.warp,
            identity=identity,
        )
        return finish(
            target_rgb,
            target_landmarks,
            painted,
            chosen.detail if detail else None,
            chosen.eyes if lit else None,
        )

    return run


def five_point_embed(embed: Callable[[UInt8Array, FloatArray], FloatArray]) -> Embed:
    """A recogniser that takes five points, made to take the 478 landmarks."""
    return lambda rgb, landmarks: embed(rgb, align.five_points(landmarks))
