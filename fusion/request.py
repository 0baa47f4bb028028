"""What is asked of the pipeline, and which source goes onto which face; computes no pixel and knows no policy."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.face import Face
from provenance.errors import FaceError, UsageError


@dataclass(frozen=True)
class FuseRequest:
    """What is asked of one fusion.

    sources    bytes of pictures that give identities, one face each
    target     bytes of the picture that is altered; empty where a video's path is handed over beside the request
    purpose    what it is made for; every grant must list it
    use        internal, publish or dataset
    grant_ids  grants of the people involved; faces that belong to nobody need none
    preset     key of fusion.swap.PRESETS
    engine     key of fusion.swap.ENGINES; None: the preset's
    detail     False leaves the detail branch out
    eyes       False leaves the eye branch out
    face       which face of the target: "largest", "all", or its number from the left (of a video: which person, in
               the order of their first frames)
    mapping    "SOURCE=FACE" pairs, both counted from 0; overrides `face`
    label      draw the visible label "AI生成 / AI GENERATED" into the result
    """

    sources: tuple[bytes, ...]
    target: bytes
    purpose: str
    use: str = "internal"
    grant_ids: tuple[str, ...] = ()
    preset: str = "film"
    engine: str | None = None
    detail: bool = True
    eyes: bool = True
    face: str = "largest"
    mapping: tuple[str, ...] = ()
    label: bool = False


@dataclass(frozen=True)
class SampleRequest:
    """How many people who don't exist, from which seed (None: random), at which side in pixels, labelled visibly?"""

    count: int
    seed: int | None
    size_px: int = 512
    label: bool = False


@dataclass(frozen=True)
class Look:
    """How a nobody is shown: keys of facesets.portraits' EXPRESSIONS and LIGHTS; yaw None: their own."""

    expression: str = "own"
    light: str = "own"
    yaw_deg: float | None = None
    size_px: int = 256
    label: bool = False

    @property
    def is_own(self) -> bool:
        """Whether nothing of the picture was asked to be another."""
        return (self.expression, self.light, self.yaw_deg) == ("own", "own", None)


def only_face(faces: list[Face]) -> Face:
    if len(faces) == 1:
        return faces[0]
    if not faces:
        raise FaceError(
            "source.no_face", "No face was found in a source.", "Use a picture that shows one face."
        )
    raise FaceError(
        "source.many_faces",
        f"A source shows {len(faces)} faces, and which one is meant is not known.",
        "Crop it to one person.",
    )


def pair_up(request: FuseRequest, num_sources: int, target_faces: list[Face]) -> list[tuple[int, int]]:
    """Which source goes onto which face of the target, faces counted from the left."""
    if not target_faces:
        raise FaceError(
            "target.no_face",
            "No face was found in the target.",
            "Use a picture that shows a face of 40 px or more.",
        )
    if request.mapping:
        return [_parse_pair(text, num_sources, len(target_faces)) for text in request.mapping]
    if num_sources != 1:
        raise UsageError(
            "fuse.map_needed",
            f"{num_sources} sources were given without saying whose face goes where.",
            "Give --map SOURCE=FACE for each, faces counted from the left.",
        )
    if request.face == "all":
        return [(0, k) for k in range(len(target_faces))]
    if request.face == "largest":
        areas = [face.area_px for face in target_faces]
        return [(0, areas.index(max(areas)))]
    return [_parse_pair(f"0={request.face}", num_sources, len(target_faces))]


def _parse_pair(text: str, num_sources: int, num_faces: int) -> tuple[int, int]:
    left, _, right = text.partition("=")
    if left.isdecimal() and right.isdecimal() and int(left) < num_sources and int(right) < num_faces:
        return int(left), int(right)
    raise UsageError(
        "fuse.map_unreadable",
        f"{text!r} names no pair of the {num_sources} source(s) and {num_faces} face(s).",
        "Write SOURCE=FACE, both counted from 0, faces from the left.",
    )
