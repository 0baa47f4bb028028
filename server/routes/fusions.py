"""Fusions as jobs: consent, audit and the job are one transaction; a worker makes the picture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, File, Form, Response, UploadFile
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fusion.media import Format
from fusion.pipeline import Prepared, prepare, record_acceptance
from fusion.request import FuseRequest
from fusion.stopwatch import Stopwatch
from provenance import consent
from provenance.errors import RefusedError
from server.auth import Principal
from server.gate import FORM_LIMITS, Caller, GatedRoute, Serving, declare
from server.idempotency import Attempt, IdempotencyKey, attempt, fingerprint
from server.ids import GrantRef, JobId
from server.jobs import Job
from server.paging import Cursor, Limit, read_cursor
from server.routes.checks import attachment
from server.routes.jobs import LastEventId, Place, events_of, job_answer, own_job, page_answer
from server.schemas import JobAnswer, JobPage
from server.service import UPLOAD_LIMITS, Service

router = APIRouter(prefix="/v1/fusions", tags=["fusions"], route_class=GatedRoute)

KIND: Final = "fusion"
_TOKEN = r"^[a-z][a-z0-9_.-]{0,63}$"


@router.post(
    "",
    operation_id="createFusion",
    status_code=202,
    response_model=JobAnswer,
    form_limits=FORM_LIMITS,
    **declare("fusions:create", 409, 415, 422, 507, room="jobs"),
)
async def create_fusion(
    source: Annotated[
        list[UploadFile],
        File(min_length=1, max_length=7, description="Picture(s) that give the identity, one face each."),
    ],
    target: Annotated[UploadFile, File(description="Picture that is altered.")],
    purpose: Annotated[str, Form(pattern=_TOKEN, description="What for; every grant must list it.")],
    service: Serving,
    caller: Caller,
    use: Annotated[str, Form(pattern="^(internal|publish|dataset)$")] = "internal",
    grant: Annotated[list[GrantRef], Form(description="Grant ids of the people involved.")] = [],  # noqa: B006
    preset: Annotated[str, Form(pattern=_TOKEN)] = "film",
    engine: Annotated[str | None, Form(pattern=_TOKEN, description="Default: the preset's.")] = None,
    face: Annotated[str, Form(pattern="^(largest|all|[0-9]{1,3})$")] = "largest",
    mapping: Annotated[list[str], Form(description="SOURCE=FACE pairs, both from 0.")] = [],  # noqa: B006
    detail: Annotated[bool, Form(description="Keep the target's fine bands on skin.")] = True,
    eyes: Annotated[bool, Form(description="Keep the target's light in the eyes.")] = True,
    label: Annotated[bool, Form(description="Draw a visible label: AI生成 / AI GENERATED.")] = False,
    format: Annotated[Format, Form(description="Format of the result.")] = Format.PNG,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask for a fusion. Consent is decided now, at the start of the work and at its release.

    202 with the job; `GET` its Location, or listen to `…/events`. 403 lists every failed rule of consent.
    """
    request = FuseRequest(
        sources=tuple([await each.read() for each in source]),
        target=await target.read(),
        purpose=purpose,
        use=use,
        grant_ids=tuple(grant),
        preset=preset,
        engine=engine,
        face=face,
        mapping=tuple(mapping),
        detail=detail,
        eyes=eyes,
        label=label,
    )
    said = {k: v for k, v in vars(request).items() if k not in ("sources", "target")} | {
        "format": format.value
    }
    print_ = fingerprint("createFusion", said, request.target, *request.sources)
    async with attempt(service.home.database, caller.id, idempotency_key, print_) as tried:
        if tried.replayed is not None:
            return tried.replayed
        return await service.work(lambda: _accept(request, said, caller, tried, service))


def _accept(
    request: FuseRequest, said: dict[str, Any], caller: Principal, tried: Attempt, service: Service
) -> Response:
    """Look at the faces, keep the inputs, then decide, record and enqueue in one transaction."""
    prepared: Prepared = prepare(request, service.home, service.perception, Stopwatch(), UPLOAD_LIMITS)
    inputs = {
        "sources": [service.objects.put(data) for data in request.sources],
        "target": service.objects.put(request.target),
    }
    with consent.accept(prepared.question, service.home) as (decision, conn):
        receipt = record_acceptance(decision, service.home, conn)
        job_id = service.queue.enqueue(KIND, caller.id, {**said, **inputs}, receipt.index, conn)
        job = service.queue.find(job_id, caller.id, conn)
        return tried.answer(202, job_answer(job), f"/v1/fusions/{job_id}", conn)


@router.get("", operation_id="listFusions", response_model=JobPage, **declare("fusions:read", 422))
def list_fusions(service: Serving, caller: Caller, limit: Limit = 50, cursor: Cursor = None) -> JobPage:
    """Your fusions, the newest first."""
    return page_answer(service.queue.page(caller.id, KIND, read_cursor(cursor), limit + 1), limit)


@router.get(
    "/{job_id:id}", operation_id="readFusion", response_model=JobAnswer, **declare("fusions:read", 404, 422)
)
def read_fusion(job_id: JobId, service: Serving, caller: Caller) -> JobAnswer:
    """How far one of your fusions is, and what came of it."""
    return job_answer(service.queue.find(job_id, caller.id, kind=KIND))


@router.get(
    "/{job_id:id}/result",
    operation_id="downloadFusion",
    response_class=Response,
    **declare("fusions:read", 404, 409, 410, 422),
)
def download_fusion(job_id: JobId, service: Serving, caller: Caller) -> Response:
    """The finished picture: marked, signed and recorded. 409 while there is none."""
    job = service.queue.find(job_id, caller.id, kind=KIND)
    if job.result is None:
        raise RefusedError("job.not_done", f"The job is {job.state}: there is no result.", "See its `error`.")
    kind = Format(str(job.result["format"]))
    data = service.objects.get(str(job.result["object"]))
    return attachment(data, kind.mime, f"{job_id}{kind.suffix}")


@router.post(
    "/{job_id:id}/cancellation",
    operation_id="cancelFusion",
    status_code=202,
    response_model=JobAnswer,
    **declare("fusions:create", 404, 409, 422),
)
def cancel_fusion(job_id: JobId, service: Serving, caller: Caller) -> JobAnswer:
    """Ask to stop: a waiting job ends at once, a running one before its next stage. 409 when it has ended."""
    return job_answer(service.queue.cancel(job_id, caller.id, KIND))


@router.get(
    "/{job_id:id}/events",
    operation_id="followFusion",
    response_class=EventSourceResponse,
    **declare("fusions:read", 404, 422),
)
async def follow_fusion(
    job: Annotated[Job, Depends(own_job(KIND))],
    place: Place,
    service: Serving,
    last_event_id: LastEventId = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events of one of your fusions; they end with it, or after 15 minutes. Last-Event-ID resumes."""
    async for event in events_of(job, service, last_event_id):
        yield event
