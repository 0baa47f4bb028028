"""Signs a document by a signature in a file of its own, and verifies it; knows no report and no C2PA.

A detached compact JWS (RFC 7515, appendix F), ES256, by the key that signs claims. The header holds `alg`, `typ`,
`kid` (the leaf's SHA-256), `iat` (RFC 3339) and `x5c` for outsiders; who verifies here takes the key from the pinned
leaves, never from the header.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from provenance.certificates import es256_signer, fingerprint
from provenance.errors import SignatureError
from provenance.keys import SigningKeys, Trust

ALGORITHM = "ES256"
_HEADER = {"alg", "typ", "kid", "iat", "x5c"}


@dataclass(frozen=True)
class Attested:
    """Who signed, by which certificate (SHA-256), and when by the signer's own clock."""

    signer: str
    fingerprint: str
    signed_at: str


def sign_detached(data: bytes, kind: str, keys: SigningKeys, at: datetime | None = None) -> str:
    """The signature over `data` as a document of this kind: header, two dots, signature."""
    chain = x509.load_pem_x509_certificates(keys.chain_pem)
    header = {
        "alg": ALGORITHM,
        "typ": kind,
        "kid": fingerprint(chain[0]),
        "iat": (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        "x5c": [base64.b64encode(each.public_bytes(serialization.Encoding.DER)).decode() for each in chain],
    }
    protected = _encode(json.dumps(header, separators=(",", ":")).encode())
    signature = _signer(keys)(protected + b"." + _encode(data))
    return f"{protected.decode()}..{_encode(signature).decode()}"


def verify_detached(data: bytes, text: str, kind: str, trust: Trust) -> Attested:
    """Who signed exactly these bytes as this kind; SignatureError where nobody we pinned did."""
    try:
        protected, payload, signature = text.strip().split(".")
        header = json.loads(_decode(protected))
    except ValueError as error:
        raise _refused("it is no detached signature") from error
    if payload or not isinstance(header, dict) or set(header) != _HEADER:
        raise _refused("it is no detached signature of ours")
    if (header["alg"], header["typ"]) != (ALGORITHM, kind):
        raise _refused(f"it was not given to a document of the kind {kind}")
    leaf = _pinned(trust).get(str(header["kid"]))
    if leaf is None:
        raise _refused("its signer is none of this home's")
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not _holds(key, protected, signature, data):
        raise _refused("the document was changed after signing, or the signature belongs to another")
    names = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Attested(str(names[0].value) if names else "", fingerprint(leaf), str(header["iat"]))


def _signer(keys: SigningKeys) -> Callable[[bytes], bytes]:
    if keys.sign_claim is not None:
        return keys.sign_claim
    key = serialization.load_pem_private_key(keys.leaf_key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return es256_signer(key)


def _holds(key: ec.EllipticCurvePublicKey, protected: str, signature: str, data: bytes) -> bool:
    """ES256 of RFC 7518, 3.4: r || s over the ASCII of header, dot and payload."""
    try:
        raw = _decode(signature)
        if len(raw) != 64:
            return False
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        key.verify(der, protected.encode() + b"." + _encode(data), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _pinned(trust: Trust) -> dict[str, x509.Certificate]:
    """Every leaf of ours that was not withdrawn, by its fingerprint."""
    text = trust.pinned_leaves.encode()
    leaves = x509.load_pem_x509_certificates(text) if text.strip() else []
    return {fingerprint(leaf): leaf for leaf in leaves if fingerprint(leaf) not in trust.revoked}


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _refused(reason: str) -> SignatureError:
    return SignatureError(
        "attestation.signature",
        f"The signature does not hold: {reason}.",
        "Ask for the document and its .jws file again, as they were written.",
    )
