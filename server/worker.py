"""A worker process: takes jobs from the queue, makes pictures and sets through the pipeline, ends them; knows no HTTP.

Run as `python -m server.worker ID`. It stops when told (SIGTERM) or when its parent is gone: it finishes the job at
hand, or gives the lease back when that takes too long. Killed at any point it leaves a job that another worker
takes up when the lease has run out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import Connection

from fusion.formats import Format
from fusion.pipeline import complete, prepare
from fusion.request import FuseRequest
from fusion.seal import Release, Sealed
from fusion.stopwatch import Stopwatch
from provenance import consent
from provenance.errors import FacsimileError, StoreError
from provenance.home import Home
from server.jobs import CancelledError, Job, LeaseLostError, Queue
from server.logs import configure, log
from server.objects import ObjectStore
from server.problems import problem_of
from server.service import UPLOAD_LIMITS
from server.set_work import GiveWayError, SetMaking
from server.sets import SetStore
from server.settings import WORKER_GRACE_S, ServeSettings, read_settings
from server.tables import ensure_tables

if TYPE_CHECKING:
    from fusion.swap import Perception

IDLE_S: Final = 0.3

SWEEP_EVERY_S: Final = 600.0


class JobRelease(Release):
    """Puts the picture into the store, and ends the job in the transaction that records the picture."""

    def __init__(self, job: Job, queue: Queue, objects: ObjectStore) -> None:
        kind = Format(str(job.request["format"]))
        super().__init__(Path(f"{job.id}{kind.suffix}"))
        self._job = job
        self._queue = queue
        self._objects = objects
        self._object = ""

    def keep(self, data: bytes) -> None:
        self._object = self._objects.put(data)

    def settle(self, sealed: Sealed, conn: Connection) -> None:
        told = {k: v for k, v in sealed.as_dict().items() if k != "output"}
        result = {**told, "object": self._object, "format": self.format.value}
        self._queue.finish(self._job, result, conn)

    def release(self, data: bytes) -> None:
        """Nothing is left to do: the job's result names the object since the record was committed."""


@dataclass
class Worker:
    """One worker over an open home."""

    name: str
    home: Home
    queue: Queue
    objects: ObjectStore
    sets: SetStore
    open_home: Callable[[], Home]
    perception: Callable[[], Perception]
    stopping: threading.Event
    current: Job | None = None

    def run(self) -> None:
        """Take jobs until told to stop."""
        swept = 0.0
        while not self.stopping.is_set():
            if time.monotonic() - swept > SWEEP_EVERY_S:
                self.sweep()
                swept = time.monotonic()
            try:
                job = self.queue.claim(self.name)
            except StoreError as error:
                log.warning("cannot claim", code=error.code, worker=self.name)
                job = None
            if job is None:
                self.stopping.wait(IDLE_S)
            else:
                self.do(job)

    def do(self, job: Job) -> None:
        """One job, from its claim to its end."""
        self.current = job
        log.info("job begins", job=job.id, attempt=job.attempts, worker=self.name)
        try:
            with _Heartbeat(self.queue, job) as heart:
                if job.kind == "faceset":
                    self._make_set(job, heart)
                else:
                    self._make(job)
            state = "done"
        except GiveWayError:
            state = self._give_way(job)
        except LeaseLostError:
            state = "lost"
        except CancelledError as error:
            state = self._fail(job, "cancelled", error)
        except StoreError as error:
            state = "interrupted"  # the disk or the database failed, not the job: its lease runs out, it is tried again
            log.warning("job interrupted", job=job.id, code=error.code)
            self.stopping.wait(1.0)
        except FacsimileError as error:
            if error.code == "set.busy":  # a worker that lost the job has not found out yet
                state = "interrupted"
                self.stopping.wait(1.0)
            else:
                state = self._fail(job, "refused" if error.exit_code == 1 else "failed", error)
        except Exception as error:
            log.error("job crashed", job=job.id, exc_info=error)
            state = self._fail(job, "failed", _internal())
        finally:
            self.current = None
        log.info("job ends", job=job.id, state=state, worker=self.name)

    def _make(self, job: Job) -> None:
        watch = Stopwatch(lambda stage: None if stage == "release" else self.queue.enter(job, stage))
        request = _fuse_request(job.request, self.objects)
        prepared = prepare(request, self.home, self.perception(), watch, UPLOAD_LIMITS)
        with watch.stage("consent"):
            decision = consent.check(prepared.question, self.home)
        release = JobRelease(job, self.queue, self.objects)
        index = -1 if job.accepted_index is None else job.accepted_index
        complete(prepared, decision, index, self.home, self.perception(), release, watch)

    def _make_set(self, job: Job, heart: _Heartbeat) -> None:
        making = SetMaking(
            job, self.home, self.open_home, self.queue, self.objects, self.sets, self.stopping, heart.require
        )
        making.run()

    def _give_way(self, job: Job) -> str:
        try:
            self.queue.give_back(job)
        except StoreError as error:
            log.warning("job interrupted", job=job.id, code=error.code)
            return "interrupted"
        return "given back"

    def _fail(self, job: Job, state: Any, error: FacsimileError) -> str:
        problem = problem_of(error)
        try:
            self.queue.fail(job, state, {key: problem[key] for key in ("code", "detail", "next", "rules")})
        except LeaseLostError:
            return "lost"
        except StoreError as failed:
            log.warning("job interrupted", job=job.id, code=failed.code)
            return "interrupted"
        self.sets.discard(job.id)
        return str(state)

    def sweep(self) -> None:
        """Delete objects that no job needs any more, and what is older than it may be."""
        try:
            needed, old = self.queue.forget_old(), time.time() - 3600.0
            count = self.objects.sweep(needed.objects, old)
            count += self.sets.sweep(needed.open_jobs, needed.done_jobs, old)
            log.info("swept", count=count)
        except (FacsimileError, OSError) as error:
            log.warning("cannot sweep", exc_info=error)

    def give_back(self) -> None:
        """Return the lease of the job at hand, so that another worker can take it up at once."""
        job = self.current
        if job is not None:
            self.queue.give_back(job)
            log.info("lease given back", job=job.id, worker=self.name)


class _Heartbeat:
    """Renews a job's lease from a thread of its own while the block runs."""

    def __init__(self, queue: Queue, job: Job) -> None:
        self._queue = queue
        self._job = job
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._error: LeaseLostError | CancelledError | None = None

    def require(self) -> None:
        """Raise what the last beat found out: LeaseLostError, CancelledError."""
        if self._error is not None:
            raise self._error

    def _beat(self) -> None:
        while not self._done.wait(self._queue.lease_s / 3):
            try:
                self._queue.renew(self._job)
            except (LeaseLostError, CancelledError) as error:
                self._error = error  # the next stage will find out
                return
            except FacsimileError as error:
                log.warning("cannot renew", job=self._job.id, code=error.code)

    def __enter__(self) -> _Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _fuse_request(said: Mapping[str, Any], objects: ObjectStore) -> FuseRequest:
    names = {"sources", "target", "format"}
    fields: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in said.items() if key not in names
    }
    return FuseRequest(
        sources=tuple(objects.get(each) for each in said["sources"]),
        target=objects.get(said["target"]),
        **fields,
    )


def _internal() -> FacsimileError:
    return FacsimileError(
        "job.crashed", "The worker failed; this is its fault.", "Report it with the job's id."
    )


def main() -> None:
    """The process: settings from the environment, networks loaded before the first job."""
    from fusion.swap import load_perception

    configure()
    name, settings = sys.argv[1], replace(ServeSettings(), **json.loads(sys.argv[2]))
    where = read_settings()

    def open_home() -> Home:
        return Home.open(where.home, where.database_url, timestamp_url=where.timestamp_url, pin=where.pin)

    with open_home() as home:
        ensure_tables(home.database)
        perception = load_perception("cpu")
        worker = Worker(
            name=name,
            home=home,
            queue=Queue(home, settings.lease_s, settings.max_attempts, settings.keep_results_s),
            objects=ObjectStore(home.store_path),
            sets=SetStore(home.path, home.store_path),
            open_home=open_home,
            perception=lambda: perception,
            stopping=threading.Event(),
        )
        signal.signal(signal.SIGTERM, lambda *_: worker.stopping.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _watch(worker)
        worker.run()
        worker.queue.report_worker(name, "stopped")
        log.info("worker stops", worker=name)


def _watch(worker: Worker) -> None:
    """Sign of life; stop when the parent is gone; give up the job when stopping takes longer than WORKER_GRACE_S."""
    threading.Thread(target=_report, args=(worker,), daemon=True).start()
    threading.Thread(target=_follow_parent, args=(worker,), daemon=True).start()
    threading.Thread(target=_give_up_late, args=(worker,), daemon=True).start()


def _report(worker: Worker) -> None:
    while not worker.stopping.is_set():
        try:
            worker.queue.report_worker(worker.name, "ready")
        except FacsimileError as error:
            log.warning("cannot report", code=error.code, worker=worker.name)
        worker.stopping.wait(5.0)


def _follow_parent(worker: Worker) -> None:
    """The parent holds the other end of stdin; when it dies, reading ends."""
    while os.read(0, 1 << 10):  # not sys.stdin: its lock would be held when the process ends
        pass
    worker.stopping.set()


def _give_up_late(worker: Worker) -> None:
    worker.stopping.wait()
    time.sleep(WORKER_GRACE_S)
    try:
        worker.give_back()
        worker.queue.report_worker(worker.name, "stopped")
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
