"""The append-only record of what was granted, made and refused; does not know why, nor whose face it was.

An entry becomes a leaf: RFC 8785 canonical JSON {body, index, kind, schema, time}, hashed by RFC 6962. Each
append writes the leaf, the subtrees it completes and a newly signed checkpoint, in the caller's transaction:
what is recorded together with a decision is recorded exactly when the decision is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance import merkle
from provenance.checkpoint import Checkpoint, Signer, open_checkpoint, open_note, sign_checkpoint
from provenance.database import Database, is_writing, ledger_entries, ledger_head, ledger_nodes
from provenance.errors import InputError, LedgerError, StoreError
from provenance.merkle import HASH_BYTES, Coordinate, Frontier

ENTRY_SCHEMA = "facsimile-ledger-entry/1"
MAX_ENTRY_BYTES = (1 << 16) - 1  # what an entry bundle of C2SP tlog-tiles can hold
KINDS = frozenset(
    {
        "init",
        "subject_enrolled",
        "template_erased",
        "grant_issued",
        "grant_revoked",
        "declaration",
        "decision_denied",
        "job_accepted",
        "job_failed",
        "output_recorded",
        "set_recorded",
        "check",
        "key_rotated",
        "key_revoked",
        "weights_added",
    }
)
INDEXED = {"asset_id": re.compile(r"[0-9a-f]{16}"), "content_sha256": re.compile(r"[0-9a-f]{64}")}

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Receipt:
    """What an append returns; hashes in hex. The root is that of the ledger with this leaf as its last."""

    index: int
    root: str
    leaf_sha256: str


@dataclass(frozen=True)
class Entry:
    """One recorded entry; `time` is RFC 3339 in UTC, `leaf_sha256` hex."""

    index: int
    kind: str
    time: str
    body: Mapping[str, Any]
    leaf_sha256: str


@dataclass(frozen=True)
class Proof:
    """A proof together with the signed checkpoint it leads to; hashes in hex, in the order of RFC 6962.

    For an inclusion proof `position` is the leaf's index, for a consistency proof the older number of leaves.
    """

    position: int
    size: int
    hashes: tuple[str, ...]
    checkpoint: str

    def verify_inclusion(self, leaf_sha256: str, root: str) -> None:
        """LedgerError where the leaf is not under the root."""
        path = [bytes.fromhex(each) for each in self.hashes]
        leaf, root_hash = bytes.fromhex(leaf_sha256), bytes.fromhex(root)
        merkle.verify_inclusion(leaf, self.position, self.size, path, root_hash)

    def verify_consistency(self, older_root: str, root: str) -> None:
        """LedgerError where the newer tree is not the older one, grown."""
        path = [bytes.fromhex(each) for each in self.hashes]
        older, newer = bytes.fromhex(older_root), bytes.fromhex(root)
        merkle.verify_consistency(self.position, self.size, older, newer, path)


class Ledger:
    """Appends to and reads from the ledger of one home."""

    def __init__(self, database: Database, signer: Signer, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self.database = database
        self.signer = signer
        self.clock = clock
        self._trusted_note = ""  # the checkpoint whose signature this process made or checked last

    def create(self, body: Mapping[str, Any], conn: Connection) -> Receipt:
        """Start an empty ledger with its `init` entry."""
        checkpoint = sign_checkpoint(0, merkle.EMPTY_ROOT, self.signer)
        conn.execute(sa.insert(ledger_head).values(id=1, size=0, edge=b"", checkpoint=checkpoint))
        return self.append({"kind": "init", **body}, conn)

    def append(self, entry: Mapping[str, Any], conn: Connection | None = None) -> Receipt:
        """Record {"kind": one of KINDS, …} in the caller's write transaction, or in one of its own.

        InputError: the entry is no JSON, too large, of an unknown kind. LedgerError: the stored head does not
        carry its own signature, so nothing may be built on it.
        """
        if conn is None:
            with self.database.write() as own:
                return self.append(entry, own)
        if not is_writing(conn):
            raise StoreError("store.read_only", "An entry needs a write transaction.", "Use `write`.")
        frontier = self._read_frontier(conn)
        columns = make_leaf(entry, frontier.size, self.clock())
        frontier, nodes = frontier.append(columns["leaf_hash"])
        conn.execute(sa.insert(ledger_entries), columns)
        if above := [vars(node) for node in nodes[1:]]:
            conn.execute(_INSERT_NODES, above)
        root = frontier.root
        checkpoint = sign_checkpoint(frontier.size, root, self.signer)
        self._trusted_note = checkpoint
        edge = b"".join(frontier.hashes)
        conn.execute(_UPDATE_HEAD, {"size": frontier.size, "edge": edge, "checkpoint": checkpoint})
        return Receipt(frontier.size - 1, root.hex(), columns["leaf_hash"].hex())

    def find_by_asset_id(self, asset_id: str, conn: Connection | None = None) -> list[Entry]:
        """The entries about an asset id (16 hex digits), oldest first."""
        return self._select(ledger_entries.c.asset_id == asset_id, None, conn)

    def find_by_content_hash(self, content_sha256: str, conn: Connection | None = None) -> list[Entry]:
        """The entries about a file's content hash (hex), oldest first."""
        return self._select(ledger_entries.c.content_sha256 == content_sha256, None, conn)

    def entry(self, index: int, conn: Connection | None = None) -> Entry:
        """One entry; InputError where there is none."""
        found = self._select(ledger_entries.c.leaf_index == index, 1, conn)
        if not found:
            raise InputError(
                "ledger.index", f"There is no entry {index}.", "Ask for the ledger's size first."
            )
        return found[0]

    def entries(
        self, since: int = 0, limit: int | None = None, conn: Connection | None = None
    ) -> list[Entry]:
        """The entries from index `since` on, oldest first, at most `limit`."""
        return self._select(ledger_entries.c.leaf_index >= since, limit, conn)

    def checkpoint(self, conn: Connection | None = None) -> str:
        """The newest signed checkpoint, a C2SP note; SignatureError, LedgerError where it does not hold."""
        with self._reading(conn) as reading:
            self._read_frontier(reading)
            return str(_read_head(reading).checkpoint)

    def tree_head(self, conn: Connection | None = None) -> Checkpoint:
        """Number of leaves and root of the newest checkpoint."""
        return open_checkpoint(self.checkpoint(conn), self.signer.verifier)

    def inclusion_proof(self, index: int, conn: Connection | None = None) -> Proof:
        """Proof that entry `index` is under the newest checkpoint."""
        with self._reading(conn) as reading:
            note = self.checkpoint(reading)
            size = open_checkpoint(note, self.signer.verifier).size
            return _prove(index, size, merkle.inclusion_spans(index, size), note, reading)

    def consistency_proof(
        self, older: int, newer: int | None = None, conn: Connection | None = None
    ) -> Proof:
        """Proof that the ledger of `older` leaves is the beginning of that of `newer` (None: all)."""
        with self._reading(conn) as reading:
            note = self.checkpoint(reading)
            newest = open_checkpoint(note, self.signer.verifier).size
            size = newest if newer is None else newer
            if size > newest:
                raise InputError(
                    "ledger.index", f"The ledger has {newest} entries.", "Ask for its size first."
                )
            return _prove(older, size, merkle.consistency_spans(older, size), note, reading)

    def _select(
        self, condition: sa.ColumnElement[bool], limit: int | None, conn: Connection | None
    ) -> list[Entry]:
        query = _SELECT_ENTRIES.where(condition).order_by(ledger_entries.c.leaf_index).limit(limit)
        with self._reading(conn) as reading:
            return [_read_entry(row) for row in reading.execute(query)]

    def _read_frontier(self, conn: Connection) -> Frontier:
        """The right edge, locked where the connection writes; it must be the one that was signed."""
        head = _read_head(conn)
        parts = tuple(head.edge[at : at + HASH_BYTES] for at in range(0, len(head.edge), HASH_BYTES))
        frontier = Frontier(head.size, parts)
        if head.checkpoint != self._trusted_note:
            open_note(head.checkpoint, self.signer.verifier)
            self._trusted_note = head.checkpoint
        if not head.checkpoint.startswith(
            Checkpoint(self.signer.name, frontier.size, frontier.root).text + "\n"
        ):
            raise LedgerError(
                "ledger.head",
                "The stored head of the ledger is not the one that was signed.",
                "Run `facsimile audit verify` and restore the home from its backup.",
            )
        return frontier

    @contextmanager
    def _reading(self, conn: Connection | None) -> Iterator[Connection]:
        with nullcontext(conn) if conn is not None else self.database.read() as reading:
            yield reading


_SELECT_ENTRIES = sa.select(ledger_entries.c.leaf_index, ledger_entries.c.entry, ledger_entries.c.leaf_hash)
_SELECT_LEAF_HASH = sa.select(ledger_entries.c.leaf_hash).where(
    ledger_entries.c.leaf_index == sa.bindparam("at")
)
_SELECT_NODE = sa.select(ledger_nodes.c.hash).where(
    ledger_nodes.c.level == sa.bindparam("of_level"), ledger_nodes.c.node_index == sa.bindparam("at")
)
_INSERT_NODES = sa.insert(ledger_nodes).values(
    level=sa.bindparam("level"), node_index=sa.bindparam("index"), hash=sa.bindparam("hash")
)
_UPDATE_HEAD = sa.update(ledger_head).where(ledger_head.c.id == 1)


def make_leaf(entry: Mapping[str, Any], index: int, time: datetime) -> dict[str, Any]:
    """The columns of a new leaf: its canonical bytes, their leaf hash and the columns that look it up."""
    kind = entry.get("kind")
    if kind not in KINDS:
        raise _bad_entry(f"its kind {kind!r} is unknown")
    body = {key: value for key, value in entry.items() if key != "kind"}
    stamp = time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    leaf = {"body": body, "index": index, "kind": kind, "schema": ENTRY_SCHEMA, "time": stamp}
    try:
        data = rfc8785.dumps(leaf)
        again = rfc8785.dumps(json.loads(data))
    except (rfc8785.CanonicalizationError, ValueError, TypeError) as error:
        raise _bad_entry(f"it is not JSON ({error})") from error
    if again != data:  # a whole number beyond 2^53 given as a fraction
        raise _bad_entry("it would not read back as it is written")
    if len(data) > MAX_ENTRY_BYTES:
        raise _bad_entry(f"it has {len(data)} bytes, at most {MAX_ENTRY_BYTES} are allowed")
    return {"leaf_index": index, "entry": data, "leaf_hash": merkle.hash_leaf(data), **index_columns(leaf)}


def index_columns(leaf: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that look a leaf up, derived from it; InputError where a value has not its form."""
    columns: dict[str, Any] = {"kind": leaf["kind"]}
    for name, form in INDEXED.items():
        value = leaf["body"].get(name)
        if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
            raise _bad_entry(f"its {name} is not of the form {form.pattern}")
        columns[name] = value
    return columns


def _read_head(conn: Connection) -> sa.Row[*tuple[Any, ...]]:
    query = sa.select(ledger_head)
    head = conn.execute(query.with_for_update() if is_writing(conn) else query).one_or_none()
    if head is None:
        raise LedgerError("ledger.head", "The ledger has no head.", "Restore the home from its backup.")
    return head


def _read_entry(row: sa.Row[*tuple[Any, ...]]) -> Entry:
    try:
        leaf = json.loads(row.entry)
        return Entry(row.leaf_index, leaf["kind"], leaf["time"], leaf["body"], row.leaf_hash.hex())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(
            "ledger.entry",
            f"Entry {row.leaf_index} was altered: it is no entry.",
            "Run `facsimile audit verify` and restore the home from its backup.",
        ) from error


def _prove(position: int, size: int, spans: Sequence[merkle.Span], note: str, conn: Connection) -> Proof:
    hashes = merkle.hash_spans(spans, lambda wanted: read_nodes(wanted, conn))
    return Proof(position, size, tuple(each.hex() for each in hashes), note)


def read_nodes(wanted: Sequence[Coordinate], conn: Connection) -> dict[Coordinate, bytes]:
    """The stored hashes of these subtrees; those that are not stored are left out.

    One look-up each: SQLite would scan the table for a list of pairs, and a proof needs about log2(size) of them.
    """
    found: dict[Coordinate, bytes] = {}
    for level, index in wanted:
        query = _SELECT_NODE if level else _SELECT_LEAF_HASH
        value = conn.execute(query, {"of_level": level, "at": index} if level else {"at": index}).scalar()
        if value is not None:
            found[(level, index)] = value
    return found


def _no_entry(index: int) -> InputError:
    return InputError("ledger.index", f"There is no entry {index}.", "Ask for the ledger's size first.")


def _bad_entry(reason: str) -> InputError:
    return InputError(
        "ledger.entry", f"The entry cannot be recorded: {reason}.", "Correct the entry; nothing was recorded."
    )
