"""Who asks and what they may: API keys, browser sessions, roles and scopes; knows no route.

A key is 256 random bits, shown once and stored as its SHA-256. A browser logs in with a key and gets a session
cookie (HttpOnly, SameSite=Strict); a request that a cookie authenticates and that changes anything must also carry
the session's CSRF token, in the header `X-CSRF-Token` or the form field `csrf_token`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from provenance.database import Database
from provenance.errors import InputError, RefusedError, UsageError
from server.tables import api_keys, now, sessions

SCOPES: Final[Mapping[str, frozenset[str]]] = {
    scope: frozenset(roles.split())
    for scope, roles in {
        "fusions:create": "generator",
        "fusions:read": "generator",
        "facesets:create": "generator",
        "facesets:read": "generator",
        "checks:create": "verifier generator",
        "checks:read": "verifier generator",
        "subjects:read": "consent_officer auditor",
        "subjects:write": "consent_officer",
        "grants:read": "consent_officer auditor",
        "grants:write": "consent_officer",
        "audit:read": "auditor consent_officer admin",
        "operations:read": "auditor admin",
        "keys:write": "admin",
        "me:read": "generator verifier auditor consent_officer admin",
    }.items()
}
"""Scope → the roles that have it. No scope deletes an audit entry: there is no such route."""
ROLES: Final = ("generator", "verifier", "auditor", "consent_officer", "admin")

SESSION_S: Final = 12 * 3600.0
ENTRY_S: Final = 600.0
_KEY = re.compile(r"fk_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Principal:
    """Who asks: the id of their key, their roles; `csrf_token` is set when a cookie says so."""

    id: str
    roles: frozenset[str]
    csrf_token: str | None = field(default=None, repr=False)

    def may(self, scope: str) -> bool:
        """Whether one of the roles has the scope."""
        return bool(SCOPES[scope] & self.roles)

    def require(self, scope: str) -> None:
        """RefusedError `auth.scope` without it."""
        if not self.may(scope):
            needed = " or ".join(sorted(SCOPES[scope]))
            raise RefusedError(
                "auth.scope",
                f"This needs the scope {scope}, which your roles do not have.",
                f"Ask a {needed}.",
            )

    def require_csrf(self, given: str | None) -> None:
        """RefusedError `auth.csrf` where a cookie authenticates and the session's token was not given."""
        if self.csrf_token is not None and not hmac.compare_digest(self.csrf_token, given or ""):
            raise RefusedError(
                "auth.csrf", "The request does not carry this session's CSRF token.", "Reload the page."
            )


@dataclass(frozen=True)
class StoredKey:
    """What is known of a key; never the key."""

    id: str
    roles: tuple[str, ...]
    label: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None


@dataclass(frozen=True)
class Session:
    """A browser's session: the cookie's value and the token that its forms carry."""

    token: str = field(repr=False)
    csrf_token: str = field(repr=False)
    key_id: str


def make_key(
    database: Database, roles: Iterable[str], label: str = "", lifetime_s: float | None = None
) -> tuple[str, StoredKey]:
    """A new key, and what is stored of it. UsageError `auth.role` for a role that does not exist, or none."""
    wanted = tuple(dict.fromkeys(roles))
    if not wanted or not set(wanted) <= set(ROLES):
        raise UsageError(
            "auth.role", f"{' '.join(wanted) or 'None'} is no role.", f"Use: {', '.join(ROLES)}."
        )
    key = f"fk_{secrets.token_urlsafe(32)}"
    with database.write() as conn:
        time = now(conn)
        expires = None if lifetime_s is None else time + lifetime_s
        stored = StoredKey(f"key-{secrets.token_hex(6)}", wanted, label[:100], time, expires, None)
        row = {**vars(stored), "roles": " ".join(wanted), "secret_sha256": _digest(key)}
        conn.execute(sa.insert(api_keys), row)
    return key, stored


def list_keys(database: Database) -> list[StoredKey]:
    """Every key, the newest first."""
    with database.read() as conn:
        rows = conn.execute(sa.select(api_keys).order_by(api_keys.c.created_at.desc()))
        return [_stored(row) for row in rows]


def revoke_key(database: Database, key_id: str) -> StoredKey:
    """Withdraw a key and end its sessions. InputError `auth.key_unknown` where there is none."""
    with database.write() as conn:
        row = conn.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        if row is None:
            raise InputError("auth.key_unknown", f"There is no key {key_id}.", "See `facsimile key list`.")
        time = now(conn) if row.revoked_at is None else row.revoked_at
        conn.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=time))
        conn.execute(sa.delete(sessions).where(sessions.c.key_id == key_id))
    return StoredKey(row.id, tuple(row.roles.split()), row.label, row.created_at, row.expires_at, time)


def find_by_key(database: Database, key: str) -> Principal | None:
    """Who holds this key; None when it is unknown, expired or revoked."""
    if not _KEY.fullmatch(key):
        return None
    with database.read() as conn:
        row = conn.execute(sa.select(api_keys).where(api_keys.c.secret_sha256 == _digest(key))).one_or_none()
        return _principal(row, now(conn), None)


def find_by_session(database: Database, token: str) -> Principal | None:
    """Who logged in with this cookie; None when the session or its key has ended."""
    query = (
        sa.select(api_keys, sessions.c.expires_at.label("session_until"))
        .join(sessions, sessions.c.key_id == api_keys.c.id)
        .where(sessions.c.token_sha256 == _digest(token))
    )
    with database.read() as conn:
        row, time = conn.execute(query).one_or_none(), now(conn)
    if row is None or row.session_until < time:
        return None
    return _principal(row, time, csrf_token_of(token))


def open_session(database: Database, key: str) -> Session | None:
    """Log in with a key: a session of SESSION_S for its holder, None when the key is not good."""
    principal = find_by_key(database, key)
    return None if principal is None else open_session_of(database, principal.id)


def open_session_of(database: Database, key_id: str) -> Session:
    """A session for the holder of a key that has been proven otherwise (the one-time link of `serve`)."""
    token = secrets.token_urlsafe(32)
    with database.write() as conn:
        time = now(conn)
        conn.execute(sa.delete(sessions).where(sessions.c.expires_at < time))
        row = {"token_sha256": _digest(token), "key_id": key_id, "expires_at": time + SESSION_S}
        conn.execute(sa.insert(sessions), row)
    return Session(token, csrf_token_of(token), key_id)


def open_session_for(database: Database, identity: str, roles: Iterable[str], label: str) -> Session:
    """A session for somebody whom a provider vouched for, with these roles as long as it lasts.

    Their row among the keys has a secret that nobody knows; revoking it ends their sessions and keeps them out:
    RefusedError `oidc.locked_out`.
    """
    with database.write() as conn:
        time = now(conn)
        row = conn.execute(sa.select(api_keys).where(api_keys.c.id == identity)).one_or_none()
        if row is not None and row.revoked_at is not None:
            raise RefusedError(
                "oidc.locked_out", "Your access to this server was withdrawn.", "Ask an admin."
            )
        values = {"roles": " ".join(sorted(roles)), "expires_at": time + SESSION_S}
        if row is None:
            unknown = {
                "secret_sha256": _digest(secrets.token_urlsafe(32)),
                "label": label,
                "created_at": time,
            }
            conn.execute(sa.insert(api_keys), {"id": identity, **unknown, **values})
        else:
            conn.execute(sa.update(api_keys).where(api_keys.c.id == identity).values(**values))
    return open_session_of(database, identity)


def close_session(database: Database, token: str) -> None:
    """Log out; a session that has ended already is no error."""
    with database.write() as conn:
        conn.execute(sa.delete(sessions).where(sessions.c.token_sha256 == _digest(token)))


def csrf_token_of(session_token: str) -> str:
    """The token that a session's forms carry: derived, so that it needs no storage and survives a restart."""
    return hmac.new(session_token.encode(), b"facsimile csrf", hashlib.sha256).hexdigest()


class EntryCodes:
    """One-time codes for the link that `facsimile serve` prints: each opens one session, within ENTRY_S."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[str, float]] = {}

    def make(self, key_id: str, at: float) -> str:
        """A code for the holder of this key."""
        code = secrets.token_urlsafe(24)
        self._codes[_digest(code)] = (key_id, at + ENTRY_S)
        return code

    def use(self, code: str, at: float) -> str | None:
        """The key's id, once; None for a code that is unknown, used or too old."""
        key_id, until = self._codes.pop(_digest(code), ("", 0.0))
        return key_id if at < until else None


def _principal(row: sa.Row[*tuple[object, ...]] | None, time: float, csrf: str | None) -> Principal | None:
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at < time):
        return None
    return Principal(row.id, frozenset(row.roles.split()), csrf)


def _stored(row: sa.Row[*tuple[object, ...]]) -> StoredKey:
    roles = tuple(row.roles.split())
    return StoredKey(row.id, roles, row.label, row.created_at, row.expires_at, row.revoked_at)


def _digest(secret: str) -> str:
    """Of 256 random bits a plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()
