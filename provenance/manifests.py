"""Keeps the manifest store of every output beside its ledger entry, so that a stripped copy gets its own back.

Does not know what a manifest says. Entry and store are written in one transaction, and the entry states the
store's hash: no recorded output lacks its manifest, and what is handed out is what was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance.database import manifests
from provenance.errors import InputError, LedgerError
from provenance.hashes import sha256_hex
from provenance.jumbf import manifest_uuid, manifests_of
from provenance.ledger import Ledger, Receipt

STORED_BYTES = sa.cast(manifests.c.store, sa.LargeBinary).label("store")
"""The column as bytes, whatever type tampering gave it (SQLite keeps text in a column of bytes)."""


def manifest_fields(store: bytes) -> dict[str, str]:
    """What an output's ledger entry says of its manifest store: `manifest_id` and `manifest_sha256`."""
    return {"manifest_id": canonical_id(manifests_of(store)[-1].label), "manifest_sha256": sha256_hex(store)}


def record_output(ledger: Ledger, entry: Mapping[str, Any], store: bytes, conn: Connection) -> Receipt:
    """Append the entry of an output and keep its manifest store, in the caller's write transaction."""
    fields = manifest_fields(store)
    receipt = ledger.append({**entry, **fields}, conn)
    row = {"manifest_id": fields["manifest_id"], "leaf_index": receipt.index, "store": store}
    conn.execute(sa.insert(manifests), row)
    return receipt


def find_manifest(ledger: Ledger, manifest_id: str) -> tuple[int, bytes]:
    """(leaf index, store) of a manifest; InputError where there is none, LedgerError where it was altered."""
    wanted = canonical_id(manifest_id)
    with ledger.database.read() as conn:
        query = sa.select(manifests.c.leaf_index, STORED_BYTES)
        row = conn.execute(query.where(manifests.c.manifest_id == wanted)).one_or_none()
        if row is None:
            raise InputError("manifest.unknown", f"No manifest {wanted} is kept here.", "Ask for another id.")
        body = ledger.entry(row.leaf_index, conn).body
    if (body.get("manifest_id"), body.get("manifest_sha256")) != (wanted, sha256_hex(row.store)):
        raise LedgerError(
            "ledger.manifest",
            "The stored manifest is not the one that the ledger recorded.",
            "Run `facsimile audit verify` and restore the home from its backup.",
        )
    return row.leaf_index, bytes(row.store)


def canonical_id(manifest_id: str) -> str:
    """A manifest's label without vendor and version: `urn:c2pa:UUID` (C2PA 2.x section 8.2)."""
    return f"urn:c2pa:{manifest_uuid(manifest_id)}"
