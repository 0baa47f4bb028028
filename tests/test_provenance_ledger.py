"""The ledger: canonical leaves, proofs, one transaction with the caller, several processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import ledger as ledger_module
from provenance.checkpoint import Signer, open_checkpoint
from provenance.database import Database, ledger_entries, ledger_head, ledger_nodes
from provenance.errors import InputError, LedgerError, SignatureError, StoreError
from provenance.fsck import verify_database
from provenance.ledger import Ledger

KEY = bytes(range(32))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ASSET = "00112233445566ff"
CONTENT = "ab" * 32


def open_ledger(path: Path) -> Ledger:
    signer = Signer("Example-Lab/ledger", Ed25519PrivateKey.from_private_bytes(KEY))
    return Ledger(Database.at(path), signer, clock=lambda: NOON)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = open_ledger(tmp_path / "ledger.db")
    made.database.create()
    with made.database.write() as conn:
        made.create({"deployment": "urn:example"}, conn)
    yield made
    made.database.close()


def stored_bytes(ledger: Ledger, index: int) -> bytes:
    with ledger.database.read() as conn:
        query = sa.select(ledger_entries.c.entry).where(ledger_entries.c.leaf_index == index)
        return bytes(conn.execute(query).scalar_one())


def test_a_leaf_is_canonical_json(ledger: Ledger) -> None:
    receipt = ledger.append({"kind": "check", "z": 1, "a": "é", "asset_id": ASSET})
    assert (
        stored_bytes(ledger, 1)
        == (
            '{"body":{"a":"é","asset_id":"00112233445566ff","z":1},"index":1,"kind":"check",'
            '"schema":"facsimile-ledger-entry/1","time":"2026-03-01T12:00:00.000Z"}'
        ).encode()
    )
    assert receipt.index == 1
    assert open_checkpoint(ledger.checkpoint(), ledger.signer.verifier).root.hex() == receipt.root


def test_entries_are_found_again(ledger: Ledger) -> None:
    ledger.append({"kind": "output_recorded", "asset_id": ASSET, "content_sha256": CONTENT, "n": 1})
    ledger.append({"kind": "check", "n": 2})
    ledger.append({"kind": "check", "asset_id": ASSET, "n": 3})
    assert [entry.body["n"] for entry in ledger.find_by_asset_id(ASSET)] == [1, 3]
    assert [entry.index for entry in ledger.find_by_content_hash(CONTENT)] == [1]
    assert ledger.find_by_asset_id("0" * 16) == []
    assert [entry.kind for entry in ledger.entries()] == ["init", "output_recorded", "check", "check"]
    assert [entry.index for entry in ledger.entries(since=1, limit=2)] == [1, 2]
    assert ledger.entry(3).time == "2026-03-01T12:00:00.000Z"
    with pytest.raises(InputError, match=r"ledger\.index"):
        ledger.entry(4)


def test_every_proof_leads_to_the_signed_root(ledger: Ledger) -> None:
    heads = []
    for number in range(20):
        ledger.append({"kind": "check", "n": number})
        heads.append(ledger.tree_head())
    root = heads[-1].root.hex()
    for entry in ledger.entries():
        proof = ledger.inclusion_proof(entry.index)
        proof.verify_inclusion(entry.leaf_sha256, root)
        assert proof.checkpoint == ledger.checkpoint()
        with pytest.raises(LedgerError):
            proof.verify_inclusion("00" * 32, root)
    for head in heads:
        proof = ledger.consistency_proof(head.size)
        proof.verify_consistency(head.root.hex(), root)
    older = ledger.consistency_proof(3, 7)
    older.verify_consistency(heads[1].root.hex(), heads[5].root.hex())
    with pytest.raises(LedgerError):
        older.verify_consistency(heads[2].root.hex(), heads[5].root.hex())


def test_proofs_outside_the_ledger_are_input_errors(ledger: Ledger) -> None:
    for index in (1, -1):
        with pytest.raises(InputError, match=r"ledger\.index"):
            ledger.inclusion_proof(index)
    for older, newer in ((0, None), (1, 2)):
        with pytest.raises(InputError, match=r"ledger\.index"):
            ledger.consistency_proof(older, newer)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kind": "gossip"},
        {"kind": "check", "value": object()},
        {"kind": "check", "value": float("nan")},
        {"kind": "check", "value": 2**60},
        {"kind": "check", "value": "\ud800"},
        {"kind": "check", "value": "x" * 70_000},
        {"kind": "check", "asset_id": "XYZ"},
        {"kind": "check", "content_sha256": 7},
    ],
)
def test_what_is_no_entry_is_not_recorded(ledger: Ledger, entry: dict[str, object]) -> None:
    before = ledger.checkpoint()
    with pytest.raises(InputError, match=r"ledger\.entry"):
        ledger.append(entry)
    assert ledger.checkpoint() == before


def test_an_entry_and_the_callers_rows_stand_or_fall_together(ledger: Ledger) -> None:
    before = ledger.checkpoint()

    def append_and_fail() -> None:
        with ledger.database.write() as conn:
            ledger.append({"kind": "check"}, conn)
            assert ledger.checkpoint(conn) != before
            raise InputError("test.stop", "stop", "none")

    with pytest.raises(InputError, match=r"test\.stop"):
        append_and_fail()
    assert ledger.checkpoint() == before
    ledger.append({"kind": "check"})
    assert verify_database(ledger.database, ledger.signer.verifier).ok


def test_appending_needs_a_write_transaction(ledger: Ledger) -> None:
    with pytest.raises(StoreError, match="read_only"), ledger.database.read() as conn:
        ledger.append({"kind": "check"}, conn)


@pytest.mark.parametrize(
    "statement",
    [
        sa.delete(ledger_entries).where(ledger_entries.c.leaf_index == 1),
        sa.update(ledger_entries).where(ledger_entries.c.leaf_index == 1).values(asset_id="0" * 16),
        sa.update(ledger_entries).where(ledger_entries.c.leaf_index == 1).values(entry=b"{}"),
        sa.insert(ledger_entries).values(leaf_index=9, entry=b"{}", leaf_hash=b"", kind="check"),
        sa.text("REPLACE INTO ledger_entries (leaf_index, entry, leaf_hash, kind) VALUES (1, '', '', '')"),
        sa.delete(ledger_nodes),
        sa.update(ledger_nodes).values(hash=bytes(32)),
        sa.delete(ledger_head),
        sa.update(ledger_head).values(size=1),
    ],
)
def test_the_database_refuses_to_change_a_record(ledger: Ledger, statement: sa.Executable) -> None:
    ledger.append({"kind": "check", "asset_id": ASSET})
    with pytest.raises(LedgerError, match="append_only"), ledger.database.write() as conn:
        conn.execute(statement)
    assert len(ledger.find_by_asset_id(ASSET)) == 1
    assert verify_database(ledger.database, ledger.signer.verifier).ok


def test_nothing_is_built_on_a_head_that_was_not_signed(ledger: Ledger) -> None:
    ledger.append({"kind": "check"})
    with ledger.database.write() as conn:
        conn.execute(sa.update(ledger_head).values(size=3, edge=bytes(64)))
    for use in (ledger.checkpoint, lambda: ledger.append({"kind": "check"})):
        with pytest.raises(LedgerError, match=r"ledger\.head"):
            use()
    with ledger.database.write() as conn:
        conn.execute(sa.update(ledger_head).values(size=4, edge=bytes(32), checkpoint="forged\n\n"))
    with pytest.raises(SignatureError):
        ledger.append({"kind": "check"})


def append_many(path: Path, name: str, count: int) -> None:
    ledger = open_ledger(path)
    for number in range(count):
        ledger.append({"kind": "check", "by": name, "n": number})
    ledger.database.close()


def test_two_processes_append_at_once(ledger: Ledger) -> None:
    path = ledger.database.sqlite_path
    assert path is not None
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_many, args=(path, name, 40)) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    append_many(path, "three", 40)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    bodies = [entry.body for entry in ledger.entries(since=1)]
    for name in ("one", "two", "three"):
        assert [body["n"] for body in bodies if body["by"] == name] == list(range(40))
    report = verify_database(ledger.database, ledger.signer.verifier)
    assert report.ok
    assert report.size == 121


def test_leaves_read_as_plain_json(ledger: Ledger) -> None:
    ledger.append({"kind": "check", "nested": {"list": [1, None, True, "x"]}})
    assert json.loads(stored_bytes(ledger, 1))["body"] == {"nested": {"list": [1, None, True, "x"]}}


def test_a_proof_looks_its_hashes_up_and_scans_nothing(ledger: Ledger) -> None:
    for query in (ledger_module._SELECT_NODE, ledger_module._SELECT_LEAF_HASH):
        with ledger.database.read() as conn:
            text = str(query.compile(conn)).replace("?", "1")
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
        assert [row.detail.split()[0] for row in plan] == ["SEARCH"]


APPENDER = """
import sys
from pathlib import Path
from test_provenance_ledger import open_ledger
ledger = open_ledger(Path(sys.argv[1]))
while True:
    print(ledger.append({"kind": "check"}).index, flush=True)
"""


def test_a_killed_process_loses_nothing_it_had_a_receipt_for(ledger: Ledger) -> None:
    path = ledger.database.sqlite_path
    root = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root.parent)))}
    receipts: list[int] = []
    for lines in (1, 6):
        command = [sys.executable, "-c", APPENDER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            assert process.stdout is not None
            receipts += [int(process.stdout.readline()) for _ in range(lines)]
            process.kill()
            receipts += [int(line) for line in process.stdout.read().split()]
        report = verify_database(ledger.database, ledger.signer.verifier)
        assert report.ok, report.problems
        assert report.size > max(receipts)
    assert receipts == sorted(set(receipts))
    ledger.append({"kind": "check"})
