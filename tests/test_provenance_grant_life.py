"""A grant's life as a state machine: whatever is done in whatever order, consent is what a plain model says."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from provenance.consent import accept, check
from provenance.errors import ConsentError, InputError
from provenance.fsck import verify
from provenance.grants import issue, revoke
from provenance.home import Home
from provenance.ledger import Ledger
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

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EMBEDDER = Embedder(sha256="e1" * 32, threshold=0.35)
BOTH = ("source", "target")
ROLES: tuple[tuple[str, ...], ...] = (BOTH, BOTH, ("source",), ("target",))
MEMORY = Path("/dev/shm")  # spares the disk thousands of durable commits
USES = ("internal", "publish", "dataset")


def face(number: int) -> np.ndarray[Any, Any]:
    vector = np.zeros(512, np.float32)
    vector[number] = 1.0
    return vector


@dataclasses.dataclass
class Granted:
    """The model of a grant: what a clerk with a paper file would know."""

    id: str
    person: int
    begins: datetime
    ends: datetime
    roles: tuple[str, ...]
    uses: tuple[str, ...]
    revoked: bool = False


class GrantLife(RuleBasedStateMachine):
    """Issue, revoke, erase, wait and ask in any order."""

    template: Path
    answers: ClassVar[Counter[str]] = Counter()
    grants = Bundle("grants")

    @initialize()
    def open_home(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        opened = Home.open(Path(shutil.copytree(self.template, self.folder / "home")))
        self.now = START
        ledger = Ledger(opened.database, opened.ledger.signer, lambda: self.now)
        self.home = dataclasses.replace(opened, ledger=ledger)
        self.subjects: list[str] = []
        self.erased: set[int] = set()
        self.refusals = 0
        for number in range(2):
            profile = Profile.make(
                name=f"Person {number}",
                adult_verified=AdultVerified(method="eid", date=date(2026, 1, 1)),
                public_figure=PublicFigure(is_public_figure=False, evidence=None),
            )
            self.subjects.append(enrol(self.home, profile, [face(number)], EMBEDDER).subject_id)

    def teardown(self) -> None:
        if hasattr(self, "home"):
            report = verify(self.home)
            assert report.ok, report.problems
            self.home.close()
            shutil.rmtree(self.folder)

    @rule(
        target=grants,
        person=st.integers(0, 1),
        begins=st.sampled_from((-5, -1, 0, 3)),
        lasts=st.integers(1, 40),
        roles=st.sampled_from(ROLES),
        uses=st.sampled_from((("internal",), ("internal", "publish"), ("internal", "dataset"))),
    )
    def issue_grant(
        self, person: int, begins: int, lasts: int, roles: tuple[str, ...], uses: tuple[str, ...]
    ) -> Granted | None:
        begin, end = (self.now + timedelta(hours=each) for each in (begins, begins + lasts))
        terms = GrantTerms.make(
            subject_id=self.subjects[person],
            grantee="Example Lab",
            purposes=("demo",),
            scope_roles=roles,
            scope_media=("still",),
            uses=uses,
            not_before=begin,
            expires=end,
            jurisdictions=("WORLD",),
            embedder=EMBEDDER,
            consent_text_sha256="c0" * 32,
            consent_text_language="en",
            evidence="form",
        )
        if person in self.erased or end <= self.now:
            with pytest.raises(InputError):
                issue(self.home, terms)
            return None
        return Granted(issue(self.home, terms).id, person, begin, end, roles, uses)

    @rule(grant=grants)
    def revoke_grant(self, grant: Granted | None) -> None:
        if grant is None:
            return
        if grant.revoked:
            with pytest.raises(InputError, match=r"grant\.revoked"):
                revoke(self.home, grant.id, "again")
        else:
            revoke(self.home, grant.id, "changed my mind")
            grant.revoked = True

    @precondition(lambda self: self.home.ledger.tree_head().size > 12)
    @rule(person=st.integers(0, 1))
    def erase_person(self, person: int) -> None:
        if person in self.erased:
            with pytest.raises(InputError, match=r"subject\.erased"):
                erase(self.home, self.subjects[person])
        else:
            erase(self.home, self.subjects[person])
            self.erased.add(person)

    @rule(hours=st.sampled_from((1, 5, 25)))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(
        giver=grants,
        taker=grants,
        strangers=st.sampled_from(((0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1))),
        use=st.sampled_from(USES),
    )
    def ask(self, giver: Granted | None, taker: Granted | None, strangers: tuple[int, int], use: str) -> None:
        self._ask(giver, taker, strangers, use)

    def _ask(
        self, giver: Granted | None, taker: Granted | None, strangers: tuple[int, int], use: str
    ) -> None:
        if giver is None or taker is None:
            return
        shown = ((each.person + other) % 3 for each, other in zip((giver, taker), strangers, strict=True))
        pairs = (("source", giver, next(shown)), ("target", taker, next(shown)))
        claims = tuple(
            FaceClaim.make(role=role, embedding=face(shown), grant_id=grant.id, synthetic_evidence=None)
            for role, grant, shown in pairs
        )
        request = ConsentRequest.make(
            purpose="demo",
            use=use,
            media="still",
            grantee="Example Lab",
            jurisdiction="DE",
            embedder_sha256=EMBEDDER.sha256,
            num_source_faces=1,
            num_target_faces=1,
            offered_grants=(),
            faces=claims,
        )
        size = self.home.ledger.tree_head().size
        covered = all(self._covers(grant, role, shown, use) for role, grant, shown in pairs)
        if covered:
            self.answers["accepted"] += 1
            with accept(request, self.home) as (decision, conn):
                self.home.ledger.append({"kind": "job_accepted", **decision.record}, conn)
        else:
            with pytest.raises(ConsentError) as caught:
                check(request, self.home)
            self.answers.update(caught.value.rules)
            self.refusals += 1
        assert self.home.ledger.tree_head().size == size + 1

    @rule(giver=grants, taker=grants)
    def ask_rightly(self, giver: Granted | None, taker: Granted | None) -> None:
        self._ask(giver, taker, (0, 0), "internal")

    def _covers(self, grant: Granted, role: str, shown: int, use: str) -> bool:
        return (
            grant.person == shown
            and shown not in self.erased
            and not grant.revoked
            and grant.begins <= self.now < grant.ends
            and role in grant.roles
            and use in grant.uses
        )

    @invariant()
    def every_refusal_is_recorded(self) -> None:
        if hasattr(self, "home"):
            kinds = [entry.kind for entry in self.home.ledger.entries()]
            assert kinds.count("decision_denied") == self.refusals


def test_a_grants_life(tmp_path: Path) -> None:
    GrantLife.template = tmp_path / "home"
    Home.create(GrantLife.template, "Example Lab").close()
    case = GrantLife.TestCase
    case.settings = settings(
        max_examples=12,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()
    lived = {"accepted", "grant.revoked", "grant.expired", "grant.not_before", "template.erased"}
    assert lived | {"grant.use", "grant.scope_role", "face.match"} <= set(GrantLife.answers)
