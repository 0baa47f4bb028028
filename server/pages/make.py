"""Make: source, target and grants in; progress; the sealed picture, its seal explained."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Final, Literal

import sqlalchemy as sa
from fastapi import APIRouter, File, Form, Path, Request, Response, UploadFile

from fusion.media import Format
from provenance import grants
from provenance.errors import InputError
from server.auth import Principal
from server.gate import Caller, Serving, declare
from server.ids import GrantRef, JobId
from server.jobs import Job
from server.pages.frame import PageRoute, redirect, render, words_of
from server.paging import stamp
from server.routes import fusions
from server.service import Service
from server.tables import jobs

router = APIRouter(prefix="/make", route_class=PageRoute, include_in_schema=False)

STAGES: Final = ("queued", "read", "perceive", "consent", "swap", "mark", "encode", "sign", "record")
"""The stages of a job that the page names, in their order; others are shown as they are called."""
NUM_LATEST = 8
NUM_OFFERED = 40


@router.get("", **declare("fusions:create"))
def show_form(request: Request, service: Serving, caller: Caller) -> Response:
    """What is needed for a fusion, and the caller's latest jobs."""
    from fusion.swap import PRESETS

    t = words_of(request)
    latest = [
        {"id": job.id, "state": job.state, "time": t.date_of(stamp(job.created_at))}
        for job in service.queue.page(caller.id, "fusion", None, NUM_LATEST)
    ]
    offered = _offered(service) if caller.may("grants:read") else []
    return render(request, "make.html", presets=list(PRESETS), latest=latest, offered=offered)


def _offered(service: Service) -> list[dict[str, Any]]:
    """The newest grants in force, with what tells them apart."""
    found = []
    for stored in reversed(grants.list_grants(service.home)[-NUM_OFFERED:]):
        grant = grants.open_grant(stored.jws, service.home.keys)
        if stored.revoked_at is None and grant.exp > time.time():
            roles = [str(each) for each in grant.scope_roles]
            found.append(
                {"id": stored.id, "subject": stored.subject_id, "roles": roles, "purposes": grant.purposes}
            )
    return found


@router.post("", **declare("fusions:create", 409, 415, 422, 507, room="jobs"))
async def start(
    service: Serving,
    caller: Caller,
    source: Annotated[list[UploadFile], File()],
    target: Annotated[UploadFile, File()],
    purpose: Annotated[str, Form(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")],
    use: Annotated[str, Form(pattern="^(internal|publish|dataset)$")] = "internal",
    preset: Annotated[str, Form(pattern=r"^[a-z]{1,20}$")] = "film",
    face: Annotated[str, Form(pattern="^(largest|all|[0-9]{1,3})$")] = "largest",
    format: Annotated[Format, Form()] = Format.JPEG,
    label: Annotated[bool, Form()] = False,
    grant: Annotated[list[GrantRef], Form()] = [],  # noqa: B006
    grants_text: Annotated[str, Form(max_length=4000, pattern=r"^[a-z0-9\s-]*$")] = "",
) -> Response:
    """The same request as `POST /v1/fusions`; leads to the job's page."""
    given = [each for each in source if each.filename]
    if not given or not target.filename:
        raise InputError("page.no_file", "No file was chosen.", "Choose a picture, then press the button.")
    answer = await fusions.create_fusion(
        source=given,
        target=target,
        purpose=purpose,
        use=use,
        preset=preset,
        face=face,
        format=format,
        label=label,
        grant=list(dict.fromkeys([*grant, *grants_text.split()])),
        mapping=[],
        service=service,
        caller=caller,
    )
    return redirect(f"/make/{json.loads(bytes(answer.body))['id']}")


@router.get("/{job_id}", **declare("fusions:read", 404, 422))
def show_job(request: Request, job_id: JobId, service: Serving, caller: Caller) -> Response:
    """How far a job is, or what came of it."""
    job = service.queue.find(job_id, caller.id, kind="fusion")
    reached = [event.data.get("stage", event.event) for event in service.queue.events(job_id, 0)]
    return render(
        request,
        "job.html",
        job=job,
        reached=reached,
        stages=STAGES,
        inputs=_kept_inputs(service, job),
        entry=_entry(service, job),
    )


@router.get("/{job_id}/{which}/{number}", **declare("fusions:read", 404, 410, 422))
def read_input(
    job_id: JobId,
    which: Literal["source", "target"],
    number: Annotated[int, Path(ge=0, le=7)],
    service: Serving,
    caller: Caller,
) -> Response:
    """A picture that the caller handed in for this job, as long as it is kept; to lay beside the result."""
    job = service.queue.find(job_id, caller.id, kind="fusion")
    names = [job.request["target"]] if which == "target" else list(job.request["sources"])
    if number >= len(names):
        raise InputError("page.unknown", "There is no such page.", "Go back to the start.")
    data = service.objects.get(str(names[number]))
    return Response(data, media_type=_mime(data), headers={"Content-Disposition": "attachment"})


@router.post("/{job_id}/cancellation", **declare("fusions:create", 404, 409, 422))
def cancel(job_id: JobId, service: Serving, caller: Caller) -> Response:
    """Ask to stop."""
    service.queue.cancel(job_id, caller.id, "fusion")
    return redirect(f"/make/{job_id}")


def find_job_of_asset(service: Service, caller: Principal, asset_id: str | None) -> dict[str, Any] | None:
    """The caller's own job that made an asset, when its target is still kept: to show before and after."""
    if asset_id is None:
        return None
    query = sa.select(jobs.c.id).where(
        jobs.c.principal == caller.id,
        jobs.c.kind == "fusion",
        jobs.c.state == "done",
        jobs.c.result.contains(asset_id),
    )
    with service.home.database.read() as conn:
        job_id = conn.scalars(query.limit(1)).first()
    if job_id is None:
        return None
    job = service.queue.find(job_id, caller.id, kind="fusion")
    kept = _kept_inputs(service, job)
    return {"id": job.id, "target": kept["target"]} if kept["target"] else None


def _kept_inputs(service: Service, job: Job) -> dict[str, list[str]]:
    """Addresses of the inputs that are still kept."""

    def kept(which: str, names: list[str]) -> list[str]:
        return [f"/make/{job.id}/{which}/{k}" for k, name in enumerate(names) if service.objects.has(name)]

    return {
        "target": kept("target", [str(job.request["target"])]),
        "source": kept("source", [str(each) for each in job.request["sources"]]),
    }


def _entry(service: Service, job: Job) -> dict[str, Any] | None:
    """The ledger entry of the result."""
    if not job.result:
        return None
    index = int(job.result["ledger"]["index"])
    return {"index": index, "time": service.home.ledger.entry(index).time}


def _mime(data: bytes) -> str:
    from fusion.headers import read_header

    return read_header(data).format.mime
