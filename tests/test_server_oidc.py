"""Tokens of an OpenID provider: a real issuer with keys of its own, a real TLS server for them, and every forgery."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from conftest import Studio
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from serving import FAST, Served, serve
from tls import https

from provenance.errors import InputError, UsageError
from provenance.home import Home
from server import oidc
from server.commands.serve import _oidc
from server.oidc import TokenRefused, Tokens, keys_of
from server.settings import OidcSettings

ISSUER, AUDIENCE = "https://login.example", "facsimile"


@dataclass
class Issuer:
    """An OpenID provider: keys, a set of their public halves in a file, tokens for anybody."""

    keys: dict[str, Key]
    path: Path

    @property
    def settings(self) -> OidcSettings:
        return OidcSettings(ISSUER, AUDIENCE, str(self.path), "realm.roles", (("makers", "generator"),))

    def write(self, **extra: Any) -> None:
        public = [{**key.as_dict(private=False), "use": "sig"} for key in self.keys.values()]
        self.path.write_text(json.dumps({"keys": public, **extra}))

    def token(self, alg: str = "ES256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300}
        told = {k: v for k, v in {**usual, "realm": {"roles": ["makers"]}, **claims}.items() if v is not None}
        return jwt.encode({"alg": alg, "kid": alg, **(header or {})}, told, self.keys[alg], algorithms=[alg])


def make_issuer(folder: Path) -> Issuer:
    """One with a key of every kind."""
    keys: dict[str, Key] = {
        "RS256": RSAKey.generate_key(2048, {"kid": "RS256"}), "PS256": RSAKey.generate_key(2048, {"kid": "PS256"}),
        "ES256": ECKey.generate_key("P-256", {"kid": "ES256"}), "ES384": ECKey.generate_key("P-384", {"kid": "ES384"}),
        "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "Ed25519"}),
    }  # fmt: skip
    made = Issuer(keys, folder / "jwks.json")
    made.write()
    return made


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def served(studio: Studio, issuer: Issuer) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home, replace(FAST, oidc=issuer.settings)) as running:
        yield running


def ask(served: Served, token: str, path: str = "/v1/me") -> httpx.Response:
    return httpx.get(f"{served.url}{path}", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("alg", list(oidc.ALGORITHMS))
def test_a_token_of_the_provider_opens_what_its_roles_open(served: Served, issuer: Issuer, alg: str) -> None:
    me = ask(served, issuer.token(alg))
    assert (me.status_code, me.json()["roles"]) == (200, ["generator"]), me.text
    assert me.json()["id"].startswith("oidc-")
    assert ask(served, issuer.token(alg), "/v1/fusions").status_code == 200
    assert ask(served, issuer.token(alg), "/v1/audit/entries").json()["code"] == "auth.scope"
    assert ask(served, issuer.token(alg, sub="eve")).json()["id"] != me.json()["id"]
    assert ask(served, issuer.token(alg, iat=int(time.time()) - 5)).json()["id"] == me.json()["id"]


def test_without_a_provider_no_token_opens_anything(studio: Studio, issuer: Issuer) -> None:
    with Home.open(studio.home_path) as home, serve(home) as running:
        assert ask(running, issuer.token()).json()["code"] == "auth.invalid"


def test_own_keys_work_beside_it(served: Served) -> None:
    assert ask(served, served.keys["verifier"]).json()["roles"] == ["verifier"]


def test_no_mapped_role_means_no_scope(served: Served, issuer: Issuer) -> None:
    for realm in ({"roles": ["generator", "admin"]}, {"roles": "other"}, {"roles": 7}, "makers", None):
        answer = ask(served, issuer.token(realm=realm))
        assert (answer.status_code, answer.json()["code"]) == (403, "auth.scope"), realm
    assert ask(served, issuer.token(realm={"roles": "makers others"})).status_code == 200


HOUR = 3600
WRONG: dict[str, Callable[[Issuer, int], str]] = {
    "issuer": lambda i, _: i.token(iss="https://login.example.evil"),
    "issuer with a slash": lambda i, _: i.token(iss=f"{ISSUER}/"),
    "no issuer": lambda i, _: i.token(iss=None),
    "audience": lambda i, _: i.token(aud="another"),
    "no audience": lambda i, _: i.token(aud=None),
    "audience among others": lambda i, _: i.token(aud=[AUDIENCE, "another"], azp="another"),
    "expired": lambda i, now: i.token(iat=now - HOUR, exp=now - 61),
    "never expires": lambda i, _: i.token(exp=None),
    "expires in a year": lambda i, now: i.token(exp=now + 365 * 24 * HOUR),
    "expires in words": lambda i, now: i.token(exp=str(now + HOUR)),
    "expires truly": lambda i, _: i.token(exp=True),
    "never issued": lambda i, _: i.token(iat=None),
    "issued tomorrow": lambda i, now: i.token(iat=now + 24 * HOUR, exp=now + 25 * HOUR),
    "not yet": lambda i, now: i.token(nbf=now + HOUR),
    "no subject": lambda i, _: i.token(sub=None),
    "empty subject": lambda i, _: i.token(sub=""),
    "subject of a kilobyte": lambda i, _: i.token(sub="x" * 1000),
    "subject is a number": lambda i, _: i.token(sub=7),
    "unknown key": lambda i, _: i.token(header={"kid": "another"}),
    "no key id": lambda i, _: _without_id(i),
    "key of another algorithm": lambda i, _: jwt.encode(
        {"alg": "PS256", "kid": "ES256"}, {"iss": ISSUER}, i.keys["PS256"], algorithms=["PS256"]
    ),
    "signed by a stranger": lambda i, _: Issuer(
        {"ES256": ECKey.generate_key("P-256", {"kid": "ES256"})}, i.path
    ).token(),
    "brings its key": lambda i, _: _with_own_key(i),
    "points to its key": lambda i, _: _with_own_key(i, jku="https://evil.example/keys"),
    "type of another": lambda i, _: i.token(header={"typ": "consent-grant+jwt"}),
    "logout": lambda i, _: i.token(header={"typ": "logout+jwt"}),
    "critical": lambda i, _: i.token(header={"crit": ["b64"], "b64": True}),
    "none": lambda i, _: _unsigned(i, "none"),
    "None": lambda i, _: _unsigned(i, "nOnE"),
    "shared secret": lambda i, _: _by_public_key(i),
    "no claims": lambda i, _: ".".join([i.token().split(".")[0], "W10", i.token().split(".")[2]]),
    "changed": lambda i, _: _changed(i),
    "no token": lambda i, _: "a.b.c",
    "dots": lambda i, _: "..",
    "too long": lambda i, _: i.token(fill="x" * 20_000),
}  # fmt: skip


def _with_own_key(issuer: Issuer, **header: Any) -> str:
    own = ECKey.generate_key("P-256", {"kid": "ES256"})
    return Issuer({"ES256": own}, issuer.path).token(header={"jwk": own.as_dict(private=False), **header})


def _without_id(issuer: Issuer) -> str:
    key = ECKey.import_key(
        {k: v for k, v in issuer.keys["ES256"].as_dict(private=True).items() if k != "kid"}
    )
    return jwt.encode({"alg": "ES256"}, {"iss": ISSUER}, key)


def _unsigned(issuer: Issuer, alg: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": "ES256"}).encode()).rstrip(b"=").decode()
    return f"{head}.{issuer.token().split('.')[1]}."


def _by_public_key(issuer: Issuer) -> str:
    """The old trick: HMAC under the bytes of the public key."""
    pem = issuer.keys["RS256"].as_pem(private=False)
    head = (
        base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "RS256"}).encode()).rstrip(b"=").decode()
    )
    signed = f"{head}.{issuer.token().split('.')[1]}"
    mac = hmac.digest(pem, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _changed(issuer: Issuer) -> str:
    head, _, signature = issuer.token().split(".")
    return ".".join([head, issuer.token(sub="root").split(".")[1], signature])


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("name", sorted(WRONG))
def test_every_other_token_is_refused(served: Served, issuer: Issuer, name: str) -> None:
    token, before = WRONG[name](issuer, int(time.time())), len(served.logged)
    answer = ask(served, token)
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.invalid"), answer.text
    logged = "\n".join(served.logged[before:])
    assert token not in logged
    if token.count(".") == 2:
        assert "token refused" in logged


def test_new_keys_are_looked_for_but_not_at_every_forged_id(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Issuer({"ES256": issuer.keys["ES256"]}, tmp_path / "keys.json")
    own.write()
    tokens = Tokens(own.settings)
    reads: list[int] = []
    monkeypatch.setattr(tokens, "_fetch", lambda: reads.append(1) or own.path.read_bytes())
    fresh = Issuer({"ES384": issuer.keys["ES384"]}, own.path)
    fresh.write()
    for _ in range(20):
        assert tokens.find(fresh.token("ES384")) is None
    assert reads == []
    monkeypatch.setattr(oidc, "REFRESH_S", 0.0)
    assert tokens.find(fresh.token("ES384")) is not None
    assert tokens.find(own.token("ES256")) is None  # the provider withdrew that key
    own.path.write_text("broken")
    assert tokens.find(own.token("ES256")) is None
    assert tokens.find(fresh.token("ES384")) is not None


def test_keys_come_from_the_one_https_address(issuer: Issuer, tmp_path: Path) -> None:
    answers = {
        "/keys": (200, issuer.path.read_bytes(), ""),
        "/large": (200, b" " * (1 << 19), ""),
        "/moved": (302, b"", "/keys"),
    }

    with https(lambda path, _: answers[path], tmp_path) as (place, ours):
        found = Tokens(replace(issuer.settings, jwks=f"{place}/keys"), tls=ours)
        assert found.find(issuer.token()) is not None
        for path, context in (("/large", ours), ("/moved", ours), ("/keys", None)):
            with pytest.raises(InputError, match=r"oidc\.jwks"):
                Tokens(replace(issuer.settings, jwks=f"{place}{path}"), tls=context)
    with pytest.raises(InputError, match=r"oidc\.jwks"):
        Tokens(replace(issuer.settings, jwks=f"{place}/keys"), tls=ours)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("name", ["private", "secret", "small", "none", "text", "no id", "encryption"])
def test_sets_that_hold_no_public_keys_are_refused(issuer: Issuer, name: str) -> None:
    ec = issuer.keys["ES256"].as_dict(private=False)
    sets: dict[str, Any] = {
        "private": {"keys": [issuer.keys["ES256"].as_dict(private=True)]},
        "secret": {"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]},
        "small": {"keys": [RSAKey.generate_key(1024, {"kid": "a"}).as_dict(private=False)]},
        "none": {"keys": []}, "text": "keys", "no id": {"keys": [{**ec, "kid": None}]},
        "encryption": {"keys": [{**ec, "use": "enc"}]},
    }  # fmt: skip
    with pytest.raises(InputError, match=r"oidc\.jwks"):
        keys_of(json.dumps(sets[name]).encode())


def test_the_command_s_options_say_all_or_nothing() -> None:
    assert _oidc("", "", "", "roles", []) is None
    told = _oidc(
        ISSUER, AUDIENCE, "keys.json", "groups", ["cn=makers,dc=x=generator", "cn=makers,dc=x=verifier"]
    )
    assert told is not None
    assert told.roles == (("cn=makers,dc=x", "generator"), ("cn=makers,dc=x", "verifier"))
    with pytest.raises(UsageError, match=r"oidc\.incomplete"):
        _oidc(ISSUER, "", "keys.json", "roles", [])
    for pair in ("makers", "makers=root", "=admin"):
        with pytest.raises(UsageError, match=r"oidc\.role"):
            _oidc(ISSUER, AUDIENCE, "keys.json", "roles", [pair])


def test_a_value_may_stand_for_several_roles(issuer: Issuer) -> None:
    both = replace(issuer.settings, roles=(("makers", "generator"), ("makers", "auditor")))
    assert Tokens(both).roles_of({"realm": {"roles": ["makers"]}}) == {"generator", "auditor"}
    plain = replace(issuer.settings, roles=(), roles_claim="roles")
    assert Tokens(plain).roles_of({"roles": ["auditor", "root"]}) == {"auditor"}
    with pytest.raises(TokenRefused):
        Tokens(plain).verify("x")
