"""The pages in a real headless Chromium: upload, progress, verdict, proofs, languages, keyboard, axe, phone width.

Skipped, and said so, where no Chromium is installed. Nothing is downloaded: the browser is the system's, axe-core comes
with a development package and is no part of the wheel.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from clips import clip, corners
from conftest import Studio
from serving import Served, serve, worker_of
from test_server_pages import sealed_film

from detector.check import Checker, Report
from fusion.media import encode_picture, read_picture
from provenance.home import Home
from server import auth
from server.language import Lang, translator

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the browser tests need axe")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WAIT_MS = 120_000
LOADED = "it => new Promise(done => setInterval(() => it.videoWidth && done(it.videoWidth), 50))"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@contextmanager
def visit(
    browser: Any, served: Served, lang: Lang = "en", key: str | None = None, **options: Any
) -> Iterator[Any]:
    """A page of a fresh profile, logged in with every role; what the console says against us is an error."""
    context = browser.new_context(locale="zh-CN" if lang == "zh" else "en", **options)
    context.set_default_timeout(WAIT_MS)
    session = auth.open_session(served.service.home.database, key or served.key(*auth.ROLES))
    assert session is not None
    context.add_cookies([{"name": "facsimile", "value": session.token, "url": served.url}])
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert [each for each in said if not re.search("status of (404|415)", each)] == []


def check(page: Any, served: Served, path: Any) -> None:
    """Drop a file and wait for the verdict."""
    page.goto(f"{served.url}/check")
    page.set_input_files("#f-file", path)
    page.click("form[data-check] button")
    page.wait_for_selector("[data-checked]")


def assert_accessible(page: Any) -> None:
    """No rule of WCAG 2.0 to 2.2, levels A and AA, nor a best practice of axe-core fails."""
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []


def test_upload_verdict_evidence_and_language_switch(browser: Any, served: Served, studio: Studio) -> None:
    with visit(browser, served) as page:
        check(page, served, studio.people[0].path)
        assert re.search(r"/check/check-[0-9a-f]{20}$", page.url)
        assert page.inner_text("h1") == translator("en")("verdict.declared_synthetic.title")
        page.wait_for_function(
            "document.querySelector('[data-looked] image').href.baseVal.startsWith('blob:')"
        )
        assert page.evaluate("document.activeElement.id") == "main"
        assert page.locator("[data-looked] .box").count() == 1
        assert_accessible(page)
        page.click(".languages a[lang='zh-Hans']")
        assert page.inner_text("h1") == translator("zh")("verdict.declared_synthetic.title")
        assert page.get_attribute("html", "lang") == "zh-Hans"
        page.goto(f"{served.url}/audit")
        assert page.inner_text("h1") == translator("zh")("audit.headline")


def test_a_video_is_played_from_the_user_s_own_file_beside_its_line_of_time(
    browser: Any, served: Served, studio: Studio, tmp_path: Path
) -> None:
    path = sealed_film(studio, served.service.home, tmp_path)
    with visit(browser, served, viewport={"width": 360, "height": 740}, color_scheme="dark") as page:
        page.goto(f"{served.url}/check")
        page.set_input_files("#f-file", path)
        assert page.locator("[data-thumbs] video").evaluate(LOADED) == 640
        assert_accessible(page)
        page.click("form[data-check] button")
        page.wait_for_selector("[data-film] video")
        player = page.locator("[data-film] video")
        assert player.get_attribute("src").startswith("blob:")
        assert player.evaluate("it => [it.controls, it.muted, it.paused, it.videoWidth]") == [
            True,
            True,
            True,
            640,
        ]
        assert page.inner_text("[data-film] figcaption") == translator("en")("checked.video_own")
        assert page.locator(".timeline .marked").count() >= 1
        assert page.locator(".timeline circle").count() == 4
        assert page.locator(".box").count() == 0
        boxes = [page.locator(f".timeline {name}").first.bounding_box() for name in ("svg", "rect", "circle")]
        assert boxes[1]["width"] == pytest.approx(boxes[0]["width"], abs=2)
        assert boxes[2]["width"] == pytest.approx(boxes[2]["height"], abs=0.1), "dots stay round"
        page.focus("details.numbers summary")
        page.keyboard.press("Enter")
        assert page.locator("details.numbers tbody tr").count() == 4
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_video_that_the_browser_cannot_play_leaves_its_frame(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.mp4", [corners(n) for n in range(3)], codec="mpeg4")
    with visit(browser, served) as page:
        page.goto(f"{served.url}/check")
        page.set_input_files("#f-file", path)
        page.wait_for_selector("[data-thumbs] .tile")
        assert page.inner_text("[data-thumbs]") == "a.mp4"
        page.click("form[data-check] button")
        page.wait_for_selector("[data-checked]")
        assert page.locator("[data-film] video").count() == 0
        assert page.get_attribute("[data-film] img", "alt") == translator("en")("checked.frame_alt")


def test_a_file_that_is_none_is_refused_in_place(browser: Any, served: Served) -> None:
    with visit(browser, served) as page:
        page.goto(f"{served.url}/check")
        page.set_input_files("#f-file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
        page.click("form[data-check] button")
        page.wait_for_selector("[role=alert]")
        assert page.inner_text("[role=alert]") == translator("en")("error.media.format")


@pytest.mark.parametrize("events", [True, False], ids=["by events", "by asking"])
def test_progress_of_a_fusion_and_its_slider(
    browser: Any, served: Served, studio: Studio, events: bool
) -> None:
    with visit(browser, served) as page:
        if not events:
            page.add_init_script("delete window.EventSource")
        page.goto(f"{served.url}/make")
        for field, person in (("#f-source", 0), ("#f-target", 1)):
            page.set_input_files(field, studio.people[person].path)
        page.click("main form button[type=submit]")
        page.wait_for_selector("[data-job]")
        assert page.locator(".steps .now").count() == 1
        worker = threading.Thread(target=_work_off, args=(served,))
        worker.start()
        page.wait_for_selector(".verdict")
        worker.join()
        assert page.inner_text("h1") == translator("en")("job.done_title")
        page.focus(".slider-control input")
        page.keyboard.press("Home")
        assert page.evaluate("document.querySelector('.slider-over').style.getPropertyValue('--cut')") == "0%"
        assert_accessible(page)


def _work_off(served: Served) -> None:
    service = served.service
    worker = worker_of(service, lambda: service.perception)
    while (job := service.queue.claim("test")) is not None:
        worker.do(job)


def test_the_browser_verifies_a_proof_and_finds_a_forged_one(
    browser: Any, served: Served, studio: Studio
) -> None:
    entry = f"{served.url}/audit/entries/{studio.people[0].receipt.index}"
    with visit(browser, served) as page:
        page.goto(entry)
        page.wait_for_selector("[data-result]:not([hidden])")
        assert page.inner_text("[data-result]") == translator("en")("entry.good")
        assert page.locator(".proof-steps .good").count() == 4
        assert_accessible(page)

        def forge(route: Any) -> None:
            answer = route.fetch()
            route.fulfill(response=answer, body=answer.text().replace(studio.people[0].asset_id, "0" * 16))

        page.route(entry, forge)
        page.goto(entry)
        page.wait_for_selector("[data-result]:not([hidden])")
        assert page.inner_text("[data-result]") == translator("en")("entry.bad")


def test_by_keyboard_alone(browser: Any, served: Served, studio: Studio) -> None:
    def tab_to(page: Any, selector: str) -> None:
        for _ in range(25):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", selector
                return
        raise AssertionError(f"{selector} cannot be reached")

    with visit(browser, served) as page:
        page.goto(f"{served.url}/audit")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.goto(f"{served.url}/audit")
        tab_to(page, ".places a[href='/check']")
        page.keyboard.press("Enter")
        page.wait_for_url("**/check")
        tab_to(page, "#f-file")
        page.set_input_files("#f-file", studio.people[1].path)
        tab_to(page, "form[data-check] button")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-checked]")
        tab_to(page, "a[href*='report.json']")


@pytest.mark.parametrize(("lang", "scheme"), [("en", "light"), ("zh", "dark")])
def test_every_page_is_accessible_and_fits_a_phone(
    browser: Any, served: Served, studio: Studio, lang: Lang, scheme: str
) -> None:
    with visit(browser, served, lang, color_scheme=scheme, viewport={"width": 360, "height": 740}) as page:
        for path in ("/", "/check", "/make", "/consent", "/consent/enrol", "/audit", "/enter?code=x"):
            page.goto(f"{served.url}{path}")
            assert_accessible(page)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, f"{path} is {width} px wide"


@pytest.fixture(scope="module")
def desk(served: Served, studio: Studio) -> dict[str, str]:
    """A person with two grants, one withdrawn; a job of each end. Name → path of its page."""
    until = (datetime.now(UTC) + timedelta(days=9)).date().isoformat()
    pictures = [
        encode_picture(read_picture(each.path.read_bytes()).rgb, "jpeg", 92) for each in studio.people
    ]
    key = {"Authorization": f"Bearer {served.key(*auth.ROLES)}"}
    with httpx.Client(base_url=served.url, headers=key, timeout=120) as client:
        form = {"name": "Ada Example", "adult_verified": "passport", "adult_verified_on": "2026-01-02"}
        subject = client.post("/v1/subjects", files={"image": ("a", pictures[0])}, data=form).json()["id"]
        order = {
            "subject_id": subject, "grantee": served.service.home.organisation, "purposes": ["research"],
            "scope_roles": ["source"], "scope_media": ["still"], "uses": ["internal"], "until": until,
            "evidence": "form 7",
        }  # fmt: skip
        grants = [client.post("/v1/grants", json=order).json()["id"] for _ in range(2)]
        people = [each.path.read_bytes() for each in studio.people]
        asked = {
            "files": [("source", ("s", people[0])), ("target", ("t", people[1]))],
            "data": {"purpose": "research"},
        }
        jobs = [client.post("/v1/fusions", **asked).json()["id"] for _ in range(2)]
        client.post(f"/v1/fusions/{jobs[0]}/cancellation")
        client.post(f"/v1/grants/{grants[1]}/revocation", json={"reason": "changed my mind"})
        served.keys["desk"] = key["Authorization"].removeprefix("Bearer ")
    return {
        "person": f"/consent/people/{subject}", "grant": f"/consent/grants/{grants[0]}",
        "withdrawn": f"/consent/grants/{grants[1]}", "cancelled job": f"/make/{jobs[0]}",
        "waiting job": f"/make/{jobs[1]}", "compliance": "/audit/compliance", "entry": "/audit/entries/1",
        "no such page": "/audit/entries/99999",
    }  # fmt: skip


@pytest.mark.parametrize(("lang", "scheme"), [("en", "dark"), ("zh", "light")])
def test_the_desk_s_pages_are_accessible_and_fit_a_phone(
    browser: Any, served: Served, desk: dict[str, str], lang: Lang, scheme: str
) -> None:
    shape = {"color_scheme": scheme, "viewport": {"width": 360, "height": 740}}
    with visit(browser, served, lang, key=served.keys["desk"], **shape) as page:

        def look(name: str) -> None:
            assert_accessible(page)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, f"{name} is {width} px wide"

        for name, path in desk.items():
            page.goto(f"{served.url}{path}")
            look(name)
        page.goto(f"{served.url}{desk['person']}")
        page.fill("[name=until]", (datetime.now(UTC) + timedelta(days=9)).date().isoformat())
        page.check(f"[name=text_lang][value={lang}]")
        page.click("form[action$='/text'] button")
        page.wait_for_selector("article.paper")
        look("the text of consent")


def test_a_heat_map_is_shown_over_its_face(
    browser: Any, served: Served, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A face whose map calls itself reliable is tinted where the map says so, and nowhere else."""
    heat = np.zeros((8, 8), np.float32)
    heat[:, 4:] = 1.0
    real = Checker.check

    def suspicious(self: Checker, data: bytes, name: str) -> Report:
        report = real(self, data, name)
        found = {
            "band": "strong",
            "reason": None,
            "heatmap": heat,
            "heatmap_xyxy": (100.0, 100.0, 300.0, 300.0),
        }
        face = replace(report.detector.faces[0], **found)
        return replace(report, detector=replace(report.detector, faces=(face,), band="strong"))

    monkeypatch.setattr(Checker, "check", suspicious)
    with visit(browser, served) as page:
        check(page, served, studio.people[0].path)
        assert page.locator("[data-looked] rect.heat").count() == 1
        told = page.locator(".faces li").inner_text()
        assert translator("en")("checked.heat") in told
        box = page.locator("[data-looked] svg").bounding_box()
        shot = read_picture(page.locator("[data-looked] svg").screenshot()).rgb.astype(np.float32)
        red = shot[..., 0] - shot[..., 1:].mean(axis=2)
        scale = box["width"] / read_picture(studio.people[0].path.read_bytes()).rgb.shape[1]
        left, right = (
            red[int(140 * scale) : int(260 * scale), int(a * scale) : int(b * scale)].mean()
            for a, b in ((120, 180), (230, 290))
        )
        assert right > left + 40
        assert_accessible(page)


def test_without_scripts_a_check_works_the_same(browser: Any, served: Served, studio: Studio) -> None:
    with visit(browser, served, java_script_enabled=False) as page:
        check(page, served, studio.people[0].path)
        assert page.inner_text("h1") == translator("en")("verdict.declared_synthetic.title")
        assert page.locator("[data-looked] image").get_attribute("href").startswith("data:image/jpeg")
