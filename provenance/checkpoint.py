"""Signed tree heads as C2SP notes with Ed25519; knows no storage and nothing of what the leaves say.

A checkpoint (c2sp.org/tlog-checkpoint) is a signed note (c2sp.org/signed-note):

    <origin>                    the name of the ledger, which is also the name of its key
    <number of leaves>
    <base64 root hash>

    — <key name> <base64(key id, 4 bytes || signature, 64 bytes)>

One signature proves that the operator stated this root. It does not prove that everyone was shown the same
one: for that a witness must have seen and kept the checkpoints.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provenance.errors import InputError, SignatureError

ED25519 = b"\x01"
MAX_NOTE_BYTES = 1 << 16
SIGNATURE_LINE = re.compile(r"— (?P<name>[^\s+]+) (?P<payload>[A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True)
class Checkpoint:
    """What one signed tree head says."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note's text, which the signature covers."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True)
class Verifier:
    """A ledger's public key under its name."""

    name: str
    public_key: Ed25519PublicKey

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || LF || 0x01 || key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self._raw).digest()[:4]

    @property
    def text(self) -> str:
        """The key as others write it down: name+id+base64."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(ED25519 + self._raw).decode()}"

    @property
    def _raw(self) -> bytes:
        return self.public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def from_text(cls, text: str) -> Verifier:
        """Read `Verifier.text`; InputError where it is not one."""
        try:
            name, key_id, payload = text.strip().split("+", 2)
            raw = base64.b64decode(payload, validate=True)
            if raw[:1] != ED25519:
                raise ValueError("not Ed25519")
            found = cls(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
        except (ValueError, binascii.Error) as error:
            raise _not_a_key() from error
        if found.key_id.hex() != key_id:
            raise _not_a_key()
        return found


@dataclass(frozen=True)
class Signer:
    """A ledger's private key under its name, e.g. `Example-Lab/ledger`."""

    name: str
    private_key: Ed25519PrivateKey

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^\s+]+", self.name):
            raise InputError(
                "ledger.name", "A key name has no spaces and no plus sign.", "Use `key_name(organisation)`."
            )

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self.private_key.public_key())


def key_name(organisation: str) -> str:
    """The name of an organisation's ledger: spaces and plus signs, which a note forbids, become hyphens."""
    return re.sub(r"[\s+]+", "-", organisation.strip()) + "/ledger"


def sign_note(text: str, signer: Signer) -> str:
    """The text as a signed note; the text must end in a line feed."""
    signature = signer.private_key.sign(text.encode())
    payload = base64.b64encode(signer.verifier.key_id + signature).decode()
    return f"{text}\n— {signer.name} {payload}\n"


def open_note(note: str, verifier: Verifier) -> str:
    """The text that this key signed; SignatureError where it did not. Lines of other keys are left aside."""
    text, separator, signatures = note.rpartition("\n\n")
    lines = signatures.split("\n")
    if not separator or len(note) > MAX_NOTE_BYTES or lines.pop() != "" or not lines:
        raise _not_signed("it is not a signed note")
    matches = [match for line in lines if (match := SIGNATURE_LINE.fullmatch(line))]
    if len(matches) < len(lines):
        raise _not_signed("a signature line is malformed")
    for match in matches:
        payload = _decode(match["payload"])
        if match["name"] == verifier.name and payload[:4] == verifier.key_id:
            return _verified(text + "\n", payload[4:], verifier)
    raise _not_signed(f"{verifier.name} did not sign it")


def sign_checkpoint(size: int, root: bytes, signer: Signer) -> str:
    """A signed tree head of the ledger that the signer's key is named after."""
    return sign_note(Checkpoint(signer.name, size, root).text, signer)


def open_checkpoint(note: str, verifier: Verifier) -> Checkpoint:
    """Read a signed tree head; SignatureError where signature, origin or form are not this ledger's."""
    text = open_note(note, verifier)
    lines = text.split("\n")
    if len(lines) < 4 or lines[0] != verifier.name or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
        raise _not_signed("its text is not a checkpoint of this ledger")
    root = _decode(lines[2])
    if len(root) != 32:
        raise _not_signed("its root is not a SHA-256 hash")
    return Checkpoint(lines[0], int(lines[1]), root)


def _verified(text: str, signature: bytes, verifier: Verifier) -> str:
    try:
        verifier.public_key.verify(signature, text.encode())
    except InvalidSignature as error:
        raise _not_signed("its signature fails") from error
    return text


def _decode(payload: str) -> bytes:
    try:
        return base64.b64decode(payload, validate=True)
    except (ValueError, binascii.Error) as error:
        raise _not_signed("it holds broken base64") from error


def _not_signed(reason: str) -> SignatureError:
    return SignatureError(
        "ledger.checkpoint_signature",
        f"The checkpoint cannot be trusted: {reason}.",
        "Keep it as evidence and compare it with an earlier checkpoint of this ledger.",
    )


def _not_a_key() -> InputError:
    return InputError(
        "ledger.verifier_key",
        "This is not a ledger's public key (name+id+base64).",
        "Copy it again from `facsimile audit checkpoint`.",
    )
