"""The queue of jobs in the home's own database: leases, attempts, events, ends; runs nothing itself.

    queued → running → done | failed | refused | cancelled | dead

Kinds are "fusion" (a picture) and "faceset" (a labelled set); the queue knows of them only what it must keep for them.

A job is enqueued in the transaction that decides about consent and records the acceptance. A worker holds it by a
lease that it renews; whoever lost the lease can no longer end the job, so each accepted job ends exactly once. The
end of a job that was accepted by the ledger is in the ledger, too: the output, or `job_failed`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance.errors import InputError, RefusedError
from provenance.home import Home
from server.tables import checks, job_events, jobs, now, workers

State = Literal["queued", "running", "done", "failed", "refused", "cancelled", "dead"]
ENDED: Final = ("done", "failed", "refused", "cancelled", "dead")


@dataclass(frozen=True)
class Job:
    """A job as stored. Times are seconds since 1970, `request`, `result` and `error` JSON objects."""

    id: str
    kind: str
    state: State
    principal: str
    request: Mapping[str, Any] = field(repr=False)
    accepted_index: int | None
    created_at: float
    updated_at: float
    attempts: int
    lease_owner: str | None
    cancel_requested: bool
    stage: str
    result: Mapping[str, Any] | None = field(repr=False)
    error: Mapping[str, Any] | None = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class Event:
    """One step of a job; `seq` counts from 1 within the job."""

    seq: int
    at: float
    event: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Needed:
    """What the jobs that are kept still need: objects by their names, and the ids of the jobs themselves."""

    objects: set[str]
    open_jobs: set[str]
    done_jobs: set[str]


class LeaseLostError(RefusedError):
    """The job belongs to another worker by now, or was ended."""


class CancelledError(RefusedError):
    """Somebody asked to cancel the job."""


class Queue:
    """The jobs of one home."""

    def __init__(self, home: Home, lease_s: float, max_attempts: int, keep_s: float) -> None:
        self._home = home
        self._keep_s = keep_s
        self._database = home.database
        self.lease_s = lease_s
        self.max_attempts = max_attempts

    def enqueue(
        self,
        kind: str,
        principal: str,
        request: Mapping[str, Any],
        accepted_index: int | None,
        conn: Connection,
    ) -> str:
        """Add a job in the caller's transaction; returns its id."""
        job_id, time = f"job-{secrets.token_hex(10)}", now(conn)
        row = {
            "id": job_id,
            "kind": kind,
            "state": "queued",
            "principal": principal,
            "request": json.dumps(request),
            "accepted_index": accepted_index,
            "created_at": time,
            "updated_at": time,
            "attempts": 0,
            "cancel_requested": False,
            "stage": "queued",
        }
        conn.execute(sa.insert(jobs), row)
        _tell(job_id, "queued", {}, time, conn)
        return job_id

    def claim(self, worker: str) -> Job | None:
        """The oldest job that waits, or whose worker let its lease run out; None when there is none.

        A job that was started `max_attempts` times and never ended is ended as dead on the way.
        """
        while True:
            with self._database.write(ledger=False) as conn:
                time = now(conn)
                row = conn.execute(_claim(worker, time, time + self.lease_s)).one_or_none()
                if row is None:
                    return None
                job = _job(row)
                if job.attempts <= self.max_attempts:
                    _tell(job.id, "running", {"attempt": job.attempts}, time, conn)
                    return job
            self.fail(job, "dead", _DEAD)

    def renew(self, job: Job) -> None:
        """Keep the lease; LeaseLostError when it is another's by now, CancelledError when that was asked."""
        with self._database.write(ledger=False) as conn:
            values = {"lease_until": now(conn) + self.lease_s}
            found = conn.execute(
                sa.update(jobs).where(_held_by(job)).values(values).returning(jobs.c.cancel_requested)
            ).scalar()
        if found is None:
            raise _lost(job)
        if found:
            raise _cancelled(job)

    def enter(self, job: Job, stage: str, told: Mapping[str, Any] | None = None) -> None:
        """Say how far the job is, with what else is told of the stage; renews the lease, too."""
        with self._database.write(ledger=False) as conn:
            time = now(conn)
            values = {"lease_until": time + self.lease_s, "stage": stage, "updated_at": time}
            found = conn.execute(
                sa.update(jobs).where(_held_by(job)).values(values).returning(jobs.c.cancel_requested)
            ).scalar()
            if found is None:
                raise _lost(job)
            _tell(job.id, "stage", {"stage": stage, **(told or {})}, time, conn)
        if found:
            raise _cancelled(job)

    def finish(self, job: Job, result: Mapping[str, Any], conn: Connection) -> None:
        """End the job as done in the transaction that records its output; LeaseLostError undoes both."""
        self._end(job, "done", {"result": json.dumps(result)}, {}, conn)

    def fail(self, job: Job, state: State, problem: Mapping[str, Any]) -> None:
        """End the job without a result, and record that in the ledger where the ledger accepted it."""
        with self._database.write() as conn:
            self._end(job, state, {"error": json.dumps(problem)}, {"code": problem["code"]}, conn)
            self._record_end(job, state, str(problem["code"]), conn)

    def give_back(self, job: Job) -> None:
        """Return the lease unused: the job waits again, and the attempt does not count."""
        with self._database.write(ledger=False) as conn:
            time = now(conn)
            values = {"state": "queued", "stage": "queued", "lease_owner": None, "lease_until": None}
            back = (
                sa.update(jobs)
                .where(_held_by(job))
                .values(**values, attempts=job.attempts - 1, updated_at=time)
            )
            if conn.execute(back).rowcount:
                _tell(job.id, "queued", {"given_back": True}, time, conn)

    def cancel(self, job_id: str, principal: str, kind: str | None = None) -> Job:
        """End a job that waits; ask the worker of a running one to stop. RefusedError `job.ended` too late."""
        with self._database.write() as conn:
            job = self.find(job_id, principal, conn, kind)
            if job.ended:
                raise RefusedError(
                    "job.ended", f"{job_id} has ended as {job.state}.", "Nothing is left to do."
                )
            if job.state == "queued":
                problem = {"error": json.dumps(_CANCELLED)}
                self._end(job, "cancelled", problem, {"code": "job.cancelled"}, conn)
                self._record_end(job, "cancelled", "job.cancelled", conn)
            else:
                conn.execute(sa.update(jobs).where(jobs.c.id == job_id).values(cancel_requested=True))
            return self.find(job_id, principal, conn)

    def find(
        self, job_id: str, principal: str, conn: Connection | None = None, kind: str | None = None
    ) -> Job:
        """A principal's own job, of one kind where that is given; InputError `job.unknown` for any other."""
        if conn is None:
            with self._database.read() as reading:
                return self.find(job_id, principal, reading, kind)
        query = sa.select(jobs).where(jobs.c.id == job_id, jobs.c.principal == principal)
        if kind is not None:
            query = query.where(jobs.c.kind == kind)
        row = conn.execute(query).one_or_none()
        if row is None:
            raise InputError(
                "job.unknown", "You have no such job.", "Use the id that the answer to POST held."
            )
        return _job(row)

    def page(self, principal: str, kind: str, before: tuple[float, str] | None, limit: int) -> list[Job]:
        """A principal's jobs of one kind, the newest first, those after a cursor (created_at, id)."""
        query = sa.select(jobs).where(jobs.c.principal == principal, jobs.c.kind == kind)
        if before is not None:
            query = query.where(sa.tuple_(jobs.c.created_at, jobs.c.id) < before)
        query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        with self._database.read() as conn:
            return [_job(row) for row in conn.execute(query)]

    def events(self, job_id: str, after: int) -> list[Event]:
        """What happened to a job since event `after`, oldest first."""
        query = sa.select(job_events).where(job_events.c.job_id == job_id, job_events.c.seq > after)
        with self._database.read() as conn:
            rows = conn.execute(query.order_by(job_events.c.seq)).all()
        return [Event(row.seq, row.at, row.event, json.loads(row.data)) for row in rows]

    def count_waiting(self, principal: str = "") -> tuple[int, int]:
        """How many jobs wait: all, and those of one principal."""
        own = sa.func.count().filter(jobs.c.principal == principal)
        query = sa.select(sa.func.count(), own).select_from(jobs).where(jobs.c.state == "queued")
        with self._database.read() as conn:
            waiting, mine = conn.execute(query).one()
        return int(waiting), int(mine)

    def count_by_state(self) -> dict[str, int]:
        """How many jobs are in which state."""
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        with self._database.read() as conn:
            return {str(state): int(count) for state, count in conn.execute(query)}

    def report_worker(self, worker: str, state: str) -> None:
        """A worker's sign of life; one that stopped is forgotten."""
        with self._database.write(ledger=False) as conn:
            conn.execute(sa.delete(workers).where(workers.c.id == worker))
            if state != "stopped":
                conn.execute(sa.insert(workers), {"id": worker, "seen_at": now(conn), "state": state})

    def count_workers(self, within_s: float = 30.0) -> int:
        """How many workers gave a sign of life lately."""
        with self._database.read() as conn:
            query = sa.select(sa.func.count()).where(workers.c.seen_at > now(conn) - within_s)
            return int(conn.execute(query.select_from(workers)).scalar_one())

    def count_reserved_bytes(self, conn: Connection) -> int:
        """Bytes of all sets that are kept, and the most that those may take that are not made yet."""
        query = sa.select(jobs.c.request, jobs.c.result).where(
            jobs.c.kind == "faceset", jobs.c.state.in_(("queued", "running", "done"))
        )
        return sum(
            int(json.loads(row.result if row.result is not None else row.request)["bytes"])
            for row in conn.execute(query)
        )

    def forget_old(self) -> Needed:
        """Drop what has been kept long enough; says what is still needed."""
        with self._database.write(ledger=False) as conn:
            old = now(conn) - self._keep_s
            ended = sa.select(jobs.c.id).where(jobs.c.state.in_(ENDED), jobs.c.updated_at < old)
            conn.execute(sa.delete(job_events).where(job_events.c.job_id.in_(ended)))
            conn.execute(sa.delete(jobs).where(jobs.c.id.in_(ended)))
            conn.execute(sa.delete(checks).where(checks.c.created_at < old))
            needed = Needed(set(), set(), set())
            for row in conn.execute(
                sa.select(jobs.c.id, jobs.c.kind, jobs.c.state, jobs.c.request, jobs.c.result)
            ):
                if row.result is not None:
                    needed.done_jobs.add(row.id)
                    needed.objects.add(json.loads(row.result)["object"])
                if row.state not in ENDED:
                    needed.open_jobs.add(row.id)
                    needed.objects.update(_inputs(row.kind, json.loads(row.request)))
        return needed

    def _end(
        self, job: Job, state: State, values: Mapping[str, Any], told: Mapping[str, Any], conn: Connection
    ) -> None:
        time = now(conn)
        ended = {
            "state": state,
            "stage": "ended",
            "updated_at": time,
            "lease_owner": None,
            "lease_until": None,
        }
        done = conn.execute(sa.update(jobs).where(_held_by(job)).values({**ended, **values}))
        if done.rowcount != 1:
            raise _lost(job)
        _tell(job.id, state, told, time, conn)

    def _record_end(self, job: Job, state: State, code: str, conn: Connection) -> None:
        if job.accepted_index is not None:
            entry = {"kind": "job_failed", "accepted_index": job.accepted_index, "state": state, "code": code}
            self._home.ledger.append(entry, conn)


def _inputs(kind: str, request: Mapping[str, Any]) -> set[str]:
    """Objects that a job is made from; a set is drawn from nothing."""
    return {request["target"], *request["sources"]} if kind == "fusion" else set()


def _claim(worker: str, time: float, until: float) -> sa.Executable:
    """UPDATE … RETURNING of one row; on PostgreSQL rows that another worker is claiming are passed over.

    First come, first served; a set that gave way stands behind those who waited then, so that all come round.
    """
    turn = sa.case((jobs.c.kind == "faceset", jobs.c.updated_at), else_=jobs.c.created_at)
    lost = sa.and_(jobs.c.state == "running", jobs.c.lease_until < time)
    oldest = (
        sa.select(jobs.c.id)
        .where(sa.or_(jobs.c.state == "queued", lost))
        .order_by(turn, jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    values = {"state": "running", "lease_owner": worker, "lease_until": until, "updated_at": time}
    chosen = sa.update(jobs).where(jobs.c.id == oldest.scalar_subquery())
    return chosen.values(**values, attempts=jobs.c.attempts + 1).returning(*jobs.c)


def _held_by(job: Job) -> sa.ColumnElement[bool]:
    """The fence: the job is still in the state, the lease and the attempt in which it was handed out."""
    owner = jobs.c.lease_owner == job.lease_owner if job.lease_owner else jobs.c.lease_owner.is_(None)
    return sa.and_(jobs.c.id == job.id, jobs.c.state == job.state, owner, jobs.c.attempts == job.attempts)


def _tell(job_id: str, event: str, data: Mapping[str, Any], time: float, conn: Connection) -> None:
    last = sa.select(sa.func.coalesce(sa.func.max(job_events.c.seq), 0)).where(job_events.c.job_id == job_id)
    seq = int(conn.execute(last).scalar_one()) + 1
    row = {"job_id": job_id, "seq": seq, "at": time, "event": event, "data": json.dumps(data)}
    conn.execute(sa.insert(job_events), row)


def _job(row: sa.Row[*tuple[Any, ...]]) -> Job:
    fields = {name: getattr(row, name) for name in Job.__dataclass_fields__}
    for name in ("request", "result", "error"):
        fields[name] = json.loads(fields[name]) if fields[name] is not None else None
    return Job(**fields)


def _lost(job: Job) -> LeaseLostError:
    return LeaseLostError("job.lease_lost", f"{job.id} is another worker's by now.", "Nothing is left to do.")


def _cancelled(job: Job) -> CancelledError:
    return CancelledError("job.cancelled", f"{job.id} was cancelled.", "Ask again if you need it.")


def _without_result(code: str, detail: str, next_step: str) -> dict[str, Any]:
    return {"code": code, "detail": detail, "next": next_step, "rules": []}


_DEAD: Final = _without_result(
    "job.dead",
    "The job was started as often as is allowed, and each time its worker ended before it.",
    "Ask an admin: the worker's log says what happened.",
)
_CANCELLED: Final = _without_result("job.cancelled", "The job was cancelled.", "Ask again if you need it.")
