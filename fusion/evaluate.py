"""Swaps one pair after another and measures each output; knows no files, no policy and no particular network.

Recognisers and the landmark finder are handed in as functions. `source` gives the identity, `target` is altered.
The tables of `facsimile bench fusion` are made of these samples by fusion/tables.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np

from fusion import align, measures, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.octaves import band_energies
from fusion.pose import HeadFit, fit_head, load_shape_model, pose_difference_degrees
from fusion.swap import DEFAULT_PRESET, ENGINES, Engine, find_preset, finish, keeps_eyes
from fusion.warp import WarpOptions, WarpResult

Embed = Callable[[UInt8Array, FloatArray], FloatArray]  # picture, landmarks [478, 2] → unit vector
# picture, landmarks nearby [478, 2] → landmarks found
Locate = Callable[[UInt8Array, FloatArray], FloatArray]
Sample = Mapping[str, float | FloatArray]  # metric → value; `feature` → vector [D]

SIMILAR_POSE_DEGREES: Final = 8.0
SIMILAR_MOUTH: Final = 0.08  # difference of mouth opening, in mouth widths
PAIRS_SEED: Final = 20260
# Recognisers that an engine's training loss contained: their figures on it are not evidence.
IN_LOSS: Final[Mapping[str, frozenset[str]]] = {
    "style": frozenset({"ours", "teacher"}),
    "hybrid": frozenset({"ours", "teacher"}),
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


def choose_pairs(
    landmarks: Mapping[str, FloatArray], count: int, *, similar: bool, seed: int = PAIRS_SEED
) -> list[Pair]:
    """`count` different ordered pairs of the named faces, fixed by names, landmarks and seed.

    The names sorted, all ordered pairs of them numbered `source * n + target`, the numbers shuffled by NumPy's PCG64;
    fewer pairs are the beginning of more. `similar`: head poses within SIMILAR_POSE_DEGREES and mouths opened alike.
    ValueError where there are fewer.
    """
    names = sorted(landmarks)
    model = load_shape_model()
    fits = [fit_head(landmarks[name], model) for name in names] if similar else []
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

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Row of each name."""
        return {name: row for row, name in enumerate(self.names)}

    def identity(self, name: str) -> FloatArray | None:
        """The unit vector [512] of our own network, which the pipeline too hands to an engine, where it is known."""
        return self.embeddings["ours"][self.index[name]] if "ours" in self.embeddings else None

    def rank(self, recogniser: str, embedding: FloatArray, pair: Pair) -> dict[str, float]:
        """Identity metrics of an output's unit vector [D], each named `metric:recogniser`."""
        cosines = self.embeddings[recogniser] @ embedding
        to_source, to_target = cosines[self.index[pair.source]], cosines[self.index[pair.target]]
        rank = int((cosines > to_source).sum())
        found = {
            "id_top1": rank < 1,
            "id_top5": rank < 5,
            "id_cos_source": to_source,
            "id_cos_target": to_target,
        }
        return {f"{metric}:{recogniser}": float(value) for metric, value in found.items()}


@dataclass(frozen=True, eq=False)
class Known:
    """What is the same for every output made of one target.

    landmarks_px   [478, 2], by the finder that judges the outputs; `fit` is theirs, `given` the label's
    lights         places of the catch-lights of the left and the right eye
    bands          octaves.band_energies of two octaves
    age            measures.age_proxy
    mouth          mouth_opening by the label
    feature        vector [D] for kernel_distance, where a bench has one
    """

    landmarks_px: FloatArray
    fit: HeadFit
    given: HeadFit
    lights: measures.EyeLights
    bands: FloatArray
    age: float
    mouth: float
    feature: FloatArray | None


@dataclass(frozen=True, eq=False)
class Bench:
    """What a bench is run with: portraits by name, recognisers by name, and the finder of landmarks.

    features   picture, landmarks → vector for kernel_distance; None leaves `kid` out
    known      what has been found out about targets so far; filled as they come
    """

    portraits: Mapping[str, Portrait]
    recognisers: Mapping[str, Embed]
    locate: Locate
    features: Embed | None = None
    known: dict[str, Known] = field(default_factory=dict)

    def know(self, name: str) -> Known:
        """Everything about one portrait that outputs are measured against, found once."""
        if name not in self.known:
            portrait, model = self.portraits[name], load_shape_model()
            before = self.locate(portrait.rgb, portrait.landmarks_px)
            self.known[name] = Known(
                before,
                fit_head(before, model),
                fit_head(portrait.landmarks_px, model),
                measures.eye_lights(portrait.rgb, before),
                band_energies(portrait.rgb, portrait.landmarks_px, measures.OCTAVES),
                measures.age_proxy(portrait.rgb, portrait.landmarks_px),
                mouth_opening(portrait.landmarks_px),
                None if self.features is None else self.features(portrait.rgb, portrait.landmarks_px),
            )
        return self.known[name]

    def measure(self, engine: Engine, pairs: Sequence[Pair], gallery: Gallery) -> list[Sample]:
        """`measure_pair` of each."""
        return [self.measure_pair(engine, pair, gallery) for pair in pairs]

    def measure_pair(self, engine: Engine, pair: Pair, gallery: Gallery) -> Sample:
        """Swap one pair and measure the output: value by metric, NaN where it does not apply.

        Identity metrics are named `metric:recogniser`; `feature` holds the vector [D] for kernel_distance.
        """
        source, target, known = (
            self.portraits[pair.source],
            self.portraits[pair.target],
            self.know(pair.target),
        )
        begun, worked = time.perf_counter(), time.process_time()
        output = engine(
            target.rgb,
            target.landmarks_px,
            source.rgb,
            source.landmarks_px,
            identity=gallery.identity(pair.source),
        )
        sample: dict[str, float | FloatArray] = {
            "ms_swap": 1e3 * (time.perf_counter() - begun),
            "ms_swap_cpu": 1e3 * (time.process_time() - worked),
        }
        sample |= {f"ms_{stage}": value for stage, value in output.timings_ms.items()}
        found = self.locate(output.rgb, target.landmarks_px)
        sample |= geometry_measures(found, known)
        sample |= measures.eye_measures(found, known.landmarks_px)
        also = [known.landmarks_px, *([] if output.landmarks_px is None else [output.landmarks_px])]
        sample["catchlight_kept"] = measures.catchlight_kept(output.rgb, found, known.lights, also)
        sample["catchlight_refound"] = measures.catchlight_kept(output.rgb, found, known.lights)
        width = mesh.face_width(target.landmarks_px)
        sample["seam_delta_e"] = measures.seam_delta_e(output, target.rgb, width)
        sample |= measures.fine_band_measures(output, target.rgb, target.landmarks_px, known.bands)
        for name, embed in self.recognisers.items():
            sample |= gallery.rank(name, embed(output.rgb, found), pair)
        if self.features is not None:
            sample["feature"] = self.features(output.rgb, found)
        return sample


def geometry_measures(found: FloatArray, known: Known) -> dict[str, float]:
    """Pose and landmark errors of an output's landmarks [478, 2] against the target's by the same finder."""
    angle = pose_difference_degrees(fit_head(found, load_shape_model()), known.fit)
    before = known.landmarks_px
    error = np.linalg.norm(found[: mesh.NUM_MESH, :2] - before[: mesh.NUM_MESH, :2], axis=1).mean()
    return {
        "pose_deg": angle,
        "pose_within_4": float(angle <= 4.0),
        "landmark_nme": float(error) / max(interocular(before), 1e-6),
    }


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
