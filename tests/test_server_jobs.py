"""The queue on SQLite and on PostgreSQL: one transaction, leases, fences, ends; no picture is made here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from provenance.database import Database
from provenance.errors import InputError, RefusedError
from provenance.fsck import verify
from provenance.home import Home
from server.jobs import CancelledError, Job, LeaseLostError, Needed, Queue
from server.tables import ensure_tables, jobs


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
        database = Database(url)
        with database.write() as conn:
            conn.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        database.close()
    with Home.create(tmp_path / "home", "Example Lab", database_url=url) as made:
        ensure_tables(made.database)
        yield made


@pytest.fixture
def queue(home: Home) -> Queue:
    return Queue(home, lease_s=30.0, max_attempts=3, keep_s=3600.0)


def accept(home: Home, queue: Queue, principal: str = "key-1") -> str:
    """A job as a route makes it: acceptance and job in one transaction."""
    with home.database.write() as conn:
        receipt = home.ledger.append({"kind": "job_accepted", "faces": []}, conn)
        request = {"sources": ["a" * 64], "target": "b" * 64}
        return queue.enqueue("fusion", principal, request, receipt.index, conn)


def finish(home: Home, queue: Queue, job: Job) -> None:
    """The end as the pipeline makes it: output and job in one transaction."""
    with home.database.write() as conn:
        home.ledger.append({"kind": "output_recorded", "what": "test", "job": job.id}, conn)
        queue.finish(job, {"object": "c" * 64}, conn)


def kinds(home: Home) -> list[str]:
    return [entry.kind for entry in home.ledger.entries()]


def test_acceptance_and_job_are_one_transaction(home: Home, queue: Queue) -> None:
    def accept_and_fail() -> None:
        with home.database.write() as conn:
            receipt = home.ledger.append({"kind": "job_accepted", "faces": []}, conn)
            queue.enqueue("fusion", "key-1", {}, receipt.index, conn)
            raise KeyError("the power fails")

    with pytest.raises(KeyError):
        accept_and_fail()
    assert kinds(home) == ["init"]
    assert queue.count_waiting()[0] == 0
    accept(home, queue)
    assert kinds(home) == ["init", "job_accepted"]
    assert queue.count_waiting()[0] == 1


def test_a_job_from_its_acceptance_to_its_end(home: Home, queue: Queue) -> None:
    job_id = accept(home, queue)
    job = queue.claim("w1")
    assert job is not None
    assert (job.id, job.state, job.attempts, job.lease_owner) == (job_id, "running", 1, "w1")
    assert queue.claim("w2") is None
    queue.enter(job, "swap")
    finish(home, queue, job)
    ended = queue.find(job_id, "key-1")
    assert (ended.state, ended.result, ended.ended) == ("done", {"object": "c" * 64}, True)
    assert [(e.seq, e.event) for e in queue.events(job_id, 0)] == [
        (1, "queued"), (2, "running"), (3, "stage"), (4, "done"),
    ]  # fmt: skip
    assert [e.seq for e in queue.events(job_id, 2)] == [3, 4]
    assert verify(home).ok


def test_jobs_are_their_principals_own(home: Home, queue: Queue) -> None:
    job_id = accept(home, queue, "key-1")
    with pytest.raises(InputError, match=r"job\.unknown"):
        queue.find(job_id, "key-2")
    with pytest.raises(InputError, match=r"job\.unknown"):
        queue.cancel(job_id, "key-2")
    assert queue.page("key-2", "fusion", None, 10) == []


def test_a_lost_lease_is_taken_up_and_the_loser_can_end_nothing(home: Home) -> None:
    hasty = Queue(home, lease_s=0.05, max_attempts=3, keep_s=3600.0)
    accept(home, hasty)
    first = hasty.claim("w1")
    assert first is not None
    time.sleep(0.1)
    second = hasty.claim("w2")
    assert second is not None
    assert (second.id, second.attempts) == (first.id, 2)
    for late in (
        lambda: hasty.renew(first),
        lambda: hasty.enter(first, "swap"),
        lambda: finish(home, hasty, first),
    ):
        with pytest.raises(LeaseLostError):
            late()
    assert "output_recorded" not in kinds(home)
    finish(home, hasty, second)
    with pytest.raises(LeaseLostError):
        finish(home, hasty, second)
    assert kinds(home).count("output_recorded") == 1


def test_a_renewed_lease_is_kept(home: Home) -> None:
    hasty = Queue(home, lease_s=0.4, max_attempts=3, keep_s=3600.0)
    accept(home, hasty)
    job = hasty.claim("w1")
    assert job is not None
    for _ in range(4):
        time.sleep(0.15)
        hasty.renew(job)
    assert hasty.claim("w2") is None


def test_a_job_that_never_ends_is_dead_and_the_ledger_says_so(home: Home) -> None:
    hasty = Queue(home, lease_s=0.0, max_attempts=2, keep_s=3600.0)
    job_id = accept(home, hasty)
    for attempt in (1, 2):
        job = hasty.claim("w1")
        assert job is not None
        assert job.attempts == attempt
        time.sleep(0.01)
    assert hasty.claim("w1") is None
    dead = hasty.find(job_id, "key-1")
    assert (dead.state, dead.error and dead.error["code"]) == ("dead", "job.dead")
    last = home.ledger.entries()[-1]
    assert (last.kind, last.body["state"], last.body["accepted_index"]) == ("job_failed", "dead", 1)


def test_a_lease_given_back_does_not_count_as_an_attempt(home: Home, queue: Queue) -> None:
    accept(home, queue)
    job = queue.claim("w1")
    assert job is not None
    queue.give_back(job)
    again = queue.claim("w2")
    assert again is not None
    assert (again.attempts, again.lease_owner) == (1, "w2")


def test_cancelling_a_waiting_and_a_running_job(home: Home, queue: Queue) -> None:
    waiting = accept(home, queue)
    assert queue.cancel(waiting, "key-1").state == "cancelled"
    assert home.ledger.entries()[-1].body["state"] == "cancelled"
    with pytest.raises(RefusedError, match=r"job\.ended"):
        queue.cancel(waiting, "key-1")
    running = accept(home, queue)
    job = queue.claim("w1")
    assert job is not None
    assert queue.cancel(running, "key-1").state == "running"
    with pytest.raises(CancelledError):
        queue.enter(job, "swap")
    with pytest.raises(CancelledError):
        queue.renew(job)


def test_many_workers_take_each_job_once(home: Home, queue: Queue) -> None:
    wanted = {accept(home, queue) for _ in range(24)}
    taken: list[str] = []

    server = home.database.sqlite_path is None
    url = home.database.url.render_as_string(hide_password=False) if server else None

    def work(name: str) -> None:
        with Home.open(home.path, url) as mine:
            own = Queue(mine, lease_s=30.0, max_attempts=3, keep_s=3600.0)
            while (job := own.claim(name)) is not None:
                taken.append(job.id)
                finish(mine, own, job)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(wanted)
    assert kinds(home).count("output_recorded") == 24
    assert verify(home).ok


def test_what_is_old_is_forgotten_and_what_is_needed_is_named(home: Home) -> None:
    brief = Queue(home, lease_s=30.0, max_attempts=3, keep_s=0.0)
    accept(home, brief)
    job = brief.claim("w1")
    assert job is not None
    assert brief.forget_old() == Needed({"a" * 64, "b" * 64}, {job.id}, set())
    finish(home, brief, job)
    time.sleep(0.02)
    assert brief.forget_old() == Needed(set(), set(), set())
    with home.database.read() as conn:
        assert conn.execute(sa.select(jobs)).all() == []


def test_a_set_needs_no_objects_but_its_list_and_keeps_its_name(home: Home, queue: Queue) -> None:
    def reserved() -> int:
        with home.database.read() as conn:
            return queue.count_reserved_bytes(conn)

    with home.database.write() as conn:
        receipt = home.ledger.append({"kind": "job_accepted", "what": "faceset"}, conn)
        job_id = queue.enqueue("faceset", "key-1", {"spec": {}, "bytes": 1000}, receipt.index, conn)
    fusion = accept(home, queue)
    assert reserved() == 1000
    assert queue.forget_old() == Needed({"a" * 64, "b" * 64}, {job_id, fusion}, set())
    assert [job.id for job in queue.page("key-1", "faceset", None, 10)] == [job_id]
    with pytest.raises(InputError, match=r"job\.unknown"):
        queue.cancel(job_id, "key-1", "fusion")
    job = queue.claim("w1")
    assert job is not None
    with home.database.write() as conn:
        queue.finish(job, {"object": "d" * 64, "bytes": 300}, conn)
    assert reserved() == 300
    assert queue.forget_old() == Needed({"a" * 64, "b" * 64, "d" * 64}, {fusion}, {job_id})


def test_a_set_that_gave_way_comes_behind_those_who_waited_then(home: Home, queue: Queue) -> None:
    with home.database.write() as conn:
        the_set = queue.enqueue("faceset", "key-1", {"spec": {}, "bytes": 1}, None, conn)
    waiting = accept(home, queue)
    job = queue.claim("w1")
    assert job is not None
    assert job.id == the_set
    time.sleep(0.01)
    queue.give_back(job)
    time.sleep(0.01)
    later = accept(home, queue)
    turns = [queue.claim("w1") for _ in range(3)]
    assert [each.id for each in turns if each] == [waiting, the_set, later]
    assert [each.attempts for each in turns if each] == [1, 1, 1]


def test_workers_give_signs_of_life(queue: Queue) -> None:
    assert queue.count_workers() == 0
    queue.report_worker("w1", "ready")
    queue.report_worker("w1", "ready")
    assert queue.count_workers() == 1
    queue.report_worker("w1", "stopped")
    assert queue.count_workers() == 0
