"""Tables of the server in the home's own database: keys, sessions, jobs, checks; knows no HTTP.

They lie beside consent and ledger so that a decision, its audit entry and its job commit in one transaction.
`ensure_tables` makes those that are missing: a home that was made before the server keeps working.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from provenance.database import Database
from provenance.errors import StoreError

SERVER_SCHEMA_VERSION = 1

_Int = sa.BigInteger().with_variant(sa.Integer, "sqlite")

metadata = sa.MetaData()

server_version = sa.Table("server_version", metadata, sa.Column("version", sa.Integer, primary_key=True))

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("secret_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("roles", sa.String(200), nullable=False),  # names of auth.ROLES, separated by spaces
    sa.Column("label", sa.String(100), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),  # seconds since 1970, as all times here
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("key_id", sa.ForeignKey("api_keys.id"), nullable=False, index=True),
    sa.Column("expires_at", sa.Float, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),  # jobs.STATES
    sa.Column("principal", sa.String(40), nullable=False),
    sa.Column("request", sa.Text, nullable=False),  # JSON: what is asked, inputs by sha256
    sa.Column("accepted_index", _Int),  # ledger leaf of the acceptance
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lease_owner", sa.String(80)),
    sa.Column("lease_until", sa.Float),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("result", sa.Text),  # JSON
    sa.Column("error", sa.Text),  # JSON of a problem
    sa.Index("jobs_by_state", "state", "created_at"),
    sa.Index("jobs_by_principal", "principal", "created_at"),
)

job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("event", sa.String(20), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)

checks = sa.Table(
    "checks",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("principal", sa.String(40), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("verdict", sa.String(32), nullable=False, index=True),
    sa.Column("content_sha256", sa.String(64), nullable=False),
    sa.Column("report", sa.Text, nullable=False),  # JSON of `facsimile check`
    sa.Index("checks_by_principal", "principal", "created_at"),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("principal", sa.String(40), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("locked_until", sa.Float, nullable=False),
    sa.Column("status", sa.Integer),  # null while in flight
    sa.Column("location", sa.String(200)),
    sa.Column("body", sa.Text),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
)


def ensure_tables(database: Database) -> None:
    """Make the server's tables where they are missing; StoreError where they are of another version."""
    with database.read() as conn:
        if sa.inspect(conn).has_table("server_version"):
            _require_version(conn)
            return
    with database.write() as conn:
        metadata.create_all(conn)
        if not conn.scalars(sa.select(server_version.c.version)).all():
            conn.execute(sa.insert(server_version).values(version=SERVER_SCHEMA_VERSION))
        _require_version(conn)


def _require_version(conn: Connection) -> None:
    found = list(conn.scalars(sa.select(server_version.c.version)))
    if found != [SERVER_SCHEMA_VERSION]:
        raise StoreError(
            "store.server_schema",
            f"The server's tables are of version {found}, this program expects {SERVER_SCHEMA_VERSION}.",
            "Use the program that made them.",
        )


_SQLITE_NOW = "SELECT (julianday('now') - 2440587.5) * 86400.0"  # 2440587.5: 1970-01-01 as a Julian day


def now(conn: Connection) -> float:
    """Seconds since 1970 by the database's clock, so that all who share it agree on leases."""
    if conn.dialect.name == "sqlite":
        return float(conn.exec_driver_sql(_SQLITE_NOW).scalar_one())
    return float(conn.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
