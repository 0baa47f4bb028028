"""Grants: signed permissions of enrolled people, issued, read and withdrawn; judges no request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from provenance import grants
from provenance.grants import StoredGrant
from provenance.notices import consent_text
from provenance.receipts import write_receipt
from provenance.records import Embedder, GrantTerms
from server.gate import Caller, GatedRoute, Serving, declare
from server.idempotency import Attempt, IdempotencyKey, attempt, fingerprint
from server.ids import GrantId
from server.paging import Cursor, Limit, cursor_of, read_cursor
from server.routes.checks import attachment
from server.routes.subjects import embedder
from server.schemas import FULL_LINE, Day, GrantAnswer, GrantDraft, GrantItem, GrantPage, Recorded
from server.service import Service

router = APIRouter(prefix="/v1/grants", tags=["consent"], route_class=GatedRoute)

_Token = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]


class GrantOrder(BaseModel):
    """What a person agrees to. The text they read is in the answer; `not_before` is now."""

    model_config = ConfigDict(extra="forbid")

    subject_id: str = Field(pattern=r"^subject-[0-9a-f]{16}$")
    grantee: str = Field(min_length=1, max_length=1000, pattern=FULL_LINE)
    purposes: list[_Token] = Field(min_length=1, max_length=50)
    scope_roles: list[Literal["source", "target"]] = Field(min_length=1, max_length=2)
    scope_media: list[Literal["still", "video"]] = Field(min_length=1, max_length=2)
    uses: list[Literal["internal", "publish", "dataset"]] = Field(min_length=1, max_length=3)
    until: Day = Field(description="Last day, UTC.")
    jurisdictions: list[Annotated[str, Field(pattern=r"^([A-Z]{2}|WORLD)$")]] = Field(
        default=["WORLD"], min_length=1, max_length=50
    )
    evidence: str = Field(
        min_length=1, max_length=1000, pattern=FULL_LINE, description="Where the consent is kept."
    )
    language: Literal["en", "zh"] = Field(default="en", description="Of the text that the person reads.")

    def terms(self, embedder: Embedder) -> tuple[GrantTerms, str]:
        """The terms as they are signed, and the text that they stand for."""
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in self}
        fields: dict[str, Any] = {
            **{name: value for name, value in given.items() if name not in ("until", "language")},
            "not_before": datetime.now(UTC),
            "expires": datetime.combine(self.until, datetime.max.time(), UTC).replace(microsecond=0),
            "embedder": embedder,
            "consent_text_language": self.language,
        }
        text = consent_text(GrantTerms.make(consent_text_sha256="0" * 64, **fields))
        return GrantTerms.make(consent_text_sha256=text.sha256, **fields), text.text


class Withdrawal(BaseModel):
    """Why; kept in this database only, the ledger records the fact."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=1000, pattern=FULL_LINE)


@router.post(
    "",
    operation_id="issueGrant",
    status_code=201,
    response_model=GrantAnswer,
    **declare("grants:write", 404, 409, 422, max_bytes=1 << 18),
)
async def issue_grant(
    order: GrantOrder, service: Serving, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Issue a signed grant of an enrolled person."""
    print_ = fingerprint("issueGrant", order.model_dump(mode="json"))
    async with attempt(service.home.database, caller.id, idempotency_key, print_) as tried:
        if tried.replayed is not None:
            return tried.replayed
        return await run_in_threadpool(_issue, order, tried, service)


def _issue(order: GrantOrder, tried: Attempt, service: Service) -> Response:
    terms, text = order.terms(embedder())
    stored = grants.issue(service.home, terms)
    return tried.answer(201, _answer(stored, service, text), f"/v1/grants/{stored.id}")


@router.post(
    "/drafts",
    operation_id="draftGrant",
    response_model=GrantDraft,
    **declare("grants:write", 422, max_bytes=1 << 18),
)
def draft_grant(order: GrantOrder, service: Serving, caller: Caller) -> GrantDraft:
    """The text that a person is to read before they agree; issues nothing. 422 for what could not be issued now."""
    terms, text = order.terms(embedder())
    grants.require_span(terms, service.home.ledger.clock())
    return GrantDraft(text=text, text_sha256=terms.consent_text_sha256, language=order.language)


@router.get("", operation_id="listGrants", response_model=GrantPage, **declare("grants:read", 422))
def list_grants(service: Serving, caller: Caller, limit: Limit = 50, cursor: Cursor = None) -> GrantPage:
    """Every grant, in the order of issue."""
    after = read_cursor(cursor)
    found = [
        each for each in grants.list_grants(service.home) if after is None or each.issued_index > after[0]
    ]
    shown = found[:limit]
    items = [
        GrantItem(
            id=each.id, subject_id=each.subject_id, ledger_index=each.issued_index, revoked=each.revoked_at
        )
        for each in shown
    ]
    more = len(found) > limit
    return GrantPage(
        items=items, next=cursor_of(float(shown[-1].issued_index), shown[-1].id) if more else None
    )


@router.get(
    "/{grant_id:id}", operation_id="readGrant", response_model=GrantAnswer, **declare("grants:read", 404, 422)
)
def read_grant(grant_id: GrantId, service: Serving, caller: Caller) -> GrantAnswer:
    """One grant's terms, its signature verified."""
    return _answer(grants.find_grant(service.home, grant_id), service, None)


@router.get(
    "/{grant_id:id}/receipt",
    operation_id="downloadReceipt",
    response_class=Response,
    **declare("grants:read", 404, 422),
)
def download_receipt(grant_id: GrantId, service: Serving, caller: Caller) -> Response:
    """The person's receipt as of now (ISO/IEC TS 27560 fields), signed: a compact JWS."""
    return attachment(
        write_receipt(service.home, grant_id).encode(), "application/jose", f"{grant_id}.receipt.jws"
    )


@router.post(
    "/{grant_id:id}/revocation",
    operation_id="revokeGrant",
    response_model=Recorded,
    **declare("grants:write", 404, 409, 422, max_bytes=1 << 14),
)
def revoke_grant(grant_id: GrantId, withdrawal: Withdrawal, service: Serving, caller: Caller) -> Recorded:
    """Withdraw a grant for good: every decision after this one sees it, those at work before they release."""
    receipt = grants.revoke(service.home, grant_id, withdrawal.reason)
    return Recorded(id=grant_id, ledger_index=receipt.index, root=receipt.root)


def _answer(stored: StoredGrant, service: Service, text: str | None) -> GrantAnswer:
    terms = grants.open_grant(stored.jws, service.home.keys).model_dump(mode="json")
    return GrantAnswer(
        id=stored.id,
        subject_id=stored.subject_id,
        ledger_index=stored.issued_index,
        revoked=stored.revoked_at,
        terms=terms,
        jws=stored.jws,
        text=text,
    )
