"""Grants: signed statements of what a person agreed to, their revocation; does not judge a request.

A grant is a JWS (RFC 7515) of type `consent-grant+jwt`, signed with Ed25519 (RFC 9864) by the home's grant key. Its
header holds `alg`, `typ` and `kid` and nothing else: a header that names a key or where to fetch one is refused
unread. The grant is kept with the ledger index at which its issue was recorded.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import rfc8785
import sqlalchemy as sa
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import ValidationError
from sqlalchemy.engine import Connection

from provenance.database import grants, revocations
from provenance.errors import InputError, SignatureError
from provenance.home import Home
from provenance.keys import SigningKeys
from provenance.ledger import Receipt
from provenance.records import GRANT_SCHEMA, Grant, GrantTerms
from provenance.sealing import reference
from provenance.subjects import find_subject, find_template, require_profile

TYPE = "consent-grant+jwt"
ALGORITHM = "Ed25519"
MOST_BACKDATED: Final = timedelta(days=1)
"""How long before its issue a grant may begin: a text that was read today may be agreed to after midnight."""


@dataclass(frozen=True)
class StoredGrant:
    """A grant as it lies in the database; its text has not been verified."""

    id: str
    subject_id: str
    jws: str
    issued_index: int
    revoked_at: str | None
    revocation_reason: str | None

    @property
    def jws_sha256(self) -> str:
        """What the ledger recorded of it."""
        return hashlib.sha256(self.jws.encode()).hexdigest()


def issue(home: Home, terms: GrantTerms) -> StoredGrant:
    """Sign, store and record a grant.

    InputError: the subject is unknown, erased or has no template for that embedder, or its dates are none that
    can be agreed to now (`require_span`). ConsentError: the subject's proofs are missing.
    """
    now = home.ledger.clock()
    require_span(terms, now)
    grant_id = f"grant-{secrets.token_hex(8)}"
    with home.database.write() as conn:
        grant = _grant(home, terms, grant_id, now, conn)
        text = sign_grant(grant, home.keys)
        stored = StoredGrant(grant_id, terms.subject_id, text, 0, None, None)
        record = {
            "grant_ref": reference(grant_id, home.keys.template_key),
            "subject_ref": reference(terms.subject_id, home.keys.template_key),
            "grant_sha256": stored.jws_sha256,
            "template_commitment": grant.template_commitment,
            "embedder_sha256": grant.embedder_sha256,
            "not_before": grant.nbf,
            "expires": grant.exp,
        }
        receipt = home.ledger.append({"kind": "grant_issued", **record}, conn)
        row = {"id": grant_id, "subject_id": terms.subject_id, "jws": text, "issued_index": receipt.index}
        conn.execute(sa.insert(grants), row)
    return StoredGrant(grant_id, terms.subject_id, text, receipt.index, None, None)


def revoke(home: Home, grant_id: str, reason: str) -> Receipt:
    """Withdraw a grant for good; effective for every decision that commits after this one does.

    The reason stays in this database; the ledger records the fact only.
    """
    with home.database.write() as conn:
        if find_grant(home, grant_id, conn).revoked_at is not None:
            raise InputError("grant.revoked", f"{grant_id} was revoked already.", "Nothing is left to do.")
        body = {"kind": "grant_revoked", "grant_ref": reference(grant_id, home.keys.template_key)}
        receipt = home.ledger.append(body, conn)
        row = {"grant_id": grant_id, "leaf_index": receipt.index}
        conn.execute(sa.insert(revocations), row | {"revoked_at": _stamp(home.ledger.clock())})
        conn.execute(sa.update(grants).where(grants.c.id == grant_id).values(revocation_reason=reason))
    return receipt


def find_grant(home: Home, grant_id: str, conn: Connection | None = None) -> StoredGrant:
    """One grant; InputError where there is none."""
    if conn is None:
        with home.database.read() as reading:
            return find_grant(home, grant_id, reading)
    row = conn.execute(_SELECT.where(grants.c.id == grant_id)).one_or_none()
    if row is None:
        raise InputError("grant.unknown", f"There is no grant {grant_id}.", "See `facsimile grant list`.")
    return StoredGrant(*row)


def list_grants(home: Home, subject_id: str | None = None) -> list[StoredGrant]:
    """Every grant, or those of one subject, in the order of issue."""
    query = _SELECT if subject_id is None else _SELECT.where(grants.c.subject_id == subject_id)
    with home.database.read() as conn:
        return [StoredGrant(*row) for row in conn.execute(query.order_by(grants.c.issued_index))]


def sign_grant(grant: Grant, keys: SigningKeys) -> str:
    """The grant as a compact JWS over its RFC 8785 bytes."""
    key = OKPKey.import_key(keys.grant_key)
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.thumbprint()}
    payload = rfc8785.dumps(grant.model_dump(mode="json"))
    return jws.serialize_compact(header, payload, key, algorithms=[ALGORITHM])


def open_grant(text: str, keys: SigningKeys) -> Grant:
    """The grant that our grant key signed; SignatureError for anything else. No key is taken from the text."""
    key = OKPKey.import_key(keys.grant_key.public_key())
    try:
        found = jws.extract_compact(text.encode())
        if found.headers() != {"alg": ALGORITHM, "typ": TYPE, "kid": key.thumbprint()}:
            raise _not_ours("its header is not that of a grant of this home")
        if not jws.validate_compact(found, key, algorithms=[ALGORITHM]):
            raise _not_ours("its signature fails")
        return Grant.model_validate_json(found.payload)
    except (JoseError, ValidationError, ValueError) as error:
        raise _not_ours("it is not a signed grant") from error


def _grant(home: Home, terms: GrantTerms, grant_id: str, now: datetime, conn: Connection) -> Grant:
    subject = find_subject(home, terms.subject_id, conn)
    template = find_template(home, terms.subject_id, terms.embedder.sha256, conn)
    if subject.profile is None or template is None:
        raise InputError(
            "grant.no_template",
            f"{terms.subject_id} has no face template for this identity network.",
            "Enrol the subject again.",
        )
    require_profile(subject.profile, now)
    shared = ("grantee", "purposes", "scope_roles", "scope_media", "uses", "jurisdictions")
    texts = ("consent_text_sha256", "consent_text_language", "evidence")
    return Grant.make(
        schema_id=GRANT_SCHEMA,
        iss=home.deployment,
        aud=home.deployment,
        jti=grant_id,
        sub=terms.subject_id,
        iat=int(now.timestamp()),
        nbf=int(terms.not_before.timestamp()),
        exp=int(terms.expires.timestamp()),
        adult_verified=subject.profile.adult_verified,
        public_figure=subject.profile.public_figure,
        revocation_handle=f"{home.deployment}#{grant_id}",
        template_commitment=template.commitment(terms.embedder.threshold),
        embedder_sha256=terms.embedder.sha256,
        threshold=terms.embedder.threshold,
        **{name: getattr(terms, name) for name in (*shared, *texts)},
    )


def require_span(terms: GrantTerms, now: datetime) -> None:
    """InputError for times that nobody can agree to now: `grant.span`, `grant.past`, `grant.backdated`."""
    has_zones = None not in (terms.not_before.tzinfo, terms.expires.tzinfo)
    if has_zones and terms.expires <= now:
        raise InputError(
            "grant.past", "The last day of this grant has passed already.", "Give a last day that is to come."
        )
    if not has_zones or terms.not_before >= terms.expires:
        raise InputError(
            "grant.span",
            "A grant begins before it ends, and its times state their zone.",
            "Give a last day that comes after the first.",
        )
    if terms.not_before < now - MOST_BACKDATED:
        raise InputError(
            "grant.backdated",
            "This grant would begin in the past, before anybody agreed to it.",
            "Let it begin now: show the text anew.",
        )


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _not_ours(reason: str) -> SignatureError:
    return SignatureError(
        "grant.signature", f"The grant cannot be trusted: {reason}.", "Issue the grant again, in this home."
    )


_SELECT: sa.Select[Any] = sa.select(
    grants.c.id,
    grants.c.subject_id,
    grants.c.jws,
    grants.c.issued_index,
    revocations.c.revoked_at,
    grants.c.revocation_reason,
).outerjoin_from(grants, revocations, revocations.c.grant_id == grants.c.id)
