"""Re-derives a ledger from its entries and tells every place where the store disagrees; changes nothing.

Does not know whether an entry is true, only that it is the one that was recorded. Whoever holds the ledger's
key can write another ledger from the first leaf on: only a checkpoint kept elsewhere (`against`) shows that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import rfc8785
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance import merkle
from provenance.checkpoint import Checkpoint, Verifier, open_checkpoint
from provenance.database import (
    APPEND_ONLY,
    Database,
    declarations,
    declared_files,
    grants,
    ledger_entries,
    ledger_head,
    ledger_nodes,
    manifests,
    revocations,
    subjects,
    templates,
)
from provenance.declarations import files_root
from provenance.errors import InputError, LedgerError, SignatureError
from provenance.home import Home
from provenance.ledger import ENTRY_SCHEMA, index_columns
from provenance.manifests import STORED_BYTES
from provenance.merkle import Coordinate, Frontier
from provenance.sealing import reference

BATCH = 4096


@dataclass(frozen=True)
class Problem:
    """One disagreement; `index` is the entry's, None where it is not one entry's."""

    code: str
    index: int | None
    detail: str


@dataclass(frozen=True)
class FsckReport:
    """What `audit verify` prints. `root` (hex) and `size` are re-derived from the entries."""

    size: int
    root: str
    checkpoint: str
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything re-derives."""
        return not self.problems

    def require(self) -> None:
        """LedgerError, with the first problem's code, where anything does not re-derive."""
        if self.problems:
            first = self.problems[0]
            place = "" if first.index is None else f" (entry {first.index})"
            raise LedgerError(
                first.code,
                f"{len(self.problems)} problem(s); the first{place}: {first.detail}",
                "Keep this home as evidence; restore from a backup and compare checkpoints.",
            )


@dataclass
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, code: str, index: int | None, detail: str) -> None:
        self.problems.append(Problem(f"ledger.{code}", index, detail))


def verify(home: Home, against: Sequence[str] = ()) -> FsckReport:
    """Check the ledger of a home; `against` are checkpoints (C2SP notes) that were seen earlier."""
    verifier, template_key = home.ledger.signer.verifier, home.keys.template_key
    return verify_database(home.database, verifier, against, template_key)


def verify_database(
    database: Database, verifier: Verifier, against: Sequence[str] = (), template_key: bytes | None = None
) -> FsckReport:
    """The same with nothing but the database and the ledger's public key.

    Without the template key it stays unseen whether rows were exchanged between people.
    """
    found = _Findings()
    earlier = [each for note in against if (each := _open(note, verifier, found, "an earlier")) is not None]
    with database.read() as conn:
        head = conn.execute(sa.select(ledger_head)).one_or_none()
        note = "" if head is None else str(head.checkpoint)
        signed = _open(note, verifier, found, "the newest")
        sizes = {each.size for each in earlier} | ({signed.size} if signed else set())
        frontier, roots = _walk(conn, sizes, found)
        _check_head(head, frontier, found)
        for checkpoint in earlier:
            _check_checkpoint(checkpoint, roots, frontier.size, "rewritten", found)
        if signed is not None:
            _check_checkpoint(signed, roots, frontier.size, "root", found)
            if signed.size < frontier.size:
                found.add("unsigned", signed.size, "entries follow that no checkpoint covers")
        _check_grants(conn, template_key, found)
        _check_subjects(conn, template_key, found)
        _check_declarations(conn, found)
        _check_manifests(conn, found)
        _check_guards(conn, found)
    return FsckReport(frontier.size, frontier.root.hex(), note, tuple(found.problems), tuple(found.notes))


def _open(note: str, verifier: Verifier, found: _Findings, which: str) -> Checkpoint | None:
    try:
        return open_checkpoint(note, verifier)
    except SignatureError as error:
        found.problems.append(Problem(error.code, None, f"{which} checkpoint: {error.cause}"))
        return None


def _walk(conn: Connection, sizes: set[int], found: _Findings) -> tuple[Frontier, dict[int, bytes]]:
    """Grow the tree again from the entries' bytes; returns its edge and its root at each of `sizes`."""
    frontier, roots, last_time, num_nodes = Frontier(), {0: merkle.EMPTY_ROOT}, "", 0
    for rows in _batches(conn):
        derived: dict[Coordinate, bytes] = {}
        for row in rows:
            if row.leaf_index != frontier.size:
                found.add(
                    "missing", frontier.size, f"the entry after {frontier.size - 1} is {row.leaf_index}"
                )
            leaf_hash = merkle.hash_leaf(_as_bytes(row.entry))
            last_time = max(last_time, _check_entry(row, leaf_hash, last_time, found))
            frontier, nodes = frontier.append(leaf_hash)
            derived |= {(node.level, node.index): node.hash for node in nodes[1:]}
            if frontier.size in sizes:
                roots[frontier.size] = frontier.root
        _check_nodes(conn, derived, found)
        num_nodes += len(derived)
    stored = conn.scalar(sa.select(sa.func.count()).select_from(ledger_nodes))
    if stored != num_nodes:
        found.add("node", None, f"{stored} subtree hashes are stored, {num_nodes} belong to the tree")
    return frontier, roots


def _batches(conn: Connection) -> Iterator[Sequence[sa.Row[*tuple[Any, ...]]]]:
    after = -(1 << 62)
    query = sa.select(ledger_entries).order_by(ledger_entries.c.leaf_index).limit(BATCH)
    while rows := conn.execute(query.where(ledger_entries.c.leaf_index > after)).all():
        yield rows
        after = rows[-1].leaf_index


def _check_entry(row: sa.Row[*tuple[Any, ...]], leaf_hash: bytes, last_time: str, found: _Findings) -> str:
    """Hash, form, place and columns of one entry; returns its time, empty where it has none."""
    at = row.leaf_index
    if row.leaf_hash != leaf_hash:
        found.add("entry", at, "its bytes are not those that were hashed")
    try:
        leaf = json.loads(row.entry)
        if rfc8785.dumps(leaf) != row.entry or leaf["schema"] != ENTRY_SCHEMA:
            raise ValueError("not canonical")
        columns, place, time = index_columns(leaf), leaf["index"], str(leaf["time"])
    except (ValueError, KeyError, TypeError, AttributeError, InputError, rfc8785.CanonicalizationError):
        found.add("entry", at, "it is not a canonical entry")
        return ""
    if place != at:
        found.add("order", at, f"it was recorded as entry {place}")
    for name, value in columns.items():
        if getattr(row, name) != value:
            found.add("column", at, f"the column {name} does not repeat the entry")
    if time < last_time:
        found.notes.append(f"entry {at} is dated before an earlier one: the clock was set back")
    return time


def _as_bytes(value: object) -> bytes:
    """A stored value, whatever type tampering gave it (SQLite keeps text in a column of bytes)."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")


def _check_nodes(conn: Connection, derived: Mapping[Coordinate, bytes], found: _Findings) -> None:
    for level in sorted({level for level, _ in derived}):
        indices = [index for each, index in derived if each == level]
        node = ledger_nodes.c
        span = node.node_index.between(min(indices), max(indices))
        rows = conn.execute(sa.select(node.node_index, node.hash).where(node.level == level, span))
        stored = {row.node_index: row.hash for row in rows}
        for index in indices:
            if stored.get(index) != derived[(level, index)]:
                found.add(
                    "node", index << level, f"the subtree hash ({level}, {index}) is missing or altered"
                )


def _check_head(head: Any, frontier: Frontier, found: _Findings) -> None:
    if head is None or (head.size, head.edge) != (frontier.size, b"".join(frontier.hashes)):
        found.add("head", None, "the stored right edge is not that of the entries")


def _check_checkpoint(
    signed: Checkpoint, roots: Mapping[int, bytes], size: int, code: str, found: _Findings
) -> None:
    if signed.size > size:
        found.add("truncated", size, f"a checkpoint was signed over {signed.size} entries, {size} are left")
    elif roots.get(signed.size) != signed.root:
        found.add(code, None, f"the first {signed.size} entries do not lead to the root that was signed")


def _indices(conn: Connection, kind: str) -> set[int]:
    column = ledger_entries.c
    return set(conn.scalars(sa.select(column.leaf_index).where(column.kind == kind)))


def _match(code: str, recorded: set[int], rows: set[int], found: _Findings) -> None:
    """What the ledger recorded and what the tables hold must be the same."""
    for index in sorted(recorded - rows):
        found.add(code, index, "the row that belongs to this entry is gone")
    for index in sorted(rows - recorded):
        found.add(code, index, "a row refers to an entry that does not record it")


def _check_grants(conn: Connection, key: bytes | None, found: _Findings) -> None:
    """No grant was altered, dropped or smuggled in, no revocation taken back."""
    rows = conn.execute(sa.select(grants)).all()
    _match("grant", _indices(conn, "grant_issued"), {row.issued_index for row in rows}, found)
    for row in rows:
        body = _body(conn, row.issued_index)
        if body.get("grant_sha256") != hashlib.sha256(_as_bytes(row.jws)).hexdigest():
            found.add("grant", row.issued_index, "the grant is not the one that was recorded")
        named = {"grant_ref": row.id, "subject_ref": row.subject_id}
        _check_references("grant", row.issued_index, named, body, key, found)
    revoked = conn.execute(sa.select(revocations)).all()
    _match("revocation", _indices(conn, "grant_revoked"), {row.leaf_index for row in revoked}, found)
    for row in revoked:
        body = _body(conn, row.leaf_index)
        _check_references("revocation", row.leaf_index, {"grant_ref": row.grant_id}, body, key, found)


def _check_subjects(conn: Connection, key: bytes | None, found: _Findings) -> None:
    """Who was enrolled is still there, and of who was erased nothing is left."""
    rows = conn.execute(sa.select(subjects)).all()
    _match("subject", _indices(conn, "subject_enrolled"), {row.enrolled_index for row in rows}, found)
    erased = [row for row in rows if row.erased_index is not None]
    _match("erasure", _indices(conn, "template_erased"), {row.erased_index for row in erased}, found)
    kept = set(conn.scalars(sa.select(templates.c.subject_id)))
    for row in rows:
        body = _body(conn, row.enrolled_index)
        _check_references("subject", row.enrolled_index, {"subject_ref": row.id}, body, key, found)
    for row in erased:
        body = _body(conn, row.erased_index)
        _check_references("erasure", row.erased_index, {"subject_ref": row.id}, body, key, found)
        if row.wrapped_key is not None or row.profile is not None or row.id in kept:
            found.add("erasure", row.erased_index, "something of an erased subject is left")


def _check_references(
    code: str,
    index: int,
    named: Mapping[str, object],
    body: Mapping[str, Any],
    key: bytes | None,
    found: _Findings,
) -> None:
    """The row is about whom the entry is about; only the home's key can tell."""
    for name, identifier in named.items():
        if key is not None and body.get(name) != reference(str(identifier), key):
            found.add(code, index, "the row is about another than the entry")


def _check_declarations(conn: Connection, found: _Findings) -> None:
    """Each declaration still covers exactly the files that it was made for."""
    rows = conn.execute(sa.select(declarations)).all()
    _match("declaration", _indices(conn, "declaration"), {row.leaf_index for row in rows}, found)
    for row in rows:
        query = sa.select(declared_files.c.content_sha256).where(declared_files.c.declaration_id == row.id)
        body = _body(conn, row.leaf_index)
        root = files_root(conn.scalars(query))
        if (body.get("declaration_id"), body.get("files_root")) != (row.id, root):
            found.add("declaration", row.leaf_index, "its files are not those that were declared")


def _check_manifests(conn: Connection, found: _Findings) -> None:
    """Every recorded output still has the manifest store that was recorded, and no other is kept."""
    outputs = _indices(conn, "output_recorded")
    rows = dict(conn.execute(sa.select(manifests.c.leaf_index, manifests.c.manifest_id)).all())
    expected = {index for index in outputs if "manifest_sha256" in _body(conn, index)}
    _match("manifest", expected, set(rows), found)
    for index in sorted(expected & set(rows)):
        body = _body(conn, index)
        store = conn.scalar(sa.select(STORED_BYTES).where(manifests.c.leaf_index == index))
        digest = hashlib.sha256(store or b"").hexdigest()
        if (body.get("manifest_id"), body["manifest_sha256"]) != (rows[index], digest):
            found.add("manifest", index, "the stored manifest is not the one that was recorded")


def _body(conn: Connection, index: int) -> Mapping[str, Any]:
    """The body of an entry, empty where it is missing or no entry."""
    entry = conn.scalar(sa.select(ledger_entries.c.entry).where(ledger_entries.c.leaf_index == index))
    try:
        return dict(json.loads(entry or b"{}")["body"])
    except (ValueError, KeyError, TypeError):
        return {}


def _check_guards(conn: Connection, found: _Findings) -> None:
    """The triggers that forbid change are still there."""
    expected = {f"{table.name}_{rule}" for table in APPEND_ONLY for rule in ("no_delete", "no_update")}
    expected |= {"ledger_entries_dense", "ledger_head_grows"}
    for name in sorted(expected - set(_triggers(conn))):
        found.add("guard", None, f"the trigger {name} was removed")


def _triggers(conn: Connection) -> Iterable[str]:
    if conn.dialect.name == "sqlite":
        return conn.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
    return conn.scalars(
        sa.text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'")
    ).all()
