"""The pages as a plain HTTP client without scripts uses them: forms, languages, refusals, who may see what."""

from __future__ import annotations

import html
import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from clips import clip, corners, filmed
from conftest import ORGANISATION, Studio
from fastapi.routing import APIRoute
from serving import Served, serve, worker_of

from fusion.media import encode_picture, read_picture
from fusion.seal import Job
from fusion.seal_video import Shape, VideoRelease, seal_video
from fusion.stopwatch import Stopwatch
from provenance import receipts
from provenance.attestation import verify_detached
from provenance.errors import SignatureError
from provenance.home import Home
from provenance.requirements import REQUIREMENTS
from provenance.statuslist import open_list
from server import auth
from server.gate import SCOPE_KEY
from server.language import translator
from server.pages import audit, check, consent, entry, make
from server.pages.consent import _terms
from server.report_files import REPORT_KIND

ALL = auth.ROLES
t = translator("en")
VIDEO_TYPES = "video/mp4,video/quicktime,video/x-m4v"


@pytest.fixture(scope="module")
def served(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        yield running


@contextmanager
def log_in(served: Served, *roles: str, lang: str = "en") -> Iterator[httpx.Client]:
    """A browser without scripts, logged in with a key of these roles."""
    with httpx.Client(base_url=served.url, timeout=120, headers={"Accept-Language": lang}) as client:
        answer = client.post("/login", data={"key": served.key(*roles)})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        yield client


def token(client: httpx.Client, path: str) -> str:
    """The CSRF token that a page's form carries."""
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', client.get(path).text)
    assert found is not None
    return found[1]


def picture(studio: Studio, number: int) -> bytes:
    return studio.people[number].path.read_bytes()


def sealed_film(studio: Studio, home: Home, folder: Path) -> Path:
    """Six frames of a nobody before a hand-held camera, sealed like every output."""
    portrait = read_picture(picture(studio, 0)).rgb
    timed = [(filmed(portrait, number, 640, 360), number / 4) for number in range(6)]
    job, shape = Job("sample", "filmed", {"filmed": "0" * 64}), Shape(640, 360, 6, None)
    release = VideoRelease(folder / "film.mp4")
    return seal_video(timed, shape, job, home, release, Stopwatch(), dict).path


def post_to_check(client: httpx.Client, name: str, data: bytes) -> httpx.Response:
    """The form of Check, sent with one file."""
    return client.post("/check", data={"csrf_token": token(client, "/check")}, files={"file": (name, data)})


def stripped(studio: Studio, number: int) -> bytes:
    """The same pixels without manifest: only a grant can speak for them."""
    return encode_picture(read_picture(picture(studio, number)).rgb, "png")


def test_every_page_declares_a_scope() -> None:
    routers = [page.router for page in (audit, check, consent, entry, make)]
    routes = [route for router in routers for route in router.routes]
    assert len(routes) > 25
    for route in routes:
        assert isinstance(route, APIRoute)
        assert (route.openapi_extra or {}).get(SCOPE_KEY), route.path
    assert not any(router.include_in_schema for router in routers)


def test_who_is_not_logged_in_is_led_to_the_entrance_and_back(served: Served) -> None:
    with httpx.Client(base_url=served.url) as nobody:
        answer = nobody.get("/audit")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Faudit")
        assert nobody.get("/").status_code == 200
        back = nobody.post("/login", data={"key": served.key("auditor"), "next": "/audit"})
        assert back.headers["location"] == "/audit"
        cookie = back.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert nobody.get("/audit").status_code == 200


@pytest.mark.parametrize(
    "next_", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x"]
)
def test_the_entrance_leads_nowhere_else(served: Served, next_: str) -> None:
    with httpx.Client(base_url=served.url) as client:
        answer = client.post("/login", data={"key": served.key("verifier"), "next": next_})
        assert answer.headers["location"] == "/"


def test_a_bad_key_a_used_code_and_logging_out(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        refused = client.post("/login", data={"key": "fk_" + "x" * 43})
        assert (refused.status_code, t("login.failed") in refused.text) == (401, True)
        assert "set-cookie" not in refused.headers
        _, stored = auth.make_key(served.service.home.database, ["auditor"], "x")
        code = served.service.entry_codes.make(stored.id, time.time())
        assert code in client.get("/enter", params={"code": code}).text
        assert client.post("/login", data={"code": code}).status_code == 303
        assert client.get("/audit").status_code == 200
        csrf = token(client, "/audit")
        assert client.post("/logout", data={"csrf_token": csrf}).status_code == 303
        assert client.get("/audit").status_code == 303
        assert client.post("/login", data={"code": code}).status_code == 401


def test_roles_see_their_own_doors_only(served: Served) -> None:
    doors = {"verifier": {"/check"}, "generator": {"/check", "/make"}, "auditor": {"/consent", "/audit"}}
    for role, mine in doors.items():
        with log_in(served, role) as client:
            start = client.get("/").text
            for path in ("/check", "/make", "/consent", "/audit"):
                assert (f'href="{path}"' in start) == (path in mine)
                assert client.get(path).status_code == (200 if path in mine else 403)
    with log_in(served, "auditor") as client:
        assert "/consent/enrol" not in client.get("/consent").text
        assert client.get("/consent/enrol").status_code == 403


def test_a_form_without_its_token_changes_nothing(served: Served, studio: Studio) -> None:
    with log_in(served, *ALL) as client:
        size = served.service.home.ledger.tree_head().size
        for path, data in (
            ("/check", {}),
            ("/consent/grants/grant-0000000000000000/revocation", {}),
            ("/logout", {}),
            ("/logout", {"csrf_token": "0" * 64}),
        ):
            answer = client.post(
                path, data=data, files={"file": picture(studio, 0)} if path == "/check" else None
            )
            assert answer.status_code == 403, path
            assert "auth.csrf" in answer.text
        assert served.service.home.ledger.tree_head().size == size


def test_headers_forbid_inline_code_and_pages_have_none(served: Served, studio: Studio) -> None:
    with log_in(served, *ALL) as client:
        for path in (
            "/",
            "/login",
            "/check",
            "/make",
            "/consent",
            "/consent/enrol",
            "/audit",
            "/audit/entries/1",
        ):
            page = client.get(path)
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert not re.search(r"\son[a-z]+=|<style|\sstyle=|javascript:", page.text), path
            assert re.findall(r"<script(?![^>]*src=)", page.text) == []
            assert page.headers["x-frame-options"] == "DENY"
            assert page.headers["cache-control"] == "no-store"


def test_static_files_are_kept_for_ever_under_their_hash_and_nothing_else_is_served(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get("/").text):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert re.search(r"\?v=[0-9a-f]{12}$", path)
        for path in ("/static/page.html", "/static/..%2Fapp.py", "/static/%2e%2e"):
            assert client.get(path).status_code in (404, 422)


def test_the_language_follows_query_cookie_and_header(served: Served) -> None:
    with httpx.Client(base_url=served.url, headers={"Accept-Language": "zh-CN,en;q=0.5"}) as client:
        assert '<html lang="zh-Hans">' in client.get("/").text
        english = client.get("/", params={"lang": "en"})
        assert '<html lang="en">' in english.text
        assert '<html lang="en">' in client.get("/login").text
        assert client.get("/login", params={"lang": "xx"}).headers["content-language"] == "en"


def test_a_check_without_scripts_shows_verdict_evidence_and_tree(served: Served, studio: Studio) -> None:
    with log_in(served, "verifier") as client:
        csrf = token(client, "/check")
        files = {"file": ("<b>x</b>.png", picture(studio, 0))}
        page = client.post("/check", data={"csrf_token": csrf}, files=files)
        assert page.status_code == 200
        assert t("verdict.declared_synthetic.title") in page.text
        assert studio.people[0].asset_id in page.text
        assert t("action.c2pa.created") in page.text
        assert "data:image/jpeg;base64," in page.text
        assert "<b>x</b>" not in page.text
        where = re.search(r'data-checked="(/check/check-[0-9a-f]{20})"', page.text)
        assert where is not None
        again = client.get(where[1], headers={"Accept-Language": "zh"}).text
        assert translator("zh")("verdict.declared_synthetic.title") in again
        assert "data:image/jpeg" not in again
        assert where[1] in client.get("/check").text
        for kind, begins in (("json", b"{"), ("pdf", b"%PDF-"), ("html", b"<!doctype html>")):
            report, signature = (
                client.get(html.unescape(each))
                for each in re.findall(rf'href="(/v1/checks/[^"]+report\.{kind}[^"]*)"', page.text)
            )
            assert report.content.startswith(begins)
            signed = verify_detached(
                report.content, signature.text, REPORT_KIND, served.service.home.keys.trust
            )
            assert signed.signer == ORGANISATION
            with pytest.raises(SignatureError):
                verify_detached(
                    report.content + b" ", signature.text, REPORT_KIND, served.service.home.keys.trust
                )
        served.service.recent_reports._reports.clear()
        later = client.get(where[1]).text
        assert "report.json" in later
        assert "report.pdf" not in later
    with log_in(served, "verifier") as other:
        assert other.get(where[1]).status_code == 404


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "page.no_file"),
        (b"GIF89a" + bytes(40), 415, "media.format"),
        (b"\xff\xd8\xff", 422, "media."),
    ],
)
def test_a_file_that_cannot_be_checked_is_refused_in_words(
    served: Served, data: bytes, status: int, code: str
) -> None:
    with log_in(served, "verifier", lang="zh") as client:
        csrf = token(client, "/check")
        answer = client.post("/check", data={"csrf_token": csrf}, files={"file": ("a.jpg", io.BytesIO(data))})
        assert (answer.status_code, code in answer.text) == (status, True)
        assert translator("zh")("error.title") in answer.text


def test_a_sealed_video_is_told_with_its_line_of_time_and_again_from_its_report(
    served: Served, studio: Studio, tmp_path: Path
) -> None:
    data = sealed_film(studio, served.service.home, tmp_path).read_bytes()
    with log_in(served, "verifier") as client:
        page = post_to_check(client, "film.mp4", data)
        assert page.status_code == 200
        shown = html.unescape(page.text)
        where = re.search(r'data-checked="/check/(check-[0-9a-f]{20})"', shown)
        assert where is not None
        later = html.unescape(client.get(f"/check/{where[1]}", params={"lang": "zh"}).text)
        report = client.get(f"/v1/checks/{where[1]}").json()["report"]
    marked = sum(frame["marked"] for frame in report["evidence"]["video"]["frames"])
    assert marked >= 1
    for text, words in ((shown, t), (later, translator("zh"))):
        assert words("verdict.declared_synthetic.title") in text
        assert words("report.video.sampled", count=4) in text
        assert words("report.video.marked", marked=marked, count=4) in text
        dots = re.findall(r'<circle cx="[\d.]+%" cy="[\d.]+%" r="[\d.]+"( class="marked")?/>', text)
        assert (len(dots), sum(map(bool, dots))) == (4, marked)
        rows = re.findall(r'<tr>(<th scope="row">.*?)</tr>', text)
        assert [row.count("<td>") for row in rows] == [4, 3, 3, 3, 3], "a shot, four frames"
        assert 'class="box"' not in text, "the faces of one frame do not belong over another"
        assert words("checked.faces_of_frame") in text
    assert re.search(r'<img src="data:image/jpeg;base64,[^"]+" width="640" height="360"', shown)
    assert t("checked.video_frame") in shown
    assert "data:image/jpeg" not in later
    assert translator("zh")("checked.gone") in later


def test_a_plain_video_proves_nothing_and_damage_is_told(served: Served, tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mov", [corners(n) for n in range(4)], container="mov").read_bytes()
    with log_in(served, "verifier") as client:
        page = html.unescape(post_to_check(client, "a.mov", data).text)
        assert t("verdict.inconclusive.title") in page
        assert t("report.video.legend_plain") in page
        assert 'class="marked"' not in page
        cut = html.unescape(post_to_check(client, "cut.mov", data + b"\0\0\1\0free").text)
        assert "The file ends 248 bytes too early." in cut


@pytest.mark.parametrize(
    ("kind", "code"), [("cut", "media.truncated"), ("webm", "media.format"), ("sound", "media.no_video")]
)
def test_a_video_that_cannot_be_checked_is_refused_in_words(
    served: Served, tmp_path: Path, kind: str, code: str
) -> None:
    whole = clip(tmp_path / "a.mp4", [corners(n) for n in range(4)], sound=True).read_bytes()
    data = {
        "cut": whole[:200],
        "webm": b"\x1a\x45\xdf\xa3" + bytes(60),
        "sound": whole.replace(b"vide", b"xxxx"),
    }[kind]
    with log_in(served, "verifier", lang="zh") as client:
        answer = post_to_check(client, "a.mp4", data)
        assert answer.status_code in (415, 422)
        assert code in answer.text
        assert translator("zh")(f"error.{code}") in answer.text
        assert translator("zh")(f"next.{code}") in answer.text


def test_only_check_takes_videos(served: Served) -> None:
    with log_in(served, *ALL) as client:
        assert f'accept="image/jpeg,image/png,image/webp,{VIDEO_TYPES}"' in client.get("/check").text
        assert "media-src blob:" in client.get("/check").headers["content-security-policy"]
        for path in ("/make", "/consent/enrol"):
            assert 'type="file"' in client.get(path).text
            assert "video/" not in client.get(path).text


def work_off(served: Served) -> None:
    """Do every job that waits, as a worker process would."""
    service = served.service
    worker = worker_of(service, lambda: service.perception)
    while (job := service.queue.claim("test")) is not None:
        worker.do(job)


def test_a_fusion_without_scripts_from_form_to_sealed_result(served: Served, studio: Studio) -> None:
    with log_in(served, *ALL) as client:
        csrf = token(client, "/make")
        files = [("source", ("a.png", picture(studio, 0))), ("target", ("b.png", picture(studio, 1)))]
        started = client.post("/make", data={"csrf_token": csrf, "purpose": "research"}, files=files)
        assert started.status_code == 303, started.text
        where = started.headers["location"]
        waiting = client.get(where).text
        assert '<noscript><meta http-equiv="refresh"' in waiting
        assert t("stage.queued") in waiting
        work_off(served)
        done = client.get(where).text
        assert t("job.done_title") in done
        assert t("seal.nobodies") in done
        shown = re.findall(r'<img (?:class="[^"]*" )?src="([^"]+)"', done)
        before, after = (client.get(path) for path in shown)
        assert before.content == picture(studio, 1)
        checked = client.post(
            "/check", data={"csrf_token": csrf}, files={"file": ("c.jpg", after.content)}
        ).text
        assert t("verdict.declared_synthetic.title") in checked
        assert t("tree.parentOf") in checked
        assert f'src="{where}/target/0"' in checked
    with log_in(served, *ALL) as other:
        assert other.get(where).status_code == 404
        assert other.get(f"{where}/target/0").status_code == 404


def test_a_refused_fusion_names_the_rules(served: Served, studio: Studio) -> None:
    with log_in(served, "generator", lang="zh") as client:
        csrf = token(client, "/make")
        files = [("source", ("a.png", stripped(studio, 0))), ("target", ("b.png", picture(studio, 1)))]
        answer = client.post("/make", data={"csrf_token": csrf, "purpose": "research"}, files=files)
        assert answer.status_code == 403
        assert "face.accounted" in answer.text
        assert translator("zh")("rule.face.accounted") in answer.text


def assert_only_terms_to_come_are_shown_and_issued(
    client: httpx.Client, served: Served, where: str, terms: dict[str, Any]
) -> None:
    t = translator("en")
    late = client.post(f"{where}/text", data={**terms, "until": "2020-01-01"})
    assert (late.status_code, t("error.grant.past") in late.text) == (422, True)
    given = ("research", ["source", "target"], ["still"], ["internal"], "WORLD")
    text = _terms(served.service, where.rsplit("/", 1)[1], 5, given, date(2999, 1, 1), "zh", "-")[1]
    forged = {**terms, "start": "5", "text_sha256": text.sha256, "agreed": "true", "evidence": "-"}
    old = client.post(f"{where}/grants", data=forged)
    assert (old.status_code, t("error.grant.backdated") in old.text) == (422, True)


def test_the_consent_desk_from_enrolment_to_withdrawal(served: Served, studio: Studio) -> None:
    home = served.service.home
    with log_in(served, *ALL) as client:
        csrf = token(client, "/consent/enrol")
        person = {
            "csrf_token": csrf,
            "name": "Ann <i>Nobody</i>",
            "adult_method": "passport",
            "adult_date": "2026-01-05",
        }
        files = [("images", (f"{k}.png", stripped(studio, 0))) for k in range(2)]
        enrolled = client.post("/consent/enrol", data=person, files=files)
        assert enrolled.status_code == 303, enrolled.text
        where = enrolled.headers["location"]
        assert "Ann &lt;i&gt;Nobody&lt;/i&gt;" in client.get(where).text
        terms = {
            "csrf_token": csrf, "text_lang": "zh", "purposes": "research", "until": "2999-01-01",
            "roles": ["source", "target"], "media": "still", "uses": "internal", "jurisdictions": "WORLD",
        }  # fmt: skip
        assert_only_terms_to_come_are_shown_and_issued(client, served, where, terms)
        shown = client.post(f"{where}/text", data=terms).text
        assert "关于使用本人面部的同意书" in shown
        assert f"本人允许 {ORGANISATION}" in shown
        assert 'lang="zh-Hans"' in shown
        hidden = dict(re.findall(r'type="hidden" name="(start|text_sha256)" value="([^"]+)"', shown))
        before = home.ledger.tree_head().size
        told = {**terms, **hidden, "evidence": "folder 12"}
        assert "consent.not_agreed" in client.post(f"{where}/grants", data=told).text
        other = {**told, "agreed": "true", "uses": ["internal", "publish"]}
        assert "consent.other_text" in client.post(f"{where}/grants", data=other).text
        assert home.ledger.tree_head().size == before
        issued = client.post(f"{where}/grants", data={**told, "agreed": "true"})
        assert issued.status_code == 303, issued.text
        page = client.get(issued.headers["location"]).text
        assert "关于使用本人面部的同意书" in page
        receipt = receipts.open_receipt(client.get(f"{issued.headers['location']}/receipt").text, home)
        assert receipt.grant.evidence == "folder 12"
        assert receipt.text is not None
        grant_id = receipt.grant.jti
        fusion = [("source", ("a.png", stripped(studio, 0))), ("target", ("b.png", picture(studio, 1)))]
        asked = {"csrf_token": csrf, "purpose": "research", "grants_text": grant_id}
        assert client.post("/make", data=asked, files=fusion).status_code == 303
        revoked = client.post(
            f"{issued.headers['location']}/revocation", data={"csrf_token": csrf, "reason": "no"}
        )
        assert revoked.status_code == 303
        assert "grant.revoked" in client.post("/make", data=asked, files=fusion).text
        work_off(served)
        refused = client.get("/make").text
        assert t("job.refused") in refused
        reference = receipt.document["status"]["status_list"]
        listed = open_list(httpx.get(f"{served.url}/status-list").text, home)
        assert (listed.uri, listed.status(reference["idx"])) == (reference["uri"], 1)
        assert client.post(f"{where}/erasure", data={"csrf_token": csrf}).status_code == 422
        assert client.post(f"{where}/erasure", data={"csrf_token": csrf, "sure": "true"}).status_code == 303
        erased = client.get(where).text
        assert "Ann" not in erased
        assert t("person.erased") in erased


def test_audit_filters_and_draws(served: Served, studio: Studio) -> None:
    with log_in(served, "auditor") as client:
        page = client.get("/audit", params={"kind": "output_recorded", "since": "2020-01-01"}).text
        rows = re.findall(r'<tr><td><a href="/audit/entries/(\d+)"', page)
        newest = [str(e.index) for e in served.service.home.ledger.entries() if e.kind == "output_recorded"]
        assert rows == newest[::-1][: audit.PAGE_SIZE]
        assert t("kind.grant_issued") not in page.split("<tbody>")[-1]
        assert '<svg viewBox="0 0 348 140" role="img"' in page
        assert client.get("/audit", params={"since": "2999-01-01"}).text.count("/audit/entries/") == 0
        assert client.get("/audit", params={"kind": "nonsense"}).status_code == 404
        assert client.get("/audit", params={"since": "tomorrow"}).status_code == 422
        entry_page = client.get(f"/audit/entries/{studio.people[0].receipt.index}").text
        assert t("entry.server_says") in entry_page
        assert studio.people[0].asset_id in entry_page
        assert client.get("/audit/entries/99999").status_code == 404
        asked = client.get("/audit/compliance").text
        assert asked.count("<code>") == len(REQUIREMENTS)
        assert t("state.needs_a_person") in asked


def test_pictures_of_a_job_are_its_owners_and_end_with_it(served: Served) -> None:
    with log_in(served, "generator") as client:
        assert client.get("/make/job-00000000000000000000/target/0").status_code == 404
        assert client.get("/make/job-00000000000000000000/secret/0").status_code == 422


def test_a_path_that_leads_nowhere_is_a_page_for_who_reads_pages(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        page = client.get("/nowhere", headers={"Accept": "text/html,*/*", "Accept-Language": "zh"})
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert translator("zh")("error.page.unknown") in page.text
        for path, accept in (("/nowhere", "*/*"), ("/v1/nowhere", "text/html")):
            problem = client.get(path, headers={"Accept": accept})
            assert problem.json()["code"] == "request.no_such_path"


def test_no_page_is_missing_from_the_package() -> None:
    folder = Path(check.__file__).resolve().parent.parent
    assert {path.suffix for path in (folder / "templates").iterdir()} == {".html"}
