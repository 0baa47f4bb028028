"""Labelled sets as jobs: what `facsimile faceset make` makes, within bounds; acceptance and job are one transaction."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from facesets.formats import require_libraries
from facesets.spec import SetFields, SetSpec
from provenance.errors import RefusedError, StoreError, UsageError
from provenance.hashes import sha256_hex
from server.auth import Principal
from server.gate import Caller, GatedRoute, Serving, declare
from server.idempotency import Attempt, IdempotencyKey, attempt, fingerprint
from server.ids import JobId
from server.jobs import Job
from server.paging import Cursor, Limit, read_cursor
from server.routes.checks import attachment
from server.routes.jobs import LastEventId, Place, events_of, job_answer, own_job, page_answer
from server.schemas import JobAnswer, JobPage
from server.service import Service
from server.sets import FileList, archive_bytes, most_bytes

router = APIRouter(prefix="/v1/facesets", tags=["facesets"], route_class=GatedRoute)

KIND: Final = "faceset"
SPARE_BYTES: Final = 1 << 30
"""Of the disk that no set may take."""
_SEGMENT: Final = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_MIME: Final = {"json": "application/json", "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
FilePath = Annotated[
    str,
    Path(max_length=200, pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$", description="As the list of files has it."),
]


@router.post(
    "",
    operation_id="createFaceset",
    status_code=202,
    response_model=JobAnswer,
    **declare("facesets:create", 409, 422, 507, room="jobs", max_bytes=1 << 16),
)
async def create_faceset(
    fields: SetFields, service: Serving, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Ask for a labelled set of people who don't exist; the body is a spec (docs/facesets.md).

    202 with the job; `GET` its Location, or listen to `…/events`. Every fused picture passes the consent check.
    """
    print_ = fingerprint("createFaceset", fields.model_dump(mode="json"))
    async with attempt(service.home.database, caller.id, idempotency_key, print_) as tried:
        if tried.replayed is not None:
            return tried.replayed
        return await run_in_threadpool(_accept, fields, caller, tried, service)


def _accept(fields: SetFields, caller: Principal, tried: Attempt, service: Service) -> Response:
    """See that it can be made at all; then find room, record and enqueue in one transaction."""
    spec = SetSpec.of(fields.model_dump())
    _require_makeable(spec, service)
    most = most_bytes(spec)
    said = spec.model_dump(mode="json")
    entry = {
        "kind": "job_accepted",
        "what": "faceset",
        "name": spec.name,
        "purpose": spec.purpose,
        "pictures": spec.num_pictures,
        "spec_sha256": sha256_hex(json.dumps(said, sort_keys=True).encode()),
    }
    with service.home.database.write() as conn:
        _require_room(most, service.queue.count_reserved_bytes(conn), service)
        receipt = service.home.ledger.append(entry, conn)
        request: dict[str, Any] = {"spec": said, "bytes": most}
        job_id = service.queue.enqueue(KIND, caller.id, request, receipt.index, conn)
        job = service.queue.find(job_id, caller.id, conn)
        return tried.answer(202, job_answer(job), f"/v1/facesets/{job_id}", conn)


def _require_makeable(spec: SetSpec, service: Service) -> None:
    from fusion.swap import find_preset, require_engine

    allowed = service.settings.max_set_pictures
    if spec.num_pictures > allowed:
        raise UsageError(
            "faceset.too_large",
            f"The spec asks for {spec.num_pictures} pictures; this server makes {allowed} at a time.",
            "Ask for less, or make it with `facsimile faceset make`.",
        )
    require_libraries(spec.formats)
    require_engine(spec.engine or find_preset(spec.preset).engine)


def _require_room(most: int, reserved: int, service: Service) -> None:
    free = shutil.disk_usage(service.home.path).free - SPARE_BYTES
    if reserved + most > service.settings.max_sets_bytes or most > free:
        raise StoreError(
            "faceset.no_room",
            f"The set may take {most / 1e9:.1f} GB, and no such room is left for sets.",
            "Ask for less, or wait until older sets are deleted.",
        )


@router.get("", operation_id="listFacesets", response_model=JobPage, **declare("facesets:read", 422))
def list_facesets(service: Serving, caller: Caller, limit: Limit = 50, cursor: Cursor = None) -> JobPage:
    """Your sets, the newest first."""
    return page_answer(service.queue.page(caller.id, KIND, read_cursor(cursor), limit + 1), limit)


@router.get(
    "/{job_id:id}",
    operation_id="readFaceset",
    response_model=JobAnswer,
    **declare("facesets:read", 404, 422),
)
def read_faceset(job_id: JobId, service: Serving, caller: Caller) -> JobAnswer:
    """How far one of your sets is, and what came of it."""
    return job_answer(service.queue.find(job_id, caller.id, kind=KIND))


@router.post(
    "/{job_id:id}/cancellation",
    operation_id="cancelFaceset",
    status_code=202,
    response_model=JobAnswer,
    **declare("facesets:create", 404, 409, 422),
)
def cancel_faceset(job_id: JobId, service: Serving, caller: Caller) -> JobAnswer:
    """Ask to stop: a waiting job ends at once, a running one within seconds. 409 when it has ended."""
    return job_answer(service.queue.cancel(job_id, caller.id, KIND))


OwnJob = Annotated[Job, Depends(own_job(KIND))]


@router.get(
    "/{job_id:id}/events",
    operation_id="followFaceset",
    response_class=EventSourceResponse,
    **declare("facesets:read", 404, 422),
)
async def follow_faceset(
    job: OwnJob, place: Place, service: Serving, last_event_id: LastEventId = 0
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events of one of your sets; they end with it, or after 15 minutes. Last-Event-ID resumes."""
    async for event in events_of(job, service, last_event_id):
        yield event


@router.get(
    "/{job_id:id}/files",
    operation_id="listFacesetFiles",
    response_class=Response,
    **declare("facesets:read", 404, 409, 410, 422),
)
def list_faceset_files(job: OwnJob, service: Serving) -> Response:
    """Every file of a finished set with its size and sha256; the sha256 of this very list is in the ledger."""
    return attachment(_list_bytes(job, service), "application/json", f"{job.id}.files.json")


@router.get(
    "/{job_id:id}/files/{path:path}",
    operation_id="downloadFacesetFile",
    response_class=Response,
    **declare("facesets:read", 404, 409, 410, 422),
)
def download_faceset_file(path: FilePath, job: OwnJob, service: Serving) -> Response:
    """One file of a finished set, verified against the list."""
    file = FileList.load(_list_bytes(job, service)).find(path)
    mime = _MIME.get(path.rpartition(".")[2], "application/octet-stream")
    return attachment(service.sets.read(job.id, file), mime, path.rpartition("/")[2])


@router.get(
    "/{job_id:id}/archive",
    operation_id="downloadFaceset",
    response_class=Response,
    **declare("facesets:read", 404, 409, 410, 422),
)
def download_faceset(job: OwnJob, place: Place, service: Serving) -> StreamingResponse:
    """A finished set as one tar archive; a file that is not what it was cuts it off."""
    listed = FileList.load(_list_bytes(job, service))
    head = attachment(b"", "application/x-tar", f"{listed.name}.tar").headers
    headers = {
        "Content-Disposition": head["Content-Disposition"],
        "Content-Length": str(archive_bytes(listed)),
    }
    return StreamingResponse(service.sets.archive(job.id, listed), 200, headers, "application/x-tar")


def _list_bytes(job: Job, service: Service) -> bytes:
    if job.result is None:
        raise RefusedError("job.not_done", f"The job is {job.state}: there is no result.", "See its `error`.")
    return service.objects.get(str(job.result["object"]))
