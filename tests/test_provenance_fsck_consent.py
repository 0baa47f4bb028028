"""Tampering with subjects, grants, revocations and declarations is found against what the ledger recorded."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provenance.declarations import declare_synthetic
from provenance.errors import FacsimileError
from provenance.fsck import verify
from provenance.grants import issue, revoke
from provenance.home import Home
from provenance.records import AdultVerified, Embedder, GrantTerms, Profile, PublicFigure
from provenance.subjects import enrol, erase

EMBEDDER = Embedder(sha256="e1" * 32, threshold=0.35)
TABLES = (
    "ledger_entries",
    "ledger_nodes",
    "ledger_head",
    "subjects",
    "templates",
    "grants",
    "revocations",
    "declarations",
    "declared_files",
)


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people, of whom one was erased, three grants, of which one was revoked, and a declared folder."""
    path = tmp_path_factory.mktemp("made") / "home"
    now = datetime.now(UTC)
    with Home.create(path, "Example Lab") as home:
        people = []
        for number in range(3):
            profile = Profile.make(
                name=f"Person {number}",
                adult_verified=AdultVerified(method="eid", date=date(2026, 1, 1)),
                public_figure=PublicFigure(is_public_figure=False, evidence=None),
            )
            vector = np.zeros(512, np.float32)
            vector[number] = 1.0
            people.append(enrol(home, profile, [vector], EMBEDDER).subject_id)
        granted = [issue(home, terms_of(person, now)) for person in people]
        revoke(home, granted[1].id, "changed my mind")
        erase(home, people[2])
        declare_synthetic(home, [f"{number:064x}" for number in range(4)], "our portrait model")
        home.database.scrub()
    return path


def terms_of(person: str, now: datetime) -> GrantTerms:
    return GrantTerms.make(
        subject_id=person,
        grantee="Example Lab",
        purposes=("demo",),
        scope_roles=("source",),
        scope_media=("still",),
        uses=("internal",),
        not_before=now - timedelta(hours=1),
        expires=now + timedelta(hours=1),
        jurisdictions=("WORLD",),
        embedder=EMBEDDER,
        consent_text_sha256="c0" * 32,
        consent_text_language="en",
        evidence="form",
    )


@pytest.fixture
def path(made_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_home, tmp_path / "home"))


def tamper(path: Path, statement: str) -> None:
    conn = sqlite3.connect(path / "ledger.db")
    conn.execute("PRAGMA synchronous = OFF")
    triggers = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        conn.execute(f"DROP TRIGGER {name}")
    conn.execute(statement)
    for _, sql in triggers:
        conn.execute(sql)
    conn.commit()
    conn.close()


def found(path: Path) -> set[tuple[str, int | None]]:
    with Home.open(path) as home:
        return {(problem.code, problem.index) for problem in verify(home).problems}


def test_an_untouched_home_re_derives(path: Path) -> None:
    assert found(path) == set()


# Entries: 0 init, 1-3 enrolled, 4-6 issued, 7 revoked, 8 erased, 9 declared.
TAMPERING = {
    "a revocation taken back": ("DELETE FROM revocations", {("ledger.revocation", 7)}),
    "a revocation moved": (
        "UPDATE revocations SET leaf_index = 6",
        {("ledger.revocation", 6), ("ledger.revocation", 7)},
    ),
    "a revocation of another": (
        "UPDATE revocations SET grant_id = (SELECT id FROM grants WHERE issued_index = 4)",
        {("ledger.revocation", 7)},
    ),
    "a grant of another": (
        "UPDATE grants SET subject_id = (SELECT id FROM subjects WHERE enrolled_index = 1) WHERE issued_index = 5",
        {("ledger.grant", 5)},
    ),
    "people exchanged": (
        "UPDATE subjects SET enrolled_index = 4 - enrolled_index WHERE enrolled_index IN (1, 3)",
        {("ledger.subject", 1), ("ledger.subject", 3)},
    ),
    "a grant altered": ("UPDATE grants SET jws = jws || 'A' WHERE issued_index = 5", {("ledger.grant", 5)}),
    "a grant dropped": ("DELETE FROM grants WHERE issued_index = 5", {("ledger.grant", 5)}),
    "a grant smuggled in": (
        "INSERT INTO grants SELECT 'grant-x', subject_id, jws, 99, NULL FROM grants WHERE issued_index = 5",
        {("ledger.grant", 99)},
    ),
    "a grant given another's place": (
        "UPDATE grants SET jws = (SELECT jws FROM grants WHERE issued_index = 4) WHERE issued_index = 5",
        {("ledger.grant", 5)},
    ),
    "a subject dropped": ("DELETE FROM subjects WHERE enrolled_index = 1", {("ledger.subject", 1)}),
    "a subject smuggled in": (
        "INSERT INTO subjects SELECT 'subject-x', wrapped_key, profile, 99, NULL FROM subjects LIMIT 1",
        {("ledger.subject", 99)},
    ),
    "an erasure taken back": (
        "UPDATE subjects SET erased_index = NULL, wrapped_key = x'00' WHERE enrolled_index = 3",
        {("ledger.erasure", 8)},
    ),
    "a key put back": (
        "UPDATE subjects SET wrapped_key = x'00' WHERE enrolled_index = 3",
        {("ledger.erasure", 8)},
    ),
    "a template put back": (
        "INSERT INTO templates SELECT 'template-x', id, 'e1', x'00' FROM subjects WHERE enrolled_index = 3",
        {("ledger.erasure", 8)},
    ),
    "an erasure without an entry": (
        "UPDATE subjects SET erased_index = 99 WHERE enrolled_index = 1",
        {("ledger.erasure", 99)},
    ),
    "a file declared later": (
        f"INSERT INTO declared_files SELECT '{'f' * 64}', id FROM declarations",
        {("ledger.declaration", 9)},
    ),
    "a file no longer declared": (
        f"DELETE FROM declared_files WHERE content_sha256 = '{0:064x}'",
        {("ledger.declaration", 9)},
    ),
    "a declaration renamed": ("UPDATE declarations SET id = 'declaration-x'", {("ledger.declaration", 9)}),
    "a file that is no hash": (
        "INSERT INTO declared_files SELECT 'zz', id FROM declarations",
        {("ledger.declaration", 9)},
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_with_consent(path: Path, name: str) -> None:
    statement, expected = TAMPERING[name]
    tamper(path, statement)
    assert expected <= found(path)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_value_of_any_cell_makes_fsck_fail(made_home: Path, data: st.DataObject) -> None:
    """One cell anywhere gets an arbitrary value: fsck reports, or says clearly why it cannot; it never breaks."""
    path = made_home.with_name("copy")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(made_home, path)
    conn = sqlite3.connect(path / "ledger.db")
    table = data.draw(st.sampled_from(TABLES))
    columns = [row[1] for row in conn.execute(f"PRAGMA table_info({table})")]
    column = data.draw(st.sampled_from(columns))
    conn.close()
    literal = data.draw(
        st.sampled_from(["x'00ff'", "''", "'text'", "7", "-1", "1.5", "9e99", "char(0)", "NULL"])
    )
    try:
        tamper(path, f"UPDATE {table} SET {column} = {literal}")
    except sqlite3.IntegrityError:
        return  # the database itself refused
    try:
        codes = found(path)
    except FacsimileError:
        return  # stated, not broken
    assert codes or (table, column) in UNSEEN, (table, column, literal)


# No entry commits to these cells: altered keys, profiles and templates fail to decrypt when they are used.
UNSEEN = {
    ("subjects", "wrapped_key"),
    ("subjects", "profile"),
    ("templates", "id"),
    ("templates", "subject_id"),
    ("templates", "embedder_sha256"),
    ("templates", "sealed"),
    ("grants", "revocation_reason"),
    ("revocations", "revoked_at"),
}
