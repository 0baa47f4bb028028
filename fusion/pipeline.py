"""The only writer of finished media: consent, swap, mark, encode, sign, record, release; knows no command line.

Nothing here can be switched off. A step that fails raises, and what was computed is dropped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from sqlalchemy.engine import Connection

from fusion.face import Face, FloatArray, UInt8Array
from fusion.files import make_folder
from fusion.media import LIMITS, Limits, encode_picture, format_of_output, read_picture, write_file_atomically
from fusion.request import FuseRequest, Look, SampleRequest, only_face, pair_up
from fusion.stopwatch import Stopwatch
from fusion.visible_label import draw_label
from provenance import __version__, claim, consent, signing, watermark, xmp
from provenance.consent import Decision
from provenance.container import c2pa_store, split_parts
from provenance.declarations import find_declaration
from provenance.errors import RefusedError
from provenance.hashes import content_sha256, perceptual_hash, sha256_hex
from provenance.home import Home
from provenance.ledger import Receipt
from provenance.manifests import record_output
from provenance.records import ConsentRequest, FaceClaim, FolderEvidence, ManifestEvidence, Role

if TYPE_CHECKING:
    from facesets.portraits import PortraitModel
    from fusion.strangers import Stranger, Strangers
    from fusion.swap import Engine, Perception

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sealed:
    """A released file and what was recorded of it.

    altered       bool [H, W], the pixels of a target that were changed before it was marked; else None
    landmarks_px  float32 [478, 2] of a drawn portrait; else None
    """

    path: Path
    asset_id: str
    content_sha256: str
    receipt: Receipt
    details: dict[str, Any] = field(default_factory=dict)
    altered: BoolArray | None = field(default=None, repr=False, compare=False)
    landmarks_px: FloatArray | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `facsimile fuse` and `sample`, see docs/cli.md."""
        return {
            "asset_id": self.asset_id,
            "output": str(self.path),
            "content_sha256": self.content_sha256,
            "ledger": {"index": self.receipt.index, "root": self.receipt.root},
            "marks": {"mark": True, "c2pa": True, "xmp": True},
            **self.details,
        }


class Release:
    """Where a finished picture goes: `keep` before it is recorded, `settle` with the record, `release` after it.

    This one is a file. The server's puts the bytes into its store and ends its job in the record's transaction.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.format = format_of_output(path)

    def keep(self, data: bytes) -> None:
        """Called with the signed bytes before they are recorded; nobody may see them yet."""

    def settle(self, sealed: Sealed, conn: Connection) -> None:
        """Called in the transaction that records the output: what is written here commits with it, or not."""

    def release(self, data: bytes) -> None:
        """Called when the record has been committed."""
        write_file_atomically(self.path, data)


@dataclass(frozen=True)
class Prepared:
    """A fusion that was looked at but not decided: its pictures, faces, and what consent is asked for."""

    request: FuseRequest
    engine: str
    question: ConsentRequest
    target: _Input
    sources: tuple[_Input, ...]
    target_faces: tuple[Face, ...]
    source_faces: tuple[Face, ...]
    pairs: tuple[tuple[int, int], ...]


def fuse(request: FuseRequest, home: Home, perception: Perception, output: Path) -> Sealed:
    """Fuse, seal, record and write one picture to `output`.

    ConsentError (logged) when any face is not covered, at the start or at release; FaceError, MediaError,
    SignatureError, StoreError, UsageError. Nothing is written then.
    """
    watch, release = Stopwatch(), Release(output)
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
        target = _Input.read(request.target, home, limits)
        sources = tuple(_Input.read(data, home, limits) for data in request.sources)
    with watch.stage("perceive"):
        target_faces = sorted(perception.analyse(target.rgb), key=lambda face: float(face.box_xyxy[0]))
        source_faces = [only_face(perception.analyse(source.rgb)) for source in sources]
        pairs = pair_up(request, len(sources), target_faces)
    used = sorted({source for source, _ in pairs})
    claims = [_claim("source", source_faces[i], sources[i]) for i in used]
    claims += [_claim("target", face, target) for face in target_faces]
    question = ConsentRequest.make(
        purpose=request.purpose,
        use=request.use,
        media="still",
        grantee=home.organisation,
        jurisdiction=home.jurisdiction,
        embedder_sha256=perception.models["identity"],
        num_source_faces=len(used),
        num_target_faces=len(target_faces),
        offered_grants=request.grant_ids,
        faces=tuple(claims),
    )
    faces = (tuple(target_faces), tuple(source_faces))
    return Prepared(request, engine, question, target, sources, *faces, tuple(pairs))


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
    from fusion.swap import models_of, swap_faces

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
    job = _Job(
        what="fusion",
        engine=prepared.engine,
        models={**perception.models, **models_of(prepared.engine)},
        decision=decision,
        accepted_index=accepted_index,
        purpose=request.purpose,
        inputs=(prepared.target, *(prepared.sources[i] for i in sorted({i for i, _ in prepared.pairs}))),
        label=request.label,
    )
    details: dict[str, Any] = {
        "engine": prepared.engine,
        "preset": request.preset,
        "faces": [{"source": i, "face": k} for i, k in prepared.pairs],
        "grants": list(decision.grant_ids),
    }
    sealed = _seal_and_release(swapped, job, home, _Output(release, watch, details))
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
    job = _Job(what="sample", engine="portraits", models=strangers.models, label=look.label)
    details = {"seed": nobody.seed, "number": nobody.index}
    sealed = _seal_and_release(portrait.rgb, job, home, _Output(release, watch, details))
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
        picture = _Input.read(data, home)
    if picture.evidence is None:
        raise RefusedError(
            "rework.not_nobody",
            "Only a picture that declares its people to be nobody, or lies in a declared folder, may be reworked.",
            "Declare the folder with `facsimile faceset declare`, or leave the picture out.",
        )
    with watch.stage("rework"):
        changed = change(picture.rgb)
    job = _Job("self_blend", "self_blend", models={}, purpose=purpose, inputs=(picture,))
    sealed = _seal_and_release(changed, job, home, _Output(release, watch, {}))
    return replace(sealed, altered=_changed(picture.rgb, changed))


def _changed(before: UInt8Array, after: UInt8Array) -> BoolArray:
    """Where two pictures differ, bool [H, W]; a pixel that stayed by chance among changed ones counts as changed."""
    apart = (before != after).any(axis=2).astype(np.uint8)
    return cv2.morphologyEx(apart, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0


def sheet(pictures: Sequence[bytes], home: Home, output: Path, *, columns: int, tile_px: int) -> Sealed:
    """Lay finished pictures of nobodies out in a grid, row by row, and seal that as an output of its own.

    Each must be an intact output of this home made solely of nobodies: RefusedError `sheet.not_ours` otherwise.
    """
    watch, release = Stopwatch(), Release(output)
    with watch.stage("read"):
        tiles = [_Input.read(data, home) for data in pictures]
    if not tiles or any(tile.evidence is None or tile.evidence.kind != "manifest" for tile in tiles):
        raise RefusedError(
            "sheet.not_ours",
            "A sheet holds outputs of this home that show nobody who exists, each with its manifest.",
            "Leave the other pictures out.",
        )
    with watch.stage("draw"):
        rgb = _grid([tile.rgb for tile in tiles], columns, tile_px)
    job = _Job(what="sheet", engine="sheet", models={}, purpose="contact sheet", inputs=tuple(tiles))
    return _seal_and_release(rgb, job, home, _Output(release, watch, {"pictures": len(tiles)}))


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
        inputs = [(_Input.read(source, home), _Input.read(target, home)) for source, target in files]
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
    job = _Job(what="sheet", engine="sheet", models={}, purpose="contact sheet", inputs=everything)
    return _seal_and_release(rgb, job, home, _Output(release, watch, {"pictures": len(tiles)}))


def _grid(pictures: list[UInt8Array], columns: int, tile_px: int) -> UInt8Array:
    """Pictures uint8 [H, W, 3] as squares in rows of `columns`; what is left of the last row stays white."""
    tiles = [cv2.resize(rgb, (tile_px, tile_px), interpolation=cv2.INTER_AREA) for rgb in pictures]
    tiles += [np.full((tile_px, tile_px, 3), 255, np.uint8)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


@dataclass(frozen=True)
class _Input:
    """A picture handed in: its bytes, its pixels, and what proves that its people are nobody's."""

    data: bytes
    rgb: UInt8Array
    mime: str
    evidence: ManifestEvidence | FolderEvidence | None

    @classmethod
    def read(cls, data: bytes, home: Home, limits: Limits = LIMITS) -> _Input:
        picture = read_picture(data, limits)
        mime = picture.format.mime
        return cls(data, picture.rgb, mime, _synthetic_evidence(data, mime, home))


@dataclass(frozen=True)
class _Job:
    """What sealing needs to know of how the pixels came to be; a fusion has a decision, a sample has none."""

    what: str
    engine: str
    models: dict[str, str]
    decision: Decision | None = None
    accepted_index: int | None = None
    purpose: str = "sample"
    inputs: tuple[_Input, ...] = ()
    label: bool = False


@dataclass(frozen=True)
class _Output:
    """Where and as what the picture is released, and what is told of it."""

    release: Release
    watch: Stopwatch
    details: dict[str, Any]


def _seal_and_release(rgb: UInt8Array, job: _Job, home: Home, output: _Output) -> Sealed:
    asset_id = secrets.token_bytes(8)
    watch, release = output.watch, output.release
    with watch.stage("mark"):
        shown = draw_label(rgb) if job.label else rgb
        marked = watermark.embed(shown, asset_id, home.keys.mark_key)
    with watch.stage("encode"):
        encoded = encode_picture(marked, release.format)
    with watch.stage("sign"):
        signed = _sign(encoded, release.format.mime, asset_id.hex(), job, home)
    with watch.stage("record"):
        entry = _entry(signed, marked, asset_id.hex(), job, home)
        sealed = _record(signed, entry, job, home, output)
    with watch.stage("release"):
        release.release(signed)
    return sealed


def _sign(encoded: bytes, mime: str, asset_id: str, job: _Job, home: Home) -> bytes:
    production = claim.Production(__version__, job.engine, datetime.now(UTC), job.models)
    manifest, source_type = _manifest(asset_id, mime, production, job, home)
    with_xmp = xmp.embed_xmp(encoded, mime, claim.xmp_packet(asset_id, source_type, home.organisation))
    return signing.sign(
        with_xmp, mime, manifest, home.keys, _ingredients(job), timestamp_url=home.timestamp_url
    )


def _manifest(
    asset_id: str, mime: str, production: claim.Production, job: _Job, home: Home
) -> tuple[claim.Manifest, str]:
    """The manifest for this kind of job, and the digital source type that it declares."""
    if job.decision is None:
        ground = claim.ConsentRecord(job.purpose, "any", "still", evidence=("portrait model: nobody",))
        if job.what == "sheet":
            num_pictures = len(job.inputs)
            manifest = claim.manifest_for_sheet(asset_id, mime, production, ground, num_pictures=num_pictures)
            return manifest, claim.SWAP_SOURCE_TYPE
        if job.what == "self_blend":
            shown = [f"{one.evidence.kind}: nobody" for one in job.inputs if one.evidence is not None]
            ground = claim.ConsentRecord(job.purpose, "any", "still", evidence=tuple(shown))
            manifest = claim.manifest_for_swap(asset_id, mime, production, ground, num_sources=0)
            return manifest, claim.SWAP_SOURCE_TYPE
        return claim.manifest_for_sample(asset_id, mime, production, ground), claim.SAMPLE_SOURCE_TYPE
    ground = claim.ConsentRecord(
        purpose=job.purpose,
        use=job.decision.request.use,
        media=job.decision.request.media,
        grants=consent.references(job.decision, asset_id, home),
        evidence=consent.evidence_labels(job.decision),
        ledger_index=job.accepted_index,
        rules_sha256=job.decision.rules_sha256,
    )
    num_sources = len(job.inputs) - 1
    manifest = claim.manifest_for_swap(asset_id, mime, production, ground, num_sources=num_sources)
    return manifest, claim.SWAP_SOURCE_TYPE


def _ingredients(job: _Job) -> list[claim.Ingredient]:
    """A target is the parent, its sources are components; all pictures of a sheet are components."""
    has_parent = job.what != "sheet"
    return [
        claim.Ingredient(item.data, item.mime, "parentOf" if has_parent and number == 0 else "componentOf")
        for number, item in enumerate(job.inputs)
    ]


def _entry(signed: bytes, marked: UInt8Array, asset_id: str, job: _Job, home: Home) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "kind": "output_recorded",
        "what": job.what,
        "asset_id": asset_id,
        "content_sha256": content_sha256(signed),
        "file_sha256": sha256_hex(signed),
        "perceptual_hash": perceptual_hash(marked),
        "label": job.label,
        "engine": job.engine,
        "models": job.models,
        "inputs": [perceptual_hash(item.rgb) for item in job.inputs],
        consent.NOBODIES_FIELD: job.decision is None or job.decision.all_synthetic,
    }
    if job.decision is not None:
        entry["grants"] = list(consent.references(job.decision, asset_id, home))
        entry["accepted_index"] = job.accepted_index
    return entry


def _record(signed: bytes, entry: dict[str, Any], job: _Job, home: Home, output: _Output) -> Sealed:
    store = c2pa_store(split_parts(signed))
    output.release.keep(signed)
    with _recording(job, home) as conn:
        receipt = record_output(home.ledger, entry, store, conn)
        details = {**output.details, "models": job.models, "timings_ms": output.watch.timings_ms}
        sealed = Sealed(output.release.path, entry["asset_id"], entry["content_sha256"], receipt, details)
        output.release.settle(sealed, conn)
    return sealed


@contextmanager
def _recording(job: _Job, home: Home) -> Iterator[Connection]:
    """The transaction of an output's record; consent is judged again in it, for a grant may be revoked by now."""
    if job.decision is None:
        with home.database.write() as conn:
            yield conn
        return
    with consent.accept(job.decision.request, home) as (decision, conn):
        if (decision.grant_ids, decision.all_synthetic) != (
            job.decision.grant_ids,
            job.decision.all_synthetic,
        ):
            raise RefusedError(
                "consent.changed",
                "The grants that cover this changed while it was made, so the manifest would name the wrong ones.",
                "Ask again.",
            )
        yield conn


def _synthetic_evidence(data: bytes, mime: str, home: Home) -> ManifestEvidence | FolderEvidence | None:
    """What says that the people of a file are nobody's: its manifest, or a folder declared by the operator."""
    content = content_sha256(data)
    declaration = find_declaration(home, content)
    if declaration is not None:
        return FolderEvidence.make(kind="folder", content_sha256=content, declaration_id=declaration)
    reading = signing.read_manifest(data, mime, home.keys.trust)
    if reading.state != "valid" or not _declares_nobodies(reading, content, home):
        return None
    return ManifestEvidence.make(
        kind="manifest",
        content_sha256=content,
        state=reading.state,
        ours=reading.ours,
        source_type=reading.source_type,
        asset_id=reading.asset_id,
    )


def _declares_nobodies(reading: signing.ManifestReading, content: str, home: Home) -> bool:
    if reading.source_type == claim.SAMPLE_SOURCE_TYPE:
        return True
    recorded = home.ledger.find_by_content_hash(content) if reading.ours else []
    return any(entry.body.get(consent.NOBODIES_FIELD) is True for entry in recorded)


def _claim(role: Role, face: Face, picture: _Input) -> FaceClaim:
    return FaceClaim.make(
        role=role, embedding=face.embedding, grant_id=None, synthetic_evidence=picture.evidence
    )
