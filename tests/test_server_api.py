"""The API over a real server: who may do what, what is answered, and that a job ends as it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from clips import clip
from conftest import Studio
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from serving import Served, serve, worker_of
from typer.testing import CliRunner

from fusion.media import encode_picture, read_picture
from provenance.fsck import verify
from provenance.home import Home
from server.auth import ROLES, SCOPES
from server.cli import build_app
from server.gate import PUBLIC, SCOPE_KEY, GatedRoute

PUBLIC_ROUTES = {
    "/healthz",
    "/readyz",
    "/problems/{code}",
    "/v1/resolution/services/supportedAlgorithms",
    "/v1/status-list",
}
PUBLIC_PAGES = {
    "/",
    "/enter",
    "/login",
    "/login/oidc",
    "/login/oidc/return",
    "/static/{name}",
    "/status-list",
}


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        running.service._perception = studio.perception
        yield running


@pytest.fixture(scope="module")
def pictures(studio: Studio) -> list[bytes]:
    return [person.path.read_bytes() for person in studio.people]


@pytest.fixture(scope="module")
def strangers(pictures: list[bytes]) -> list[bytes]:
    """The same people without manifest or mark: to the server they are anybody."""
    return [encode_picture(read_picture(data).rgb[::-1][::-1], "jpeg", 92) for data in pictures]


def api_routes(app: FastAPI) -> list[tuple[str, str, str | None]]:
    """(method, path, declared scope) of each route of the API."""
    found = []
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            found.append((method.upper(), path, operation.get(SCOPE_KEY)))
    return found


def fill(path: str) -> str:
    """A path with ids that exist nowhere."""
    known = {
        "{check_id}": "check-" + "0" * 20, "{job_id}": "job-" + "0" * 20, "{subject_id}": "subject-" + "0" * 16,
        "{grant_id}": "grant-" + "0" * 16, "{index}": "0", "{code}": "auth.missing",
    }  # fmt: skip
    for name, value in known.items():
        path = path.replace(name, value)
    return path.replace("{manifest_id}", "urn:c2pa:none").replace("{path}", "set.json")


def ask(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """Without a body: who may is decided before one is read."""
    return client.request(method, fill(path))


def work(served: Served, studio: Studio) -> None:
    """One worker's turn, in this process."""
    worker = worker_of(served.service, lambda: studio.perception, "w")
    job = served.service.queue.claim("w")
    assert job is not None
    worker.do(job)


def ask_fusion(client: httpx.Client, source: bytes, target: bytes, **fields: Any) -> httpx.Response:
    headers = {"Idempotency-Key": fields.pop("key")} if "key" in fields else {}
    files = [("source", ("s.png", source)), ("target", ("t.png", target))]
    return client.post("/v1/fusions", files=files, data={"purpose": "research", **fields}, headers=headers)


def test_every_route_of_api_and_pages_declares_its_scope(served: Served) -> None:
    """Included routers are wrapped: walk what is really served, and let nothing but the OpenAPI document by."""
    app = served.app
    found = [(each.path, each.original_route) for each in iter_route_contexts(app.routes)]
    ungated = [path for path, route in found if not isinstance(route, GatedRoute)]
    assert ungated == ["/v1/openapi.json"]
    scopes = {
        path: (route.openapi_extra or {}).get(SCOPE_KEY) for path, route in found if path not in ungated
    }
    assert len(scopes) > 35
    assert {path for path, scope in scopes.items() if scope not in {*SCOPES, PUBLIC}} == set()
    assert {path for path, scope in scopes.items() if scope == PUBLIC} == PUBLIC_ROUTES | PUBLIC_PAGES


def test_nobody_and_wrong_roles_are_refused_before_a_body_is_read(served: Served) -> None:
    routes = [each for each in api_routes(served.app) if each[2] != PUBLIC]
    with served.client() as nobody:
        for method, path, _ in routes:
            answer = ask(nobody, method, path)
            assert (answer.status_code, answer.json()["code"]) == (401, "auth.missing"), path
            assert answer.headers["www-authenticate"].startswith("Bearer")
    for role in ROLES:
        with served.client(role) as client:
            for method, path, scope in routes:
                if role not in SCOPES[str(scope)]:
                    answer = ask(client, method, path)
                    assert (answer.status_code, answer.json()["code"]) == (403, "auth.scope"), (role, path)


def test_duties_are_separated(served: Served) -> None:
    may = {role: {scope for scope, roles in SCOPES.items() if role in roles} for role in ROLES}
    assert not {"grants:write", "subjects:write"} & (may["generator"] | may["verifier"] | may["admin"])
    assert not any(scope.endswith((":write", ":create")) for scope in may["auditor"])
    assert not {"fusions:create", "checks:create"} & (may["consent_officer"] | may["admin"])
    routes = api_routes(served.app)
    assert {method for method, path, _ in routes if path.startswith("/v1/audit")} == {"GET"}
    assert [path for method, path, _ in routes if method == "DELETE"] == [
        "/v1/subjects/{subject_id}/template"
    ]


def test_the_openapi_document_states_every_error(served: Served) -> None:
    with served.client() as client:
        schema = client.get("/v1/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    operations = [op for path in schema["paths"].values() for op in path.values()]
    names = [op["operationId"] for op in operations]
    assert len(set(names)) == len(names)
    assert {
        "createCheck",
        "createFusion",
        "createFaceset",
        "followFaceset",
        "followFusion",
        "issueGrant",
        "proveInclusion",
    } <= set(names)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for op in operations:
        assert op["responses"]["500"]["content"] == problem
        assert "Retry-After" in op["responses"]["429"]["headers"]
        assert ("401" in op["responses"]) == (op[SCOPE_KEY] != PUBLIC)
    assert "HTTPValidationError" not in json.dumps(schema)


def verify_as_the_command_line_does(served: Served, path: Path) -> None:
    environment = {"FACSIMILE_HOME": str(served.service.home.path)}
    done = CliRunner().invoke(build_app(), ["check", "--verify-report", str(path), "--json"], env=environment)
    assert (done.exit_code, json.loads(done.stdout)["valid"]) == (0, True), done.output
    assert json.loads(done.stdout)["signer"] == served.service.home.organisation
    path.write_bytes(path.read_bytes().replace(b"synthetic", b"authentic", 1) + b" ")
    assert (
        CliRunner().invoke(build_app(), ["check", "--verify-report", str(path)], env=environment).exit_code
        == 3
    )


def test_a_check_is_answered_at_once_and_kept_for_its_principal(
    served: Served, pictures: list[bytes], tmp_path: Path
) -> None:
    with served.client("verifier") as client, served.client("generator") as other:
        made = client.post("/v1/checks", files={"file": ("../../etc/p<b>.png", pictures[0])})
        assert made.status_code == 201, made.text
        body = made.json()
        assert body["verdict"] == "declared_synthetic"
        assert body["report"]["file"] == "p_b_.png"
        assert body["report"]["evidence"]["ledger"]["inclusion_verified"] is True
        again = client.get(made.headers["location"])
        assert again.json() == body
        download = client.get(f"{made.headers['location']}/report.json")
        assert download.json()["files"] == [body["report"]]
        assert download.headers["content-disposition"].startswith('attachment; filename="check-')
        page = client.get(f"{made.headers['location']}/report.html", params={"lang": "zh"})
        assert 'lang="zh' in page.text
        assert "<script" not in page.text
        pdf = client.get(f"{made.headers['location']}/report.pdf")
        assert (pdf.headers["content-type"], pdf.content[:5]) == ("application/pdf", b"%PDF-")
        for kind in ("json", "html", "pdf"):
            path = tmp_path / f"report.{kind}"
            for end in ("", ".jws"):
                kept = client.get(f"{made.headers['location']}/report.{kind}{end}", params={"lang": "zh"})
                path.with_name(path.name + end).write_bytes(kept.content)
            verify_as_the_command_line_does(served, path)
        served.service.recent_reports._reports.clear()
        gone = client.get(f"{made.headers['location']}/report.html.jws")
        assert (gone.status_code, gone.json()["code"]) == (410, "check.report_gone")
        assert client.get(f"{made.headers['location']}/report.pdf").status_code == 410
        refused = other.get(made.headers["location"])
        assert (refused.status_code, refused.json()["code"]) == (404, "check.unknown")


def test_pages_follow_cursors_without_gap_or_repeat(served: Served, pictures: list[bytes]) -> None:
    key = served.key("verifier")
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
        ids = [client.post("/v1/checks", files={"file": ("a", pictures[1])}).json()["id"] for _ in range(3)]
        seen, cursor = [], None
        for _ in range(3):
            page = client.get(
                "/v1/checks", params={"limit": 1, **({"cursor": cursor} if cursor else {})}
            ).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next"]
        assert (seen, cursor) == (ids[::-1], None)
        assert client.get("/v1/checks", params={"cursor": "bm90IG91cnM"}).json()["code"] == "request.cursor"
    with served.client("auditor") as client:
        first = client.get("/v1/audit/entries", params={"limit": 2}).json()
        second = client.get("/v1/audit/entries", params={"limit": 2, "cursor": first["next"]}).json()
        assert [item["index"] for item in first["items"] + second["items"]] == [0, 1, 2, 3]


def test_a_problem_never_repeats_what_was_sent(served: Served) -> None:
    secret = "hunter2-hunter2"
    with served.client("consent_officer") as client:
        answer = client.post("/v1/grants", json={"subject_id": secret, "grantee": secret, "extra": secret})
    body = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["code"], body["type"]) == ("request.invalid", "/problems/request.invalid")
    assert "body.subject_id" in body["fields"]
    assert secret not in answer.text
    with served.client() as nobody:
        page = nobody.get(body["type"])
        assert page.status_code == 200
        assert "OpenAPI" in page.text
        assert nobody.get("/problems/nothing.known").status_code == 404


def test_an_uncovered_face_is_refused_with_every_rule_and_logged(
    served: Served, pictures: list[bytes], strangers: list[bytes]
) -> None:
    before = served.service.home.ledger.tree_head().size
    with served.client("generator") as client:
        answer = ask_fusion(client, pictures[0], strangers[1])
        assert answer.status_code == 403, answer.text
        assert (answer.json()["code"], answer.json()["rules"]) == ("consent.denied", ["face.accounted"])
        assert client.get("/v1/fusions").json()["items"] == []
    assert served.service.home.ledger.entry(before).kind == "decision_denied"
    assert served.service.queue.count_waiting()[0] == 0


def test_a_fusion_is_a_job_that_ends_recorded(served: Served, studio: Studio, pictures: list[bytes]) -> None:
    with served.client("generator") as client:
        asked = ask_fusion(client, pictures[0], pictures[1], key="once", format="jpeg", label="true")
        assert asked.status_code == 202, asked.text
        place = asked.headers["location"]
        assert client.get(f"{place}/result").json()["code"] == "job.not_done"
        replay = ask_fusion(client, pictures[0], pictures[1], key="once", format="jpeg", label="true")
        assert (replay.status_code, replay.json()) == (202, asked.json())
        assert replay.headers["idempotent-replayed"] == "true"
        other = ask_fusion(client, pictures[0], pictures[1], key="once", format="png")
        assert (other.status_code, other.json()["code"]) == (422, "idempotency.reused")
        assert served.service.queue.count_waiting()[0] == 1
        work(served, studio)
        job = client.get(place).json()
        assert (job["state"], job["attempts"]) == ("done", 1)
        result = client.get(f"{place}/result")
        assert result.headers["content-type"] == "image/jpeg"
        verdict = client.post("/v1/checks", files={"file": ("r", result.content)}).json()
        assert verdict["verdict"] == "declared_synthetic"
        assert verdict["report"]["evidence"]["mark"]["asset_id"] == job["result"]["asset_id"]
        all_events = read_events(client, f"{place}/events", None)
        assert [each["event"] for each in all_events][:3] == ["queued", "running", "stage"]
        assert all_events[-1]["event"] == "done"
        resumed = read_events(client, f"{place}/events", all_events[3]["id"])
        assert resumed == all_events[4:]
        late = client.post(f"{place}/cancellation")
        assert (late.status_code, late.json()["code"]) == (409, "job.ended")
    entry = served.service.home.ledger.entry(job["result"]["ledger"]["index"])
    assert (entry.kind, entry.body["asset_id"]) == ("output_recorded", job["result"]["asset_id"])
    assert entry.body["label"] is True


def read_events(client: httpx.Client, path: str, last_id: str | None) -> list[dict[str, str]]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with client.stream("GET", path, headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = "".join(stream.iter_text())
    blocks = [block for block in text.split("\n\n") if "data:" in block]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def test_consent_withdrawn_after_the_acceptance_stops_the_job(
    served: Served, studio: Studio, strangers: list[bytes]
) -> None:
    until = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    with served.client("consent_officer") as officer, served.client("generator") as client:
        grants = []
        for number, data in enumerate(strangers[:2]):
            form = {"name": f"Ada {number}", "adult_verified": "passport", "adult_verified_on": "2026-01-02"}
            subject = officer.post("/v1/subjects", files=[("image", ("a", data))], data=form)
            assert subject.status_code == 201, subject.text
            order = {
                "subject_id": subject.json()["id"], "grantee": served.service.home.organisation,
                "purposes": ["research"], "scope_roles": ["source", "target"], "scope_media": ["still"],
                "uses": ["internal"], "until": until, "evidence": "form 7",
            }  # fmt: skip
            for path in ("/v1/grants", "/v1/grants/drafts"):
                late = officer.post(path, json={**order, "until": "2020-01-01"})
                assert (late.status_code, late.json()["code"]) == (422, "grant.past")
            assert "research" in officer.post("/v1/grants/drafts", json=order).json()["text"]
            grant = officer.post("/v1/grants", json=order)
            assert grant.status_code == 201, grant.text
            grants.append(grant.json()["id"])
        accepted = [ask_fusion(client, *strangers[:2], grant=grants) for _ in range(2)]
        assert [each.status_code for each in accepted] == [202, 202], accepted[0].text
        work(served, studio)
        withdrawn = officer.post(f"/v1/grants/{grants[1]}/revocation", json={"reason": "changed my mind"})
        assert withdrawn.status_code == 200
        work(served, studio)
        states = [client.get(each.headers["location"]).json() for each in accepted]
        assert [each["state"] for each in states] == ["done", "refused"]
        assert states[1]["error"]["rules"] == ["grant.revoked"]
        assert ask_fusion(client, *strangers[:2], grant=grants).json()["rules"] == ["grant.revoked"]
        again = officer.post(f"/v1/grants/{grants[1]}/revocation", json={"reason": "again"})
        assert (again.status_code, again.json()["code"]) == (409, "grant.revoked")
        erased = officer.delete(f"/v1/subjects/{subject.json()['id']}/template")
        assert erased.status_code == 200
        assert officer.get(f"/v1/subjects/{subject.json()['id']}").json()["erased"] is True
    assert served.service.home.ledger.entry(withdrawn.json()["ledger_index"]).kind == "grant_revoked"
    assert verify(served.service.home).ok


def test_cancelling_a_waiting_job(served: Served, pictures: list[bytes]) -> None:
    with served.client("generator") as client:
        asked = ask_fusion(client, pictures[0], pictures[2])
        cancelled = client.post(f"{asked.headers['location']}/cancellation")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
        assert client.get(asked.headers["location"]).json()["error"]["code"] == "job.cancelled"
    assert served.service.queue.count_waiting()[0] == 0


def test_proofs_lead_from_an_entry_to_the_signed_root(served: Served) -> None:
    import base64
    import hashlib

    from provenance.checkpoint import Verifier, open_checkpoint
    from provenance.ledger import Proof

    with served.client("auditor") as client:
        point = client.get("/v1/audit/checkpoint").json()
        proof = client.get("/v1/audit/proofs/1").json()
        head = open_checkpoint(proof["checkpoint"], Verifier.from_text(point["verifier_key"]))
        leaf = base64.b64decode(proof["entry_base64"])
        assert hashlib.sha256(b"\0" + leaf).hexdigest() == proof["leaf_sha256"]
        made = Proof(1, proof["size"], tuple(proof["hashes"]), proof["checkpoint"])
        made.verify_inclusion(proof["leaf_sha256"], head.root.hex())
        grown = client.get("/v1/audit/consistency", params={"older": 2}).json()
        older = client.get("/v1/audit/consistency", params={"older": 1, "newer": 2}).json()
        assert (grown["position"], grown["size"], older["size"]) == (2, head.size, 2)


def test_a_stripped_copy_is_led_back_to_its_manifest(served: Served, strangers: list[bytes]) -> None:
    with served.client("verifier") as client:
        found = client.post("/v1/resolution/matches/byContent", files={"file": ("a", strangers[0])})
        assert found.status_code == 200, found.text
        match = found.json()["matches"][0]
        manifest = client.get(f"/v1/resolution/manifests/{match['manifestId']}")
        assert manifest.headers["content-type"] == "application/c2pa"
        assert b"c2pa" in manifest.content[:64]
        assert client.get("/v1/resolution/manifests/urn:c2pa:0").status_code in (404, 422)


def test_a_video_is_checked_and_led_back_too(served: Served, pictures: list[bytes], tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mp4", [read_picture(pictures[0]).rgb] * 4).read_bytes()
    with served.client("verifier") as client:
        checked = client.post("/v1/checks", files={"file": ("a.mp4", data)}).json()
        assert checked["report"]["verdict"] == "synthetic_by_mark"
        found = client.post("/v1/resolution/matches/byContent", files={"file": ("a.mp4", data)})
        (match,) = found.json()["matches"]
        assert match["similarityScore"] >= 87
        cut = client.post("/v1/resolution/matches/byContent", files={"file": ("a.mp4", data[:200])})
        assert cut.status_code in (415, 422), cut.text
        unknown = {"params": {"alg": "org.example.mark"}, "files": {"file": ("a.mp4", data)}}
        assert client.post("/v1/resolution/matches/byContent", **unknown).status_code == 422


def test_metrics_have_few_labels_whatever_is_asked(served: Served) -> None:
    with served.client("auditor") as client, served.client() as nobody:
        for number in range(40):
            nobody.get(f"/nothing/{number}")
            nobody.request(f"M{number}", "/healthz")
            client.get(f"/v1/audit/proofs/{number}000")
        text = client.get("/metrics").text
    series = [line for line in text.splitlines() if line.startswith("facsimile_requests_total{")]
    assert 5 < len(series) < 150
    assert "/nothing" not in text
    assert 'method="M' not in text
    assert "000" not in "".join(line.split("}")[0] for line in series)
    assert 'facsimile_checks_total{verdict="declared_synthetic"}' in text


def test_the_file_names_of_this_test_are_no_paths(tmp_path: Path) -> None:
    from server.routes.checks import display_name

    assert [display_name(name) for name in ("../../x", "C:\\a\\b.png", "", None, "a\0\n<script>", "..")] == [
        "x", "b.png", "upload", "upload", "a___script_", "..",
    ]  # fmt: skip
