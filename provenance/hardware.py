"""The claim key in a PKCS#11 token (a hardware module, or SoftHSM2): made there, used there, never read out.

Alone imports python-pkcs11, which is optional. Knows no certificate and no home.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec

from provenance.errors import InputError, StoreError

if TYPE_CHECKING:
    import pkcs11

TOKEN_FILE = "leaf.token.json"


@dataclass(frozen=True)
class TokenKey:
    """Where a key lies: the PKCS#11 library's path, the token's label, the key's label."""

    module: str
    token: str
    label: str

    def as_json(self) -> str:
        """What `leaf.token.json` holds; the PIN is not in it."""
        return json.dumps(asdict(self)) + "\n"


def read_token_file(data: bytes) -> TokenKey:
    """Inverse of `as_json`; StoreError `keys.broken`."""
    try:
        return TokenKey(**{str(name): str(value) for name, value in json.loads(data).items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            "keys.broken",
            f"The key file {TOKEN_FILE} does not hold what it should.",
            "Restore the key directory from its backup.",
        ) from error


def make_key(where: TokenKey, pin: str) -> ec.EllipticCurvePublicKey:
    """Make a P-256 key in the token, not extractable; its public half. InputError where the label is taken."""
    with _session(where, pin, writes=True) as (session, library):
        kinds = library.ObjectClass
        if list(
            session.get_objects(
                {library.Attribute.CLASS: kinds.PRIVATE_KEY, library.Attribute.LABEL: where.label}
            )
        ):
            raise InputError(
                "token.label", f"The token holds a key {where.label!r} already.", "Choose another --label."
            )
        from pkcs11.util.ec import encode_named_curve_parameters

        parameters = session.create_domain_parameters(
            library.KeyType.EC,
            {library.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        template = {library.Attribute.EXTRACTABLE: False, library.Attribute.SENSITIVE: True}
        public, _ = parameters.generate_keypair(store=True, label=where.label, private_template=template)
        return _public_key(public, library)


def open_key(where: TokenKey, pin: str) -> tuple[ec.EllipticCurvePublicKey, Callable[[bytes], bytes]]:
    """(public key, signer) of a key in a token; the signer opens a session for each claim. StoreError `token.*`."""
    with _session(where, pin) as (session, library):
        public = _only(session, library, where, library.ObjectClass.PUBLIC_KEY)
        found = _public_key(public, library)

    def sign_claim(data: bytes) -> bytes:
        with _session(where, pin) as (session, library):
            private = _only(session, library, where, library.ObjectClass.PRIVATE_KEY)
            digest = hashlib.sha256(data).digest()
            return bytes(
                private.sign(digest, mechanism=library.Mechanism.ECDSA)
            )  # r || s (PKCS#11 3.0, 2.3.1)

    return found, sign_claim


def _only(session: pkcs11.Session, library: Any, where: TokenKey, kind: Any) -> Any:
    wanted = {library.Attribute.CLASS: kind, library.Attribute.LABEL: where.label}
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise _cannot_open(f"it holds {len(found)} keys named {where.label!r}")
    return found[0]


def _public_key(public: Any, library: Any) -> ec.EllipticCurvePublicKey:
    """EC_POINT is a DER octet string around the uncompressed point (PKCS#11 3.0, 2.3.3)."""
    point = bytes(public[library.Attribute.EC_POINT])
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point[-65:])


@contextmanager
def _session(where: TokenKey, pin: str, *, writes: bool = False) -> Iterator[tuple[pkcs11.Session, Any]]:
    try:
        import pkcs11
    except ImportError as error:
        raise StoreError(
            "token.library", "python-pkcs11 is not installed.", "pip install python-pkcs11."
        ) from error
    try:
        token = pkcs11.lib(where.module).get_token(token_label=where.token)
        with token.open(rw=writes, user_pin=pin) as session:
            yield session, pkcs11
    except pkcs11.PKCS11Error as error:
        raise _cannot_open(type(error).__name__) from error
    except RuntimeError as error:
        raise _cannot_open("its library cannot be loaded") from error


def _cannot_open(reason: str) -> StoreError:
    return StoreError(
        "token.unusable",
        f"The PKCS#11 token cannot be used: {reason}.",
        "Check the module's path, the token's and the key's label, and FACSIMILE_PIN.",
    )
