"""Where the suite keeps its things, read from the environment once per command; opens nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

WORKER_GRACE_S: Final = 20.0
"""How long a worker that was told to stop may finish its job before it gives the lease back."""


@dataclass(frozen=True)
class Settings:
    """home: folder of keys, ledger and store; database_url: SQLAlchemy URL, None for SQLite in the home.

    timestamp_url: RFC 3161 authority, None for none; pin: of the token that holds the signing key, where one does;
    oidc_secret: of this server as a client of its OpenID provider, where that gave it one
    """

    home: Path
    database_url: str | None
    timestamp_url: str | None = None
    pin: str = field(default="", repr=False)
    oidc_secret: str = field(default="", repr=False)


def read_settings() -> Settings:
    """Read FACSIMILE_HOME (default ~/.facsimile), _DATABASE, _TSA_URL, _PIN and _OIDC_SECRET."""
    home = os.environ.get("FACSIMILE_HOME") or "~/.facsimile"
    return Settings(
        home=Path(home).expanduser(),
        database_url=os.environ.get("FACSIMILE_DATABASE") or None,
        timestamp_url=os.environ.get("FACSIMILE_TSA_URL") or None,
        pin=os.environ.get("FACSIMILE_PIN", ""),
        oidc_secret=os.environ.get("FACSIMILE_OIDC_SECRET", ""),
    )


@dataclass(frozen=True)
class OidcSettings:
    """An OpenID provider whose tokens are accepted beside our own keys (server/oidc.py).

    issuer, audience   what `iss` must be and `aud` must hold, exactly
    jwks               its public keys: a file, or an https address
    roles_claim        the claim that names roles; dots lead into objects
    roles              (value of the claim, our role); empty: the claim holds our roles' names
    client             this server's id at the provider, for signing in on the page; empty: no such login
    client_secret      where the provider gave this client one
    """

    issuer: str
    audience: str
    jwks: str
    roles_claim: str = "roles"
    roles: tuple[tuple[str, str], ...] = ()
    client: str = ""
    client_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class ServeSettings:
    """How the server runs; `facsimile serve` fills it, tests make their own.

    base_url             how users reach it; its scheme decides about Secure cookies and HSTS
    allowed_hosts        values of the Host header that are answered; others get 400 (DNS rebinding)
    production           refuse development keys and plain http
    max_upload_bytes     of one request's body; a larger one is refused before it is read, or where it grows beyond
    check_slots          checks and face searches at work at once; more wait, at most `waiting_slots`
    waiting_slots        beyond these a request is answered 503 before its body is read
    deadline_s           how long a request may wait for a slot
    max_queued_jobs      beyond these a new job is answered 503, and of one principal beyond half of them
    max_set_pictures     of one labelled set
    max_sets_bytes       of all that are kept, those being made by the most that they may take
    requests_per_minute  of one principal; logins_per_minute of one address
    body_bytes_per_s     a body that comes slower than this on average, after ten seconds, is cut off
    num_workers          worker processes; 0: jobs wait for a worker started elsewhere
    lease_s              a worker that does not renew its lease within this loses its job
    max_attempts         a job that was started so often and never ended is dead
    keep_results_s       results, their inputs' rows and reports are deleted after this
    max_connections      open at once; more get 503
    oidc                 accept an OpenID provider's tokens; None: only our own keys
    url_checks           allow `POST /v1/checks/by-url` (server/fetch.py says what is refused)
    """

    base_url: str = "http://127.0.0.1:8000"
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    production: bool = False
    max_upload_bytes: int = 96 << 20
    check_slots: int = 2
    waiting_slots: int = 16
    deadline_s: float = 30.0
    max_queued_jobs: int = 200
    max_set_pictures: int = 1000
    max_sets_bytes: int = 8 << 30
    requests_per_minute: int = 600
    logins_per_minute: int = 10
    body_bytes_per_s: int = 20_000
    num_workers: int = 1
    lease_s: float = 30.0
    max_attempts: int = 5
    keep_results_s: float = 7 * 86_400
    url_checks: bool = False
    oidc: OidcSettings | None = None
    max_connections: int = 400

    @property
    def is_https(self) -> bool:
        """Whether users reach the server over TLS."""
        return self.base_url.startswith("https://")
