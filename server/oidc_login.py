"""Signing in on the page by an OpenID provider: authorization code with PKCE; opens no session and knows no page.

    begin → the browser goes to the provider → finish: state, code for a token, its signature, its nonce → Identity

All that must be remembered meanwhile is one secret in the browser that began (`Journey`): state, nonce and code
verifier are derived from it, each under its own name, so a code that was meant for another browser opens nothing.
The provider is asked over https only, at the addresses of its own discovery document, and redirects are not followed.
OpenID Connect Core 3.1, RFC 7636 (S256), RFC 9207, RFC 9700.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

import httpx2 as httpx

from provenance.errors import InputError, RefusedError
from server.logs import log
from server.oidc import TokenRefused, Tokens, identity_of
from server.settings import OidcSettings

JOURNEY_S: Final = 600
"""How long signing in at the provider may take."""
RETURN_PATH: Final = "/login/oidc/return"
MAX_ANSWER_BYTES: Final = 1 << 18
TIMEOUT_S: Final = 5.0
_SECRET_CHARS: Final = 43


@dataclass(frozen=True)
class Journey:
    """One sign-in of one browser: its secret, and the page to go on to."""

    secret: str = field(repr=False)
    next: str

    @classmethod
    def begin(cls, next_path: str) -> Self:
        """A new one."""
        return cls(secrets.token_urlsafe(32), next_path)

    @classmethod
    def read(cls, cookie: str | None) -> Self | None:
        """The one that a cookie keeps; None for anything else."""
        secret, dot, path = (cookie or "").partition(".")
        if len(secret) != _SECRET_CHARS or not dot:
            return None
        try:
            return cls(secret, base64.urlsafe_b64decode(path.encode("ascii") + b"==").decode())
        except ValueError:
            return None

    def cookie(self) -> str:
        """The value to be kept by the browser."""
        return f"{self.secret}.{_base64url(self.next.encode())}"

    @property
    def state(self) -> str:
        """What must come back with the browser."""
        return self._derive("state")

    @property
    def nonce(self) -> str:
        """What must come back in the token."""
        return self._derive("nonce")

    @property
    def verifier(self) -> str:
        """What proves to the provider that the one who redeems a code is the one who began (RFC 7636, 4.1)."""
        return self._derive("code verifier")

    @property
    def challenge(self) -> str:
        """Its hash, told at the beginning (RFC 7636, 4.2)."""
        return _base64url(hashlib.sha256(self.verifier.encode()).digest())

    def _derive(self, name: str) -> str:
        return _base64url(hmac.digest(self.secret.encode(), f"facsimile {name}".encode(), "sha256"))


@dataclass(frozen=True)
class Identity:
    """Who signed in: the id that their bearer tokens have, too, and their roles here."""

    id: str
    roles: frozenset[str]


@dataclass(frozen=True)
class _Provider:
    """Addresses of a discovery document (OpenID Connect Discovery 4.2)."""

    authorize: str
    token: str


class SignIn:
    """The page's way to one provider."""

    def __init__(
        self, settings: OidcSettings, tokens: Tokens, base_url: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._return_url = f"{base_url}{RETURN_PATH}"
        self._tls = tls
        self._lock = threading.Lock()
        self._provider: _Provider | None = None

    @property
    def provider_name(self) -> str:
        """Its host, for people."""
        return urlsplit(self._settings.issuer).hostname or self._settings.issuer

    def address(self, journey: Journey) -> str:
        """Where the browser is sent; InputError `oidc.provider` where the provider does not say where that is."""
        asked = {
            "response_type": "code",
            "client_id": self._settings.client,
            "redirect_uri": self._return_url,
            "scope": "openid",
            "state": journey.state,
            "nonce": journey.nonce,
            "code_challenge": journey.challenge,
            "code_challenge_method": "S256",
        }
        base = self._discover().authorize
        return f"{base}{'&' if '?' in base else '?'}{urlencode(asked)}"

    def finish(self, journey: Journey | None, told: Mapping[str, str]) -> Identity:
        """Who came back. RefusedError `oidc.state`, `oidc.refused`, `oidc.no_role`; InputError `oidc.provider`."""
        if journey is None or not hmac.compare_digest(journey.state.encode(), told.get("state", "").encode()):
            raise RefusedError(
                "oidc.state", "This sign-in was not begun in this browser, or too long ago.", "Begin again."
            )
        if "iss" in told and told["iss"] != self._settings.issuer:
            raise _refused("answer of another issuer")
        if "error" in told or not told.get("code"):
            raise _refused("the provider said no")
        try:
            claims = self._tokens.verify(self._redeem(told["code"], journey), self._settings.client)
        except TokenRefused as refused:
            raise _refused(str(refused)) from None
        if claims.get("azp", self._settings.client) != self._settings.client:
            raise _refused("authorised party")
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), journey.nonce.encode()):
            raise _refused("nonce")
        roles = self._tokens.roles_of(claims)
        if not roles:
            raise RefusedError(
                "oidc.no_role", "Your account has no role on this server.", "Ask an admin for one."
            )
        return Identity(identity_of(claims), roles)

    def _redeem(self, code: str, journey: Journey) -> str:
        """The id token for a code (OpenID Connect Core 3.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._return_url,
            "client_id": self._settings.client,
            "code_verifier": journey.verifier,
        }
        if self._settings.client_secret:
            form["client_secret"] = self._settings.client_secret
        answer = self._ask("POST", self._discover().token, form)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _refused("no id token")
        return token

    def _discover(self) -> _Provider:
        with self._lock:
            if self._provider is None:
                issuer = self._settings.issuer
                found = self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
                if found.get("issuer") != issuer:
                    raise _unusable("its discovery document names another issuer")
                self._provider = _Provider(
                    _https(found.get("authorization_endpoint")), _https(found.get("token_endpoint"))
                )
            return self._provider

    def _ask(self, method: str, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A JSON object of the provider."""
        options: dict[str, Any] = {"timeout": TIMEOUT_S, "follow_redirects": False, "trust_env": False}
        try:
            with (
                httpx.Client(verify=self._tls or True, **options) as client,
                client.stream(method, _https(url), data=dict(form) if form else None) as got,
            ):
                body = _bounded(got)
                status = got.status_code
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unusable(type(error).__name__) from None
        if form is not None and 400 <= status < 500:
            raise _refused(f"the provider answered {status}")
        if status != 200:
            raise _unusable(f"it answered {status}")
        try:
            answer = json.loads(body)
        except ValueError:
            raise _unusable("it answered no JSON") from None
        return answer if isinstance(answer, dict) else {}


def _https(url: object) -> str:
    """An address that may be asked or shown; InputError `oidc.provider` for one without TLS or with a login in it."""
    if isinstance(url, str):
        try:
            parts = urlsplit(url)
            if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and not parts.fragment:
                return url
        except ValueError:
            pass
    raise _unusable("it names no https address")


def _bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise _unusable("its answer is too long")
    return bytes(body)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refused(reason: str) -> RefusedError:
    """Fixed words to the log; the browser learns that it was refused, no more."""
    log.info("sign-in refused", reason=reason)
    return RefusedError("oidc.refused", "The provider did not confirm who you are.", "Sign in again.")


def _unusable(reason: str) -> InputError:
    log.warning("provider not usable", reason=reason)
    return InputError(
        "oidc.provider",
        f"The provider for signing in cannot be used: {reason}.",
        "Try again later, or log in with a key.",
    )
