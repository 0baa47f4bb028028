"""Faces of a picture replaced by given ones, and what is needed to find them; knows no paths and no policy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from fusion.align import five_points
from fusion.detail import DetailOptions, judged_octaves, restore_detail
from fusion.engines import hybrid_face, style_face, warp_behind_covers
from fusion.eyes import EyeOptions, match_eyes
from fusion.face import Face, FloatArray, UInt8Array
from fusion.octaves import band_energies
from fusion.seam import SeamOptions, close_seam
from fusion.warp import WarpOptions, WarpResult, target_in_shape
from provenance.errors import FaceError, UsageError

Assignment = tuple[UInt8Array, Face, Face]  # picture of the source, its face, face of the target


class Engine(Protocol):
    """Puts one face on another: pictures uint8 [H, W, 3], landmarks [478, 2] px → the target, altered.

    `identity` [512] is the source's unit vector where it is known; an engine that needs it finds it otherwise.
    """

    def __call__(
        self,
        target_rgb: UInt8Array,
        target_landmarks: FloatArray,
        source_rgb: UInt8Array,
        source_landmarks: FloatArray,
        options: WarpOptions | None = None,
        *,
        identity: FloatArray | None = None,
    ) -> WarpResult: ...


ENGINES: Final[Mapping[str, Engine]] = {
    "warp": warp_behind_covers,
    "hybrid": hybrid_face,
    "style": style_face,
}


@dataclass(frozen=True)
class Preset:
    """What one word stands for; an option of its own overrides each field.

    engine   key of ENGINES
    warp     settings of the geometry that every engine starts from
    detail   settings of the detail branch; None leaves the skin as the engine paints it
    eyes     settings of the eye branch; None leaves the eyes as the engine paints them
    """

    engine: str = "warp"
    warp: WarpOptions = field(default_factory=WarpOptions)
    detail: DetailOptions | None = field(default_factory=DetailOptions)
    eyes: EyeOptions | None = field(default_factory=EyeOptions)


# Engines whose eyes are the target's own, catch-lights and all: the eye branch can only disturb them (docs/log.md).
KEEPS_EYES: Final = frozenset({"warp", "hybrid"})

# mobile: fastest; live: a film's frames as they come; film: the best there is
PRESETS: Final[Mapping[str, Preset]] = {
    "mobile": Preset(warp=WarpOptions(grid_px=160), detail=None),
    "live": Preset(engine="hybrid"),
    "film": Preset(engine="hybrid"),
}
DEFAULT_PRESET: Final = "film"
DEFAULT_SEAM: Final = SeamOptions()


def find_preset(name: str) -> Preset:
    """Row of PRESETS; UsageError `swap.unknown_preset`."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UsageError("swap.unknown_preset", f"no preset is called {name!r}", f"Use one of: {known}.")
    return PRESETS[name]


def require_engine(name: str) -> None:
    """UsageError `swap.unknown_engine` for a name that is no key of ENGINES."""
    if name not in ENGINES:
        known = ", ".join(sorted(ENGINES))
        raise UsageError("swap.unknown_engine", f"no engine is called {name!r}", f"Use one of: {known}.")


@dataclass(frozen=True, eq=False)
class Perception:
    """Finder, landmarks and recogniser, loaded once; `models` names their weights' sha256.

    find(rgb) → faces, largest first; locate(rgb, faces) → [478, 2] each; embed(rgb, faces) → [N, 512]
    """

    find: Callable[[UInt8Array], list[Face]]
    locate: Callable[[UInt8Array, Sequence[Face]], Sequence[FloatArray]]
    embed: Callable[[UInt8Array, Sequence[Face]], FloatArray]
    device: str = "cpu"
    models: Mapping[str, str] = field(default_factory=dict)

    def analyse(self, rgb: UInt8Array) -> list[Face]:
        """Every face of a picture uint8 [H, W, 3], landmarks and embedding filled, largest first.

        The five points become those of the landmarks: they are placed three to six times better than the finder's.
        """
        faces = self.find(rgb)
        if not faces:
            return []
        placed = [
            dataclasses.replace(face, landmarks_px=landmarks, points_px=five_points(landmarks))
            for face, landmarks in zip(faces, self.locate(rgb, faces), strict=True)
        ]
        embeddings = self.embed(rgb, placed)
        return [
            dataclasses.replace(face, embedding=embedding)
            for face, embedding in zip(placed, embeddings, strict=True)
        ]


def load_perception(device: str = "cpu") -> Perception:
    """The three networks that ship, on one device; WeightsError when a file is missing or altered."""
    from fusion import detect, identity, landmark, weights

    detector = detect.load_detector(device)
    landmarker = landmark.load_landmarker(device)
    recogniser = identity.load_identity(device)
    specs = (weights.DETECT, weights.LANDMARK, weights.IDENTITY, weights.FACE_SHAPE)
    return Perception(
        find=lambda rgb: detect.find_faces(rgb, detector),
        locate=lambda rgb, faces: landmark.find_landmarks_of_all(rgb, faces, landmarker),
        embed=lambda rgb, faces: identity.embed_faces(rgb, faces, recogniser),
        device=device,
        models={spec.name: spec.sha256 for spec in specs},
    )


def models_of(engine: str) -> dict[str, str]:
    """Networks that an engine adds to those of `load_perception`, name → sha256: each looks for covers."""
    from fusion.weights import HYBRID, OCCLUSION, STYLE

    own = [spec for spec in (HYBRID, STYLE) if spec.name == engine]
    return {spec.name: spec.sha256 for spec in (OCCLUSION, *own)}


def swap_faces(
    target_rgb: UInt8Array,
    assignments: Sequence[Assignment],
    engine: str | None = None,
    options: WarpOptions | None = None,
    *,
    preset: str = DEFAULT_PRESET,
    detail: bool = True,
    eyes: bool = True,
) -> UInt8Array:
    """The target uint8 [H, W, 3] with every assigned face replaced, one after the other; a new picture.

    `engine` and `options` override the preset's; without `detail` or `eyes` that branch is left out. Both faces of an
    assignment carry landmarks. UsageError `swap.unknown_engine`, `swap.unknown_preset`; FaceError
    `swap.no_landmarks`, `swap.face_twice` (one target face assigned twice) and those of the
    engine; WeightsError where an engine's network is not there.
    """
    _check_targets([target for _, _, target in assignments])
    require_engine(engine or find_preset(preset).engine)
    altered = np.array(target_rgb, np.uint8)
    for assignment in assignments:
        altered = swap_face(altered, assignment, engine, options, preset=preset, detail=detail, eyes=eyes).rgb
    return altered


def swap_face(
    target_rgb: UInt8Array,
    assignment: Assignment,
    engine: str | None = None,
    options: WarpOptions | None = None,
    *,
    preset: str = DEFAULT_PRESET,
    detail: bool = True,
    eyes: bool = True,
) -> WarpResult:
    """`swap_faces` of one face: the altered picture with the share and place of what was altered."""
    source_rgb, source, target = assignment
    chosen = find_preset(preset)
    engine, options = engine or chosen.engine, options or chosen.warp
    require_engine(engine)
    result = ENGINES[engine](
        target_rgb, _points(target), source_rgb, _points(source), options, identity=source.embedding
    )
    return finish(
        target_rgb,
        _points(target),
        result,
        chosen.detail if detail else None,
        chosen.eyes if eyes and not keeps_eyes(engine, options) else None,
    )


def finish(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    result: WarpResult,
    detail: DetailOptions | None,
    eyes: EyeOptions | None,
    seam: SeamOptions | None = DEFAULT_SEAM,
) -> WarpResult:
    """What every engine's result goes through: no colour step at the outline, the target's fine bands on its skin,
    the target's light in its eyes. None leaves a step out.
    """
    landmarks = target_landmarks if result.landmarks_px is None else result.landmarks_px
    rgb, clock = result.rgb, [time.perf_counter()]
    if seam is not None:
        rgb = close_seam(target_rgb, result, landmarks, seam)
    clock.append(time.perf_counter())
    if detail is not None:
        under = target_in_shape(target_rgb, result)
        own = band_energies(target_rgb, target_landmarks, judged_octaves(landmarks, detail))
        rgb = restore_detail(rgb, under, result.mask, result.roi_xyxy, landmarks, detail, amplitudes=own)
    clock.append(time.perf_counter())
    if eyes is not None:
        rgb = match_eyes(rgb, landmarks, target_rgb, target_landmarks, eyes).rgb
    clock.append(time.perf_counter())
    spent = {name: 1e3 * (clock[i + 1] - clock[i]) for i, name in enumerate(("seam", "detail", "eyes"))}
    return dataclasses.replace(result, rgb=rgb, timings_ms={**result.timings_ms, **spent})


def keeps_eyes(engine: str, options: WarpOptions) -> bool:
    """Whether an engine leaves the target's eyes in place, so that the eye branch is not run."""
    return engine in KEEPS_EYES and options.keep_eyes


def _points(face: Face) -> FloatArray:
    if face.landmarks_px is None:
        raise FaceError("swap.no_landmarks", "a face has no landmarks", "Find landmarks before swapping.")
    return face.landmarks_px


def _check_targets(targets: Sequence[Face]) -> None:
    centres = [tuple(np.round(face.box_xyxy, 1)) for face in targets]
    if len(set(centres)) < len(centres):
        raise FaceError(
            "swap.face_twice",
            "one face of the target is assigned to two sources",
            "Map each target face once.",
        )
