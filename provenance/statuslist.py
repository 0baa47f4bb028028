"""Token Status List over grants (draft-ietf-oauth-status-list, JWT form): who may still rely on which; decides nothing.

One bit per grant, in the order of issue: 0 valid, 1 invalid (revoked, or its person erased). A bit says nothing of
dates; an expired grant keeps its bit. The decision of this home is made on its own tables in the decision's
transaction (consent.py) and never on a list: the list tells others, who may keep it for `TTL_S`. It is padded to
`MIN_ENTRIES`, but an index still tells how many grants were issued before.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from provenance.database import grants, revocations, subjects
from provenance.errors import InputError
from provenance.home import Home
from provenance.tokens import open_token, sign_token

TYPE = "statuslist+jwt"
MEDIA_TYPE = "application/statuslist+jwt"
VALID, INVALID = 0, 1
TTL_S = 60  # how long others may keep a list before they fetch it again (section 13.7)
LIFE_S = 24 * 3600
MIN_ENTRIES = 1024
MAX_BYTES = 1 << 23  # unpacked: 67 million grants


@dataclass(frozen=True)
class StatusList:
    """A list whose signature holds; times are seconds since 1970."""

    uri: str
    issued_at: int
    expires: int
    bits: bytes

    def status(self, index: int) -> int:
        """The status of one grant; InputError where the list has no such index (section 8.3)."""
        if not 0 <= index < 8 * len(self.bits):
            raise InputError("status.index", f"The status list has no entry {index}.", "Fetch a newer list.")
        return self.bits[index // 8] >> index % 8 & 1


def uri(home: Home) -> str:
    """The name of the home's list: `sub` of the list, `uri` in what refers to it (section 6.2)."""
    return f"{home.deployment}#status-list"


def reference_of(home: Home, issued_index: int) -> dict[str, Any]:
    """The `status` claim (section 6.1) of the grant whose issue is this ledger entry."""
    query = sa.select(sa.func.count()).select_from(grants).where(grants.c.issued_index < issued_index)
    with home.database.read() as conn:
        return {"status_list": {"idx": int(conn.scalar(query) or 0), "uri": uri(home)}}


def publish(home: Home) -> str:
    """The home's list as of now, a compact JWS signed by the grant key (section 5.1)."""
    now = int(home.ledger.clock().timestamp())
    claims = {
        "sub": uri(home),
        "iss": home.deployment,
        "iat": now,
        "exp": now + LIFE_S,
        "ttl": TTL_S,
        "status_list": {"bits": 1, "lst": pack(_statuses(home))},
    }
    return sign_token(claims, TYPE, home.keys.grant_key)


def open_list(text: str, home: Home) -> StatusList:
    """The list that this home signed; SignatureError for anything else, InputError where it does not unpack."""
    claims = open_token(text, TYPE, home.keys.grant_key.public_key())
    try:
        listed = claims["status_list"]
        if listed["bits"] != 1:
            raise ValueError("bits")
        return StatusList(str(claims["sub"]), int(claims["iat"]), int(claims["exp"]), unpack(listed["lst"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "status.list", "The token holds no status list of one bit each.", "Fetch the list again."
        ) from error


def pack(statuses: Sequence[int]) -> str:
    """Statuses of one bit each, least significant bit first (section 4.1), zlib, base64url without padding."""
    packed = bytearray((max(len(statuses), MIN_ENTRIES) + 7) // 8)
    for index, status in enumerate(statuses):
        packed[index // 8] |= (status & 1) << index % 8
    return base64.urlsafe_b64encode(zlib.compress(bytes(packed), 9)).rstrip(b"=").decode()


def unpack(lst: str) -> bytes:
    """The opposite; ValueError where it is no zlib stream, or one that unpacks to more than MAX_BYTES."""
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.urlsafe_b64decode(lst + "=" * (-len(lst) % 4)), MAX_BYTES)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(str(error)) from error
    if not stream.eof:
        raise ValueError("cut short or too long")
    return data


def _statuses(home: Home) -> list[int]:
    revoked = revocations.c.grant_id.is_not(None)
    erased = subjects.c.erased_index.is_not(None)
    query = (
        sa.select(sa.case((sa.or_(revoked, erased), INVALID), else_=VALID))
        .select_from(grants)
        .outerjoin(revocations, revocations.c.grant_id == grants.c.id)
        .join(subjects, subjects.c.id == grants.c.subject_id)
        .order_by(grants.c.issued_index)
    )
    with home.database.read() as conn:
        return [int(each) for each in conn.scalars(query)]
