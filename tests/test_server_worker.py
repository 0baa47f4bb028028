"""Real worker processes: killed in mid-job, told to stop in mid-job; every accepted job ends once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from conftest import Studio

from fusion.pipeline import prepare, record_acceptance
from fusion.request import FuseRequest
from fusion.stopwatch import Stopwatch
from provenance import consent
from provenance.fsck import verify
from provenance.home import Home
from server.jobs import Job, Queue
from server.objects import ObjectStore
from server.settings import ServeSettings
from server.supervisor import start_worker
from server.tables import ensure_tables

BRIEF = replace(ServeSettings(), lease_s=2.0)
PATIENCE_S = 240.0


@pytest.fixture
def home(studio: Studio) -> Iterator[Home]:
    with Home.open(studio.home_path) as opened:
        ensure_tables(opened.database)
        yield opened


def accept(home: Home, queue: Queue, studio: Studio) -> str:
    source, target = (person.path.read_bytes() for person in studio.people[:2])
    request = FuseRequest((source,), target, "research")
    objects = ObjectStore(home.store_path)
    prepared = prepare(request, home, studio.perception, Stopwatch())
    said = {
        "purpose": "research",
        "format": "png",
        "sources": [objects.put(source)],
        "target": objects.put(target),
    }
    with consent.accept(prepared.question, home) as (decision, conn):
        return queue.enqueue("fusion", "key-w", said, record_acceptance(decision, home, conn).index, conn)


def wait_for(queue: Queue, job_id: str, attempt: int, *stages: str) -> Job:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        job = queue.find(job_id, "key-w")
        if job.attempts == attempt and job.stage in stages:
            return job
        time.sleep(0.02)
    raise AssertionError(f"{job_id} never came to {stages}")


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    code = process.wait(PATIENCE_S)
    assert process.stdin is not None
    process.stdin.close()
    return code


def test_a_killed_workers_job_is_taken_up_and_a_stopped_worker_finishes(home: Home, studio: Studio) -> None:
    queue = Queue(home, BRIEF.lease_s, BRIEF.max_attempts, BRIEF.keep_results_s)
    job_id = accept(home, queue, studio)
    first = start_worker(home, BRIEF)
    wait_for(queue, job_id, 1, "swap", "mark", "encode", "sign")
    assert end(first, signal.SIGKILL) == -signal.SIGKILL
    assert queue.find(job_id, "key-w").state == "running"
    second = start_worker(home, BRIEF)
    wait_for(queue, job_id, 2, "perceive", "swap", "mark", "encode", "sign", "ended")
    assert end(second, signal.SIGTERM) == 0
    job = queue.find(job_id, "key-w")
    assert (job.state, job.attempts) == ("done", 2)
    ends = [
        entry for entry in home.ledger.entries() if entry.body.get("accepted_index") == job.accepted_index
    ]
    assert [entry.kind for entry in ends] == ["output_recorded"]
    assert job.result is not None
    assert ObjectStore(home.store_path).get(job.result["object"])[:4] == b"\x89PNG"
    assert verify(home).ok
