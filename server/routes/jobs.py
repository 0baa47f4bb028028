"""What the routes of all kinds of jobs share: how a job is told, pages of jobs, streams of events; knows no kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Annotated

from fastapi import Depends, Header
from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from server.auth import Principal
from server.gate import Caller, Serving
from server.ids import JobId
from server.jobs import Event, Job
from server.paging import cursor_of, stamp
from server.schemas import JobAnswer, JobEvent, JobPage, ProblemSummary
from server.service import Service

POLL_S = 0.3
LONGEST_STREAM_S = 900.0

LastEventId = Annotated[int, Header(ge=0, le=10**9, description="Resume after it.")]


async def _place(service: Serving, caller: Caller) -> AsyncIterator[None]:
    """A stream holds a connection for long: nobody may have many."""
    with service.streams.take(caller.id):
        yield


Place = Annotated[None, Depends(_place)]


def own_job(kind: str) -> Callable[[str, Service, Principal], Job]:
    """One's own job of a kind, looked for before a stream begins: after that no status could say that there is none."""

    def find(job_id: JobId, service: Serving, caller: Caller) -> Job:
        return service.queue.find(job_id, caller.id, kind=kind)

    return find


async def events_of(job: Job, service: Service, after: int) -> AsyncIterator[ServerSentEvent]:
    """What happens to a job from event `after` on; ends with it, or after LONGEST_STREAM_S."""
    seen, until = after, time.monotonic() + LONGEST_STREAM_S
    while True:
        job = await run_in_threadpool(service.queue.find, job.id, job.principal)
        for event in await run_in_threadpool(service.queue.events, job.id, seen):
            seen = event.seq
            yield ServerSentEvent(
                data=_event(event).model_dump(), event=event.event, id=str(event.seq), retry=1000
            )
        if job.ended or service.draining or time.monotonic() > until:
            return
        await asyncio.sleep(POLL_S)


def page_answer(found: list[Job], limit: int) -> JobPage:
    """A page of the jobs that were found, one more than its limit where there are more."""
    shown = found[:limit]
    more = len(found) > limit
    return JobPage(
        items=[job_answer(job) for job in shown],
        next=cursor_of(shown[-1].created_at, shown[-1].id) if more else None,
    )


def job_answer(job: Job) -> JobAnswer:
    """A job as the API tells it: the inputs stay inside."""
    return JobAnswer(
        id=job.id,
        kind=job.kind,
        state=job.state,
        stage=job.stage,
        created=stamp(job.created_at),
        updated=stamp(job.updated_at),
        attempts=job.attempts,
        accepted_index=job.accepted_index,
        result={key: value for key, value in job.result.items() if key != "object"} if job.result else None,
        error=ProblemSummary(**job.error) if job.error else None,
    )


def _event(event: Event) -> JobEvent:
    told = asdict(event)
    return JobEvent(**{**told, "at": stamp(event.at)})
