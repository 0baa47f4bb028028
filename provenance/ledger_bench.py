"""Measures the ledger: appends in batches, durable appends one by one, and proofs in a large tree; knows no command.

Rows are those of `provenance.mark_bench.Row`. CPU time stands beside wall time: only the first says something on a
machine that others use too. The large tree is filled with entries of a common size by bulk inserts, its nodes and head
by the ledger's own code, so that proofs and checkpoint are real.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.checkpoint import Signer, open_checkpoint, sign_checkpoint
from provenance.database import Database, ledger_entries, ledger_head, ledger_nodes
from provenance.ledger import Ledger, make_leaf
from provenance.mark_bench import Row
from provenance.merkle import Frontier

BATCH = 1000
BULK = 20_000


@dataclass(frozen=True)
class Counts:
    """How much is measured: batches of BATCH, single durable appends, leaves of the large tree, proofs in it."""

    batches: int = 5
    singles: int = 300
    leaves: int = 1_000_000
    proofs: int = 200


QUICK = Counts(batches=1, singles=30, leaves=20_000, proofs=50)


def measure(folder: Path, counts: Counts) -> list[Row]:
    """The table of a SQLite ledger (WAL, synchronous=FULL) in an empty folder; `bench.db` stays there."""
    database = Database.at(folder / "bench.db")
    database.create()
    ledger = Ledger(database, Signer("Bench/ledger", Ed25519PrivateKey.generate()))
    with database.write() as conn:
        ledger.create({"organisation": "Bench"}, conn)
    rows = [*_appends(ledger, counts), *_proofs(ledger, counts)]
    database.close()
    return rows


def _entry(number: int) -> dict[str, object]:
    """An entry of the size of an output's, about 700 bytes."""
    digest = f"{number:064x}"
    inputs = [digest[:16], digest[16:32]]
    names = {"models": {"identity": digest, "detect": digest}, "inputs": inputs, "grants": [digest[:32]] * 2}
    ids = {"asset_id": f"{number:016x}", "content_sha256": digest, "file_sha256": digest}
    return {"kind": "output_recorded", "what": "fusion", "engine": "warp", **ids, **names}


def _appends(ledger: Ledger, counts: Counts) -> Iterator[Row]:
    def batch(number: int) -> None:
        with ledger.database.write() as conn:
            for at in range(BATCH):
                ledger.append(_entry(number * BATCH + at), conn)

    yield from _rates("append_batched", batch, counts.batches, BATCH)
    yield from _rates("append_durable", lambda number: ledger.append(_entry(number)), counts.singles, 1)


def _rates(case: str, call: Callable[[int], object], times: int, size: int) -> Iterator[Row]:
    """per_s by the wall clock, and by CPU time alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(times):
        call(number)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    yield Row(case, "per_s", times * size / wall, "1/s", times * size, None)
    yield Row(case, "per_cpu_s", times * size / cpu, "1/s", times * size, None)


def _proofs(ledger: Ledger, counts: Counts) -> Iterator[Row]:
    _fill(ledger, counts.leaves)
    size, root = ledger.tree_head().size, ledger.tree_head().root.hex()
    rng = np.random.default_rng(0)
    case = f"proof_at_{size}"
    wall, cpu = [], []
    for index in rng.integers(0, size, counts.proofs):
        start, used = time.perf_counter(), time.process_time()
        proof = ledger.inclusion_proof(int(index))
        wall.append((time.perf_counter() - start) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
        proof.verify_inclusion(ledger.entry(int(index)).leaf_sha256, root)
    yield Row(case, "inclusion_ms", float(np.median(wall)), "ms", counts.proofs, None)
    yield Row(case, "inclusion_cpu_ms", float(np.median(cpu)), "ms", counts.proofs, None)
    wall = []
    for older in rng.integers(1, size, counts.proofs):
        start = time.perf_counter()
        ledger.consistency_proof(int(older))
        wall.append((time.perf_counter() - start) * 1e3)
    yield Row(case, "consistency_ms", float(np.median(wall)), "ms", counts.proofs, None)


def _fill(ledger: Ledger, leaves: int) -> None:
    """Grow the ledger to so many leaves; one checkpoint at the end instead of one for each."""
    with ledger.database.write() as conn:
        head = conn.execute(sa.select(ledger_head)).one()
        parts = tuple(head.edge[at : at + 32] for at in range(0, len(head.edge), 32))
        frontier, now = Frontier(head.size, parts), datetime.now(UTC)
        open_checkpoint(head.checkpoint, ledger.signer.verifier)
        while frontier.size < leaves:
            columns, nodes = [], []
            for _ in range(min(BULK, leaves - frontier.size)):
                leaf = make_leaf({"kind": "check", "n": frontier.size}, frontier.size, now)
                frontier, made = frontier.append(leaf["leaf_hash"])
                columns.append(leaf)
                nodes += [{"level": n.level, "node_index": n.index, "hash": n.hash} for n in made[1:]]
            conn.execute(sa.insert(ledger_entries), columns)
            conn.execute(sa.insert(ledger_nodes), nodes)
        note = sign_checkpoint(frontier.size, frontier.root, ledger.signer)
        if frontier.size > head.size:
            edge = b"".join(frontier.hashes)
            values = {"size": frontier.size, "edge": edge, "checkpoint": note}
            conn.execute(sa.update(ledger_head).values(**values))
