"""The database: durable settings, one writer, and every failure stated with a code and a next step."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from provenance import database as database_module
from provenance.database import Database, is_writing, schema_version
from provenance.errors import InputError, StoreError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database.at(tmp_path / "ledger.db")
    made.create()
    yield made
    made.close()


def test_commits_are_durable_and_the_file_is_private(database: Database) -> None:
    with database.read() as conn:
        pragmas = {
            name: conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "secure_delete")
        }
    full = 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "secure_delete": 1,
    }
    assert database.sqlite_path is not None
    for path in database.sqlite_path.parent.glob("ledger.db*"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_only_one_may_write_and_readers_do_not_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "LOCK_WAIT_S", 0.05)
    other = Database(database.url)
    with database.write() as conn:
        assert is_writing(conn)
        conn.execute(sa.insert(schema_version).values(version=7))
        with other.read() as reading:
            assert not is_writing(reading)
            assert reading.scalars(sa.select(schema_version.c.version)).all() == [
                database_module.SCHEMA_VERSION
            ]
        with pytest.raises(StoreError, match=r"store\.locked") as caught, other.write():
            pass
    assert caught.value.next_step.startswith("Wait")
    other.close()


def test_an_exception_rolls_back(database: Database) -> None:
    def insert_and_fail() -> None:
        with database.write() as conn:
            conn.execute(sa.insert(schema_version).values(version=7))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        insert_and_fail()
    database.require_schema()


def test_a_full_disk_is_stated_and_loses_nothing(database: Database) -> None:
    def fill() -> None:
        with database.write() as conn:
            pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
            conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
            for number in range(10, 99_999):
                conn.execute(sa.insert(schema_version).values(version=number))

    with pytest.raises(StoreError, match=r"store\.disk_full"):
        fill()
    database.require_schema()


def test_a_database_is_never_made_twice(database: Database) -> None:
    with pytest.raises(StoreError, match=r"store\.in_use"):
        database.create()


def test_a_missing_an_empty_and_a_foreign_version_are_told_apart(database: Database, tmp_path: Path) -> None:
    missing = Database.at(tmp_path / "missing.db")
    with pytest.raises(StoreError, match=r"store\.missing"):
        missing.require_schema()
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match=r"store\.schema"):
        Database.at(tmp_path / "empty.db").require_schema()
    with database.write() as conn:
        conn.execute(sa.update(schema_version).values(version=99))
    with pytest.raises(StoreError, match=r"store\.schema"):
        database.require_schema()


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database " * 100)
    with pytest.raises(StoreError, match=r"store\.corrupt"):
        Database.at(tmp_path / "ledger.db").require_schema()


def test_a_damaged_page_is_corrupt(database: Database) -> None:
    path = database.sqlite_path
    assert path is not None
    database.scrub()
    database.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"store\.corrupt"), database.write() as conn:
        conn.execute(sa.insert(schema_version).values(version=2))


def test_a_folder_in_place_of_the_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(StoreError, match=r"store\.unreadable"), Database.at(tmp_path / "ledger.db").read():
        pass


def test_a_read_only_database_is_stated(database: Database) -> None:
    def insert() -> None:
        with database.write() as conn:
            conn.exec_driver_sql("PRAGMA query_only = ON")
            conn.execute(sa.insert(schema_version).values(version=2))

    with pytest.raises(StoreError, match=r"store\.read_only"):
        insert()


def test_other_failures_keep_values_out_of_the_message(database: Database) -> None:
    secret = "a name that must not be printed"
    with pytest.raises(StoreError, match=r"store\.failed") as caught, database.write() as conn:
        conn.execute(sa.text("INSERT INTO nowhere VALUES (:value)"), {"value": secret})
    assert secret not in str(caught.value)
    assert secret not in str(caught.value.__cause__)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/name", "sqlite+other:///x"])
def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(InputError, match=r"store\.url"):
        Database(url)


def test_deleted_rows_leave_no_bytes_behind(database: Database) -> None:
    marker = os.urandom(24).hex()
    path = database.sqlite_path
    assert path is not None
    with database.write() as conn:
        conn.exec_driver_sql("CREATE TABLE secrets (value TEXT)")
        conn.execute(sa.text("INSERT INTO secrets VALUES (:value)"), {"value": marker})
    with database.write() as conn:
        conn.exec_driver_sql("DELETE FROM secrets")
    database.scrub()
    assert all(marker.encode() not in each.read_bytes() for each in path.parent.iterdir())


def test_the_file_is_plain_sqlite(database: Database) -> None:
    assert database.sqlite_path is not None
    plain = sqlite3.connect(database.sqlite_path)
    assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    plain.close()
