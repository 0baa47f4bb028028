"""The only writer of finished media: consent, swap, mark, encode, sign, record, release; knows no command line.

The last five steps are fusion/seal.py's, and nothing but this file calls them. Nothing here can be switched off. A step
that fails raises, and what was computed is dropped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from sqlalchemy.engine import Connection

from fusion.evidence import Input, VideoInput
from fusion.face import Face, FloatArray, UInt8Array
from fusion.files import make_folder
from fusion.media import LIMITS, Limits
from fusion.request import FuseRequest, Look, SampleRequest, only_face, pair_up
from fusion.seal import BoolArray, Job, Output, Release, Sealed, seal_and_release
from fusion.stopwatch import Stopwatch
from provenance import consent
from provenance.consent import Decision
from provenance.errors import RefusedError
from provenance.home import Home
from provenance.ledger import Receipt
from provenance.records import ConsentRequest, FaceClaim, Role

if TYPE_CHECKING:
    from facesets.portraits import PortraitModel
    from fusion.strangers import Stranger, Strangers
    from fusion.swap import Engine, Perception


@dataclass(frozen=True, eq=False)
class Asked:
    """A fusion that was looked at but not decided: what was handed in, who goes where, what consent is asked for.

    pairs: which source's face goes onto which face of the target
    """

    request: FuseRequest
    engine: str
    question: ConsentRequest
    target: Input | VideoInput
    sources: tuple[Input, ...]
    source_faces: tuple[Face, ...]
    pairs: tuple[tuple[int, int], ...]

    def job(self, decision: Decision, accepted_index: int, perception: Perception) -> Job:
        """What sealing needs to know of it, once it is decided."""
        from fusion.swap import models_of

        return Job(
            what="fusion",
            engine=self.engine,
            models={**perception.models, **models_of(self.engine)},
            decision=decision,
            accepted_index=accepted_index,
            purpose=self.request.purpose,
            inputs=(self.target, *(self.sources[i] for i in sorted({i for i, _ in self.pairs}))),
            label=self.request.label,
        )

    def details(self, decision: Decision) -> dict[str, Any]:
        """What is told of it with the output."""
        return {
            "engine": self.engine,
            "preset": self.request.preset,
            "faces": [{"source": i, "face": k} for i, k in self.pairs],
            "grants": list(decision.grant_ids),
        }


@dataclass(frozen=True, eq=False)
class Prepared(Asked):
    """A fusion of pictures, with the faces of its target."""

    target: Input
    target_faces: tuple[Face, ...]


def fuse(
    request: FuseRequest, home: Home, perception: Perception, output: Path, watch: Stopwatch | None = None
) -> Sealed:
    """Fuse, seal, record and write one picture to `output`.

    ConsentError (logged) when any face is not covered, at the start or at release; FaceError, MediaError,
    SignatureError, StoreError, UsageError. Nothing is written then.
    """
    watch, release = watch or Stopwatch(), Release(output)
    prepared = prepare(request, home, perception, watch)
    with watch.stage("consent"), consent.accept(prepared.question, home) as (decision, conn):
        accepted = record_acceptance(decision, home, conn)
    return complete(prepared, decision, accepted.index, home, perception, release, watch)


def prepare(
    request: FuseRequest, home: Home, perception: Perception, watch: Stopwatch, limits: Limits = LIMITS
) -> Prepared:
    """Read the pictures, find the faces, pair them up and put the question; decides and records nothing."""
    from fusion.swap import find_preset, require_engine

    preset = find_preset(request.preset)
    engine = request.engine or preset.engine
    require_engine(engine)
    with watch.stage("read"):
        target = Input.read(request.target, home, limits)
        sources = tuple(Input.read(data, home, limits) for data in request.sources)
    with watch.stage("perceive"):
        target_faces = sorted(perception.analyse(target.rgb), key=lambda face: float(face.box_xyxy[0]))
        source_faces = [only_face(perception.analyse(source.rgb)) for source in sources]
        pairs = pair_up(request, len(sources), target_faces)
    given = [(source_faces[i], sources[i]) for i in sorted({source for source, _ in pairs})]
    question = question_of(request, home, perception, "still", given, (target_faces, target))
    return Prepared(
        request=request,
        engine=engine,
        question=question,
        target=target,
        sources=sources,
        source_faces=tuple(source_faces),
        pairs=tuple(pairs),
        target_faces=tuple(target_faces),
    )


def record_acceptance(decision: Decision, home: Home, conn: Connection) -> Receipt:
    """Record that a fusion was accepted, in the decision's own transaction."""
    return home.ledger.append({"kind": "job_accepted", **decision.record}, conn)


def complete(
    prepared: Prepared,
    decision: Decision,
    accepted_index: int,
    home: Home,
    perception: Perception,
    release: Release,
    watch: Stopwatch,
) -> Sealed:
    """Make what was decided: swap, mark, encode, sign, record, release."""
    from fusion.swap import swap_faces

    request, faces = prepared.request, prepared.target_faces
    with watch.stage("swap"):
        assignments = [
            (prepared.sources[i].rgb, prepared.source_faces[i], faces[k]) for i, k in prepared.pairs
        ]
        swapped = swap_faces(
            prepared.target.rgb,
            assignments,
            engine=prepared.engine,
            preset=request.preset,
            detail=request.detail,
            eyes=request.eyes,
        )
    job = prepared.job(decision, accepted_index, perception)
    sealed = seal_and_release(swapped, job, home, Output(release, watch, prepared.details(decision)))
    return replace(sealed, altered=_changed(prepared.target.rgb, swapped))


def sample(
    request: SampleRequest, home: Home, folder: Path, model: PortraitModel | None = None
) -> list[Sealed]:
    """Draw people who don't exist and write them, sealed as wholly synthetic, as PNG files into `folder`.

    Who resembles a person of the portrait model's training set is drawn again.
    """
    from facesets.portraits import PortraitModel
    from fusion.strangers import Strangers

    model = model or PortraitModel.load()
    strangers = Strangers(model)
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    make_folder(folder)
    sealed = []
    for number in range(request.count):
        watch = Stopwatch()
        with watch.stage("choose"):
            stranger = strangers.choose(seed, number, request.size_px)
        release = Release(folder / f"nobody_{seed}_{number:04d}.png")
        look = Look(size_px=request.size_px, label=request.label)
        sealed.append(portray(strangers, stranger, look, home, release, watch))
    return sealed


def portray(
    strangers: Strangers, stranger: Stranger, look: Look, home: Home, release: Release, watch: Stopwatch
) -> Sealed:
    """Draw one picture of somebody whom `strangers` chose, and seal it as wholly synthetic; FacesetError."""
    nobody = stranger.nobody
    with watch.stage("draw"):
        portrait = strangers.picture(stranger, look)
    job = Job(what="sample", engine="portraits", models=strangers.models, label=look.label)
    details = {"seed": nobody.seed, "number": nobody.index}
    sealed = seal_and_release(portrait.rgb, job, home, Output(release, watch, details))
    return replace(sealed, landmarks_px=portrait.landmarks_px)


def rework(
    data: bytes,
    change: Callable[[UInt8Array], UInt8Array],
    home: Home,
    release: Release,
    purpose: str,
) -> Sealed:
    """Change a picture uint8 [H, W, 3] of nobodies by code and seal the result, with the picture as its parent.

    Every face must be a nobody's, by the picture's manifest or its declared folder: RefusedError
    `rework.not_nobody` otherwise.
    """
    watch = Stopwatch()
    with watch.stage("read"):
        picture = Input.read(data, home)
    if picture.evidence is None:
        raise RefusedError(
            "rework.not_nobody",
            "Only a picture that declares its people to be nobody, or lies in a declared folder, may be reworked.",
            "Declare the folder with `facsimile faceset declare`, or leave the picture out.",
        )
    with watch.stage("rework"):
        changed = change(picture.rgb)
    job = Job("self_blend", "self_blend", models={}, purpose=purpose, inputs=(picture,))
    sealed = seal_and_release(changed, job, home, Output(release, watch, {}))
    return replace(sealed, altered=_changed(picture.rgb, changed))


def _changed(before: UInt8Array, after: UInt8Array) -> BoolArray:
    """Where two pictures differ, bool [H, W]; a pixel that stayed by chance among changed ones counts as changed."""
    apart = before != after  # any(axis=2) takes seven times as long
    either = (apart[..., 0] | apart[..., 1] | apart[..., 2]).view(np.uint8)
    return cv2.morphologyEx(either, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0


def sheet(
    pictures: Sequence[bytes],
    home: Home,
    output: Path,
    *,
    columns: int,
    tile_px: int,
    paint: Callable[[int, UInt8Array], UInt8Array] | None = None,
) -> Sealed:
    """Lay finished pictures of nobodies out in a grid, row by row, and seal that as an output of its own.

    `paint` draws over the picture of a number, uint8 [H, W, 3], before it is laid out. Each must be an intact output of
    this home made solely of nobodies: RefusedError `sheet.not_ours` otherwise.
    """
    watch, release = Stopwatch(), Release(output)
    with watch.stage("read"):
        tiles = [Input.read(data, home) for data in pictures]
    if not tiles or any(tile.evidence is None or tile.evidence.kind != "manifest" for tile in tiles):
        raise RefusedError(
            "sheet.not_ours",
            "A sheet holds outputs of this home that show nobody who exists, each with its manifest.",
            "Leave the other pictures out.",
        )
    with watch.stage("draw"):
        shown = [tile.rgb if paint is None else paint(number, tile.rgb) for number, tile in enumerate(tiles)]
        rgb = _grid(shown, columns, tile_px)
    job = Job(what="sheet", engine="sheet", models={}, purpose="contact sheet", inputs=tuple(tiles))
    return seal_and_release(rgb, job, home, Output(release, watch, {"pictures": len(tiles)}))


def bench_sheet(
    files: Sequence[tuple[bytes, bytes]],
    landmarks: Sequence[tuple[FloatArray, FloatArray]],
    engines: Mapping[str, Engine],
    home: Home,
    output: Path,
    *,
    tile_px: int = 256,
) -> Sealed:
    """Pairs (source, target) and what each engine makes of them, a row a pair, sealed as one output.

    landmarks [478, 2] of both pictures of a pair. Every picture must be a nobody's, by its manifest or its declared
    folder: RefusedError `sheet.not_ours` otherwise.
    """
    watch, release = Stopwatch(), Release(output)
    with watch.stage("read"):
        inputs = [(Input.read(source, home), Input.read(target, home)) for source, target in files]
    if not inputs or any(one.evidence is None for pair in inputs for one in pair):
        raise RefusedError(
            "sheet.not_ours",
            "A sheet shows only people who don't exist, and a picture here neither says so nor is declared so.",
            "Declare the folder with `facsimile faceset declare`.",
        )
    tiles: list[UInt8Array] = []
    with watch.stage("swap"):
        for (source, target), (source_points, target_points) in zip(inputs, landmarks, strict=True):
            made = [
                engine(target.rgb, target_points, source.rgb, source_points).rgb
                for engine in engines.values()
            ]
            tiles += [source.rgb, target.rgb, *made]
    rgb = _grid(tiles, 2 + len(engines), tile_px)
    everything = tuple({one.data: one for pair in inputs for one in pair}.values())
    job = Job(what="sheet", engine="sheet", models={}, purpose="contact sheet", inputs=everything)
    return seal_and_release(rgb, job, home, Output(release, watch, {"pictures": len(tiles)}))


def _grid(pictures: list[UInt8Array], columns: int, tile_px: int) -> UInt8Array:
    """Pictures uint8 [H, W, 3] as squares in rows of `columns`; what is left of the last row stays white."""
    tiles = [cv2.resize(rgb, (tile_px, tile_px), interpolation=cv2.INTER_AREA) for rgb in pictures]
    tiles += [np.full((tile_px, tile_px, 3), 255, np.uint8)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


def question_of(
    request: FuseRequest,
    home: Home,
    perception: Perception,
    media: Literal["still", "video"],
    given: Sequence[tuple[Face, Input]],
    shown: tuple[Sequence[Face], Input | VideoInput],
) -> ConsentRequest:
    """What consent is asked for: the sources' faces with their pictures, and every face that the target shows."""
    faces, target = shown
    claims = [claim_of("source", face, picture) for face, picture in given]
    claims += [claim_of("target", face, target) for face in faces]
    return ConsentRequest.make(
        purpose=request.purpose,
        use=request.use,
        media=media,
        grantee=home.organisation,
        jurisdiction=home.jurisdiction,
        embedder_sha256=perception.models["identity"],
        num_source_faces=len(given),
        num_target_faces=len(faces),
        offered_grants=request.grant_ids,
        faces=tuple(claims),
    )


def claim_of(role: Role, face: Face, picture: Input | VideoInput) -> FaceClaim:
    """What is said of one face to consent; nothing of it is believed there."""
    return FaceClaim.make(
        role=role, embedding=face.embedding, grant_id=None, synthetic_evidence=picture.evidence
    )
