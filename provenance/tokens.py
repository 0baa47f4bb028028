"""Compact JWS (RFC 7515) with Ed25519 (RFC 9864) of one type each; knows no grant, no receipt and no list.

The header holds `alg`, `typ` and `kid` and nothing else: one that names a key, or where to fetch one, is refused
unread, and no key is ever taken from a token. The payload is RFC 8785 JSON.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from provenance.errors import SignatureError

ALGORITHM = "Ed25519"
MAX_TOKEN_CHARS = 1 << 24


def sign_token(claims: dict[str, Any], kind: str, key: Ed25519PrivateKey) -> str:
    """The claims as a compact JWS of the type `kind`."""
    jwk = OKPKey.import_key(key)
    header = {"alg": ALGORITHM, "typ": kind, "kid": jwk.thumbprint()}
    return jws.serialize_compact(header, rfc8785.dumps(claims), jwk, algorithms=[ALGORITHM])


def open_token(text: str, kind: str, key: Ed25519PublicKey) -> dict[str, Any]:
    """The claims that this key signed as this type; SignatureError for anything else."""
    jwk = OKPKey.import_key(key)
    try:
        found = jws.extract_compact(text.strip().encode())
        if found.headers() != {"alg": ALGORITHM, "typ": kind, "kid": jwk.thumbprint()}:
            raise _not_signed("its header is not one of this key and type")
        if len(text) > MAX_TOKEN_CHARS or not jws.validate_compact(found, jwk, algorithms=[ALGORITHM]):
            raise _not_signed("its signature fails")
        claims = json.loads(found.payload)
    except (JoseError, ValueError) as error:
        raise _not_signed("it is no signed token") from error
    if not isinstance(claims, dict):
        raise _not_signed("it holds no claims")
    return claims


def public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    """The public key as others may keep it (RFC 8037), with its thumbprint as `kid`."""
    jwk = OKPKey.import_key(key)
    return {
        **{name: str(value) for name, value in jwk.as_dict(private=False).items()},
        "kid": jwk.thumbprint(),
    }


def _not_signed(reason: str) -> SignatureError:
    return SignatureError(
        "token.signature", f"The token cannot be trusted: {reason}.", "Ask the issuer for it again."
    )
