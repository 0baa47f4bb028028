"""Subjects: people who may be asked for consent, their profile and face template, both encrypted.

Knows no pictures: embeddings are given by the caller. A template says "the same face or not" for one embedder,
one to one, and nothing else is ever asked of it. It cannot tell identical twins apart, and a picture morphed of
two people can match both.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance.database import subjects, templates
from provenance.errors import ConsentError, InputError, StoreError
from provenance.home import Home
from provenance.ledger import Receipt
from provenance.records import ADULT_METHODS, EMBEDDING_SIZE, AdultVerified, Embedder, Profile, PublicFigure
from provenance.sealing import commit, reference, seal, unseal, unwrap_key, wrap_key

RECOMMENDED_EMBEDDINGS = 3
UNIT_TOLERANCE = 1e-3
EARLIEST_ZONE = timedelta(hours=14)  # UTC+14: a date is a civil date, where it was written down

Embedding = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Enrolment:
    """What `enrol` returns."""

    subject_id: str
    num_embeddings: int
    receipt: Receipt
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A subject as stored; `profile` is None once erased."""

    id: str
    erased: bool
    enrolled_index: int
    profile: Profile | None = field(repr=False)


@dataclass(frozen=True)
class Template:
    """A subject's face for one embedder: float32 [512] of unit length, and the key that commits to it."""

    id: str
    embedder_sha256: str
    embedding: Embedding = field(repr=False)
    key: bytes = field(repr=False)

    def commitment(self, threshold: float) -> str:
        """HMAC over template, embedder and threshold, in hex; worthless once the subject's key is destroyed."""
        head = f"{self.id}|{self.embedder_sha256}|{float(threshold).hex()}|"
        return commit(head.encode() + _pack(self.embedding), self.key)


def enrol(home: Home, profile: Profile, embeddings: Sequence[Any], embedder: Embedder) -> Enrolment:
    """Store a subject with the mean of one or more embeddings of their face.

    InputError: no embedding, or one is not float [512], finite and of unit length, or they are not of one
    person. ConsentError: no proof of adulthood, or a public figure without evidence.
    """
    require_profile(profile, home.ledger.clock())
    embedding = mean_embedding(embeddings, embedder.threshold)
    subject_id, template_id = f"subject-{secrets.token_hex(8)}", f"template-{secrets.token_hex(8)}"
    key = secrets.token_bytes(32)
    record = {
        "subject_ref": reference(subject_id, home.keys.template_key),
        "embedder_sha256": embedder.sha256,
        "num_embeddings": len(embeddings),
        "adult_verified_by": profile.adult_verified.method,
        "public_figure": profile.public_figure.is_public_figure,
    }
    with home.database.write() as conn:
        receipt = home.ledger.append({"kind": "subject_enrolled", **record}, conn)
        sealed_profile = seal(profile.model_dump_json().encode(), key, _profile_place(subject_id))
        wrapped = wrap_key(key, home.keys.template_key)
        row = {
            "id": subject_id,
            "wrapped_key": wrapped,
            "profile": sealed_profile,
            "enrolled_index": receipt.index,
        }
        conn.execute(sa.insert(subjects), row)
        place = _template_place(subject_id, embedder.sha256, template_id)
        row = {"id": template_id, "subject_id": subject_id, "embedder_sha256": embedder.sha256}
        conn.execute(sa.insert(templates), row | {"sealed": seal(_pack(embedding), key, place)})
    few = len(embeddings) < RECOMMENDED_EMBEDDINGS
    note = f"{RECOMMENDED_EMBEDDINGS} or more pictures make a steadier template"
    return Enrolment(subject_id, len(embeddings), receipt, (note,) if few else ())


def erase(home: Home, subject_id: str) -> Receipt:
    """Destroy a subject's key, template and profile. The ledger keeps keyed references only, and stays intact.

    From this commit on no grant of theirs covers anything. A backup made earlier still holds the wrapped key:
    it has to be destroyed as well.
    """
    with home.database.write() as conn:
        row = _row(subject_id, conn)
        if row.erased_index is not None:
            raise InputError("subject.erased", f"{subject_id} was erased already.", "Nothing is left to do.")
        body = {"kind": "template_erased", "subject_ref": reference(subject_id, home.keys.template_key)}
        receipt = home.ledger.append(body, conn)
        gone = {"wrapped_key": None, "profile": None, "erased_index": receipt.index}
        conn.execute(sa.update(subjects).where(subjects.c.id == subject_id).values(gone))
        conn.execute(sa.delete(templates).where(templates.c.subject_id == subject_id))
    home.database.scrub()
    return receipt


def find_subject(home: Home, subject_id: str, conn: Connection | None = None) -> Subject:
    """One subject; InputError where there is none, StoreError where what is stored was altered."""
    if conn is None:
        with home.database.read() as reading:
            return find_subject(home, subject_id, reading)
    return _read_subject(home, _row(subject_id, conn))


def list_subjects(home: Home) -> list[Subject]:
    """Every subject, erased ones too, in the order of enrolment."""
    with home.database.read() as conn:
        rows = conn.execute(sa.select(subjects).order_by(subjects.c.enrolled_index)).all()
    return [_read_subject(home, row) for row in rows]


def find_template(home: Home, subject_id: str, embedder_sha256: str, conn: Connection) -> Template | None:
    """A subject's template for one embedder; None where there is none (any more)."""
    wrapped = conn.scalar(sa.select(subjects.c.wrapped_key).where(subjects.c.id == subject_id))
    of_subject = templates.c.subject_id == subject_id
    query = sa.select(templates).where(of_subject, templates.c.embedder_sha256 == embedder_sha256)
    row = conn.execute(query).one_or_none()
    if wrapped is None or row is None:
        return None
    key = unwrap_key(wrapped, home.keys.template_key)
    data = unseal(row.sealed, key, _template_place(subject_id, embedder_sha256, row.id))
    return Template(row.id, embedder_sha256, np.frombuffer(data, "<f4"), key)


def mean_embedding(embeddings: Sequence[Any], threshold: float) -> Embedding:
    """The unit mean of embeddings of one face, float32 [512]; each must match it at the threshold."""
    if not embeddings:
        raise InputError("subject.no_embedding", "A template needs at least one face.", "Give a picture.")
    if not all(is_embedding(each) for each in embeddings):
        raise InputError(
            "subject.embedding",
            f"An embedding is {EMBEDDING_SIZE} finite numbers of unit length.",
            "Embed the pictures again with the identity network.",
        )
    stack = np.stack([np.asarray(each, np.float32) for each in embeddings])
    mean = stack.mean(axis=0)
    mean = np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)
    if float((stack @ mean).min()) < threshold:
        raise InputError(
            "subject.embeddings_disagree",
            "The pictures do not show one and the same person.",
            "Leave out the pictures that show someone else.",
        )
    return mean


def is_embedding(value: object) -> bool:
    """Whether the value is a float vector [512], finite and of unit length."""
    if not isinstance(value, np.ndarray) or value.shape != (EMBEDDING_SIZE,) or value.dtype.kind != "f":
        return False
    return bool(np.isfinite(value).all()) and abs(float(np.linalg.norm(value)) - 1.0) <= UNIT_TOLERANCE


def is_adult(proof: AdultVerified, now: datetime) -> bool:
    """Whether adulthood was verified, by a method we accept, on a day that has begun somewhere on Earth."""
    return proof.method in ADULT_METHODS and proof.date <= (now + EARLIEST_ZONE).date()


def has_figure_evidence(figure: PublicFigure) -> bool:
    """Whether a public figure's consent is evidenced; true of everyone else."""
    return not figure.is_public_figure or bool(figure.evidence and figure.evidence.strip())


def require_profile(profile: Profile, now: datetime) -> None:
    """ConsentError where adulthood is not proven, or a public figure's evidence is missing; nobody may waive it."""
    failed = []
    if not is_adult(profile.adult_verified, now):
        failed.append("subject.adult_verified")
    if not has_figure_evidence(profile.public_figure):
        failed.append("subject.public_figure_evidence")
    if failed:
        raise ConsentError(
            "consent.subject",
            "The subject cannot be enrolled without proof.",
            f"Give --adult-verified one of {', '.join(ADULT_METHODS)}; for a public figure --evidence too.",
            tuple(failed),
        )


def _row(subject_id: str, conn: Connection) -> sa.Row[*tuple[Any, ...]]:
    row = conn.execute(sa.select(subjects).where(subjects.c.id == subject_id)).one_or_none()
    if row is None:
        raise InputError(
            "subject.unknown", f"There is no subject {subject_id}.", "See `facsimile grant list`."
        )
    return row


def _read_subject(home: Home, row: sa.Row[*tuple[Any, ...]]) -> Subject:
    if row.wrapped_key is None:
        return Subject(row.id, True, row.enrolled_index, None)
    if row.profile is None:
        raise StoreError("subject.damaged", f"The profile of {row.id} is missing.", "Restore the home.")
    key = unwrap_key(row.wrapped_key, home.keys.template_key)
    profile = Profile.model_validate_json(unseal(row.profile, key, _profile_place(row.id)))
    return Subject(row.id, False, row.enrolled_index, profile)


def _profile_place(subject_id: str) -> str:
    return json.dumps(["facsimile profile 1", subject_id])


def _template_place(subject_id: str, embedder_sha256: str, template_id: str) -> str:
    return json.dumps(["facsimile template 1", subject_id, embedder_sha256, template_id])


def _pack(embedding: Embedding) -> bytes:
    return embedding.astype("<f4").tobytes()
