"""Check: drop a file, read what can be proven about it; the file is looked at and not kept."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from starlette.concurrency import run_in_threadpool

from provenance.errors import InputError
from server.auth import Principal
from server.fetch import MAX_URL
from server.gate import Caller, Serving, declare
from server.ids import CheckId
from server.language import Translator
from server.pages.evidence import TONES, faces, film, manifest_tree, witnesses
from server.pages.frame import PageRoute, render, service_of, words_of
from server.pages.make import find_job_of_asset
from server.paging import stamp
from server.routes.checks import display_name, store_report
from server.service import UPLOAD_LIMITS, Service
from server.tables import checks

if TYPE_CHECKING:
    from detector.check import Report

router = APIRouter(prefix="/check", route_class=PageRoute, include_in_schema=False)

NUM_LATEST = 8


@router.get("", **declare("checks:read"))
def show_form(request: Request, service: Serving, caller: Caller) -> Response:
    """The place to drop a picture or a video, and the caller's latest checks."""
    latest = _latest(service, caller, words_of(request))
    most = service.settings.max_upload_bytes
    by_url = service.settings.url_checks
    return render(
        request,
        "check.html",
        latest=latest,
        tones=TONES,
        max_upload_bytes=most,
        picture_mib=min(UPLOAD_LIMITS.max_bytes, most) >> 20,
        url_checks=by_url,
    )


@router.post("", **declare("checks:create", 415, 422, room="slots"))
async def check_file(request: Request, caller: Caller, file: Annotated[UploadFile, File()]) -> Response:
    """Check one picture or video and show what was found, with the picture or a frame; neither is kept."""
    data = await file.read()
    if not data:
        raise InputError("page.no_file", "No file was chosen.", "Choose a file, then press the button.")
    return await _check(request, data, display_name(file.filename), caller)


@router.post("/by-url", **declare("checks:create", 415, 422, room="slots", max_bytes=1 << 14))
async def check_address(
    request: Request,
    service: Serving,
    caller: Caller,
    url: Annotated[str, Form(max_length=MAX_URL)],
) -> Response:
    """Fetch a file and check it, where the operator allows that."""
    data = await service.fetch_file(url.strip())
    return await _check(request, data, display_name(urlsplit(url).path), caller)


@router.get("/{check_id}", **declare("checks:read", 404, 422))
def show_check(request: Request, check_id: CheckId, service: Serving, caller: Caller) -> Response:
    """An earlier check; its file was not kept."""
    query = sa.select(checks).where(checks.c.id == check_id, checks.c.principal == caller.id)
    with service.home.database.read() as conn:
        row = conn.execute(query).one_or_none()
    if row is None:
        raise InputError(
            "check.unknown", "You have no such check.", "Use the id that the answer to POST held."
        )
    return _show(request, service, caller, row.id, json.loads(row.report), {"tree": None, "preview": None})


async def _check(request: Request, data: bytes, name: str, caller: Principal) -> Response:
    service = service_of(request)
    report = await service.work(lambda: service.checker.check(data, name))
    service.metrics.count_check(report.verdict.value)
    answer = await run_in_threadpool(store_report, report, caller.id, service)
    tree = manifest_tree(report.manifest.tree, words_of(request))
    preview = await run_in_threadpool(_preview, report)
    return _show(request, service, caller, answer.id, report.as_dict(), {"tree": tree, "preview": preview})


def _show(
    request: Request,
    service: Service,
    caller: Principal,
    check_id: str,
    report: dict[str, Any],
    extra: dict[str, Any],
) -> Response:
    t = words_of(request)
    asset_id = report["evidence"]["manifest"]["asset_id"] or report["evidence"]["mark"]["asset_id"]
    return render(
        request,
        "checked.html",
        check_id=check_id,
        report=report,
        tone=TONES.get(report["verdict"], "unknown"),
        witnesses=witnesses(report, t),
        faces=faces(report, t),
        film=film(report, t),
        kinds=("json", "html", "pdf") if service.recent_reports.find(check_id) else ("json",),
        size=_size(report, extra["preview"]),
        job=find_job_of_asset(service, caller, asset_id) if caller.may("fusions:read") else None,
        **extra,
    )


def _size(report: dict[str, Any], preview: dict[str, Any] | None) -> tuple[int, int] | None:
    """Width and height of the picture or of a frame in pixels, where the report or the preview tells."""
    media = report.get("media") or preview
    return (int(media["width"]), int(media["height"])) if media else None


def _preview(report: Report) -> dict[str, Any] | None:
    """A small copy of the picture or of one frame: it travels once, inside the answer, and is not kept."""
    from fusion.media import encode_picture

    medium = report.medium
    if medium.preview is None:
        return None
    small = base64.b64encode(encode_picture(medium.preview, "jpeg", 85)).decode()
    return {"data": f"data:image/jpeg;base64,{small}", "width": medium.width, "height": medium.height}


def _latest(service: Service, caller: Principal, t: Translator) -> list[dict[str, str]]:
    query = sa.select(checks).where(checks.c.principal == caller.id).order_by(checks.c.created_at.desc())
    with service.home.database.read() as conn:
        rows = conn.execute(query.limit(NUM_LATEST)).all()
    return [
        {
            "id": row.id,
            "verdict": row.verdict,
            "name": str(json.loads(row.report)["file"]),
            "time": t.date_of(stamp(row.created_at)),
        }
        for row in rows
    ]
