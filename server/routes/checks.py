"""Checks: one file in, what can be proven about it out; decides nothing itself (detector.check does)."""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import APIRouter, File, Query, Response, UploadFile
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from provenance.errors import InputError
from server.auth import Principal
from server.fetch import MAX_URL
from server.gate import FORM_LIMITS, Caller, GatedRoute, Serving, declare
from server.headers import self_contained
from server.idempotency import Attempt, IdempotencyKey, attempt, fingerprint
from server.ids import CheckId
from server.language import translator
from server.paging import Cursor, Limit, cursor_of, read_cursor, stamp
from server.report_files import KINDS, Kind, issue_as, sign_report, write_document, write_report
from server.schemas import CheckAnswer, CheckItem, CheckPage
from server.service import Service
from server.tables import checks, now

if TYPE_CHECKING:
    from detector.check import Report

router = APIRouter(prefix="/v1/checks", tags=["checks"], route_class=GatedRoute)

Language = Annotated[Literal["en", "zh"], Query(description="Of the report.")]


class Address(BaseModel):
    """Where a picture is to be fetched."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        max_length=MAX_URL, description="https, port 443, a name or address of the open Internet."
    )


Upload = Annotated[UploadFile, File(description="One picture (JPEG, PNG, WebP) or MP4 video.")]


@router.post(
    "",
    operation_id="createCheck",
    status_code=201,
    response_model=CheckAnswer,
    form_limits=FORM_LIMITS,
    **declare("checks:create", 409, 415, 422, room="slots"),
)
async def create_check(
    file: Upload, service: Serving, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Check one picture: its manifest, its mark, the ledger, the detector. The verdict never says "authentic"."""
    data, name = await file.read(), display_name(file.filename)
    print_ = fingerprint("createCheck", name, data)
    async with attempt(service.home.database, caller.id, idempotency_key, print_) as tried:
        if tried.replayed is not None:
            return tried.replayed
        return await _check(data, name, caller, tried, service)


@router.post(
    "/by-url",
    operation_id="createCheckByUrl",
    status_code=201,
    response_model=CheckAnswer,
    **declare("checks:create", 409, 415, 422, room="slots", max_bytes=1 << 14),
)
async def create_check_by_url(
    wanted: Address, service: Serving, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Check the picture at a public https address. 403 `fetch.disabled` unless the operator allows it.

    Nothing is sent along but the request for the file; an address that leads into the house is not asked.
    """
    print_ = fingerprint("createCheckByUrl", wanted.url)
    async with attempt(service.home.database, caller.id, idempotency_key, print_) as tried:
        if tried.replayed is not None:
            return tried.replayed
        data = await service.fetch_file(wanted.url)
        return await _check(data, display_name(urlsplit(wanted.url).path), caller, tried, service)


async def _check(data: bytes, name: str, caller: Principal, tried: Attempt, service: Service) -> Response:
    report = await service.work(lambda: service.checker.check(data, name))
    service.metrics.count_check(report.verdict.value)
    answer = await run_in_threadpool(store_report, report, caller.id, service)
    return await run_in_threadpool(tried.answer, 201, answer, f"/v1/checks/{answer.id}")


@router.get("", operation_id="listChecks", response_model=CheckPage, **declare("checks:read", 422))
def list_checks(service: Serving, caller: Caller, limit: Limit = 50, cursor: Cursor = None) -> CheckPage:
    """Your checks, the newest first."""
    query = sa.select(checks).where(checks.c.principal == caller.id)
    if (before := read_cursor(cursor)) is not None:
        query = query.where(sa.tuple_(checks.c.created_at, checks.c.id) < before)
    query = query.order_by(checks.c.created_at.desc(), checks.c.id.desc()).limit(limit + 1)
    with service.home.database.read() as conn:
        rows = conn.execute(query).all()
    items = [
        CheckItem(
            id=row.id, created=stamp(row.created_at), verdict=row.verdict, content_sha256=row.content_sha256
        )
        for row in rows[:limit]
    ]
    more = len(rows) > limit
    return CheckPage(items=items, next=cursor_of(rows[limit - 1].created_at, items[-1].id) if more else None)


@router.get(
    "/{check_id:id}", operation_id="readCheck", response_model=CheckAnswer, **declare("checks:read", 404, 422)
)
def read_check(check_id: CheckId, service: Serving, caller: Caller) -> CheckAnswer:
    """One of your checks."""
    row = _find(check_id, caller.id, service)
    return CheckAnswer(
        id=row.id, created=stamp(row.created_at), verdict=row.verdict, report=json.loads(row.report)
    )


@router.get(
    "/{check_id:id}/report.json",
    operation_id="downloadCheckReport",
    response_class=Response,
    **declare("checks:read", 404, 422),
)
def download_report(check_id: CheckId, service: Serving, caller: Caller) -> Response:
    """The report as a file, the same JSON that `facsimile check --report F.json` writes."""
    return attachment(_file(check_id, "json", "en", caller, service)[0], KINDS["json"], f"{check_id}.json")


@router.get(
    "/{check_id:id}/report.html",
    operation_id="showCheckReport",
    response_class=HTMLResponse,
    **declare("checks:read", 404, 410, 422),
)
def show_report(check_id: CheckId, service: Serving, caller: Caller, lang: Language = "en") -> Response:
    """The report as one page without scripts. 410 when the server no longer holds what it is drawn from."""
    shown = self_contained(_file(check_id, "html", lang, caller, service)[0].decode())
    shown.headers["Content-Disposition"] = f'inline; filename="{check_id}.html"'
    return shown


@router.get(
    "/{check_id:id}/report.pdf",
    operation_id="downloadCheckReportPdf",
    response_class=Response,
    **declare("checks:read", 404, 410, 422, room="slots"),
)
async def download_pdf(
    check_id: CheckId, service: Serving, caller: Caller, lang: Language = "en"
) -> Response:
    """The report as PDF. 410 when the server no longer holds what it is drawn from."""
    body, _ = await service.work(lambda: _file(check_id, "pdf", lang, caller, service))
    return attachment(body, KINDS["pdf"], f"{check_id}.pdf")


@router.get(
    "/{check_id:id}/report.{kind}.jws",
    operation_id="downloadCheckReportSignature",
    response_class=Response,
    **declare("checks:read", 404, 410, 422, room="slots"),
)
async def download_signature(
    check_id: CheckId, kind: Kind, service: Serving, caller: Caller, lang: Language = "en"
) -> Response:
    """The detached signature (RFC 7515, appendix F) of exactly the report that the same address without .jws gives.

    Keep both side by side as F and F.jws: `facsimile check --verify-report F` compares them.
    """

    def sign() -> bytes:
        data, at = _file(check_id, kind, lang, caller, service)
        return sign_report(data, service.home, at)

    return attachment(await service.work(sign), "application/jose", f"{check_id}.{kind}.jws")


def _file(
    check_id: str, kind: Kind, lang: Language, caller: Principal, service: Service
) -> tuple[bytes, datetime]:
    """The report's file, always the same bytes, and the time that it bears: that of the check."""
    row = _find(check_id, caller.id, service)
    kept, t = json.loads(row.report), translator(lang)
    at = datetime.fromtimestamp(int(row.created_at), UTC)
    issue = issue_as(f"{check_id}.{kind}", service.home, t, at, kept["versions"]["facsimile"])
    if kind == "json":
        return write_document([kept], issue), at
    report = service.recent_reports.find(check_id)
    if report is None:
        raise InputError(
            "check.report_gone",
            "The server keeps the pictures of a report only for its latest checks.",
            "Check the file again, or take report.json.",
        )
    return write_report(kind, [report], t, issue), at


def attachment(body: bytes, mime: str, name: str) -> Response:
    """A file to download; `name` is one of ours."""
    return Response(body, media_type=mime, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def store_report(report: Report, principal: str, service: Service) -> CheckAnswer:
    """Keep a report for its principal."""
    check_id, payload = f"check-{secrets.token_hex(10)}", report.as_dict()
    row: dict[str, Any] = {
        "id": check_id,
        "principal": principal,
        "verdict": report.verdict.value,
        "content_sha256": report.content_sha256,
        "report": json.dumps(payload),
    }
    with service.home.database.write(ledger=False) as conn:
        row["created_at"] = now(conn)
        conn.execute(sa.insert(checks), row)
    service.recent_reports.keep(check_id, report)
    return CheckAnswer(id=check_id, created=stamp(row["created_at"]), verdict=row["verdict"], report=payload)


def display_name(name: str | None) -> str:
    """What a report calls an upload: the last part of its name, printable, short; never used as a path."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return re.sub(r"[^\w .()+-]", "_", last)[:100] or "upload"


def _find(check_id: str, principal: str, service: Service) -> sa.Row[*tuple[Any, ...]]:
    query = sa.select(checks).where(checks.c.id == check_id, checks.c.principal == principal)
    with service.home.database.read() as conn:
        row = conn.execute(query).one_or_none()
    if row is None:
        raise InputError(
            "check.unknown", "You have no such check.", "Use the id that the answer to POST held."
        )
    return row
