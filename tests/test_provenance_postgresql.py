"""The same ledger, home and consent on PostgreSQL; skipped, and said so, where no server can be started."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from provenance.consent import check
from provenance.database import APPEND_ONLY, Database, ledger_entries, subjects
from provenance.errors import ConsentError, LedgerError, StoreError
from provenance.fsck import verify
from provenance.grants import issue, revoke
from provenance.home import Home
from provenance.records import (
    AdultVerified,
    ConsentRequest,
    Embedder,
    FaceClaim,
    GrantTerms,
    Profile,
    PublicFigure,
)
from provenance.subjects import enrol, erase

EMBEDDER = Embedder(sha256="e1" * 32, threshold=0.35)


@pytest.fixture
def home(postgresql_url: str, tmp_path: Path) -> Iterator[Home]:
    database = Database(postgresql_url)
    with database.write() as conn:
        conn.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    database.close()
    with Home.create(tmp_path / "home", "Example Lab", database_url=postgresql_url) as made:
        yield made


def face(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    vector = np.zeros(512, np.float32)
    vector[number] = 1.0
    return vector


def test_consent_from_enrolment_to_erasure(home: Home) -> None:
    now = datetime.now(UTC)
    profile = Profile.make(
        name="Ada Quillfeather",
        adult_verified=AdultVerified(method="eid", date=date(2026, 1, 1)),
        public_figure=PublicFigure(is_public_figure=False, evidence=None),
    )
    people = [enrol(home, profile, [face(number)], EMBEDDER).subject_id for number in (0, 1)]
    granted = [
        issue(
            home,
            GrantTerms.make(
                subject_id=person,
                grantee="Example Lab",
                purposes=("demo",),
                scope_roles=("source", "target"),
                scope_media=("still",),
                uses=("internal",),
                not_before=now - timedelta(hours=1),
                expires=now + timedelta(hours=1),
                jurisdictions=("WORLD",),
                embedder=EMBEDDER,
                consent_text_sha256="c0" * 32,
                consent_text_language="en",
                evidence="form",
            ),
        )
        for person in people
    ]
    roles = ("source", "target")
    claims = tuple(
        FaceClaim.make(role=role, embedding=face(i), grant_id=granted[i].id, synthetic_evidence=None)
        for i, role in enumerate(roles)
    )
    request = ConsentRequest.make(
        purpose="demo",
        use="internal",
        media="still",
        grantee="Example Lab",
        jurisdiction="DE",
        embedder_sha256=EMBEDDER.sha256,
        num_source_faces=1,
        num_target_faces=1,
        offered_grants=(),
        faces=claims,
    )
    assert check(request, home).allowed
    revoke(home, granted[1].id, "changed my mind")
    with pytest.raises(ConsentError) as caught:
        check(request, home)
    assert caught.value.rules == ("grant.revoked",)
    erase(home, people[0])
    with home.database.read() as conn:
        keys = conn.execute(sa.select(subjects.c.wrapped_key).where(subjects.c.id == people[0])).one()
    assert keys == (None,)
    report = verify(home)
    assert report.ok, report.problems
    assert [entry.kind for entry in home.ledger.entries()][-3:] == [
        "grant_revoked",
        "decision_denied",
        "template_erased",
    ]


def test_several_writers_append_at_once(home: Home, postgresql_url: str) -> None:
    def append(name: str) -> None:
        with Home.open(home.path, postgresql_url) as mine:
            for number in range(25):
                mine.ledger.append({"kind": "check", "by": name, "n": number})

    threads = [threading.Thread(target=append, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    report = verify(home)
    assert report.ok, report.problems
    assert report.size == 76
    proof = home.ledger.inclusion_proof(40)
    proof.verify_inclusion(home.ledger.entry(40).leaf_sha256, report.root)
    home.ledger.consistency_proof(13).verify_consistency(root_at(home, 13), report.root)


def root_at(home: Home, size: int) -> str:
    from provenance import merkle

    leaves = [bytes.fromhex(entry.leaf_sha256) for entry in home.ledger.entries(limit=size)]
    return merkle.build_frontier(leaves).root.hex()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger_entries",
        "UPDATE ledger_entries SET asset_id = NULL",
        "TRUNCATE ledger_entries",
        "INSERT INTO ledger_entries (leaf_index, entry, leaf_hash, kind) VALUES (9, '', '', 'check')",
        "UPDATE ledger_head SET size = 0",
        "DELETE FROM revocations; TRUNCATE revocations",
    ],
)
def test_the_server_refuses_to_change_a_record(home: Home, statement: str) -> None:
    with pytest.raises(LedgerError, match="append_only"), home.database.write() as conn:
        conn.exec_driver_sql(statement)
    assert verify(home).ok


def test_tampering_is_found(home: Home) -> None:
    for number in range(5):
        home.ledger.append({"kind": "check", "n": number})
    with home.database.write() as conn:
        conn.exec_driver_sql("ALTER TABLE ledger_entries DISABLE TRIGGER ALL")
        conn.execute(sa.update(ledger_entries).where(ledger_entries.c.leaf_index == 2).values(entry=b"{}"))
    found = {(problem.code, problem.index) for problem in verify(home).problems}
    assert {("ledger.entry", 2), ("ledger.root", None), ("ledger.guard", None)} <= found


def test_the_server_database_is_never_overwritten(home: Home, postgresql_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"store\.in_use"):
        Home.create(tmp_path / "second", "Example Lab", database_url=postgresql_url)
    assert verify(home).ok


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"store\.unreachable") as caught,
        Database(f"postgresql://facsimile@/postgres?host={tmp_path}").read(),
    ):
        pass
    assert "FACSIMILE_DATABASE" in caught.value.next_step


def test_every_append_only_table_is_guarded(home: Home) -> None:
    with home.database.read() as conn:
        names = set(conn.scalars(sa.text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")))
    for table in APPEND_ONLY:
        assert {f"{table.name}_no_{what}" for what in ("delete", "truncate", "update")} <= names
