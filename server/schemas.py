"""What the API answers, as types; holds no logic. Records of consent are provenance.records' own."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _written_day(given: object) -> object:
    """pydantic would take a number for seconds since 1970, too."""
    if not isinstance(given, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        raise ValueError("a day is written as 2026-12-31")
    return given


LINE: Final = r"^[^\x00-\x1f\x7f]*$"
"""A line of text: no control signs, which no database takes for sure and no reader sees."""
FULL_LINE: Final = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
"""One that says something."""
Day = Annotated[date, BeforeValidator(_written_day)]


class Answer(BaseModel):
    """Base: closed, so that a field that is not stated here is an error."""

    model_config = ConfigDict(extra="forbid")


class Health(Answer):
    status: Literal["ok"]


class Readiness(Answer):
    ready: bool
    checks: dict[str, bool]


class Whoami(Answer):
    id: str
    roles: list[str]
    scopes: list[str]


class CheckAnswer(Answer):
    """One finished check; `report` is the JSON of `facsimile check`."""

    id: str
    created: str = Field(description="RFC 3339, UTC.")
    verdict: str
    report: dict[str, Any]


class CheckItem(Answer):
    id: str
    created: str
    verdict: str
    content_sha256: str


class CheckPage(Answer):
    items: list[CheckItem]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class ProblemSummary(Answer):
    """Why a job ended without a result."""

    code: str
    detail: str
    next: str
    rules: list[str]


class JobAnswer(Answer):
    """A job. `state` is one of queued, running, done, failed, refused, cancelled, dead."""

    id: str
    kind: str
    state: Literal["queued", "running", "done", "failed", "refused", "cancelled", "dead"]
    stage: str
    created: str
    updated: str
    attempts: int
    accepted_index: int | None = Field(description="Leaf of the ledger that records the acceptance.")
    result: dict[str, Any] | None
    error: ProblemSummary | None


class JobPage(Answer):
    items: list[JobAnswer]
    next: str | None


class JobEvent(Answer):
    """Data of one server-sent event; its id is `seq`, its name `event`."""

    seq: int
    event: str
    at: str
    data: dict[str, Any]


class SubjectAnswer(Answer):
    id: str
    erased: bool
    num_embeddings: int | None = None
    notes: list[str] = []
    ledger_index: int


class GrantAnswer(Answer):
    id: str
    subject_id: str
    ledger_index: int
    revoked: str | None
    terms: dict[str, Any] = Field(description="What was signed, read from the verified signature.")
    jws: str = Field(description="The signed grant (RFC 7515, compact).")
    text: str | None = Field(default=None, description="The sentences agreed to, at issue only.")


class GrantDraft(Answer):
    """What a person reads before they agree."""

    text: str
    text_sha256: str
    language: str


class GrantItem(Answer):
    id: str
    subject_id: str
    ledger_index: int
    revoked: str | None


class GrantPage(Answer):
    items: list[GrantItem]
    next: str | None


class Recorded(Answer):
    """What was done is a leaf of the ledger."""

    id: str
    ledger_index: int
    root: str


class LedgerEntry(Answer):
    index: int
    kind: str
    time: str
    body: dict[str, Any]
    leaf_sha256: str


class EntryPage(Answer):
    items: list[LedgerEntry]
    next: str | None


class CheckpointAnswer(Answer):
    """`checkpoint` is a C2SP signed note; keep it where this server's operator cannot change it."""

    checkpoint: str
    size: int
    root: str
    verifier_key: str


class ProofAnswer(Answer):
    """An RFC 6962 proof and the signed checkpoint it leads to; `hashes` in hex."""

    position: int
    size: int
    hashes: list[str]
    checkpoint: str
    leaf_sha256: str | None = None
    entry_base64: str | None = Field(default=None, description="The RFC 8785 bytes that are hashed.")
