"""Measures the ledger: appends in batches, durable appends one by one, and proofs in a large tree; knows no command.

Rows are those of `provenance.mark_bench.Row`. CPU time stands beside wall time: only the first says something on a
machine that others use too.

The large tree is filled in bulks of BULK short entries (110 bytes), each in one transaction with one signed checkpoint.
A bulk's entries differ in their two numbers alone and are written from one that the ledger made; leaves, nodes, root
and signature are those that single appends would give. A proof reads hashes, whatever the length of the entries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.engine import Connection

from provenance.checkpoint import Signer, open_checkpoint, sign_checkpoint
from provenance.database import Database, ledger_entries, ledger_head, ledger_nodes
from provenance.ledger import Ledger, Proof, make_leaf
from provenance.mark_bench import Row
from provenance.merkle import HASH_BYTES, Frontier, hash_leaf

FloatArray = npt.NDArray[np.float64]

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
    """Building the tree; inclusion and consistency proofs in it. Every inclusion proof is verified."""
    before = ledger.tree_head().size
    yield from _rates("fill", lambda _: fill(ledger, counts.leaves), 1, max(counts.leaves - before, 0))
    head = ledger.tree_head()
    rng, case = np.random.default_rng(0), f"proof_at_{head.size}"
    places = [int(index) for index in rng.integers(0, head.size, counts.proofs)]
    proofs, times = _timed(ledger.inclusion_proof, places)
    for proof in proofs:
        proof.verify_inclusion(ledger.entry(proof.position).leaf_sha256, head.root.hex())
    yield from _medians(case, "inclusion", times)
    _, times = _timed(
        ledger.consistency_proof, [int(older) for older in rng.integers(1, head.size, counts.proofs)]
    )
    yield from _medians(case, "consistency", times)


def _timed(prove: Callable[[int], Proof], places: list[int]) -> tuple[list[Proof], FloatArray]:
    """The proofs, and float64 [N, 2]: wall and CPU milliseconds of each."""
    proofs, times = [], np.zeros((len(places), 2))
    for at, place in enumerate(places):
        wall, cpu = time.perf_counter(), time.process_time()
        proofs.append(prove(place))
        times[at] = time.perf_counter() - wall, time.process_time() - cpu
    return proofs, times * 1e3


def _medians(case: str, name: str, times: FloatArray) -> Iterator[Row]:
    wall, cpu = (float(value) for value in np.median(times, axis=0))
    yield Row(case, f"{name}_ms", wall, "ms", len(times), None)
    yield Row(case, f"{name}_cpu_ms", cpu, "ms", len(times), None)
    yield Row(case, f"{name}_cpu_p95_ms", float(np.quantile(times[:, 1], 0.95)), "ms", len(times), None)


def fill(ledger: Ledger, leaves: int) -> None:
    """Grow the ledger to so many leaves, in bulks."""
    while (size := ledger.tree_head().size) < leaves:
        with ledger.database.write() as conn:
            _append_bulk(ledger, min(BULK, leaves - size), conn)


def _append_bulk(ledger: Ledger, count: int, conn: Connection) -> None:
    head = conn.execute(sa.select(ledger_head)).one()
    open_checkpoint(head.checkpoint, ledger.signer.verifier)
    parts = tuple(head.edge[at : at + HASH_BYTES] for at in range(0, len(head.edge), HASH_BYTES))
    frontier, columns, nodes = Frontier(head.size, parts), [], list[dict[str, object]]()
    for leaf in _leaves(head.size, count):
        frontier, made = frontier.append(leaf["leaf_hash"])
        columns.append(leaf)
        nodes += [{"level": n.level, "node_index": n.index, "hash": n.hash} for n in made[1:]]
    conn.execute(sa.insert(ledger_entries), columns)
    conn.execute(sa.insert(ledger_nodes), nodes)
    note = sign_checkpoint(frontier.size, frontier.root, ledger.signer)
    values = {"size": frontier.size, "edge": b"".join(frontier.hashes), "checkpoint": note}
    conn.execute(sa.update(ledger_head).values(**values))


def _leaves(start: int, count: int) -> Iterator[dict[str, Any]]:
    """The columns of `count` leaves from index `start` on, as `make_leaf` would give them one by one."""
    model = make_leaf({"kind": "check", "n": 0}, 0, datetime.now(UTC))
    before, between, after = (
        model["entry"].replace(b'"n":0', b'"n":|').replace(b'"index":0', b'"index":|').split(b"|")
    )
    for index in range(start, start + count):
        number = b"%d" % index
        entry = before + number + between + number + after
        yield {**model, "leaf_index": index, "entry": entry, "leaf_hash": hash_leaf(entry)}
