"""Every way to tamper with a ledger's file is found, with its code and the entry it hit."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import fsck, merkle
from provenance.checkpoint import Signer, sign_checkpoint
from provenance.database import Database
from provenance.errors import LedgerError
from provenance.fsck import FsckReport, verify_database
from provenance.ledger import Ledger

SIGNER = Signer("Example-Lab/ledger", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ENTRIES = 21


@pytest.fixture(scope="module")
def made_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "ledger.db"
    database = Database.at(path)
    database.create()
    ledger = Ledger(database, SIGNER)
    with database.write() as conn:
        ledger.create({}, conn)
        for number in range(1, ENTRIES):
            asset = f"{number:016x}"
            ledger.append({"kind": "output_recorded", "asset_id": asset, "content_sha256": asset * 4}, conn)
    database.scrub()
    database.close()
    return path


@pytest.fixture
def path(made_ledger: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made_ledger, tmp_path / "ledger.db"))


def tamper(path: Path, *statements: str) -> None:
    """What someone with the file and any SQLite tool can do: take the triggers off, change, put them back."""
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA synchronous = OFF")
    triggers = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        conn.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        conn.execute(statement)
    for _, sql in triggers:
        conn.execute(sql)
    conn.commit()
    conn.close()


def report_of(path: Path, against: tuple[str, ...] = ()) -> FsckReport:
    database = Database.at(path)
    try:
        return verify_database(database, SIGNER.verifier, against)
    finally:
        database.close()


def found(path: Path, against: tuple[str, ...] = ()) -> set[tuple[str, int | None]]:
    return {(problem.code, problem.index) for problem in report_of(path, against).problems}


def test_an_untouched_ledger_re_derives(path: Path) -> None:
    report = report_of(path)
    assert report.ok
    assert report.size == ENTRIES
    assert report.notes == ()
    report.require()


def test_batches_give_the_same_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = report_of(path)
    for batch in (1, 2, 7):
        monkeypatch.setattr(fsck, "BATCH", batch)
        assert report_of(path) == whole


def test_an_altered_entry(path: Path) -> None:
    tamper(path, "UPDATE ledger_entries SET entry = replace(entry, 'output', 'outpuT') WHERE leaf_index = 5")
    assert {("ledger.entry", 5), ("ledger.node", 4), ("ledger.root", None)} <= found(path)


def test_an_altered_entry_with_its_hash_made_to_fit(path: Path) -> None:
    entry = b"{}"
    hexed = merkle.hash_leaf(entry).hex()
    tamper(
        path,
        f"UPDATE ledger_entries SET entry = x'{entry.hex()}', leaf_hash = x'{hexed}' WHERE leaf_index = 5",
    )
    assert {("ledger.entry", 5), ("ledger.node", 4), ("ledger.root", None)} <= found(path)


def test_the_last_entry_removed(path: Path) -> None:
    tamper(path, f"DELETE FROM ledger_entries WHERE leaf_index = {ENTRIES - 1}")
    assert ("ledger.truncated", ENTRIES - 1) in found(path)


def test_the_last_entry_and_its_traces_removed(path: Path) -> None:
    """Even with head and nodes made to fit, the signed checkpoint is larger than what is left."""
    database = Database.at(path)
    with database.read() as conn:
        rows = (
            conn.exec_driver_sql("SELECT leaf_hash FROM ledger_entries ORDER BY leaf_index").scalars().all()
        )
    database.close()
    shorter = merkle.build_frontier(rows[:-1])
    tamper(
        path,
        f"DELETE FROM ledger_entries WHERE leaf_index = {ENTRIES - 1}",
        f"UPDATE ledger_head SET size = {shorter.size}, edge = x'{b''.join(shorter.hashes).hex()}'",
    )
    assert found(path) == {("ledger.truncated", ENTRIES - 1)}


def test_an_entry_removed_from_the_middle(path: Path) -> None:
    tamper(path, "DELETE FROM ledger_entries WHERE leaf_index = 7")
    assert {("ledger.missing", 7), ("ledger.truncated", ENTRIES - 1)} <= found(path)


def test_two_entries_in_each_others_place(path: Path) -> None:
    tamper(
        path,
        "UPDATE ledger_entries SET leaf_index = -1 WHERE leaf_index = 4",
        "UPDATE ledger_entries SET leaf_index = 4 WHERE leaf_index = 9",
        "UPDATE ledger_entries SET leaf_index = 9 WHERE leaf_index = -1",
    )
    assert {("ledger.order", 4), ("ledger.order", 9), ("ledger.root", None)} <= found(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_head SET checkpoint = replace(checkpoint, char(10) || '21', char(10) || '20')",
        "UPDATE ledger_head SET checkpoint = substr(checkpoint, 1, 90)",
        "UPDATE ledger_head SET checkpoint = ''",
        "DELETE FROM ledger_head",
    ],
)
def test_an_altered_checkpoint(path: Path, statement: str) -> None:
    tamper(path, statement)
    assert ("ledger.checkpoint_signature", None) in found(path)


def test_an_older_checkpoint_put_back(path: Path) -> None:
    leaf = merkle.hash_leaf(b"")
    root = merkle.build_frontier([leaf] * 20).root
    note = sign_checkpoint(20, root, SIGNER)
    tamper(path, f"UPDATE ledger_head SET checkpoint = '{note}'")
    assert found(path) == {("ledger.root", None), ("ledger.unsigned", 20)}


def test_an_altered_edge(path: Path) -> None:
    tamper(path, "UPDATE ledger_head SET edge = zeroblob(96)")
    assert found(path) == {("ledger.head", None)}


@pytest.mark.parametrize(
    "change",
    [
        "asset_id = '00000000000000ff'",
        "asset_id = NULL",
        "content_sha256 = NULL",
        "kind = 'check'",
    ],
)
def test_an_altered_index_column(path: Path, change: str) -> None:
    tamper(path, f"UPDATE ledger_entries SET {change} WHERE leaf_index = 6")
    assert found(path) == {("ledger.column", 6)}


def test_an_altered_subtree_hash(path: Path) -> None:
    tamper(path, "UPDATE ledger_nodes SET hash = zeroblob(32) WHERE level = 2 AND node_index = 3")
    assert found(path) == {("ledger.node", 12)}


def test_a_removed_and_an_added_subtree_hash(path: Path) -> None:
    tamper(path, "DELETE FROM ledger_nodes WHERE level = 1 AND node_index = 2")
    assert found(path) == {("ledger.node", 4), ("ledger.node", None)}
    tamper(path, "INSERT INTO ledger_nodes VALUES (9, 9, x'00'), (9, 8, x'00')")
    assert ("ledger.node", None) in found(path)


def test_a_removed_trigger(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("DROP TRIGGER ledger_entries_no_delete")
    conn.close()
    assert found(path) == {("ledger.guard", None)}


def test_a_history_rewritten_with_the_key_shows_only_against_an_earlier_checkpoint(
    path: Path, tmp_path: Path
) -> None:
    """Whoever holds the key can write another ledger; only a checkpoint kept elsewhere shows it."""
    seen = report_of(path).checkpoint
    database = Database.at(tmp_path / "other.db")
    database.create()
    other = Ledger(database, SIGNER)
    with database.write() as conn:
        other.create({}, conn)
        for _ in range(ENTRIES):
            other.append({"kind": "check"}, conn)
    database.close()
    assert report_of(tmp_path / "other.db").ok
    assert found(tmp_path / "other.db", (seen,)) == {("ledger.rewritten", None)}


def test_an_earlier_checkpoint_of_a_grown_ledger_holds(path: Path) -> None:
    seen = report_of(path).checkpoint
    database = Database.at(path)
    Ledger(database, SIGNER).append({"kind": "check"})
    database.close()
    assert report_of(path, (seen,)).ok
    foreign = sign_checkpoint(3, bytes(32), Signer("other/ledger", Ed25519PrivateKey.generate()))
    assert ("ledger.checkpoint_signature", None) in found(path, (foreign,))


def test_a_backup_put_back_shows_against_a_later_checkpoint(path: Path, made_ledger: Path) -> None:
    database = Database.at(path)
    Ledger(database, SIGNER).append({"kind": "check"})
    later = Ledger(database, SIGNER).checkpoint()
    database.close()
    assert found(made_ledger, (later,)) == {("ledger.truncated", ENTRIES)}


def test_require_raises_the_first_problem(path: Path) -> None:
    tamper(path, "UPDATE ledger_entries SET asset_id = NULL WHERE leaf_index = 6")
    with pytest.raises(LedgerError, match=r"ledger\.column") as caught:
        report_of(path).require()
    assert "entry 6" in caught.value.cause


@pytest.mark.parametrize("entry", [b"\xff\xfe", b"[]", b"7", b'{"body": 1}', b"", b'{"a":1e999}'])
def test_an_entry_that_is_no_entry_stops_nothing(path: Path, entry: bytes) -> None:
    tamper(path, f"UPDATE ledger_entries SET entry = x'{entry.hex()}' WHERE leaf_index = 5")
    assert ("ledger.entry", 5) in found(path)


def test_a_clock_set_back_is_noted(path: Path) -> None:
    database = Database.at(path)
    Ledger(database, SIGNER, clock=lambda: datetime(2020, 1, 1, tzinfo=UTC)).append({"kind": "check"})
    database.close()
    report = report_of(path)
    assert report.ok
    assert report.notes == ("entry 21 is dated before an earlier one: the clock was set back",)


@pytest.mark.parametrize("at", range(1, 200, 37))
def test_a_changed_byte_of_an_entry(path: Path, at: int) -> None:
    database = Database.at(path)
    with database.read() as conn:
        query = "SELECT entry FROM ledger_entries WHERE leaf_index = 5"
        entry = bytearray(conn.exec_driver_sql(query).scalar_one())
    database.close()
    entry[at] ^= 1
    tamper(path, f"UPDATE ledger_entries SET entry = x'{entry.hex()}' WHERE leaf_index = 5")
    assert ("ledger.entry", 5) in found(path)
