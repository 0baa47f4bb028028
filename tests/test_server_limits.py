"""What one client may take: hostile files, slow bytes, floods, foreign hosts, over real sockets."""

from __future__ import annotations

import base64
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest
from conftest import Studio
from hostile import ACCEPTED, HOSTILE
from serving import FAST, Served, serve

from provenance.home import Home
from server import auth
from server.problems import STATUS_OF_CODE

MAX_SECONDS, MAX_GROWTH_MB = (
    25.0,
    700.0,
)  # of one hostile file: wall clock on a busy machine; peak of this process


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client("verifier") as made:
        yield made


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_files_get_their_status_within_ceilings(client: httpx.Client, name: str) -> None:
    make, code = HOSTILE[name]
    code = {"mp4_with_hostile_box": "media.damaged"}.get(name, code)  # a check reads videos too
    data = make()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    answer = client.post("/v1/checks", files={"file": ("picture.png", data, "image/png")})
    body = answer.json()
    assert (body["code"], answer.status_code) == (code, STATUS_OF_CODE.get(code, 422))
    assert answer.headers["content-type"] == "application/problem+json"
    assert time.perf_counter() - began < MAX_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MAX_GROWTH_MB


@pytest.mark.parametrize(
    "name", ["jpeg_zip_polyglot", "png_text_bomb", "jpeg_exif_loop", "webp_lossless_alpha"]
)
def test_odd_but_honest_files_are_checked(client: httpx.Client, name: str) -> None:
    """They show no face that could be judged, so nothing is concluded."""
    answer = client.post("/v1/checks", files={"file": ("picture", ACCEPTED[name][0]())})
    assert (answer.status_code, answer.json()["verdict"]) == (201, "inconclusive"), answer.text


def test_nothing_of_an_upload_is_written_outside_the_store(
    served: Served, client: httpx.Client, tmp_path: Path
) -> None:
    before = {path for path in served.service.home.path.rglob("*") if "ledger.db" not in path.name}
    for name in ("../../../../tmp/evil", "/etc/evil", "..\\evil", "a\0b", "%2e%2e%2fevil"):
        client.post("/v1/checks", files={"file": (name, b"not a picture")})
    for path in (
        "/v1/checks/..%2f..%2fkeys",
        "/v1/fusions/../../keys/leaf.key.pem",
        "/static/..%2f..%2fserver/auth.py",
    ):
        assert client.get(path).status_code in (404, 422)
    assert {path for path in served.service.home.path.rglob("*") if "ledger.db" not in path.name} == before
    assert not Path("/tmp/evil").exists()


def test_a_foreign_host_header_is_refused(served: Served) -> None:
    with httpx.Client(base_url=served.url, headers={"Host": "evil.example"}) as rebound:
        assert rebound.get("/healthz").status_code == 400


def test_head_is_answered_as_get_without_a_body(served: Served) -> None:
    with served.client("verifier") as client:
        for path in ("/healthz", "/v1/me", "/login", "/nowhere"):
            answer, same = client.head(path), client.get(path)
            assert (answer.status_code, answer.content) == (same.status_code, b""), path
            assert answer.headers["content-type"] == same.headers["content-type"]
        refused = client.request("PUT", "/v1/resolution/matches/byBinding")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST")


def test_security_headers_are_on_every_answer(served: Served) -> None:
    with served.client() as nobody:
        for path in ("/healthz", "/nothing", "/v1/me", "/problems/media.format", "/v1/openapi.json"):
            headers = nobody.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe-inline" not in headers["content-security-policy"]
            assert "server" not in headers
            assert headers["cache-control"] == "no-store"


def test_a_place_that_comes_free_too_late_is_refused(studio: Studio) -> None:
    tight = replace(FAST, check_slots=1, waiting_slots=4, deadline_s=0.2)
    with (
        Home.open(studio.home_path) as home,
        serve(home, tight) as running,
        running.client("verifier") as one,
    ):
        assert running.service.slots._free._value == 1
        running.service.slots._free._value = 0
        busy = one.post("/v1/checks", files={"file": ("p", b"x")})
        assert (busy.status_code, busy.json()["code"]) == (503, "request.busy")
        assert running.service.slots.waiting == 0


def test_no_more_jobs_wait_than_may(studio: Studio) -> None:
    with (
        Home.open(studio.home_path) as home,
        serve(home, replace(FAST, max_queued_jobs=0)) as running,
        running.client("generator") as client,
    ):
        busy = client.post("/v1/fusions", content=b"")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "10")


def test_one_principal_s_jobs_do_not_fill_the_queue(studio: Studio) -> None:
    person = studio.people[0].path.read_bytes()
    asked = {"files": [("source", ("s", person)), ("target", ("t", person))], "data": {"purpose": "research"}}
    with (
        Home.open(studio.home_path) as home,
        serve(home, replace(FAST, max_queued_jobs=2)) as running,
        running.client("generator") as client,
    ):
        taken = [client.post("/v1/fusions", **asked) for _ in range(2)]
        assert [each.status_code for each in taken] == [202, 202]
        assert client.post("/v1/fusions", **asked).status_code == 503
        client.post(f"{taken[0].headers['location']}/cancellation")
        with httpx.Client(
            base_url=running.url, headers={"Authorization": f"Bearer {running.key('generator')}"}, timeout=60
        ) as other:
            last = other.post("/v1/fusions", **asked)
            assert last.status_code == 202
            other.post(f"{last.headers['location']}/cancellation")
        client.post(f"{taken[1].headers['location']}/cancellation")


@pytest.mark.parametrize(
    "cursor", ['[1.0,"\\ud800"]', '[NaN,"key-0"]', '[1e999,"key-0"]', '[1.0,"a\\u0000"]', "[1.0,7]", "{}"]
)
def test_a_forged_cursor_is_no_cursor(served: Served, cursor: str) -> None:
    forged = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
    with served.client("verifier") as client:
        answer = client.get("/v1/checks", params={"cursor": forged})
        assert (answer.status_code, answer.json()["code"]) == (422, "request.cursor")


def test_texts_without_control_signs_engines_that_exist_and_numbers_of_this_world(
    served: Served, studio: Studio
) -> None:
    person = studio.people[0].path.read_bytes()
    files = [("source", ("s", person)), ("target", ("t", person))]
    with served.client("generator") as client:
        for field, value, code in (
            ("engine", "guest", "swap.unknown_engine"), ("preset", "none", "swap.unknown_preset"),
            ("grant", "a\0b", "request.invalid"), ("grant", "x" * 65, "request.invalid"),
        ):  # fmt: skip
            refused = client.post("/v1/fusions", files=files, data={"purpose": "research", field: value})
            assert (refused.status_code, refused.json()["code"]) == (422, code), field
    with served.client("consent_officer") as officer:
        for reason in ("a\0b", "\x1b[31m", " ", "\n"):
            withdrawn = officer.post(f"/v1/grants/grant-{'0' * 16}/revocation", json={"reason": reason})
            assert (withdrawn.status_code, withdrawn.json()["code"]) == (422, "request.invalid"), reason
    session = auth.open_session(served.service.home.database, served.key(*auth.ROLES))
    assert session is not None
    with httpx.Client(base_url=served.url, cookies={"facsimile": session.token}, timeout=60) as page:
        for path in (f"/audit/entries/{'9' * 30}", f"/audit?before={'9' * 30}"):
            assert page.get(path).status_code == 422, path


def test_floods_get_429_and_a_full_house_503(studio: Studio) -> None:
    tight = replace(FAST, requests_per_minute=5, check_slots=1, waiting_slots=0)
    with (
        Home.open(studio.home_path) as home,
        serve(home, tight) as running,
        running.client("verifier") as one,
    ):
        busy = one.post("/v1/checks", files={"file": ("p", b"x")})
        assert (busy.status_code, busy.json()["code"]) == (503, "request.busy")
        assert int(busy.headers["retry-after"]) >= 1
        statuses = [one.get("/v1/me") for _ in range(6)]
        assert [each.status_code for each in statuses] == [200] * 4 + [429] * 2
        assert 1 <= int(statuses[-1].headers["retry-after"]) <= 60
        with running.client("auditor") as other:
            assert other.get("/v1/me").status_code == 200
