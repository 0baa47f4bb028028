"""Labelled sets over HTTP: accepted, made, listed and read as jobs; bounded; interrupted without loss."""

from __future__ import annotations

import functools
import io
import json
import signal
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from conftest import ROOT, Studio
from serving import FAST, Served, serve, worker_of

from facesets.formats import LIBRARIES
from facesets.spec import SetSpec
from provenance.fsck import verify
from provenance.hashes import sha256_hex
from provenance.home import Home
from server.jobs import Job, Queue
from server.sets import COPYING, most_bytes
from server.supervisor import start_worker
from setmaking.verify import verify_set

SPEC: dict[str, Any] = {
    "name": "tiny", "purpose": "research", "licence": "CC-BY-4.0", "identities": 4, "pictures": 1, "fused": 1,
    "splits": {"train": 0.5, "test": 0.5}, "seed": 3, "formats": ["deepfakebench"],
}  # fmt: skip
BOUNDED = replace(FAST, max_set_pictures=8, max_sets_bytes=16_000_000, lease_s=2.0)


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home, BOUNDED) as running:
        running.service._perception = studio.perception
        yield running


def find(served: Served, job_id: str) -> Job:
    with served.service.home.database.read() as conn:
        principal = next(
            row.principal
            for row in conn.exec_driver_sql("SELECT id, principal FROM jobs")
            if row.id == job_id
        )
    return served.service.queue.find(job_id, principal)


def ask(client: httpx.Client, **changes: Any) -> str:
    answer = client.post("/v1/facesets", json={**SPEC, **changes})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def work(served: Served) -> None:
    """One worker's turn, in this process."""
    worker = worker_of(served.service, lambda: served.service.perception)
    job = served.service.queue.claim(worker.name)
    assert job is not None
    worker.do(job)


@pytest.fixture(scope="module")
def made(served: Served) -> httpx.Response:
    """The answer to the request of a set that is finished by now; asked for under a key."""
    with served.client("generator") as client:
        asked = client.post("/v1/facesets", json=SPEC, headers={"Idempotency-Key": "set-1"})
        assert asked.status_code == 202, asked.text
        early = client.get(f"{asked.headers['location']}/archive")
        assert (early.status_code, early.json()["code"]) == (409, "job.not_done")
    work(served)
    return asked


def test_a_set_is_accepted_made_and_recorded(served: Served, made: httpx.Response) -> None:
    where, ledger = made.headers["location"], served.service.home.ledger
    accepted = ledger.entry(made.json()["accepted_index"])
    assert (accepted.kind, accepted.body["what"], accepted.body["pictures"]) == ("job_accepted", "faceset", 5)
    with served.client("generator") as client:
        job = client.get(where).json()
        listed = client.get(f"{where}/files")
        assert client.get("/v1/facesets").json()["items"] == [job]
    assert (job["state"], job["kind"], job["result"]["samples"]) == ("done", "faceset", 5)
    recorded = ledger.entry(job["result"]["ledger"]["index"])
    assert (recorded.kind, recorded.body["accepted_index"]) == ("set_recorded", accepted.index)
    assert recorded.body["files_sha256"] == sha256_hex(listed.content) == job["result"]["files_sha256"]
    assert sum(each["bytes"] for each in listed.json()["files"]) == job["result"]["bytes"]
    assert verify(served.service.home).ok


def test_every_picture_is_recorded_by_itself_and_fused_ones_were_judged(
    served: Served, made: httpx.Response
) -> None:
    first, last = made.json()["accepted_index"], find(served, made.json()["id"]).result
    assert last is not None
    kinds = [
        (entry.kind, entry.body.get("what"))
        for entry in served.service.home.ledger.entries()
        if first <= entry.index <= last["ledger"]["index"]
    ]
    assert kinds[0] == ("job_accepted", "faceset")
    assert kinds.count(("output_recorded", "sample")) == 4
    assert kinds.count(("output_recorded", "fusion")) == 1
    assert sum(kind == "job_accepted" for kind, _ in kinds) == 2
    assert kinds[-1][0] == "set_recorded"


def test_the_same_request_is_done_once(served: Served, made: httpx.Response) -> None:
    with served.client("generator") as client:
        again = client.post("/v1/facesets", json=SPEC, headers={"Idempotency-Key": "set-1"})
        other = client.post("/v1/facesets", json={**SPEC, "seed": 4}, headers={"Idempotency-Key": "set-1"})
    assert (again.status_code, again.json()["id"]) == (202, made.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency.reused")
    assert served.service.queue.count_waiting()[0] == 0


def test_events_tell_the_stages_and_resume(served: Served, made: httpx.Response) -> None:
    with served.client("generator") as client:
        text = client.get(f"{made.headers['location']}/events").text
        data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        rest = client.get(f"{made.headers['location']}/events", headers={"Last-Event-ID": str(len(data) - 1)})
    stages = [each["data"]["stage"] for each in data if each["event"] == "stage"]
    assert list(dict.fromkeys(stages)) == ["people", "pictures", "formats", "record"]
    assert [each["data"] for each in data if each["data"].get("stage") == "pictures"][-1] == {
        "stage": "pictures", "done": 5, "of": 5,
    }  # fmt: skip
    assert data[-1]["event"] == "done"
    assert rest.text.count("event: ") == 1


def test_the_archive_is_the_whole_set_and_verifies_offline(
    served: Served, made: httpx.Response, tmp_path: Path
) -> None:
    where = made.headers["location"]
    with served.client("generator") as client:
        listed = {each["path"]: each for each in client.get(f"{where}/files").json()["files"]}
        archive = client.get(f"{where}/archive")
        assert archive.headers["content-length"] == str(len(archive.content))
        assert archive.headers["content-disposition"] == 'attachment; filename="tiny.tar"'
        picture = next(path for path in listed if path.endswith(".png") and "masks" not in path)
        single = client.get(f"{where}/files/{picture}")
        assert (single.headers["content-type"], sha256_hex(single.content)) == (
            "image/png",
            listed[picture]["sha256"],
        )
        for unlisted in (".lock", "plan.json/../../x", "nothing.json"):
            answer = client.get(f"{where}/files/{unlisted}")
            assert answer.status_code in (404, 422), unlisted
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        tar.extractall(tmp_path, filter="data")
    held = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert held.keys() == listed.keys()
    assert all(sha256_hex(path.read_bytes()) == listed[name]["sha256"] for name, path in held.items())
    assert verify_set(tmp_path, served.service.home, lambda done, of: None).flaws == ()


def test_no_set_is_larger_than_its_bound(served: Served, made: httpx.Response) -> None:
    result = find(served, made.json()["id"]).result
    assert result is not None
    assert 0.1 * most_bytes(SetSpec.of(SPEC)) < result["bytes"] < most_bytes(SetSpec.of(SPEC))
    noise = SetSpec.of({**SPEC, "size_px": 512, "formats": ["parquet"]})
    assert most_bytes(noise) == 5 * 2 * (3 * 512 * 512 + 262_144)
    every = SetSpec.of({**SPEC, "formats": [*LIBRARIES]})
    assert most_bytes(every) == 5 * 3 * (3 * 256 * 256 + 262_144)
    reading = {
        name
        for name in LIBRARIES
        if "view.read" in (ROOT / f"datasets/facesets/format_{name}.py").read_text()
    }
    assert reading == COPYING


def test_a_set_belongs_to_its_principal_and_is_no_fusion(served: Served, made: httpx.Response) -> None:
    job_id, where = made.json()["id"], made.headers["location"]
    with served.client("generator") as client:
        assert client.get(f"/v1/fusions/{job_id}").json()["code"] == "job.unknown"
        assert client.get(f"/v1/fusions/{job_id}/result").status_code == 404
        assert client.get(f"/make/{job_id}").status_code == 404
        assert client.get("/v1/fusions").json()["items"] == []
    other = {"Authorization": f"Bearer {served.key('generator')}"}
    for path in (where, f"{where}/files", f"{where}/archive", f"{where}/files/set.json", f"{where}/events"):
        answer = httpx.get(served.url + path, headers=other)
        assert (answer.status_code, answer.json()["code"]) == (404, "job.unknown"), path


def test_an_altered_file_is_never_handed_out(served: Served, made: httpx.Response) -> None:
    path = served.service.home.store_path / "sets" / made.json()["id"] / "README.md"
    before = path.read_bytes()
    path.write_bytes(before + b"!")
    try:
        with served.client("generator") as client:
            answer = client.get(f"{made.headers['location']}/files/README.md")
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(f"{made.headers['location']}/archive")
    finally:
        path.write_bytes(before)
    assert (answer.status_code, answer.json()["code"]) == (503, "object.altered")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"identities": 9}, 413, "faceset.too_large"),
        ({"identities": 8, "fused": 0, "size_px": 512, "formats": ["parquet"]}, 507, "faceset.no_room"),
        ({"splits": {"train": 0.5}}, 422, "faceset.spec"),
        ({"engine": "nothing"}, 422, "swap.unknown_engine"),
        ({"identities": True}, 422, "request.invalid"),
        ({"identities": "4"}, 422, "request.invalid"),
        ({"identities": 9.0}, 413, "faceset.too_large"),
        ({"out": "/etc"}, 422, "request.invalid"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(
    served: Served, made: httpx.Response, changes: dict[str, Any], status: int, code: str
) -> None:
    size = served.service.home.ledger.tree_head().size
    with served.client("generator") as client:
        answer = client.post("/v1/facesets", json={**SPEC, **changes})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert served.service.home.ledger.tree_head().size == size
    assert served.service.queue.count_waiting()[0] == 0


def test_a_set_gives_way_between_shards_and_keeps_what_is_finished(served: Served) -> None:
    queue, before = served.service.queue, len(served.service.home.ledger.entries())
    with served.client("generator") as client:
        first = ask(client, fused=0, seed=5)
        second = ask(client, fused=0, seed=6)
    work(served)
    assert (find(served, first).state, find(served, first).attempts) == ("queued", 0)
    making = served.service.home.path / "making" / first
    shards = {path.name: path.stat().st_ino for path in (making / "shards").iterdir()}
    assert sorted(shards) == ["00000"]
    turn = queue.claim("w")
    assert turn is not None
    assert turn.id == second
    queue.cancel(second, turn.principal)
    worker_of(served.service, lambda: served.service.perception).do(turn)
    assert find(served, second).state == "cancelled"
    assert not (served.service.home.path / "making" / second).exists()
    work(served)
    assert find(served, first).state == "done"
    whole = served.service.home.store_path / "sets" / first / "shards"
    assert (whole / "00000").stat().st_ino == shards["00000"]
    last = served.service.home.ledger.entries()[before:]
    ended = [e.body["state"] for e in last if e.kind == "job_failed"]
    assert ended == ["cancelled"]


def test_a_worker_that_is_told_to_stop_returns_the_set(served: Served) -> None:
    with served.client("generator") as client:
        job_id = ask(client, fused=0, seed=7)
        worker = worker_of(served.service, lambda: served.service.perception)
        job = served.service.queue.claim(worker.name)
        assert job is not None
        worker.stopping.set()
        worker.do(job)
        assert (find(served, job_id).state, find(served, job_id).attempts) == ("queued", 0)
        cancelled = client.post(f"/v1/facesets/{job_id}/cancellation")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
        assert client.post(f"/v1/facesets/{job_id}/cancellation").json()["code"] == "job.ended"


def test_what_is_no_longer_kept_is_swept(served: Served) -> None:
    sets = served.service.sets
    for name in ("job-a", "job-b", "job-c"):
        sets.begin(name).mkdir()
        if name != "job-a":
            sets.put_in_place(name)
    kept = {path.name for path in (served.service.home.store_path / "sets").iterdir()} - {"job-c"}
    assert sets.sweep({"job-a"}, kept, time.time() - 60) == 0
    assert sets.sweep({"job-a"}, kept, time.time() + 60) >= 1
    home = served.service.home
    assert (home.path / "making" / "job-a").is_dir()
    assert {path.name for path in (home.store_path / "sets").iterdir()} == kept
    assert sets.sweep(set(), kept - {"job-b"}, time.time() + 60) == 2


def test_a_killed_workers_set_is_gone_on_with(served: Served) -> None:
    service = served.service
    with served.client("generator") as client:
        job_id = ask(client, identities=6, fused=0, shard_people=2, splits={"train": 1.0}, seed=8)
        first = start_worker(service.home, BOUNDED)
        done = functools.partial((service.home.path / "making" / job_id / "shards" / "00000").is_dir)
        wait_until(done)
        first.send_signal(signal.SIGKILL)
        assert first.wait(60) == -signal.SIGKILL
        inode = (service.home.path / "making" / job_id / "shards" / "00000").stat().st_ino
        second = start_worker(service.home, BOUNDED)
        wait_until(lambda: find(served, job_id).ended)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0
    job = find(served, job_id)
    assert (job.state, job.attempts) == ("done", 2)
    assert (service.home.store_path / "sets" / job_id / "shards" / "00000").stat().st_ino == inode
    ends = [
        e.kind for e in service.home.ledger.entries() if e.body.get("accepted_index") == job.accepted_index
    ]
    assert ends == ["set_recorded"]
    for process in (first, second):
        assert process.stdin is not None
        process.stdin.close()


def wait_until(holds: Any, patience_s: float = 240.0) -> None:
    until = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_late_worker_cannot_end_the_set_of_another(served: Served) -> None:
    brief = Queue(served.service.home, lease_s=0.0, max_attempts=9, keep_s=3600.0)
    with served.client("generator") as client:
        job_id = ask(client, fused=0, identities=2, splits={"train": 1.0}, seed=9)
        late = brief.claim("late")
        time.sleep(0.01)
        current = brief.claim("current")
        assert late is not None
        assert current is not None
        worker_of(served.service, lambda: served.service.perception, "late").do(late)
        job = find(served, job_id)
        assert (job.state, job.lease_owner) == ("running", "current")
        assert not (served.service.home.store_path / "sets" / job_id).exists()
        client.post(f"/v1/facesets/{job_id}/cancellation")
    worker_of(served.service, lambda: served.service.perception, "current").do(current)
    assert find(served, job_id).state == "cancelled"
