"""The rules of consent as a table: facts in, True or a failed rule out; reads no database and no clock.

A rule holds only if its test returns exactly True: an exception, None, 1 or a numpy value fail it. A face that
takes part needs a ground on which every rule holds. There is no rule, role or switch that sets another aside.
The ids are stable and documented; with any change RULES_VERSION goes up and `ruleset_sha256` differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from provenance.claim import SAMPLE_SOURCE_TYPE, SWAP_SOURCE_TYPE
from provenance.records import WORLD, ConsentRequest, FaceClaim, Grant, ManifestEvidence
from provenance.subjects import Template, has_figure_evidence, is_adult, is_embedding

RULES_VERSION = 1
CLOCK_TOLERANCE = timedelta(minutes=5)
EU_MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
HASHED_FILES = ("rules.py", "consent.py", "records.py", "subjects.py", "grants.py", "declarations.py")


@dataclass(frozen=True)
class RequestFacts:
    """A request, the time, and the time of the ledger's last entry."""

    request: ConsentRequest
    now: datetime
    last_entry: datetime


@dataclass(frozen=True)
class GrantFacts:
    """One face and one grant that is to cover it. `grant` is None where it is unknown or not signed by us."""

    request: ConsentRequest
    claim: FaceClaim
    now: datetime
    deployment: str
    known: bool
    grant: Grant | None
    stored_as: tuple[str, str]  # id and subject of the row
    recorded: bool  # the ledger holds the issue of exactly this text
    revoked: bool
    erased: bool
    template: Template | None

    @property
    def signed(self) -> Grant:
        """The grant; an exception, hence a failed rule, where there is none."""
        if self.grant is None:
            raise ValueError("no grant")
        return self.grant

    @property
    def enrolled(self) -> Template:
        """The template; an exception, hence a failed rule, where there is none."""
        if self.template is None:
            raise ValueError("no template")
        return self.template

    @property
    def cosine(self) -> float:
        """Likeness of the face and the template, in [-1, 1]."""
        if not is_embedding(self.claim.embedding):
            raise ValueError("no embedding")
        return float(np.asarray(self.claim.embedding, np.float32) @ self.enrolled.embedding)


@dataclass(frozen=True)
class EvidenceFacts:
    """One face whose file is said to show nobody who exists, and what the ledger knows of that."""

    claim: FaceClaim
    declared: bool  # a recorded declaration covers the file
    made_of_nobodies: bool  # our ledger recorded the file as made solely of such faces


F = TypeVar("F")


@dataclass(frozen=True)
class Rule(Generic[F]):
    """One rule: its stable id, what it says to people, its test."""

    id: str
    says: str
    test: Callable[[F], object]


def failures(rules: Sequence[Rule[F]], facts: F) -> tuple[str, ...]:
    """The ids of the rules that do not hold, in the order of the table."""
    return tuple(rule.id for rule in rules if not _holds(rule, facts))


def _holds(rule: Rule[F], facts: F) -> bool:
    try:
        return rule.test(facts) is True
    except Exception:  # whatever it is, the rule does not hold
        return False


def _covers(granted: tuple[str, ...], asked: str) -> bool:
    in_union = "EU" in granted and asked in EU_MEMBERS.split()
    return WORLD in granted or asked in granted or in_union


def _claims(facts: RequestFacts, role: str) -> int:
    return sum(claim.role == role for claim in facts.request.faces)


def _declares_synthesis(facts: EvidenceFacts) -> bool:
    evidence = facts.claim.synthetic_evidence
    if not isinstance(evidence, ManifestEvidence):
        return False
    ours = (
        evidence.ours is True and evidence.source_type == SWAP_SOURCE_TYPE and facts.made_of_nobodies is True
    )
    return evidence.source_type == SAMPLE_SOURCE_TYPE or ours


REQUEST_RULES: tuple[Rule[RequestFacts], ...] = (
    Rule(
        "clock.not_set_back",
        "The clock is not behind the ledger's last entry (else an expired grant would live again).",
        lambda f: f.now >= f.last_entry - CLOCK_TOLERANCE,
    ),
    Rule(
        "source.accounted",
        "There is a source face, and each that was found has its claim.",
        lambda f: _claims(f, "source") == f.request.num_source_faces >= 1,
    ),
    Rule(
        "target.accounted",
        "There is a target face, and each that was found has its claim, also those that stay as they are.",
        lambda f: _claims(f, "target") == f.request.num_target_faces >= 1,
    ),
)

# Without a grant of ours that can be read, nothing else can be said about it.
IDENTITY_RULES: tuple[Rule[GrantFacts], ...] = (
    Rule("grant.known", "The grant is one of this home.", lambda f: f.known),
    Rule("grant.signature", "Our grant key signed it.", lambda f: f.grant is not None),
)

GRANT_RULES: tuple[Rule[GrantFacts], ...] = (
    Rule(
        "grant.identity",
        "The signed text is that of this grant and this subject.",
        lambda f: f.stored_as == (f.signed.jti, f.signed.sub),
    ),
    Rule("grant.recorded", "The ledger recorded the issue of exactly this text.", lambda f: f.recorded),
    Rule(
        "grant.audience",
        "It was issued by this deployment for this deployment.",
        lambda f: f.signed.iss == f.signed.aud == f.deployment,
    ),
    Rule("grant.grantee", "It was given to who asks.", lambda f: f.signed.grantee == f.request.grantee),
    Rule("grant.not_before", "It has begun.", lambda f: f.signed.nbf <= f.now.timestamp()),
    Rule("grant.expired", "It has not ended.", lambda f: f.now.timestamp() < f.signed.exp),
    Rule("grant.revoked", "It was not revoked.", lambda f: not f.revoked),
    Rule("grant.purpose", "It names the purpose.", lambda f: f.request.purpose in f.signed.purposes),
    Rule("grant.use", "It names the use.", lambda f: f.request.use in f.signed.uses),
    Rule("grant.scope_role", "It names the face's role.", lambda f: f.claim.role in f.signed.scope_roles),
    Rule("grant.scope_media", "It names the medium.", lambda f: f.request.media in f.signed.scope_media),
    Rule(
        "grant.jurisdiction",
        "It covers where the result will be used.",
        lambda f: _covers(f.signed.jurisdictions, f.request.jurisdiction),
    ),
    Rule(
        "subject.adult_verified",
        "The person is proven to be an adult.",
        lambda f: is_adult(f.signed.adult_verified, f.now),
    ),
    Rule(
        "subject.public_figure_evidence",
        "A public figure's consent is evidenced.",
        lambda f: has_figure_evidence(f.signed.public_figure),
    ),
    Rule(
        "template.erased",
        "The subject's face template still exists.",
        lambda f: not f.erased and f.template is not None,
    ),
    Rule(
        "template.commitment",
        "It is the template that the grant was given for.",
        lambda f: f.enrolled.commitment(f.signed.threshold) == f.signed.template_commitment,
    ),
    Rule(
        "embedder.hash",
        "Face and template were embedded by the same network.",
        lambda f: f.request.embedder_sha256 == f.signed.embedder_sha256 == f.enrolled.embedder_sha256,
    ),
    Rule(
        "face.embedding",
        "The face has an embedding: 512 finite numbers of unit length.",
        lambda f: is_embedding(f.claim.embedding),
    ),
    Rule("face.match", "The face is the subject's.", lambda f: f.cosine >= f.signed.threshold),
)

MANIFEST_RULES: tuple[Rule[EvidenceFacts], ...] = (
    Rule(
        "evidence.manifest_trusted",
        "The file's manifest is intact and of a trusted issuer.",
        lambda f: (
            isinstance(f.claim.synthetic_evidence, ManifestEvidence)
            and f.claim.synthetic_evidence.state == "valid"
        ),
    ),
    Rule(
        "evidence.declares_synthesis",
        "It declares full synthesis, or is our own composite made solely of such faces.",
        _declares_synthesis,
    ),
    Rule(
        "face.embedding",
        "The face has an embedding: 512 finite numbers of unit length.",
        lambda f: is_embedding(f.claim.embedding),
    ),
)

FOLDER_RULES: tuple[Rule[EvidenceFacts], ...] = (
    Rule("evidence.declared", "A recorded declaration covers exactly this file.", lambda f: f.declared),
    Rule(
        "face.embedding",
        "The face has an embedding: 512 finite numbers of unit length.",
        lambda f: is_embedding(f.claim.embedding),
    ),
)

FACE_ACCOUNTED = "face.accounted"
OTHER_RULES = {FACE_ACCOUNTED: "The face has a ground: a grant that was offered, or evidence of synthesis."}


@cache
def ruleset_sha256() -> str:
    """Names this rule set: SHA-256, hex, over the files that gather and judge the facts; in every decision."""
    sources = (Path(__file__).with_name(name).read_bytes() for name in HASHED_FILES)
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in sources)).hexdigest()


def statements() -> dict[str, str]:
    """Every rule id and what it says."""
    tables = (REQUEST_RULES, IDENTITY_RULES, GRANT_RULES, MANIFEST_RULES, FOLDER_RULES)
    return {rule.id: rule.says for table in tables for rule in table} | OTHER_RULES
