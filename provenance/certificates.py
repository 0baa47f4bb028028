"""Issues and checks the certificates of a claim signer; knows no file and no C2PA library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provenance.errors import InputError, SignatureError

CLAIM_SIGNING_EKU = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")  # C2PA specification 2.x, 14.5.1
ROOT_DAYS, ISSUING_DAYS, LEAF_DAYS = 3652, 1826, 1095


@dataclass(frozen=True)
class Chain:
    """Three certificates and their private keys: root signs issuing signs leaf."""

    root: x509.Certificate
    issuing: x509.Certificate
    leaf: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey = field(repr=False)
    issuing_key: ec.EllipticCurvePrivateKey = field(repr=False)
    leaf_key: ec.EllipticCurvePrivateKey = field(repr=False)


def make_chain(organisation: str, now: datetime | None = None, leaf_days: float = LEAF_DAYS) -> Chain:
    """Root (pathlen 1) → issuing (pathlen 0) → leaf, all P-256; profile: C2PA 2.x section 14.5, RFC 5280.

    `now` is the moment of issue (default: this one); validity begins an hour earlier, for clocks that lag.
    """
    _check_organisation(organisation)
    now = now or datetime.now(UTC)
    root_key, issuing_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root_name, issuing_name = _name(organisation, "Root"), _name(organisation, "Issuing CA")
    root = _authority(
        root_name, root_key.public_key(), root_name, root_key, path_length=1, now=now, days=ROOT_DAYS
    )
    issuing = _authority(
        issuing_name, issuing_key.public_key(), root_name, root_key, path_length=0, now=now, days=ISSUING_DAYS
    )
    leaf = make_leaf(
        leaf_key.public_key(), issuing, issuing_key, organisation=organisation, now=now, days=leaf_days
    )
    return Chain(root, issuing, leaf, root_key, issuing_key, leaf_key)


def make_leaf(
    public_key: ec.EllipticCurvePublicKey,
    issuing: x509.Certificate,
    issuing_key: ec.EllipticCurvePrivateKey,
    *,
    organisation: str,
    now: datetime,
    days: float = LEAF_DAYS,
) -> x509.Certificate:
    """A claim-signing certificate: CA:FALSE, digitalSignature only, claimSigning and emailProtection.

    Readers with default settings accept emailProtection only, those on the C2PA trust list want claimSigning.
    """
    usages = x509.ExtendedKeyUsage([CLAIM_SIGNING_EKU, ExtendedKeyUsageOID.EMAIL_PROTECTION])
    builder = _begin(_name(organisation, "Claim Signer"), public_key, issuing.subject, now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_claims=True), critical=True)
    builder = builder.add_extension(usages, critical=False)
    builder = builder.add_extension(_authority_key_identifier(issuing_key), critical=False)
    return builder.sign(issuing_key, hashes.SHA256())


def check_chain(
    leaf: x509.Certificate,
    issuing: x509.Certificate,
    root: x509.Certificate,
    leaf_public_key: ec.EllipticCurvePublicKey,
) -> None:
    """Raise SignatureError unless root signed issuing signed leaf, and the leaf holds this public key."""
    if leaf.public_key() != leaf_public_key:
        raise _broken_chain("The signing key is not the key of the leaf certificate.")
    for child, parent, names in ((leaf, issuing, "leaf"), (issuing, root, "issuing"), (root, root, "root")):
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise _broken_chain(
                f"The {names} certificate was not issued by the certificate above it."
            ) from error


def es256_signer(key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    """A signer with a key in memory: ECDSA P-256, SHA-256, r || s in 64 bytes (RFC 9053 section 2.1)."""

    def sign_claim(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign_claim


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER certificate, hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _name(organisation: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "facsimile"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"facsimile {role}"),
        ]
    )


def _begin(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, now: datetime, days: float
) -> x509.CertificateBuilder:
    start = now - timedelta(hours=1)
    builder = x509.CertificateBuilder(
        issuer, subject, key, x509.random_serial_number(), start, now + timedelta(days)
    )
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _authority(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    path_length: int,
    now: datetime,
    days: float,
) -> x509.Certificate:
    builder = _begin(subject, key, issuer, now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_key_usage(signs_claims=False), critical=True)
    builder = builder.add_extension(_authority_key_identifier(issuer_key), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _authority_key_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _key_usage(signs_claims: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs_claims,
        key_cert_sign=not signs_claims,
        crl_sign=not signs_claims,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _check_organisation(organisation: str) -> None:
    if not 1 <= len(organisation.strip()) <= 64 or not organisation.isprintable():
        raise InputError(
            "keys.organisation",
            "An organisation's name is 1 to 64 printable characters (RFC 5280, ub-organization-name).",
            "Give a shorter name, without line breaks.",
        )


def _broken_chain(cause: str) -> SignatureError:
    return SignatureError(
        "keys.mismatch", cause, "Restore the key directory from its backup; do not mix two homes."
    )
