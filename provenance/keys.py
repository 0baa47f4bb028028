"""Makes and loads the keys of one home: certificate chain, ledger, grant, mark, template keys, trust lists.

Does not know what is signed with them, nor the C2PA library.

A key directory, made once and whole by `make_keys`:

    root.crt.pem  root.key.pem          anchor, pathlen 1; move its key off the machine after `make_keys`
    issuing.crt.pem  issuing.key.pem    pathlen 0; certifies the next leaf when one is rotated
    leaf.crt.pem  leaf.key.pem          P-256, ES256: signs C2PA claims
    leaf.token.json                     instead of leaf.key.pem: which PKCS#11 token holds that key
    ledger.key.pem  grant.key.pem       Ed25519
    mark.key  template.key              32 random bytes each, as hex
    trust/own/*.pem                     our root; a leaf under it counts as ours only if it is pinned as well
    trust/listed/*.pem                  anchors of others whose signatures are believed: cameras, publishers
    trust/timestamp/*.pem               anchors of time-stamp authorities
    trust/pinned/<fingerprint>.pem      every leaf we ever had: the only signers that count as us
    trust/revoked.txt                   fingerprint (SHA-256) of every leaf withdrawn, one per line
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from provenance.certificates import (
    Chain,
    check_chain,
    fingerprint,
    make_chain,
    make_leaf,
)
from provenance.errors import InputError, StoreError
from provenance.hardware import TOKEN_FILE, TokenKey, make_key, open_key, read_token_file

PRIVATE_FILES = (
    "root.key.pem",
    "issuing.key.pem",
    "leaf.key.pem",
    "ledger.key.pem",
    "grant.key.pem",
    "mark.key",
    "template.key",
)


@dataclass(frozen=True)
class Trust:
    """Whom a reader believes: certificates as PEM text, fingerprints as hex; empty, it believes nobody."""

    own_anchors: str = ""
    listed_anchors: str = ""
    timestamp_anchors: str = ""
    pinned_leaves: str = ""
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SigningKeys:
    """The keys of one home, ready for use.

    Claims are signed with `leaf_key_pem`, or by `sign_claim` where that is given (`dataclasses.replace`): a
    hardware module or remote key service that takes the bytes to be signed and returns the 64 bytes r || s of an
    ES256 signature (RFC 9053 section 2.1). The second way reserves 9 kB more in every file.
    """

    organisation: str
    chain_pem: bytes
    trust: Trust
    leaf_key_pem: bytes = field(repr=False)
    ledger_key: Ed25519PrivateKey = field(repr=False)
    grant_key: Ed25519PrivateKey = field(repr=False)
    mark_key: bytes = field(repr=False)
    template_key: bytes = field(repr=False)
    sign_claim: Callable[[bytes], bytes] | None = field(default=None, repr=False)

    @property
    def expires_at(self) -> datetime:
        """When the leaf certificate ends: from then on it signs nothing, and what bears no trusted time stamp
        reads as untrusted."""
        return x509.load_pem_x509_certificate(self.chain_pem).not_valid_after_utc

    @classmethod
    def load(cls, directory: Path, pin: str = "") -> SigningKeys:
        """Read a key directory; StoreError: one missing, broken or open to all; SignatureError: mixed up.

        Where `leaf.token.json` says that the claim key lies in a token, `pin` opens that.
        """
        leaf, issuing = (_read_certificate(directory / f"{name}.crt.pem") for name in ("leaf", "issuing"))
        root = _read_certificate(directory / "root.crt.pem")
        leaf_pem, public_key, sign_claim = _claim_key(directory, pin)
        check_chain(leaf, issuing, root, public_key)
        return cls(
            organisation=str(leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value),
            chain_pem=_pem(leaf) + _pem(issuing),
            trust=load_trust(directory / "trust"),
            leaf_key_pem=leaf_pem,
            ledger_key=_read_ed25519_key(directory / "ledger.key.pem"),
            grant_key=_read_ed25519_key(directory / "grant.key.pem"),
            mark_key=_read_secret(directory / "mark.key"),
            template_key=_read_secret(directory / "template.key"),
            sign_claim=sign_claim,
        )


def make_keys(directory: Path, organisation: str) -> None:
    """Create a key directory, whole or not at all; StoreError where one exists or cannot be written.

    Private files are mode 0600 in a directory of mode 0700. The new directory appears by one rename.
    """
    chain = make_chain(organisation)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StoreError(
            "keys.exist",
            "The key directory exists and is not empty; keys are never overwritten.",
            "Use the home as it is, or choose another FACSIMILE_HOME.",
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".keys-", dir=directory.parent))
        try:
            _write_all(draft, chain)
            draft.rename(directory)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise StoreError(
            "keys.write",
            f"The keys could not be written: {error.strerror}.",
            "Check the disk and its permissions.",
        ) from error


def rotate_leaf(
    directory: Path, now: datetime | None = None, token: TokenKey | None = None, pin: str = ""
) -> str:
    """Replace the signing key by a new one of the same issuing CA; returns the new certificate's fingerprint.

    With `token`, the new key is made in that PKCS#11 token and never leaves it.

    The old key is destroyed; its certificate stays pinned, so that what it signed remains ours until
    `revoke_leaf`. The new pin is written first, the certificate last: a crash in between leaves a directory
    that says "keys.mismatch", never one that signs with a key nobody pinned.
    """
    old, issuing = (_read_certificate(directory / f"{name}.crt.pem") for name in ("leaf", "issuing"))
    issuing_key = _read_claim_key(directory / "issuing.key.pem")
    key = ec.generate_private_key(ec.SECP256R1()) if token is None else None
    public_key = key.public_key() if key is not None else make_key(cast("TokenKey", token), pin)
    organisation = str(old.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)
    leaf = make_leaf(
        public_key, issuing, issuing_key, organisation=organisation, now=now or datetime.now(UTC)
    )
    try:
        _replace(directory / "trust" / "pinned" / f"{fingerprint(leaf)}.pem", _pem(leaf), 0o644)
        if key is not None:
            _replace(directory / "leaf.key.pem", _private_pem(key), 0o600)
            (directory / TOKEN_FILE).unlink(missing_ok=True)
        elif token is not None:
            _replace(directory / TOKEN_FILE, token.as_json().encode(), 0o600)
            (directory / "leaf.key.pem").unlink(missing_ok=True)
        _replace(directory / "leaf.crt.pem", _pem(leaf), 0o644)
    except OSError as error:
        raise StoreError(
            "keys.write", f"The new key could not be written: {error.strerror}.", "Check the disk."
        ) from error
    return fingerprint(leaf)


def revoke_leaf(directory: Path, fingerprint_sha256: str) -> None:
    """Withdraw a leaf certificate: whatever it signed reads as untrusted from the next `load_trust` on."""
    if not re.fullmatch(r"[0-9a-f]{64}", fingerprint_sha256):
        raise InputError(
            "keys.fingerprint",
            "A fingerprint is 64 lower-case hex digits.",
            "Copy it from `certificate list`.",
        )
    try:
        _append_line(directory / "trust" / "revoked.txt", fingerprint_sha256)
    except OSError as error:
        raise StoreError("keys.write", f"Not recorded: {error.strerror}.", "Check the disk.") from error


@dataclass(frozen=True)
class PinnedLeaf:
    """One certificate that ever signed for us."""

    fingerprint: str
    not_before: datetime
    not_after: datetime
    state: Literal["in use", "retired", "revoked"]


def list_leaves(directory: Path) -> list[PinnedLeaf]:
    """Every leaf certificate of ours, oldest first."""
    current = fingerprint(_read_certificate(directory / "leaf.crt.pem"))
    revoked = _read_fingerprints(directory / "trust" / "revoked.txt")
    leaves = _read_certificates(directory / "trust" / "pinned")
    return [
        PinnedLeaf(
            fingerprint=(name := fingerprint(leaf)),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            state="revoked" if name in revoked else "in use" if name == current else "retired",
        )
        for leaf in sorted(leaves, key=lambda each: each.not_valid_before_utc)
    ]


def load_trust(directory: Path) -> Trust:
    """Read a trust directory; an absent list is empty, a broken one is a StoreError."""
    revoked = _read_fingerprints(directory / "revoked.txt")
    pinned = [each for each in _read_certificates(directory / "pinned") if fingerprint(each) not in revoked]
    return Trust(
        own_anchors=_join(_read_certificates(directory / "own")),
        listed_anchors=_join(_read_certificates(directory / "listed")),
        timestamp_anchors=_join(_read_certificates(directory / "timestamp")),
        pinned_leaves=_join(pinned),
        revoked=revoked,
    )


def _write_all(directory: Path, chain: Chain) -> None:
    for name in ("root", "issuing", "leaf"):
        _replace(directory / f"{name}.crt.pem", _pem(getattr(chain, name)), 0o644)
        _replace(directory / f"{name}.key.pem", _private_pem(getattr(chain, f"{name}_key")), 0o600)
    for name in ("ledger", "grant"):
        _replace(directory / f"{name}.key.pem", _private_pem(Ed25519PrivateKey.generate()), 0o600)
    for name in ("mark", "template"):
        _replace(directory / f"{name}.key", secrets.token_hex(32).encode() + b"\n", 0o600)
    for name in ("own", "listed", "timestamp", "pinned"):
        (directory / "trust" / name).mkdir(mode=0o755, parents=True)
    _replace(directory / "trust" / "own" / "root.pem", _pem(chain.root), 0o644)
    _replace(directory / "trust" / "pinned" / f"{fingerprint(chain.leaf)}.pem", _pem(chain.leaf), 0o644)
    _replace(directory / "trust" / "revoked.txt", b"", 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file beside `path` with its final mode, force it to disk, and rename it into place."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _append_line(path: Path, line: str) -> None:
    before = path.read_bytes() if path.exists() else b""
    if line not in before.decode("ascii", "replace").split():
        _replace(path, before + line.encode() + b"\n", 0o644)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form)


def _read(path: Path) -> bytes:
    """Read a key file; one that holds a secret must not be readable by group or others (as ssh asks)."""
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        cause = f"The key file {path.name} cannot be read: {error.strerror}."
        raise StoreError(
            "keys.missing", cause, "Run `facsimile init`, or restore the key directory."
        ) from error
    if path.name in PRIVATE_FILES and os.name == "posix" and mode & 0o077:
        cause = f"The private file {path.name} is open to others (mode {mode & 0o777:03o})."
        raise StoreError(
            "keys.permissions", cause, "chmod 600 the file, and rotate the key if others had access."
        )
    return data


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise _broken(path) from error


def _read_claim_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _read_private_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _broken(path)
    return key


def _claim_key(
    directory: Path, pin: str
) -> tuple[bytes, ec.EllipticCurvePublicKey, Callable[[bytes], bytes] | None]:
    """(PEM or nothing, public key, signer of a token or None)."""
    if (directory / TOKEN_FILE).exists():
        public_key, sign_claim = open_key(read_token_file(_read(directory / TOKEN_FILE)), pin)
        return b"", public_key, sign_claim
    key = _read_claim_key(directory / "leaf.key.pem")
    return _private_pem(key), key.public_key(), None


def _read_ed25519_key(path: Path) -> Ed25519PrivateKey:
    key = _read_private_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise _broken(path)
    return key


def _read_private_key(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _broken(path) from error


def _read_secret(path: Path) -> bytes:
    text = _read(path).strip()
    if not re.fullmatch(rb"[0-9a-f]{64}", text):
        raise _broken(path)
    return bytes.fromhex(text.decode())


def _read_certificates(directory: Path) -> list[x509.Certificate]:
    """Every certificate of the folder's .pem files."""
    found: list[x509.Certificate] = []
    for path in sorted(directory.glob("*.pem")):
        try:
            found += x509.load_pem_x509_certificates(_read(path))
        except ValueError as error:
            raise _broken(path) from error
    return found


def _join(certificates: list[x509.Certificate]) -> str:
    return b"".join(_pem(each) for each in certificates).decode()


def _read_fingerprints(path: Path) -> frozenset[str]:
    lines = _read(path).decode("ascii", "replace").split() if path.exists() else []
    if not all(re.fullmatch(r"[0-9a-f]{64}", line) for line in lines):
        raise _broken(path)
    return frozenset(lines)


def _broken(path: Path) -> StoreError:
    cause = f"The key file {path.name} does not hold what it should."
    return StoreError("keys.broken", cause, "Restore the key directory from its backup.")
