"""Decides whether consent covers a request, and records what was refused; makes no pictures, knows no network.

Each face that takes part, source or target, needs one ground on which every rule of `rules.py` holds: a grant
whose template it matches, or evidence that it is nobody's. Facts are gathered and judged in one write
transaction, so a revocation lies wholly before a decision or wholly after it.

    check(request, home)              decide, record a refusal, raise ConsentError
    accept(request, home)             the same, and go on writing in the decision's own transaction
    recheck(decision, home)           the same request again, at the start of the work
    accept(decision.request, home)    ... and at its release, together with what is recorded of the output
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy.engine import Connection

from provenance import rules
from provenance.claim import grant_reference
from provenance.declarations import is_declared
from provenance.errors import ConsentError, InputError, SignatureError, StoreError
from provenance.grants import StoredGrant, find_grant, open_grant
from provenance.home import Home
from provenance.ledger import Receipt
from provenance.records import ConsentRequest, FaceClaim, FolderEvidence, Grant, ManifestEvidence, Role
from provenance.rules import EvidenceFacts, GrantFacts, RequestFacts, failures
from provenance.sealing import derive_key, reference
from provenance.subjects import Template, find_subject, find_template, is_embedding

NOBODIES_FIELD = "all_faces_synthetic"  # of an `output_recorded` entry: True if every face was nobody's

Ground = Literal["grant", "manifest", "folder", "none"]


@dataclass(frozen=True)
class FaceDecision:
    """What was decided about one face. `cosine` and `threshold` are None where no grant was compared."""

    index: int
    role: Role
    ground: Ground
    failed: tuple[str, ...]
    grant_id: str | None = None
    subject_id: str | None = None
    cosine: float | None = None
    threshold: float | None = None

    @property
    def allowed(self) -> bool:
        """Whether every rule held."""
        return not self.failed


@dataclass(frozen=True)
class Decision:
    """What was decided, by which rules, when; `record` is what the ledger may know of it: no personal data."""

    request: ConsentRequest = field(repr=False)
    failed_request: tuple[str, ...]
    faces: tuple[FaceDecision, ...]
    rules_sha256: str
    decided_at: str
    record: dict[str, Any] = field(repr=False)

    @property
    def allowed(self) -> bool:
        """Whether every rule held for the request and for each of its faces."""
        return not self.failed_request and bool(self.faces) and all(face.allowed for face in self.faces)

    @property
    def failed_rules(self) -> tuple[str, ...]:
        """Every failed rule once, those of the request first."""
        of_faces = (rule for face in self.faces for rule in face.failed)
        return tuple(dict.fromkeys((*self.failed_request, *of_faces)))

    @property
    def all_synthetic(self) -> bool:
        """Whether every face is nobody's: then the output is, too."""
        return self.allowed and all(face.ground in ("manifest", "folder") for face in self.faces)

    @property
    def grant_ids(self) -> tuple[str, ...]:
        """The grants that the decision rests on, each once."""
        return tuple(dict.fromkeys(face.grant_id for face in self.faces if face.grant_id is not None))


@dataclass(frozen=True)
class _Held:
    """What is stored about a grant. The values given here are those that fail."""

    stored: StoredGrant | None
    grant: Grant | None = None
    recorded: bool = False
    erased: bool = True
    template: Template | None = None


def decide(request: ConsentRequest, home: Home, conn: Connection) -> Decision:
    """Judge a request inside a transaction; records nothing and raises nothing for a refusal."""
    now = home.ledger.clock()
    size = home.ledger.tree_head(conn).size
    last_entry = datetime.fromisoformat(home.ledger.entry(size - 1, conn).time)
    failed = failures(rules.REQUEST_RULES, RequestFacts(request, now, last_entry))
    offered = {each for claim in request.faces for each in _offered(claim, request)}
    held = {each: _hold(each, home, conn) for each in offered}
    faces = tuple(
        _decide_face(i, claim, request, now, held, home, conn) for i, claim in enumerate(request.faces)
    )
    rules_sha256 = rules.ruleset_sha256()
    record = _record(request, failed, faces, rules_sha256, home)
    stamp = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Decision(request, failed, faces, rules_sha256, stamp, record)


@contextmanager
def accept(request: ConsentRequest, home: Home) -> Iterator[tuple[Decision, Connection]]:
    """Decide, and hand over the open transaction to write what follows from it: all of it commits, or nothing.

    ConsentError where consent does not cover the request; the refusal is in the ledger then, the block not run.
    """
    with home.database.write() as conn:
        decision = decide(request, home, conn)
        if decision.allowed:
            yield decision, conn
            return
        receipt = home.ledger.append({"kind": "decision_denied", **decision.record}, conn)
    raise _refusal(decision, receipt)


def check(request: ConsentRequest, home: Home) -> Decision:
    """The decision, if every rule holds; ConsentError with every failed rule, after recording the refusal."""
    with accept(request, home) as (decision, _):
        return decision


def recheck(decision: Decision, home: Home) -> Decision:
    """Judge the same request now: a grant may have been revoked, have ended, or lost its template since."""
    return check(decision.request, home)


def references(decision: Decision, asset_id: str, home: Home) -> tuple[str, ...]:
    """The decision's grants as named inside the picture `asset_id`; unlike in any two pictures."""
    return references_of(decision.grant_ids, asset_id, home)


def references_of(grant_ids: Iterable[str], asset_id: str, home: Home) -> tuple[str, ...]:
    """Grants as they would be named inside the picture `asset_id`, in order."""
    key = derive_key(home.keys.template_key, "grant reference")
    return tuple(grant_reference(each, asset_id, key) for each in grant_ids)


def evidence_labels(decision: Decision) -> tuple[str, ...]:
    """Why faces needed no grant, as a picture's manifest may say it."""
    labels = {"manifest": "manifest:declares full synthesis", "folder": "folder:declared synthetic"}
    return tuple(dict.fromkeys(labels[face.ground] for face in decision.faces if face.ground in labels))


def _decide_face(
    index: int,
    claim: FaceClaim,
    request: ConsentRequest,
    now: datetime,
    held: Mapping[str, _Held],
    home: Home,
    conn: Connection,
) -> FaceDecision:
    if claim.synthetic_evidence is not None:
        return _decide_by_evidence(index, claim, claim.synthetic_evidence, home, conn)
    tried = [
        _decide_by_grant(index, claim, _facts(held[each], claim, request, now, home.deployment))
        for each in _offered(claim, request)
    ]
    if not tried:
        return FaceDecision(index, claim.role, "none", (rules.FACE_ACCOUNTED,))
    return min(tried, key=lambda face: (len(face.failed), -(face.cosine or 0.0)))


def _offered(claim: FaceClaim, request: ConsentRequest) -> tuple[str, ...]:
    """The grants that may cover a face: its own, or those offered with the request, never all there are."""
    if claim.synthetic_evidence is not None:
        return ()
    return (claim.grant_id,) if claim.grant_id is not None else tuple(dict.fromkeys(request.offered_grants))


def _facts(
    held: _Held, claim: FaceClaim, request: ConsentRequest, now: datetime, deployment: str
) -> GrantFacts:
    stored = held.stored
    return GrantFacts(
        request=request,
        claim=claim,
        now=now,
        deployment=deployment,
        known=stored is not None,
        grant=held.grant,
        stored_as=(stored.id, stored.subject_id) if stored else ("", ""),
        recorded=held.recorded,
        revoked=stored is None or stored.revoked_at is not None,
        erased=held.erased,
        template=held.template,
    )


def _decide_by_grant(index: int, claim: FaceClaim, facts: GrantFacts) -> FaceDecision:
    failed = failures(rules.IDENTITY_RULES, facts) or failures(rules.GRANT_RULES, facts)
    comparable = facts.template is not None and is_embedding(claim.embedding)
    grant_id, subject_id = facts.stored_as
    return FaceDecision(
        index,
        claim.role,
        "grant",
        failed,
        grant_id=grant_id or None,
        subject_id=subject_id or None,
        cosine=facts.cosine if comparable else None,
        threshold=facts.grant.threshold if facts.grant else None,
    )


def _decide_by_evidence(
    index: int,
    claim: FaceClaim,
    evidence: ManifestEvidence | FolderEvidence,
    home: Home,
    conn: Connection,
) -> FaceDecision:
    if isinstance(evidence, ManifestEvidence):
        facts = EvidenceFacts(claim, False, _is_made_of_nobodies(home, evidence, conn))
        return FaceDecision(index, claim.role, "manifest", failures(rules.MANIFEST_RULES, facts))
    declared = is_declared(home, evidence.declaration_id, evidence.content_sha256, conn)
    facts = EvidenceFacts(claim, declared, False)
    return FaceDecision(index, claim.role, "folder", failures(rules.FOLDER_RULES, facts))


def _hold(grant_id: str, home: Home, conn: Connection) -> _Held:
    """Gather what is stored about a grant; what is missing, altered or unreadable stays None, hence fails."""
    with suppress(InputError):
        stored = find_grant(home, grant_id, conn)
        found = home.ledger.entries(stored.issued_index, 1, conn)
        recorded = [("grant_issued", stored.jws_sha256)]
        held = _Held(stored, recorded=[(e.kind, e.body.get("grant_sha256")) for e in found] == recorded)
        with suppress(SignatureError):
            held = replace(held, grant=open_grant(stored.jws, home.keys))
        with suppress(InputError, StoreError):
            held = replace(held, erased=find_subject(home, stored.subject_id, conn).erased)
            if held.grant is not None:
                template = find_template(home, held.grant.sub, held.grant.embedder_sha256, conn)
                held = replace(held, template=template)
        return held
    return _Held(None)


def _is_made_of_nobodies(home: Home, evidence: ManifestEvidence, conn: Connection) -> bool:
    """Whether our ledger recorded exactly this file as an output made solely of nobodies."""
    found = home.ledger.find_by_content_hash(evidence.content_sha256, conn)
    outputs = [each for each in found if each.kind == "output_recorded"]
    same = [each for each in outputs if each.body.get("asset_id") == evidence.asset_id]
    return bool(same) and all(each.body.get(NOBODIES_FIELD) is True for each in same)


def _record(
    request: ConsentRequest,
    failed: tuple[str, ...],
    faces: tuple[FaceDecision, ...],
    rules_sha256: str,
    home: Home,
) -> dict[str, Any]:
    """For the ledger: rules, closed vocabularies, keyed references. No name, number of a face or free text."""
    return {
        "rules_version": rules.RULES_VERSION,
        "rules_sha256": rules_sha256,
        "use": request.use,
        "media": request.media,
        "failed": list(failed),
        "faces": [_face_record(face, home) for face in faces],
    }


def _face_record(face: FaceDecision, home: Home) -> dict[str, Any]:
    record: dict[str, Any] = {"role": face.role, "ground": face.ground, "failed": list(face.failed)}
    if face.grant_id is not None:
        record["grant_ref"] = reference(face.grant_id, home.keys.template_key)
    return record


def _refusal(decision: Decision, receipt: Receipt) -> ConsentError:
    says = rules.statements()
    failed = decision.failed_rules or (rules.FACE_ACCOUNTED,)
    reasons = "; ".join(f"{rule}: {says[rule]}" for rule in failed)
    return ConsentError(
        "consent.denied",
        f"Consent does not cover this (ledger entry {receipt.index}). These rules do not hold: {reasons}",
        "Obtain a grant that covers each face and this use, or use faces of people who do not exist.",
        failed,
    )
