"""Bearer tokens of one OpenID provider: verified by its published keys, its roles mapped to ours; off by default.

Keys come from where the operator said, a file or one https address, never from a token: `jku`, `jwk`, `x5u` and `x5c`
in a header are not looked at. Algorithms are those of ALGORITHMS, so `none` and shared secrets are none. It does not
know whether a person was locked out at the provider: a token is good until it expires, so let it live minutes.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key, RSAKey, import_key

from provenance.errors import InputError
from server.auth import ROLES, Principal
from server.logs import log
from server.settings import OidcSettings

ALGORITHMS: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None), "PS256": ("RSA", None), "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"),
    "Ed25519": ("OKP", "Ed25519"),
}  # fmt: skip
"""Algorithm → type and curve of its keys (RFC 7518, 3.1; RFC 9864)."""
TYPES: Final = frozenset({None, "JWT", "jwt", "at+jwt"})
MAX_TOKEN_CHARS: Final = 16_384
MAX_JWKS_BYTES: Final = 1 << 18
LEEWAY_S: Final = 60.0
LONGEST_LIFE_S: Final = 86_400.0
REFRESH_S: Final = 300.0
"""An unknown key id makes us ask for the keys anew, but not more often than this."""
MIN_RSA_BITS: Final = 2048


class TokenRefused(Exception):  # noqa: N818  (it never leaves this module but as "not known")
    """Why a token is not accepted: fixed words, safe for a log."""


class Tokens:
    """Who asks, by the provider's tokens."""

    def __init__(
        self,
        settings: OidcSettings,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Reads the keys at once: InputError `oidc.jwks` where there are none."""
        self._settings = settings
        self._clock = clock
        self._tls = tls
        self._lock = threading.Lock()
        self._read_at = time.monotonic()
        self._keys = keys_of(self._fetch())

    def find(self, token: str) -> Principal | None:
        """Who holds this token; None where it is not good. The reason goes to the log, the token does not."""
        try:
            claims = self.verify(token)
        except TokenRefused as refused:
            log.info("token refused", reason=str(refused))
            return None
        return Principal(identity_of(claims), self.roles_of(claims))

    def verify(self, token: str, audience: str | None = None) -> dict[str, Any]:
        """The claims of a token of this provider for this server, now; TokenRefused.

        `audience` is whom the token must be made out to: the settings' own where none is given.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenRefused("too long")
        try:
            found = jws.extract_compact(token.encode("ascii"))
            header, key = found.headers(), self._key_for(found.headers())
            if not jws.validate_compact(found, key, algorithms=[str(header["alg"])]):
                raise TokenRefused("signature")
            claims = json.loads(found.payload)
        except (JoseError, ValueError) as error:
            raise TokenRefused("no signed token") from error
        if not isinstance(claims, dict):
            raise TokenRefused("no claims")
        self._require_claims(claims, audience or self._settings.audience)
        return claims

    def roles_of(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """Our roles: the claim's values that are mapped, or are names of roles where nothing is mapped."""
        given: Any = claims
        for part in self._settings.roles_claim.split("."):  # such as realm_access.roles
            given = given.get(part) if isinstance(given, dict) else None
        values = given.split() if isinstance(given, str) else given
        named = {each for each in values if isinstance(each, str)} if isinstance(values, list) else set()
        mapping = self._settings.roles or tuple((role, role) for role in ROLES)
        return frozenset(role for value, role in mapping if value in named)

    def _require_claims(self, claims: Mapping[str, Any], wanted: str) -> None:
        """OpenID Connect Core 3.1.3.7, points 2 to 5, 9 and 10."""
        audience, now = claims.get("aud"), self._clock()
        if claims.get("iss") != self._settings.issuer:
            raise TokenRefused("issuer")
        if audience != wanted and not (isinstance(audience, list) and wanted in audience):
            raise TokenRefused("audience")
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != wanted:
            raise TokenRefused("authorised party")
        expires, issued = _time_of(claims, "exp"), _time_of(claims, "iat")
        if not (now - LEEWAY_S < expires <= issued + LONGEST_LIFE_S):
            raise TokenRefused("expired, or valid for too long")
        if max(issued, _time_of(claims, "nbf") if "nbf" in claims else issued) > now + LEEWAY_S:
            raise TokenRefused("not valid yet")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise TokenRefused("subject")

    def _key_for(self, header: Mapping[str, Any]) -> Key:
        kid, name = header.get("kid"), header.get("alg")
        if name not in ALGORITHMS or header.get("typ") not in TYPES or "crit" in header:
            raise TokenRefused("algorithm or type")
        if not isinstance(kid, str):
            raise TokenRefused("no key id")
        key = self._keys.get(kid) or self._ask_again().get(kid)
        if key is None:
            raise TokenRefused("unknown key")
        told = key.as_dict(private=False)
        kind, curve = ALGORITHMS[str(name)]
        if key.key_type != kind or (curve and told.get("crv") != curve) or told.get("alg", name) != name:
            raise TokenRefused("algorithm of another key")
        return key

    def _ask_again(self) -> Mapping[str, Key]:
        """The provider may have changed its keys; where it cannot be asked, the known ones stay."""
        with self._lock:
            if time.monotonic() - self._read_at >= REFRESH_S:
                self._read_at = time.monotonic()
                try:
                    self._keys = keys_of(self._fetch())
                except InputError as error:
                    log.warning("keys of the provider not read", code=error.code)
            return self._keys

    def _fetch(self) -> bytes:
        place = self._settings.jwks
        try:
            if not place.startswith("https://"):
                return Path(place).read_bytes()[: MAX_JWKS_BYTES + 1]
            options: dict[str, Any] = {"timeout": 5.0, "follow_redirects": False, "trust_env": False}
            with (
                httpx.Client(verify=self._tls or True, **options) as client,
                client.stream("GET", place) as got,
            ):
                if got.status_code != 200:
                    raise _unreadable(f"the provider answered {got.status_code}")
                return _bounded(got)
        except (OSError, httpx.HTTPError) as error:
            raise _unreadable(type(error).__name__) from None


def identity_of(claims: Mapping[str, Any]) -> str:
    """The principal of a token: a hash of issuer and subject, the same for every token of one person."""
    who = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode()).hexdigest()
    return f"oidc-{who[:24]}"


def keys_of(jwks: bytes) -> dict[str, Key]:
    """Key id → public key of a JWK set (RFC 7517) for signatures; others are left out. InputError `oidc.jwks`."""
    if len(jwks) > MAX_JWKS_BYTES:
        raise _unreadable("it is too large")
    try:
        listed = json.loads(jwks)["keys"]
        found = {str(each["kid"]): _public(each) for each in listed if _signs(each)}
    except (ValueError, KeyError, TypeError, JoseError):
        raise _unreadable("it is no set of public keys") from None
    if not found:
        raise _unreadable("it holds no key for signatures with an id")
    return found


def _signs(key: Mapping[str, Any]) -> bool:
    return (
        isinstance(key.get("kid"), str)
        and key.get("kty") in ("RSA", "EC", "OKP")
        and key.get("use", "sig") == "sig"
    )


def _public(key: Mapping[str, Any]) -> Key:
    if "d" in key:
        raise _unreadable("it holds private keys")
    read = import_key(dict(key))
    if isinstance(read, RSAKey) and read.public_key.key_size < MIN_RSA_BITS:
        raise _unreadable(f"it holds an RSA key of fewer than {MIN_RSA_BITS} bits")
    return read


def _bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > MAX_JWKS_BYTES:
            break
    return bytes(body)


def _time_of(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise TokenRefused(f"no {name}")
    return float(value)


def _unreadable(reason: str) -> InputError:
    return InputError(
        "oidc.jwks",
        f"The provider's keys cannot be used: {reason}.",
        "Check --oidc-jwks: a file, or an https address.",
    )
