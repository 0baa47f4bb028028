"""Encryption of what is kept about one person under that person's own key; knows no database.

The home's template key protects each subject's key (RFC 3394), each subject's key what is sealed under it
(AES-256-GCM, bound to its place by associated data). Destroying a wrapped key destroys everything under it.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from provenance.errors import StoreError

_NONCE_BYTES = 12


def derive_key(key: bytes, use: str) -> bytes:
    """A 32-byte key for one use (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"facsimile {use} 1".encode()).derive(key)


def wrap_key(key: bytes, template_key: bytes) -> bytes:
    """A subject's 32-byte key, wrapped (RFC 3394), 40 bytes."""
    return aes_key_wrap(derive_key(template_key, "key wrap"), key)


def unwrap_key(wrapped: bytes, template_key: bytes) -> bytes:
    """The opposite; StoreError where it was altered, or wrapped under another home's key."""
    try:
        return aes_key_unwrap(derive_key(template_key, "key wrap"), wrapped)
    except (InvalidUnwrap, ValueError) as error:
        raise _damaged() from error


def seal(data: bytes, key: bytes, place: str) -> bytes:
    """nonce || AES-256-GCM(data), readable only at the same place."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, place.encode())


def unseal(sealed: bytes, key: bytes, place: str) -> bytes:
    """The opposite; StoreError where it was altered or moved."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError) as error:
        raise _damaged() from error


def commit(data: bytes, key: bytes) -> str:
    """HMAC-SHA256 (RFC 2104) in hex: proves the data to who holds the key, tells others nothing."""
    return hmac.new(derive_key(key, "commitment"), data, hashlib.sha256).hexdigest()


def reference(identifier: str, template_key: bytes) -> str:
    """The name of a subject or grant inside the ledger, 32 hex digits: only this home can recompute it."""
    key = derive_key(template_key, "ledger reference")
    return hmac.new(key, identifier.encode(), hashlib.sha256).hexdigest()[:32]


def _damaged() -> StoreError:
    return StoreError(
        "subject.damaged",
        "What is stored about this subject was altered, or belongs to another home.",
        "Run `facsimile audit verify`; restore the home, or enrol the subject again.",
    )
