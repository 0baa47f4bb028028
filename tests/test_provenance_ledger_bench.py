"""The bench's large tree is one that the ledger could have grown itself, and its rows are those of the bars."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import ledger_bench
from provenance.checkpoint import Signer
from provenance.database import Database, ledger_entries
from provenance.ledger import Ledger, make_leaf
from provenance.ledger_bench import Counts, fill, measure
from provenance.merkle import build_frontier, hash_leaf


def test_a_tree_filled_in_bulks_is_the_one_that_appends_would_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_bench, "BULK", 100)
    database = Database.at(tmp_path / "filled.db")
    database.create()
    ledger = Ledger(database, Signer("Bench/ledger", Ed25519PrivateKey.generate()))
    with database.write() as conn:
        ledger.create({"organisation": "Bench"}, conn)
    fill(ledger, 333)
    ledger.append({"kind": "check", "n": 333})
    with database.read() as conn:
        assert conn.exec_driver_sql("pragma synchronous").scalar() == 2  # FULL
        rows = conn.execute(sa.select(ledger_entries).order_by(ledger_entries.c.leaf_index)).all()
    entries = ledger.entries()
    assert [entry.index for entry in entries] == list(range(334))
    for entry, row in zip(entries[1:], rows[1:], strict=True):
        again = make_leaf({"kind": entry.kind, **entry.body}, entry.index, datetime.fromisoformat(entry.time))
        assert again == row._asdict()
        assert entry.body == {"n": entry.index}
    head = ledger.tree_head()
    assert (head.size, head.root) == (334, build_frontier([hash_leaf(row.entry) for row in rows]).root)
    for index in (0, 1, 100, 332, 333):
        ledger.inclusion_proof(index).verify_inclusion(entries[index].leaf_sha256, head.root.hex())
    database.close()


def test_the_table_has_appends_and_proofs_by_wall_and_cpu(tmp_path: Path) -> None:
    rows = measure(tmp_path, Counts(batches=1, singles=3, leaves=1100, proofs=7))
    figures = {(row.case, row.metric): row for row in rows}
    proofs = [
        f"{name}_{unit}" for name in ("inclusion", "consistency") for unit in ("ms", "cpu_ms", "cpu_p95_ms")
    ]
    assert set(figures) == {
        *(
            (case, rate)
            for case in ("append_batched", "append_durable", "fill")
            for rate in ("per_s", "per_cpu_s")
        ),
        *(("proof_at_1100", metric) for metric in proofs),
    }
    counted = {case: row.n for (case, _), row in figures.items()}
    assert counted == {"append_batched": 1000, "append_durable": 3, "fill": 96, "proof_at_1100": 7}
    assert all(row.value > 0 for row in rows)
