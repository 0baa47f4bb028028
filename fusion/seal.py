"""Mark, encode, sign, record, release: the last steps of every finished picture, in this order; knows no engine.

Nothing here can be switched off. A step that fails raises, and what was computed is dropped.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.engine import Connection

from fusion.evidence import Input, VideoInput
from fusion.face import FloatArray, UInt8Array
from fusion.media import encode_picture, format_of_output, write_file_atomically
from fusion.stopwatch import Stopwatch
from fusion.visible_label import draw_label
from provenance import __version__, claim, consent, signing, watermark, xmp
from provenance.consent import Decision
from provenance.container import c2pa_store, split_parts
from provenance.errors import RefusedError
from provenance.hashes import content_sha256, perceptual_hash, sha256_hex
from provenance.home import Home
from provenance.ledger import Receipt
from provenance.manifests import record_output

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
class Job:
    """What sealing needs to know of how the pixels came to be; a fusion has a decision, a sample has none."""

    what: str
    engine: str
    models: dict[str, str]
    decision: Decision | None = None
    accepted_index: int | None = None
    purpose: str = "sample"
    inputs: tuple[Input | VideoInput, ...] = ()
    label: bool = False


@dataclass(frozen=True)
class Output:
    """Where and as what the picture is released, and what is told of it."""

    release: Release
    watch: Stopwatch
    details: dict[str, Any]


def seal_and_release(rgb: UInt8Array, job: Job, home: Home, output: Output) -> Sealed:
    """Seal a picture uint8 [H, W, 3], record and release it; SignatureError, StoreError, ConsentError, RefusedError."""
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


def _sign(encoded: bytes, mime: str, asset_id: str, job: Job, home: Home) -> bytes:
    manifest, source_type = manifest_of(asset_id, mime, job, home)
    with_xmp = xmp.embed_xmp(encoded, mime, claim.xmp_packet(asset_id, source_type, home.organisation))
    return signing.sign(
        with_xmp, mime, manifest, home.keys, ingredients_of(job), timestamp_url=home.timestamp_url
    )


def manifest_of(asset_id: str, mime: str, job: Job, home: Home) -> tuple[claim.Manifest, str]:
    """The manifest for this kind of job, and the digital source type that it declares."""
    production = claim.Production(__version__, job.engine, datetime.now(UTC), job.models)
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


def ingredients_of(job: Job) -> list[claim.Ingredient]:
    """A target is the parent, its sources are components; all pictures of a sheet are components."""
    has_parent = job.what != "sheet"
    return [
        claim.Ingredient(item.data, item.mime, "parentOf" if has_parent and number == 0 else "componentOf")
        for number, item in enumerate(job.inputs)
    ]


def _entry(signed: bytes, marked: UInt8Array, asset_id: str, job: Job, home: Home) -> dict[str, Any]:
    hashes = {
        "content_sha256": content_sha256(signed),
        "file_sha256": sha256_hex(signed),
        "perceptual_hash": perceptual_hash(marked),
    }
    return entry_of(asset_id, hashes, job, home)


def entry_of(asset_id: str, hashes: Mapping[str, Any], job: Job, home: Home) -> dict[str, Any]:
    """What the ledger keeps of an output."""
    entry: dict[str, Any] = {
        "kind": "output_recorded",
        "what": job.what,
        "asset_id": asset_id,
        **hashes,
        "label": job.label,
        "engine": job.engine,
        "models": job.models,
        "inputs": [item.perceptual_hash for item in job.inputs],
        consent.NOBODIES_FIELD: job.decision is None or job.decision.all_synthetic,
    }
    if job.decision is not None:
        entry["grants"] = list(consent.references(job.decision, asset_id, home))
        entry["accepted_index"] = job.accepted_index
    return entry


def _record(signed: bytes, entry: dict[str, Any], job: Job, home: Home, output: Output) -> Sealed:
    store = c2pa_store(split_parts(signed))
    output.release.keep(signed)
    with recording(job, home) as conn:
        receipt = record_output(home.ledger, entry, store, conn)
        details = {**output.details, "models": job.models, "timings_ms": output.watch.timings_ms}
        sealed = Sealed(output.release.path, entry["asset_id"], entry["content_sha256"], receipt, details)
        output.release.settle(sealed, conn)
    return sealed


@contextmanager
def recording(job: Job, home: Home) -> Iterator[Connection]:
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
