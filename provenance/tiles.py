"""Exports a ledger as C2SP tlog-tiles, which anybody can verify offline; knows no file and not what the leaves say.

Layout (c2sp.org/tlog-tiles): `checkpoint`, `tile/<level>/<number>` with 256 hashes each, `tile/entries/<number>` with
the entries themselves behind their lengths; the last tile of each row is partial, `<number>.p/<width>`. An export holds
what entries hold: references and hashes, no names.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance import verify_export
from provenance.checkpoint import open_checkpoint
from provenance.database import ledger_entries
from provenance.ledger import Ledger
from provenance.merkle import fold, hash_children
from provenance.verify_export import WIDTH, tile_path, widths

VERIFIER = "verify_export.py"
_MADE = (1980, 1, 1, 0, 0, 0)  # the same ledger gives the same zip


def export_ledger(ledger: Ledger) -> bytes:
    """A zip of the whole ledger as of its newest checkpoint, with the script that verifies it and the ledger's key."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, ledger.database.read() as conn:
        for name, data in files_of(ledger, conn):
            archive.writestr(zipfile.ZipInfo(name, _MADE), data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def files_of(ledger: Ledger, conn: Connection) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of an export, in one state of the ledger."""
    note = ledger.checkpoint(conn)
    size = open_checkpoint(note, ledger.signer.verifier).size
    yield "checkpoint", note.encode()
    yield "key", (ledger.signer.verifier.text + "\n").encode()
    yield VERIFIER, Path(verify_export.__file__).read_bytes()
    row: list[bytes] = []
    for number, width in widths(size):
        entries = _entries(conn, number * WIDTH, width)
        yield (
            tile_path("entries", number, width),
            b"".join(len(entry).to_bytes(2, "big") + entry for entry, _ in entries),
        )
        hashes = [leaf_hash for _, leaf_hash in entries]
        yield tile_path("0", number, width), b"".join(hashes)
        row += [_root_of_full(hashes)] if width == WIDTH else []
    level = 1
    while row:
        for number, width in widths(len(row)):
            yield tile_path(str(level), number, width), b"".join(row[number * WIDTH :][:width])
        row = [_root_of_full(row[at : at + WIDTH]) for at in range(0, len(row) - WIDTH + 1, WIDTH)]
        level += 1


def _entries(conn: Connection, start: int, count: int) -> list[tuple[bytes, bytes]]:
    """(entry, leaf hash) of `count` entries from `start` on."""
    column = ledger_entries.c
    query = sa.select(column.entry, column.leaf_hash).where(column.leaf_index >= start)
    rows = conn.execute(query.order_by(column.leaf_index).limit(count)).all()
    return [(bytes(row.entry), bytes(row.leaf_hash)) for row in rows]


def _root_of_full(hashes: list[bytes]) -> bytes:
    """The hash over 256 nodes, eight levels up."""
    while len(hashes) > 1:
        hashes = [hash_children(*hashes[at : at + 2]) for at in range(0, len(hashes), 2)]
    return fold(hashes)
