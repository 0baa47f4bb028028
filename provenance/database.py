"""The one database of a home: engine, tables, transactions, errors; knows nothing of what the rows mean.

SQLite in WAL mode with synchronous=FULL, or PostgreSQL by URL (the driver psycopg is then needed). A write
transaction holds the writer's lock from its start (BEGIN IMMEDIATE; an advisory lock on PostgreSQL): what it
reads is still true when it commits. Rows of ledger and revocations can be neither changed nor deleted, by
triggers. They stop accidents and programs; what a person with the file does, `fsck` finds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from provenance.errors import FacsimileError, InputError, LedgerError, StoreError

SCHEMA_VERSION = 2
LOCK_WAIT_S = 15
ADVISORY_LOCK = 0x66616373  # any constant that every process of a deployment shares
WRITE_OPTION = "facsimile_write"
ROWS_OPTION = "facsimile_rows"

_Int = sa.BigInteger().with_variant(sa.Integer, "sqlite")

metadata = sa.MetaData()

schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True))

ledger_entries = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("leaf_index", _Int, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),  # RFC 8785 bytes, exactly what is hashed
    sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("asset_id", sa.String(16), index=True),
    sa.Column("content_sha256", sa.String(64), index=True),
)

ledger_nodes = sa.Table(  # complete subtrees above the leaves
    "ledger_nodes",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("node_index", _Int, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

ledger_head = sa.Table(  # one row: the right edge and its signed checkpoint
    "ledger_head",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    sa.Column("size", _Int, nullable=False),
    sa.Column("edge", sa.LargeBinary, nullable=False),
    sa.Column("checkpoint", sa.Text, nullable=False),
)

subjects = sa.Table(
    "subjects",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("wrapped_key", sa.LargeBinary),  # RFC 3394; null once erased
    sa.Column("profile", sa.LargeBinary),  # nonce || AES-256-GCM; null once erased
    sa.Column("enrolled_index", _Int, nullable=False),
    sa.Column("erased_index", _Int),
)

templates = sa.Table(
    "templates",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("subject_id", sa.ForeignKey("subjects.id"), nullable=False, index=True),
    sa.Column("embedder_sha256", sa.String(64), nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),  # nonce || AES-256-GCM
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("subject_id", sa.ForeignKey("subjects.id"), nullable=False, index=True),
    sa.Column("jws", sa.Text, nullable=False),
    sa.Column("issued_index", _Int, nullable=False),
    sa.Column("revocation_reason", sa.Text),
)

revocations = sa.Table(
    "revocations",
    metadata,
    sa.Column("grant_id", sa.ForeignKey("grants.id"), primary_key=True),
    sa.Column("revoked_at", sa.String(32), nullable=False),
    sa.Column("leaf_index", _Int, nullable=False),
)

declarations = sa.Table(
    "declarations",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("leaf_index", _Int, nullable=False),
)

declared_files = sa.Table(
    "declared_files",
    metadata,
    sa.Column("content_sha256", sa.String(64), primary_key=True),
    sa.Column("declaration_id", sa.ForeignKey("declarations.id"), primary_key=True),
    sqlite_with_rowid=False,
)

manifests = sa.Table(  # C2PA manifest stores of outputs, for copies that lost theirs
    "manifests",
    metadata,
    sa.Column("manifest_id", sa.String(64), primary_key=True),  # urn:c2pa:UUID
    sa.Column("leaf_index", _Int, nullable=False, index=True),
    sa.Column("store", sa.LargeBinary, nullable=False),
)

APPEND_ONLY = (
    ledger_entries,
    ledger_nodes,
    revocations,
    declarations,
    declared_files,
    grants,
    ledger_head,
    manifests,
)
MAY_CHANGE = {"grants": ("revocation_reason",), "ledger_head": ("size", "edge", "checkpoint")}


def _fixed_columns(table: sa.Table) -> str:
    return ", ".join(c.name for c in table.columns if c.name not in MAY_CHANGE.get(table.name, ()))


def _sqlite_triggers() -> list[str]:
    """No row leaves, none changes but for MAY_CHANGE, entries are dense, the head only grows."""
    made = [
        "CREATE TRIGGER ledger_entries_dense BEFORE INSERT ON ledger_entries "
        "WHEN NEW.leaf_index <> (SELECT COALESCE(MAX(leaf_index) + 1, 0) FROM ledger_entries) "
        "BEGIN SELECT RAISE(ABORT, 'append-only: ledger_entries has no gaps'); END",
        "CREATE TRIGGER ledger_head_grows BEFORE UPDATE ON ledger_head WHEN NEW.size <= OLD.size "
        "BEGIN SELECT RAISE(ABORT, 'append-only: ledger_head only grows'); END",
    ]
    for table in APPEND_ONLY:
        name, fixed = table.name, _fixed_columns(table)
        refuse = f"BEGIN SELECT RAISE(ABORT, 'append-only: {name}'); END"
        made.append(f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} {refuse}")
        made.append(f"CREATE TRIGGER {name}_no_update BEFORE UPDATE OF {fixed} ON {name} {refuse}")
    return made


def _postgresql_triggers() -> list[str]:
    """The same; %% is a per cent sign once SQLAlchemy has read it."""
    made = [
        "CREATE FUNCTION facsimile_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'append-only: %%', TG_TABLE_NAME USING ERRCODE = '23514'; END $$",
        "CREATE FUNCTION facsimile_dense() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.leaf_index <> (SELECT COALESCE(MAX(leaf_index) + 1, 0) FROM ledger_entries) THEN "
        "RAISE EXCEPTION 'append-only: ledger_entries has no gaps' USING ERRCODE = '23514'; END IF; "
        "RETURN NEW; END $$",
        "CREATE TRIGGER ledger_entries_dense BEFORE INSERT ON ledger_entries "
        "FOR EACH ROW EXECUTE FUNCTION facsimile_dense()",
        "CREATE TRIGGER ledger_head_grows BEFORE UPDATE ON ledger_head FOR EACH ROW "
        "WHEN (NEW.size <= OLD.size) EXECUTE FUNCTION facsimile_refuse()",
    ]
    for table in APPEND_ONLY:
        name, fixed = table.name, _fixed_columns(table)
        refuse = "EXECUTE FUNCTION facsimile_refuse()"
        made += [
            f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} FOR EACH ROW {refuse}",
            f"CREATE TRIGGER {name}_no_truncate BEFORE TRUNCATE ON {name} {refuse}",
            f"CREATE TRIGGER {name}_no_update BEFORE UPDATE OF {fixed} ON {name} FOR EACH ROW {refuse}",
        ]
    return made


for _dialect, _triggers in (("sqlite", _sqlite_triggers()), ("postgresql", _postgresql_triggers())):
    for _trigger in _triggers:
        _ddl = sa.DDL(_trigger)  # type: ignore[no-untyped-call]
        event.listen(metadata, "after_create", _ddl.execute_if(dialect=_dialect))


class Database:
    """Transactions on one database; every failure of it is a StoreError."""

    def __init__(self, url: str | URL) -> None:
        self.url = _parse_url(url)
        self._engine = _make_engine(self.url)

    @classmethod
    def at(cls, path: Path) -> Database:
        """The SQLite database in this file."""
        return cls(URL.create("sqlite", database=str(path)))

    def create(self) -> None:
        """Make the tables; StoreError where the database already holds some. A SQLite file gets mode 0600."""
        if self.sqlite_path is not None:
            self.sqlite_path.touch(mode=0o600)
        with self.write() as conn:
            if sa.inspect(conn).get_table_names():
                raise StoreError(
                    "store.in_use",
                    "The database is not empty, and is never overwritten.",
                    "Use the home it belongs to, or name an empty database in FACSIMILE_DATABASE.",
                )
            metadata.create_all(conn, checkfirst=False)
            conn.execute(sa.insert(schema_version).values(version=SCHEMA_VERSION))

    def require_schema(self) -> None:
        """StoreError where the database is missing, empty, or of another version."""
        if self.sqlite_path is not None and not self.sqlite_path.is_file():
            raise StoreError(
                "store.missing", "The database file is missing.", "Restore the home from its backup."
            )
        with self.read() as conn:
            known = sa.inspect(conn).has_table("schema_version")
            versions = conn.scalars(sa.select(schema_version.c.version)).all() if known else []
        if list(versions) != [SCHEMA_VERSION]:
            raise StoreError(
                "store.schema",
                f"The database is of version {versions or 'none'}, this program expects {SCHEMA_VERSION}.",
                "Use the program that made it, or run `facsimile init` in an empty home.",
            )

    @property
    def sqlite_path(self) -> Path | None:
        """The database file, None on a server."""
        named = self.url.get_backend_name() == "sqlite" and self.url.database not in (None, "", ":memory:")
        return Path(str(self.url.database)) if named else None

    @contextmanager
    def write(self, *, ledger: bool = True) -> Iterator[Connection]:
        """A transaction that is alone in writing; commits at the end of the block.

        `ledger=False` is for rows that no decision rests on: on PostgreSQL it locks only those, so that many such
        transactions run side by side; nothing can be appended to the ledger in it.
        """
        mode = WRITE_OPTION if ledger else ROWS_OPTION
        with (
            _stated_errors(),
            self._engine.connect().execution_options(**{mode: True}) as conn,
            conn.begin(),
        ):
            yield conn

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and waits for no writer."""
        with _stated_errors(), self._engine.connect() as conn:
            if conn.dialect.name == "postgresql":
                conn.execution_options(isolation_level="REPEATABLE READ")
            with conn.begin():
                yield conn

    def scrub(self) -> None:
        """Empty SQLite's write-ahead log of what was deleted; in the file, `secure_delete` overwrites it."""
        if self.sqlite_path is not None:
            with (
                _stated_errors(),
                self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn,
            ):
                conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def is_writing(conn: Connection) -> bool:
    """Whether the connection came from `Database.write`."""
    return conn.get_execution_options().get(WRITE_OPTION) is True


def _parse_url(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError) as error:
        raise _bad_url("it is not a database URL") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise _bad_url(f"{parsed.drivername} is not supported")
    return parsed


def _bad_url(reason: str) -> InputError:
    return InputError(
        "store.url", f"FACSIMILE_DATABASE cannot be used: {reason}.", "Give sqlite:///FILE or postgresql://…"
    )


def _make_engine(url: URL) -> Engine:
    try:
        engine = sa.create_engine(url, hide_parameters=True, **_engine_options(url))
    except ImportError as error:
        raise StoreError(
            "store.driver", "The PostgreSQL driver is not installed.", "pip install 'psycopg[binary]'."
        ) from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", _begin_postgresql)
    return engine


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": LOCK_WAIT_S}}
    return {"pool_pre_ping": True, "pool_size": 4}


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says so
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "recursive_triggers=ON",  # REPLACE deletes too
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(conn: Connection) -> None:
    if conn.get_isolation_level() != "AUTOCOMMIT":
        writes = is_writing(conn) or conn.get_execution_options().get(ROWS_OPTION) is True
        conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(conn: Connection) -> None:
    if is_writing(conn):
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")


@contextmanager
def _stated_errors() -> Iterator[None]:
    """Turn the library's exceptions into ours; ours pass through."""
    try:
        yield
    except FacsimileError:
        raise
    except DBAPIError as error:
        raise _state(error) from error
    except SQLAlchemyError as error:
        raise _store_error("store.failed", type(error).__name__) from error


_NEXT_STEPS = {
    "store.locked": "Wait for the other process to finish, then try again.",
    "store.disk_full": "Free some space, then try again; nothing was written.",
    "store.unreadable": "Check that the home and its files belong to you (chmod 700, 600).",
    "store.read_only": "Make the home writable, or move it to a disk that is.",
    "store.corrupt": "Run `facsimile audit verify`, and restore the home from its backup.",
    "store.unreachable": "Check FACSIMILE_DATABASE and that the server runs.",
    "store.failed": "Try again; if it fails again, run `facsimile doctor`.",
}

_CAUSES = {
    "store.locked": f"Another process held the database for more than {LOCK_WAIT_S} s.",
    "store.disk_full": "The disk is full.",
    "store.unreadable": "The database file cannot be opened.",
    "store.read_only": "The database cannot be written.",
    "store.corrupt": "The database file is damaged, or is not one.",
    "store.unreachable": "The database server does not answer.",
}

_SQLITE_CODES = {
    sqlite3.SQLITE_BUSY: "store.locked",
    sqlite3.SQLITE_LOCKED: "store.locked",
    sqlite3.SQLITE_FULL: "store.disk_full",
    sqlite3.SQLITE_CANTOPEN: "store.unreadable",
    sqlite3.SQLITE_PERM: "store.unreadable",
    sqlite3.SQLITE_READONLY: "store.read_only",
    sqlite3.SQLITE_CORRUPT: "store.corrupt",
    sqlite3.SQLITE_NOTADB: "store.corrupt",
}

_POSTGRESQL_CODES = {
    "55P03": "store.locked",
    "40P01": "store.locked",
    "40001": "store.locked",
    "53100": "store.disk_full",
    "25006": "store.read_only",
    "42501": "store.read_only",
    "XX001": "store.corrupt",
    "XX002": "store.corrupt",
}


def _state(error: DBAPIError) -> FacsimileError:
    if "append-only" in str(error.orig):
        return LedgerError(
            "ledger.append_only",
            "The database refused to change or drop a record.",
            "Run `facsimile audit verify`; records are only ever added.",
        )
    if isinstance(error.orig, sqlite3.Error):
        code = _SQLITE_CODES.get(getattr(error.orig, "sqlite_errorcode", -1) & 0xFF)
    else:
        state = getattr(error.orig, "sqlstate", None)
        lost = isinstance(error, OperationalError) and (state is None or state[:2] in ("08", "57"))
        code = "store.unreachable" if lost else _POSTGRESQL_CODES.get(str(state))
    return _store_error(code or "store.failed", type(error.orig).__name__)


def _store_error(code: str, detail: str) -> StoreError:
    return StoreError(code, _CAUSES.get(code, f"The database failed ({detail})."), _NEXT_STEPS[code])
