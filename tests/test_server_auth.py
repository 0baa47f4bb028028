"""Keys, sessions and production mode: what is stored, what ends, what is refused; and that no secret is logged."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest
import structlog
from conftest import Studio
from serving import FAST, Served, serve

from provenance.errors import InputError, RefusedError, UsageError
from provenance.home import Home
from server import auth
from server.auth import EntryCodes
from server.logs import configure, log
from server.production import require_production_grade
from server.settings import ServeSettings
from server.tables import ensure_tables


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Home.create(tmp_path / "home", "Example Lab") as made:
        ensure_tables(made.database)
        yield made


def test_a_key_is_stored_as_its_hash_only(home: Home) -> None:
    key, stored = auth.make_key(home.database, ["generator", "verifier"], "for tests")
    assert len(key) == 46
    found = auth.find_by_key(home.database, key)
    assert found is not None
    assert (found.id, found.roles, found.csrf_token) == (
        stored.id,
        frozenset({"generator", "verifier"}),
        None,
    )
    path = home.database.sqlite_path
    assert path is not None
    held = b"".join(each.read_bytes() for each in path.parent.glob("ledger.db*"))
    assert key.encode() not in held
    assert auth.find_by_key(home.database, key[:-1] + "!") is None
    assert auth.find_by_key(home.database, "fk_" + "A" * 43) is None


def test_keys_end(home: Home) -> None:
    brief, _ = auth.make_key(home.database, ["verifier"], lifetime_s=0.05)
    key, stored = auth.make_key(home.database, ["verifier"])
    session = auth.open_session(home.database, key)
    assert session is not None
    assert auth.find_by_session(home.database, session.token) is not None
    time.sleep(0.1)
    assert auth.find_by_key(home.database, brief) is None
    auth.revoke_key(home.database, stored.id)
    assert auth.find_by_key(home.database, key) is None
    assert auth.find_by_session(home.database, session.token) is None
    assert auth.open_session(home.database, key) is None
    assert [each.revoked_at is not None for each in auth.list_keys(home.database)] == [True, False]
    with pytest.raises(InputError, match=r"auth\.key_unknown"):
        auth.revoke_key(home.database, "key-none")
    with pytest.raises(UsageError, match=r"auth\.role"):
        auth.make_key(home.database, ["root"])
    with pytest.raises(UsageError, match=r"auth\.role"):
        auth.make_key(home.database, [])


def test_entry_codes_open_once_and_not_late() -> None:
    codes = EntryCodes()
    code, late = codes.make("key-1", 100.0), codes.make("key-2", 100.0)
    assert codes.use(code, 101.0) == "key-1"
    assert codes.use(code, 101.0) is None
    assert codes.use(late, 100.0 + auth.ENTRY_S) is None
    assert codes.use("guess", 101.0) is None


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        yield running


def test_a_cookie_alone_changes_nothing(served: Served) -> None:
    session = auth.open_session(served.service.home.database, served.keys["verifier"])
    assert session is not None
    with httpx.Client(base_url=served.url, cookies={"facsimile": session.token}, timeout=60) as browser:
        assert browser.get("/v1/me").json()["roles"] == ["verifier"]
        forged = browser.post("/v1/checks", files={"file": ("p", b"x")})
        assert (forged.status_code, forged.json()["code"]) == (403, "auth.csrf")
        wrong = browser.post("/v1/checks", files={"file": ("p", b"x")}, headers={"X-CSRF-Token": "0" * 64})
        assert wrong.json()["code"] == "auth.csrf"
        right = browser.post(
            "/v1/checks", files={"file": ("p", b"x")}, headers={"X-CSRF-Token": session.csrf_token}
        )
        assert right.json()["code"] == "media.format"
    with httpx.Client(base_url=served.url, headers={"Authorization": "Basic Zm9vOmJhcg=="}) as basic:
        assert basic.get("/v1/me").json()["code"] == "auth.invalid"


def test_no_secret_is_ever_logged(served: Served, studio: Studio) -> None:
    key, name = served.key("verifier", "consent_officer"), "Wilhelmina Secretname"
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
        client.post("/v1/checks", files={"file": ("Secretname.png", studio.people[0].path.read_bytes())})
        client.post("/v1/checks", files={"file": ("Secretname.png", b"Secretname")})
        client.get("/v1/checks", params={"cursor": "Secretname"})
        client.post("/v1/grants", json={"grantee": name, "evidence": name})
        form = {"name": name, "adult_verified": "passport", "adult_verified_on": "2026-01-02"}
        client.post("/v1/subjects", files=[("image", ("a", b"Secretname"))], data=form)
        client.get("/v1/Secretname?Secretname=1")
    log.error("crashed", password=key, name=name, exc_info=ValueError(f"Secretname {key}"))
    text = "\n".join(served.logged)
    lines = [json.loads(line) for line in served.logged]
    assert len(lines) >= 6
    assert {"request", "refused", "crashed"} <= {line["event"] for line in lines}
    for secret in (key, key[3:], "Secretname", "Bearer", name):
        assert secret not in text


def test_lines_go_to_what_is_stderr_when_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    configure()
    log.info("began", port=1, password="Secretname")
    structlog.configure(**before)
    told = json.loads(capsys.readouterr().err)
    assert (told["event"], told["port"], told["level"]) == ("began", 1, "info")
    assert "password" not in told


def test_production_refuses_what_is_for_development(tmp_path: Path) -> None:
    good = ServeSettings(base_url="https://faces.example", production=True)
    with Home.create(tmp_path / "a", "Development") as home:
        codes = [refusal(home, good)]
    with Home.create(tmp_path / "b", "Example Lab") as home:
        codes.append(refusal(home, good))
        (home.path / "keys" / "root.key.pem").unlink()
        codes.append(refusal(home, good))
        (home.path / "keys" / "issuing.key.pem").unlink()
        codes.append(refusal(home, replace(good, base_url="http://faces.example")))
        codes.append(refusal(home, good))
        codes.append(refusal(home, good, proxy="*"))
        require_production_grade(home, good, proxy="10.0.0.2", has_tls=False)
        require_production_grade(home, good, proxy=None, has_tls=True)
    assert codes == [
        "production.organisation", "production.root_key", "production.issuing_key", "production.plain_http",
        "production.no_proxy", "production.any_proxy",
    ]  # fmt: skip


def refusal(home: Home, settings: ServeSettings, proxy: str | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        require_production_grade(home, settings, proxy=proxy, has_tls=False)
    return caught.value.code


def test_over_tls_the_cookie_is_bound_to_the_host(studio: Studio) -> None:
    from fastapi import Response

    from server.auth import Session
    from server.gate import set_session_cookie
    from server.service import Service

    with Home.open(studio.home_path) as home:
        secure = Service.over(home, replace(FAST, base_url="https://faces.example"))
        response = Response()
        set_session_cookie(response, Session("token", "csrf", "key"), secure)
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-facsimile=token;")
    for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie


def test_the_ledger_cannot_be_shortened_through_the_servers_database(home: Home) -> None:
    path = home.database.sqlite_path
    with sqlite3.connect(str(path)) as conn, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        conn.execute("DELETE FROM ledger_entries")
    conn.close()
