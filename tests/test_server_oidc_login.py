"""Signing in on the page: a real provider over TLS with codes and PKCE, the whole way, and every wrong way back."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import secrets
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2 as httpx
import pytest
from conftest import Studio
from serving import FAST, Served, serve
from test_server_oidc import Issuer, make_issuer
from tls import Answer, https

from provenance.errors import FacsimileError
from provenance.home import Home
from server import auth
from server.language import translator
from server.oidc import Tokens
from server.oidc_login import Journey, SignIn
from server.settings import OidcSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLIENT, SECRET = "facsimile-page", "s3cr3t"


@dataclass
class Provider:
    """An OpenID provider that everybody is known to: what it was asked, what it answers."""

    issuer: Issuer
    url: str = ""
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    discovery: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    redeemed: list[dict[str, str]] = field(default_factory=list)
    answer: bytes | None = None
    asks: bool = False

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser is sent back to: everybody says yes."""
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert (asked["scope"], asked["code_challenge_method"]) == ("openid", "S256")
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str]) -> tuple[int, bytes]:
        """A code for a token, once, for whoever knows the verifier (RFC 7636, 4.6)."""
        self.redeemed.append(form)
        if self.answer is not None:
            return 200, self.answer
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        if (
            asked is None
            or asked["code_challenge"] != challenge.rstrip(b"=").decode()
            or form["redirect_uri"] != asked["redirect_uri"]
            or (form["grant_type"], form["client_id"], form.get("client_secret"))
            != ("authorization_code", CLIENT, SECRET)
        ):
            return 400, b'{"error": "invalid_grant"}'
        told = {"iss": self.url, "aud": CLIENT, "nonce": asked["nonce"], **self.claims}
        return 200, json.dumps({"id_token": self.issuer.token(**told), "token_type": "Bearer"}).encode()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("provider")
    made = Provider(make_issuer(folder))

    def answer(place: str, body: bytes) -> Answer:
        path, _, query = place.partition("?")
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(made.discovery).encode(), ""
        if path == "/token":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            return *made.token(form), ""
        back = made.authorize({name: values[0] for name, values in parse_qs(query).items()})
        if made.asks:
            page = f'<!doctype html><title>?</title><a id="yes" href="{html.escape(back)}">Yes, it is me</a>'
            return 200, page.encode(), ""
        return 302, b"", back

    with https(answer, folder) as (made.url, made.tls):
        made.discovery = {
            "issuer": made.url, "authorization_endpoint": f"{made.url}/authorize",
            "token_endpoint": f"{made.url}/token",
        }  # fmt: skip
        yield made


def settings_of(provider: Provider) -> OidcSettings:
    return replace(provider.issuer.settings, issuer=provider.url, client=CLIENT, client_secret=SECRET)


@pytest.fixture(scope="module")
def served(studio: Studio, provider: Provider) -> Iterator[Served]:
    oidc = settings_of(provider)
    with Home.open(studio.home_path) as home, serve(home, replace(FAST, oidc=oidc)) as running:
        service = running.service
        assert service.tokens is not None
        service.sign_in = SignIn(oidc, service.tokens, running.url, provider.tls)
        yield running


@pytest.fixture(autouse=True)
def usual(provider: Provider) -> Iterator[None]:
    """Every test begins with an honest provider."""
    before = dict(provider.discovery)
    yield
    provider.claims, provider.answer, provider.discovery, provider.asks = {}, None, before, False
    provider.redeemed.clear()


@contextmanager
def browser(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def go_there(client: httpx.Client, next_path: str = "/make") -> str:
    """Press the link: where the provider is asked."""
    answer = client.get("/login/oidc", params={"next": next_path})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def come_back(client: httpx.Client, provider: Provider, place: str) -> httpx.Response:
    """The provider sends the browser back."""
    back = httpx.get(place, verify=provider.tls).headers["location"]
    return client.get(back)


def test_the_login_page_offers_it_only_where_it_is_configured(served: Served, studio: Studio) -> None:
    with browser(served) as client:
        page = client.get("/login", params={"next": "/audit"}).text
        assert 'href="/login/oidc?next=/audit"' in page
        assert translator("en")("login.provider", host="localhost") in page
        assert "/login/oidc" not in client.get("/enter", params={"code": "x"}).text
    with Home.open(studio.home_path) as home, serve(home) as plain, browser(plain) as client:
        assert "/login/oidc" not in client.get("/login").text
        assert client.get("/login/oidc").status_code == 404
        assert client.get("/login/oidc/return").status_code == 404


def test_the_whole_way_opens_a_session_with_the_provider_s_roles(served: Served, provider: Provider) -> None:
    with browser(served) as client:
        place = go_there(client)
        kept = client.get("/login/oidc").headers["set-cookie"]
        assert all(word in kept for word in ("HttpOnly", "SameSite=lax", "Max-Age=600", "Path=/"))
        done = come_back(client, provider, go_there(client))
        assert done.status_code == 200, done.text
        assert re.search(r'http-equiv="refresh" content="0;url=/make"', done.text)
        cookies = done.headers.get_list("set-cookie")
        session = next(each for each in cookies if each.startswith("facsimile="))
        assert all(word in session for word in ("HttpOnly", "SameSite=strict", "Max-Age=43200"))
        assert any(each.startswith("facsimile-sign-in=") and "Max-Age=0" in each for each in cookies)
        me = client.get("/v1/me").json()
        assert (me["roles"], me["id"][:5]) == (["generator"], "oidc-")
        assert client.get("/make").status_code == 200
        assert client.get("/audit").status_code == 403
        token = provider.issuer.token(iss=provider.url)
        bearer = httpx.get(f"{served.url}/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert bearer.json()["id"] == me["id"]
    asked = {name: values[0] for name, values in parse_qs(urlsplit(place).query).items()}
    assert asked["redirect_uri"] == f"{served.url}/login/oidc/return"
    form = provider.redeemed[-1]
    assert 43 <= len(form["code_verifier"]) <= 128
    assert len({form["code_verifier"], asked["state"], asked["nonce"], asked["code_challenge"]}) == 4
    assert SECRET not in place


def test_a_new_sign_in_has_the_roles_of_that_sign_in(served: Served, provider: Provider) -> None:
    for roles, status in ((["makers"], 200), (["others"], 403), (["makers"], 200)):
        provider.claims = {"realm": {"roles": roles}, "sub": "bob"}
        with browser(served) as client:
            done = come_back(client, provider, go_there(client))
            assert done.status_code == status
            assert ("oidc.no_role" in done.text) == (status == 403)
            assert client.get("/v1/me").status_code == (200 if status == 200 else 401)


def test_whom_an_admin_locked_out_stays_out(served: Served, provider: Provider) -> None:
    database = served.service.home.database
    provider.claims = {"sub": "mallory"}
    with browser(served) as client:
        come_back(client, provider, go_there(client))
        who = client.get("/v1/me").json()["id"]
        auth.revoke_key(database, who)
        assert client.get("/v1/me").status_code == 401
        again = come_back(client, provider, go_there(client))
        assert (again.status_code, "oidc.locked_out" in again.text) == (403, True)
        assert client.get("/v1/me").status_code == 401
    assert [key.label for key in auth.list_keys(database) if key.id == who] == ["sign-in by the provider"]


def test_a_code_for_another_browser_opens_nothing(served: Served, provider: Provider) -> None:
    with browser(served) as victim, browser(served) as attacker:
        back = httpx.get(go_there(attacker), verify=provider.tls).headers["location"]
        for _ in range(2):
            lured = victim.get(back)  # first without any sign-in of its own, then with one
            assert (lured.status_code, "oidc.state" in lured.text) == (403, True)
            assert "facsimile" not in victim.cookies
            go_there(victim)
        assert provider.redeemed == []
        code = parse_qs(urlsplit(back).query)["code"][0]
        state = parse_qs(urlsplit(go_there(victim)).query)["state"][0]
        injected = victim.get("/login/oidc/return", params={"code": code, "state": state})
        assert (injected.status_code, "oidc.refused" in injected.text) == (403, True)  # PKCE
        assert "facsimile" not in victim.cookies


def test_a_code_opens_one_session_once(served: Served, provider: Provider) -> None:
    with browser(served) as client:
        back = httpx.get(go_there(client), verify=provider.tls).headers["location"]
        assert client.get(back).status_code == 200
        client.cookies.delete("facsimile")
        again = client.get(back)
        assert (again.status_code, "oidc.state" in again.text) == (403, True)
        assert "facsimile" not in client.cookies


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_in_a_browser_a_click_at_the_provider_leads_to_the_page_that_was_wanted(
    served: Served, provider: Provider
) -> None:
    """The step back is another site's: only a browser knows which cookies it sends then, without scripts, too."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    provider.asks = True
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = running.new_context(ignore_https_errors=True, java_script_enabled=False).new_page()
        page.set_default_timeout(300_000)
        page.goto(f"{served.url}/make")
        assert page.url.startswith(f"{served.url}/login")
        page.click("main a.button")
        assert page.url.startswith(f"{provider.url}/authorize")
        page.click("#yes")
        page.wait_for_url(f"{served.url}/make")
        assert page.inner_text("h1") == translator("en")("make.headline")
        assert {each["sameSite"] for each in page.context.cookies(served.url)} == {"Strict"}
        running.close()


WRONG: dict[str, dict[str, Any]] = {
    "nonce of another": {"nonce": "x" * 43},
    "no nonce": {"nonce": None},
    "for the API, not the page": {"aud": "facsimile"},
    "for both, by another": {"aud": [CLIENT, "another"], "azp": "another"},
    "by another": {"azp": "another"},
    "of another issuer": {"iss": "https://login.example"},
    "expired": {"iat": int(time.time()) - 4000, "exp": int(time.time()) - 400},
    "nobody": {"sub": None},
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_token_that_is_not_this_sign_in_s_is_refused(served: Served, provider: Provider, name: str) -> None:
    provider.claims = WRONG[name]
    with browser(served) as client:
        done = come_back(client, provider, go_there(client))
        assert (done.status_code, "oidc.refused" in done.text) == (403, True), done.text
        assert "facsimile" not in client.cookies


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"error": "access_denied", "code": None}, "oidc.refused"),
        ({"iss": "https://login.example"}, "oidc.refused"),
        ({"code": "made-up"}, "oidc.refused"),
        ({"code": None}, "oidc.refused"),
        ({"state": None}, "oidc.state"),
        ({"state": "é" * 43}, "oidc.state"),
    ],
)
def test_a_wrong_way_back_is_refused(
    served: Served, provider: Provider, changes: dict[str, str | None], code: str
) -> None:
    with browser(served) as client:
        place = httpx.get(go_there(client), verify=provider.tls).headers["location"]
        told = {name: values[0] for name, values in parse_qs(urlsplit(place).query).items()}
        sent = {name: value for name, value in {**told, **changes}.items() if value is not None}
        done = client.get("/login/oidc/return", params=sent)
        assert (done.status_code, code in done.text) == (403, True), done.text
        assert "facsimile" not in client.cookies


def test_it_never_leads_elsewhere(served: Served, provider: Provider) -> None:
    for evil in ("https://evil.example/", "//evil.example", "/\\evil.example", 'x"><script>'):
        with browser(served) as client:
            done = come_back(client, provider, go_there(client, evil))
            assert 'content="0;url=/"' in done.text
            assert "evil.example" not in done.text


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://login.example"},
        {"authorization_endpoint": "http://localhost/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "https://user@localhost/token"},
        {"token_endpoint": None},
    ],
)
def test_a_discovery_document_that_cannot_be_used(provider: Provider, changes: dict[str, Any]) -> None:
    provider.discovery = {**provider.discovery, **changes}
    oidc = settings_of(provider)
    sign_in = SignIn(oidc, Tokens(oidc), "http://127.0.0.1", provider.tls)
    with pytest.raises(FacsimileError, match=r"oidc\.provider"):
        sign_in.address(Journey.begin("/"))


def test_a_provider_that_cannot_be_trusted_or_reached_or_understood(provider: Provider) -> None:
    oidc = settings_of(provider)
    strangers = SignIn(oidc, Tokens(oidc), "http://127.0.0.1")  # its certificate is not known here
    with pytest.raises(FacsimileError, match=r"oidc\.provider"):
        strangers.address(Journey.begin("/"))
    sign_in, journey = SignIn(oidc, Tokens(oidc), "http://127.0.0.1", provider.tls), Journey.begin("/")
    for answer in (b"no json", b"[]", b"x" * (1 << 19), b'{"id_token": 7}'):
        provider.answer = answer
        with pytest.raises(FacsimileError, match=r"oidc\.(provider|refused)"):
            sign_in.finish(journey, {"state": journey.state, "code": "c"})


def test_a_journey_is_read_from_its_own_cookie_only() -> None:
    journey = Journey.begin("/check/é")
    assert Journey.read(journey.cookie()) == journey
    for broken in (
        None,
        "",
        ".",
        journey.secret,
        f"x{journey.cookie()}",
        f"{journey.secret}.é",
        f"{journey.secret}._",
    ):
        assert Journey.read(broken) is None
    assert journey.secret not in repr(journey)
