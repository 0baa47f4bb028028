"""Receipts of consent that a person can keep: what they agreed to, signed, and proven to be in the ledger.

A receipt is a JWS of type `consent-receipt+jwt` by the grant key. Its payload is a `dpv:ConsentReceipt` around one
`dpv:ConsentRecord`, the shape of ISO/IEC TS 27560:2023 in terms of the W3C Data Privacy Vocabulary
(w3id.org/dpv/guides/consent-27560), with the text agreed to, the grant itself, the ledger's inclusion proof and the
grant's place in the status list. The person appears under their subject id, never by name. It tells the state at
its own time; what holds later, the status list says.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785
import sqlalchemy as sa

from provenance import merkle, statuslist
from provenance.checkpoint import open_checkpoint
from provenance.database import revocations
from provenance.errors import LedgerError, SignatureError
from provenance.grants import StoredGrant, find_grant, open_grant
from provenance.home import Home
from provenance.ledger import ENTRY_SCHEMA
from provenance.notices import find_text
from provenance.records import Grant
from provenance.subjects import find_subject
from provenance.tokens import open_token, sign_token

TYPE = "consent-receipt+jwt"
_SCHEMA = "https://w3id.org/dpv/schema/dpv-27560"
_CONTEXT = {
    "dct": "http://purl.org/dc/terms/",
    "dpv": "https://w3id.org/dpv#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
    "facsimile": "urn:facsimile:receipt#",
    "pd": "https://w3id.org/dpv/pd#",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "schema": "https://schema.org/",
}
_ROLES = {
    "source": "Put the person's face onto a picture of another person",
    "target": "Alter the person's picture by putting another face onto it",
}


@dataclass(frozen=True)
class Receipt:
    """A receipt whose signature, grant and ledger proof hold, as read; `document` is all of it."""

    grant: Grant
    issued_index: int
    withdrawn: bool
    text: str | None
    document: dict[str, Any]


def write_receipt(home: Home, grant_id: str) -> str:
    """The receipt of a grant as of now, a compact JWS; InputError: no such grant, SignatureError: not ours."""
    stored = find_grant(home, grant_id)
    grant = open_grant(stored.jws, home.keys)
    now = home.ledger.clock()
    receipt_id = f"receipt-{secrets.token_hex(8)}"
    document = {
        "@context": _CONTEXT,
        "@id": f"{home.deployment}#{receipt_id}",
        "@type": "dpv:ConsentReceipt",
        "dct:identifier": receipt_id,
        "dct:conformsTo": f"{_SCHEMA}#receipt-record",
        "dct:created": _stamp(now),
        "dct:publisher": home.organisation,
        "schema:recipient": "dpv:DataSubject",
        "dpv:hasRecordOfActivity": _record(home, stored, grant, now),
        "facsimile:grant": stored.jws,
        "facsimile:ledgerProof": _proof(home, stored.issued_index),
        "iss": home.deployment,
        "jti": receipt_id,
        "sub": grant.sub,
        "iat": int(now.timestamp()),
        "status": statuslist.reference_of(home, stored.issued_index),
    }
    return sign_token(document, TYPE, home.keys.grant_key)


def open_receipt(text: str, home: Home) -> Receipt:
    """Verify a receipt of this home: its signature, the grant in it, and that the ledger holds the grant.

    SignatureError or LedgerError where one of these fails.
    """
    document = open_token(text, TYPE, home.keys.grant_key.public_key())
    try:
        jws = document["facsimile:grant"]
        proof = document["facsimile:ledgerProof"]
        record = document["dpv:hasRecordOfActivity"]
        grant = open_grant(jws, home.keys)
        index = _verify_proof(home, proof, StoredGrant(grant.jti, grant.sub, jws, 0, None, None).jws_sha256)
        withdrawn = any("dpv:ConsentWithdrawn" in each["@type"] for each in record["dpv:hasConsentStatus"])
        return Receipt(grant, index, withdrawn, record["dpv:hasNotice"].get("schema:text"), document)
    except (KeyError, TypeError, AttributeError) as error:
        raise SignatureError(
            "receipt.form", "The token is not a receipt of consent.", "Ask for the receipt again."
        ) from error


def _record(home: Home, stored: StoredGrant, grant: Grant, now: datetime) -> dict[str, Any]:
    """The consent record with the fields that TS 27560 requires, in the order of its sections."""
    withdraw = "Ask the publisher, who runs `facsimile grant revoke`; effective at once"
    return {
        "@id": f"{home.deployment}#{grant.jti}",
        "@type": "dpv:ConsentRecord",
        "dct:identifier": grant.jti,
        "dct:conformsTo": f"{_SCHEMA}#record",
        "dpv:hasDataSubject": {"@id": f"{home.deployment}#{grant.sub}", "@type": "dpv:DataSubject"},
        "dpv:hasDataController": {"@type": "dpv:DataController", "schema:name": home.organisation},
        "dpv:hasJurisdiction": list(grant.jurisdictions),
        "dpv:hasLegalBasis": "eu-gdpr:A9-2-a",
        "dpv:hasProcess": _process(grant),
        "dpv:hasConsentControl": {"@type": "dpv:WithdrawConsent", "dct:description": withdraw},
        "dpv:hasRight": [
            {"@type": ["dpv:DataSubjectRight", "eu-gdpr:A7-3"], "dct:title": "Withdraw consent"},
            {"@type": ["dpv:DataSubjectRight", "eu-gdpr:A17"], "dct:title": "Erasure of template and name"},
            {"@type": ["dpv:DataSubjectRight", "eu-gdpr:A77"], "dct:title": "Complain to an authority"},
        ],
        "dpv:hasNotice": _notice(grant),
        "dpv:hasConsentStatus": _events(home, stored, grant, now),
    }


def _process(grant: Grant) -> dict[str, Any]:
    until = datetime.fromtimestamp(grant.exp, UTC)
    return {
        "@type": "dpv:Process",
        "dpv:hasRecipient": [grant.grantee],
        "dpv:hasPurpose": [{"@type": "dpv:Purpose", "dct:title": each} for each in grant.purposes],
        "dpv:hasProcessing": [
            {"@type": "dpv:Alter", "dct:title": _ROLES[each]} for each in grant.scope_roles
        ],
        "facsimile:media": list(grant.scope_media),
        "facsimile:uses": list(grant.uses),
        "dpv:hasPersonalData": [
            {
                "@type": ["pd:FacialPrint", "dpv:SensitivePersonalData"],
                "dct:title": "Face template, 512 numbers",
            },
            {"@type": "pd:Name"},
            {"@type": "pd:Picture", "dct:title": "Read once, not kept"},
        ],
        "dpv:hasDataSource": "dpv:DataSubject",
        "dpv:hasStorageCondition": [
            {"@type": "dpv:StorageLocation", "dct:title": "The publisher's own machine"},
            {"@type": "dpv:StorageDuration", "dpv:hasDuration": f"until {_stamp(until)} or erasure"},
            {"@type": "dpv:StorageDeletion", "dct:title": "The person's key is destroyed"},
        ],
    }


def _notice(grant: Grant) -> dict[str, Any]:
    text = find_text(grant)
    notice: dict[str, Any] = {
        "@type": "dpv:ConsentNotice",
        "dct:language": grant.consent_text_language,
        "facsimile:textSha256": grant.consent_text_sha256,
    }
    return notice | ({"schema:text": text.text, "schema:version": text.wording} if text else {})


def _events(home: Home, stored: StoredGrant, grant: Grant, now: datetime) -> list[dict[str, Any]]:
    """What happened to the consent, oldest first: given, withdrawn, invalidated, expired."""
    given = {
        "@type": ["dpv:ConsentGiven", "dpv:ExplicitlyExpressedConsent"],
        "dpv:isIndicatedBy": "dpv:DataSubject",
        "dpv:hasIndicationMethod": grant.evidence,
        "dpv:isIndicatedAtTime": _stamp(datetime.fromtimestamp(grant.iat, UTC)),
        "facsimile:validFrom": _stamp(datetime.fromtimestamp(grant.nbf, UTC)),
        "facsimile:validUntil": _stamp(datetime.fromtimestamp(grant.exp, UTC)),
        "facsimile:ledgerIndex": stored.issued_index,
    }
    events: list[dict[str, Any]] = [given]
    if stored.revoked_at is not None:
        events.append(
            _event("dpv:ConsentWithdrawn", stored.revoked_at, "dpv:DataSubject") | _leaf(home, stored)
        )
    if find_subject(home, stored.subject_id).erased:
        events.append({"@type": "dpv:ConsentInvalidated", "dct:description": "The template was destroyed"})
    if grant.exp <= now.timestamp():
        ended = _stamp(datetime.fromtimestamp(grant.exp, UTC))
        events.append(_event("dpv:ConsentExpired", ended, "dpv:DataController"))
    return events


def _event(kind: str, time: str, by: str) -> dict[str, Any]:
    return {"@type": kind, "dpv:isIndicatedBy": by, "dpv:isIndicatedAtTime": time}


def _leaf(home: Home, stored: StoredGrant) -> dict[str, Any]:
    query = sa.select(revocations.c.leaf_index).where(revocations.c.grant_id == stored.id)
    with home.database.read() as conn:
        return {"facsimile:ledgerIndex": conn.scalar(query)}


def _proof(home: Home, index: int) -> dict[str, Any]:
    """The ledger entry of the grant's issue and the path from it to a signed checkpoint."""
    with home.database.read() as conn:
        entry = home.ledger.entry(index, conn)
        proof = home.ledger.inclusion_proof(index, conn)
    leaf = {"body": dict(entry.body), "index": index, "kind": entry.kind, "time": entry.time}
    return {"entry": leaf | {"schema": ENTRY_SCHEMA}, **json.loads(json.dumps(asdict(proof)))}


def _verify_proof(home: Home, proof: dict[str, Any], grant_sha256: str) -> int:
    """The index at which the ledger of this home recorded the grant; LedgerError where it did not."""
    entry, index = proof["entry"], proof["position"]
    head = open_checkpoint(proof["checkpoint"], home.ledger.signer.verifier)
    path = [bytes.fromhex(each) for each in proof["hashes"]]
    merkle.verify_inclusion(merkle.hash_leaf(rfc8785.dumps(entry)), index, head.size, path, head.root)
    if (entry["kind"], entry["body"].get("grant_sha256"), entry["index"]) != (
        "grant_issued",
        grant_sha256,
        index,
    ):
        raise LedgerError(
            "receipt.ledger",
            "The receipt's ledger entry is that of another grant.",
            "Ask for the receipt again; keep this one.",
        )
    return int(index)


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
