"""Folders that the operator declares to hold only people who do not exist; judges nothing, opens no file.

A declaration is a promise of the operator, in the ledger with the Merkle root of the files' content hashes. It is
worth what the operator's word is worth; the point is that the word was given, for these files, at this time.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance import merkle
from provenance.database import declarations, declared_files
from provenance.errors import InputError
from provenance.home import Home
from provenance.ledger import Receipt

MAX_EVIDENCE = 1000


@dataclass(frozen=True)
class Declaration:
    """What `declare_synthetic` returns."""

    id: str
    num_files: int
    files_root: str
    receipt: Receipt


def declare_synthetic(home: Home, content_sha256s: Iterable[str], evidence: str) -> Declaration:
    """Record that the files with these content hashes (hex) show nobody who exists.

    `evidence` says where they come from and is written into the ledger for good: no personal data in it.
    """
    hashes = sorted(set(content_sha256s))
    if not hashes or not all(re.fullmatch(r"[0-9a-f]{64}", each) for each in hashes):
        raise InputError(
            "declaration.files",
            "A declaration needs the content hashes of its files.",
            "Name a folder of pictures.",
        )
    if not evidence.strip() or len(evidence) > MAX_EVIDENCE:
        raise InputError(
            "declaration.evidence",
            "A declaration must say, in at most 1000 characters, why these people do not exist.",
            "Give --evidence: where the pictures come from.",
        )
    declaration_id, root = f"declaration-{secrets.token_hex(8)}", files_root(hashes)
    body = {
        "declaration_id": declaration_id,
        "declares": "synthetic",
        "evidence": evidence.strip(),
        "files_root": root,
        "num_files": len(hashes),
    }
    with home.database.write() as conn:
        receipt = home.ledger.append({"kind": "declaration", **body}, conn)
        conn.execute(sa.insert(declarations), {"id": declaration_id, "leaf_index": receipt.index})
        rows = [{"content_sha256": each, "declaration_id": declaration_id} for each in hashes]
        conn.execute(sa.insert(declared_files), rows)
    return Declaration(declaration_id, len(hashes), root, receipt)


def find_declaration(home: Home, content_sha256: str, conn: Connection | None = None) -> str | None:
    """The id of a declaration that covers a file, None where there is none."""
    if conn is None:
        with home.database.read() as reading:
            return find_declaration(home, content_sha256, reading)
    query = sa.select(declared_files.c.declaration_id).where(
        declared_files.c.content_sha256 == content_sha256
    )
    return conn.scalar(query.order_by(declared_files.c.declaration_id).limit(1))


def is_declared(home: Home, declaration_id: str, content_sha256: str, conn: Connection) -> bool:
    """Whether this declaration covers this file: in the table, and recorded as such in the ledger."""
    covered = (
        declared_files.c.declaration_id == declaration_id,
        declared_files.c.content_sha256 == content_sha256,
    )
    query = sa.select(declarations.c.leaf_index).join(declared_files).where(*covered)
    index = conn.scalar(query)
    if index is None:
        return False
    body = home.ledger.entry(index, conn).body
    return (body.get("declaration_id"), body.get("declares")) == (declaration_id, "synthetic")


def files_root(content_sha256s: Iterable[str]) -> str:
    """Merkle root (RFC 6962) in hex; the leaves are the hashes as hex text, sorted."""
    leaves = [merkle.hash_leaf(each.encode()) for each in sorted(map(str, content_sha256s))]
    return merkle.build_frontier(leaves).root.hex()
