"""Consent: every rule, every attack on a grant, what is recorded, what erasure leaves."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import OKPKey

from provenance import consent, rules
from provenance.claim import SAMPLE_SOURCE_TYPE, SWAP_SOURCE_TYPE
from provenance.consent import NOBODIES_FIELD, accept, check, recheck, references
from provenance.database import grants, subjects
from provenance.declarations import declare_synthetic, find_declaration
from provenance.errors import ConsentError, InputError, SignatureError
from provenance.fsck import verify
from provenance.grants import StoredGrant, issue, list_grants, open_grant, revoke, sign_grant
from provenance.home import Home
from provenance.ledger import Ledger
from provenance.records import (
    AdultVerified,
    ConsentRequest,
    Embedder,
    FaceClaim,
    FolderEvidence,
    Grant,
    GrantTerms,
    ManifestEvidence,
    Profile,
    PublicFigure,
)
from provenance.subjects import enrol, erase, find_subject, list_subjects

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EMBEDDER = Embedder(sha256="e1" * 32, threshold=0.35)
NAME = "Ada Quillfeather"
FILE = "f0" * 32


def face(seed: int) -> np.ndarray[Any, Any]:
    vector = np.random.default_rng(seed).normal(size=512)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def near(embedding: np.ndarray[Any, Any], seed: int, noise: float = 0.6) -> np.ndarray[Any, Any]:
    """Another picture of the same face: cosine about 1 / sqrt(1 + noise^2)."""
    mixed = embedding + noise * face(seed)
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


@dataclasses.dataclass
class Desk:
    """A home with an adjustable clock and two people, each with a grant for what the request asks."""

    home: Home
    now: datetime = NOON
    people: tuple[str, ...] = ()
    granted: tuple[StoredGrant, ...] = ()

    def profile(self, **changes: Any) -> Profile:
        fields: dict[str, Any] = {
            "name": NAME,
            "adult_verified": AdultVerified(method="passport", date=date(2026, 1, 5)),
            "public_figure": PublicFigure(is_public_figure=False, evidence=None),
        }
        return Profile.make(**(fields | changes))

    def terms(self, of: str, **changes: Any) -> GrantTerms:
        fields: dict[str, Any] = {
            "subject_id": of,
            "grantee": "Example Lab",
            "purposes": ("demo", "film-42"),
            "scope_roles": ("source", "target"),
            "scope_media": ("still",),
            "uses": ("internal",),
            "not_before": NOON - timedelta(days=1),
            "expires": NOON + timedelta(days=30),
            "jurisdictions": ("EU",),
            "embedder": EMBEDDER,
            "consent_text_sha256": "c0" * 32,
            "consent_text_language": "en",
            "evidence": "paper form 17",
        }
        return GrantTerms.make(**(fields | changes))

    def claim(self, number: int, role: str, **changes: Any) -> FaceClaim:
        fields: dict[str, Any] = {
            "role": role,
            "embedding": near(face(number), 100 + number),
            "grant_id": self.granted[number].id,
            "synthetic_evidence": None,
        }
        return FaceClaim.make(**(fields | changes))

    def request(self, *faces: FaceClaim, **changes: Any) -> ConsentRequest:
        given = faces or (self.claim(0, "source"), self.claim(1, "target"))
        fields: dict[str, Any] = {
            "purpose": "demo",
            "use": "internal",
            "media": "still",
            "grantee": "Example Lab",
            "jurisdiction": "DE",
            "embedder_sha256": EMBEDDER.sha256,
            "num_source_faces": sum(each.role == "source" for each in given),
            "num_target_faces": sum(each.role == "target" for each in given),
            "offered_grants": (),
            "faces": given,
        }
        return ConsentRequest.make(**(fields | changes))

    def regrant(self, number: int, **changes: Any) -> FaceClaim:
        """A claim of person `number` as source under a new grant with these terms."""
        grant = issue(self.home, self.terms(self.people[number], **changes))
        return self.claim(number, "source", grant_id=grant.id)

    def refused(self, request: ConsentRequest) -> tuple[str, ...]:
        size = self.home.ledger.tree_head().size
        with pytest.raises(ConsentError) as caught:
            check(request, self.home)
        last = self.home.ledger.entry(size)
        assert last.kind == "decision_denied"
        recorded = [*last.body["failed"], *(rule for each in last.body["faces"] for rule in each["failed"])]
        assert set(recorded) == set(caught.value.rules)
        assert all(rule in caught.value.cause for rule in caught.value.rules)
        return caught.value.rules


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Home.create(tmp_path_factory.mktemp("consent") / "home", "Example Lab") as made:
        yield made


@pytest.fixture
def desk(home: Home) -> Desk:
    made = Desk(home)
    made.home = dataclasses.replace(home, ledger=Ledger(home.database, home.ledger.signer, lambda: made.now))
    people = []
    for number in (0, 1):
        pictures = [near(face(number), 10 * number + each) for each in range(3)]
        people.append(enrol(made.home, made.profile(), pictures, EMBEDDER).subject_id)
    made.people = tuple(people)
    made.granted = tuple(issue(made.home, made.terms(each)) for each in people)
    return made


def tampered(desk: Desk, change: Callable[[dict[str, Any]], None]) -> FaceClaim:
    """A claim under a grant that our own key signed and nobody issued: its text put in place of a real one."""
    grant = issue(desk.home, desk.terms(desk.people[0]))
    fields = json.loads(open_grant(grant.jws, desk.home.keys).model_dump_json())
    change(fields)
    put_in_place(desk, grant.id, sign_payload(desk, fields))
    return desk.claim(0, "source", grant_id=grant.id)


def sign_payload(desk: Desk, fields: dict[str, Any], **header: Any) -> str:
    key = OKPKey.import_key(desk.home.keys.grant_key)
    full = {"alg": "Ed25519", "typ": "consent-grant+jwt", "kid": key.thumbprint()} | header
    return jws.serialize_compact(full, rfc8785.dumps(fields), key, algorithms=["Ed25519"])


def put_in_place(desk: Desk, grant_id: str, text: str) -> None:
    """What someone with the database file can do; the trigger is put back."""
    with desk.home.database.write() as conn:
        name = "grants_no_update"
        sql = conn.scalar(sa.text(f"SELECT sql FROM sqlite_master WHERE name = '{name}'"))
        conn.execute(sa.text(f"DROP TRIGGER {name}"))
        conn.execute(sa.update(grants).where(grants.c.id == grant_id).values(jws=text))
        conn.exec_driver_sql(str(sql))


# --- what is allowed -------------------------------------------------------------------------------------------


def test_two_people_two_grants(desk: Desk) -> None:
    decision = check(desk.request(), desk.home)
    assert decision.allowed
    assert decision.failed_rules == ()
    assert decision.rules_sha256 == rules.ruleset_sha256()
    assert [each.subject_id for each in decision.faces] == list(desk.people)
    assert decision.grant_ids == tuple(each.id for each in desk.granted)
    for each in decision.faces:
        assert each.cosine is not None
        assert each.cosine > 0.6
        assert each.threshold == 0.35
    assert not decision.all_synthetic


def test_offered_grants_are_matched_one_to_one(desk: Desk) -> None:
    claims = (desk.claim(0, "source", grant_id=None), desk.claim(1, "target", grant_id=None))
    offered = tuple(each.id for each in reversed(desk.granted))
    decision = check(desk.request(*claims, offered_grants=offered), desk.home)
    assert [each.grant_id for each in decision.faces] == [each.id for each in desk.granted]
    assert desk.refused(desk.request(*claims)) == ("face.accounted",)
    assert desk.refused(desk.request(*claims, offered_grants=offered[:1])) == ("face.match",)


def test_references_differ_from_picture_to_picture(desk: Desk) -> None:
    decision = check(desk.request(), desk.home)
    one, other = (references(decision, each * 16, desk.home) for each in "ab")
    assert len(set(one + other)) == 4
    assert references(decision, "a" * 16, desk.home) == one


@pytest.mark.parametrize(
    ("granted", "asked", "allowed"),
    [
        (("WORLD",), "WORLD", True),
        (("WORLD",), "CN", True),
        (("EU",), "EU", True),
        (("EU",), "FR", True),
        (("FR",), "EU", False),
        (("EU",), "CH", False),
        (("EU",), "WORLD", False),
        (("DE", "CN"), "CN", True),
    ],
)
def test_jurisdictions(desk: Desk, granted: tuple[str, ...], asked: str, allowed: bool) -> None:
    claims = (desk.regrant(0, jurisdictions=granted), desk.regrant(1, jurisdictions=("WORLD",)))
    pair = (claims[0], claims[1].model_copy(update={"role": "target"}))
    request = desk.request(*pair, jurisdiction=asked)
    if allowed:
        assert check(request, desk.home).allowed
    else:
        assert desk.refused(request) == ("grant.jurisdiction",)


# --- every rule ------------------------------------------------------------------------------------------------

Refusal = Callable[[Desk], ConsentRequest]


def with_source(desk: Desk, claim: FaceClaim) -> ConsentRequest:
    return desk.request(claim, desk.claim(1, "target"))


def clock_set_back(desk: Desk) -> ConsentRequest:
    desk.home.ledger.append({"kind": "check"})
    desk.now = NOON - timedelta(minutes=6)
    return desk.request()


def not_begun(desk: Desk) -> ConsentRequest:
    return with_source(desk, desk.regrant(0, not_before=NOON + timedelta(seconds=1)))


def expired(desk: Desk) -> ConsentRequest:
    claim = desk.regrant(0, expires=NOON + timedelta(seconds=1))
    desk.now = NOON + timedelta(seconds=1)
    return with_source(desk, claim)


def revoked(desk: Desk) -> ConsentRequest:
    claim = desk.regrant(0)
    revoke(desk.home, str(claim.grant_id), "changed my mind")
    return with_source(desk, claim)


def erased(desk: Desk) -> ConsentRequest:
    erase(desk.home, desk.people[0])
    return desk.request()


def not_ours(desk: Desk) -> ConsentRequest:
    grant = issue(desk.home, desk.terms(desk.people[0]))
    keys = dataclasses.replace(desk.home.keys, grant_key=Ed25519PrivateKey.generate())
    put_in_place(desk, grant.id, sign_grant(open_grant(grant.jws, desk.home.keys), keys))
    return with_source(desk, desk.claim(0, "source", grant_id=grant.id))


def evidence(desk: Desk, **changes: Any) -> ConsentRequest:
    fields = {
        "kind": "manifest",
        "content_sha256": FILE,
        "state": "valid",
        "ours": False,
        "source_type": SAMPLE_SOURCE_TYPE,
        "asset_id": None,
    }
    made = ManifestEvidence.make(**(fields | changes))
    return with_source(desk, desk.claim(0, "source", grant_id=None, synthetic_evidence=made))


def folder(desk: Desk, declaration_id: str, content_sha256: str, **changes: Any) -> ConsentRequest:
    made = FolderEvidence.make(kind="folder", content_sha256=content_sha256, declaration_id=declaration_id)
    return with_source(desk, desk.claim(0, "source", grant_id=None, synthetic_evidence=made, **changes))


def another_embedder(desk: Desk) -> ConsentRequest:
    return desk.request(embedder_sha256="e2" * 32)


def smuggle(**changes: Any) -> Refusal:
    return lambda desk: with_source(desk, tampered(desk, lambda fields: fields.update(changes)))


def lost_evidence(desk: Desk) -> ConsentRequest:
    figure = {"is_public_figure": True, "evidence": " "}
    return with_source(desk, tampered(desk, lambda fields: fields.update(public_figure=figure)))


REFUSALS: dict[str, tuple[Refusal, set[str]]] = {
    "clock": (clock_set_back, {"clock.not_set_back"}),
    "no source": (lambda d: d.request(d.claim(1, "target")), {"source.accounted"}),
    "no target": (lambda d: d.request(d.claim(0, "source")), {"target.accounted"}),
    "no faces": (
        lambda d: d.request(faces=(), num_source_faces=0, num_target_faces=0),
        {"source.accounted", "target.accounted"},
    ),
    "a bystander": (lambda d: d.request(num_target_faces=2), {"target.accounted"}),
    "fewer found than claimed": (lambda d: d.request(num_source_faces=0), {"source.accounted"}),
    "no ground": (lambda d: with_source(d, d.claim(0, "source", grant_id=None)), {"face.accounted"}),
    "unknown": (
        lambda d: with_source(d, d.claim(0, "source", grant_id="grant-0")),
        {"grant.known", "grant.signature"},
    ),
    "not ours": (not_ours, {"grant.signature"}),
    "not issued": (smuggle(exp=2**31), {"grant.recorded"}),
    "of another": (smuggle(jti="grant-0"), {"grant.recorded", "grant.identity"}),
    "another audience": (smuggle(aud="urn:other"), {"grant.recorded", "grant.audience"}),
    "another issuer": (smuggle(iss="urn:other"), {"grant.recorded", "grant.audience"}),
    "grantee": (lambda d: d.request(grantee="Other Lab"), {"grant.grantee"}),
    "not begun": (not_begun, {"grant.not_before"}),
    "expired": (expired, {"grant.expired"}),
    "revoked": (revoked, {"grant.revoked"}),
    "purpose": (lambda d: d.request(purpose="advertising"), {"grant.purpose"}),
    "use": (lambda d: d.request(use="publish"), {"grant.use"}),
    "role": (lambda d: with_source(d, d.regrant(0, scope_roles=("target",))), {"grant.scope_role"}),
    "media": (lambda d: d.request(media="video"), {"grant.scope_media"}),
    "jurisdiction": (lambda d: d.request(jurisdiction="US"), {"grant.jurisdiction"}),
    "not adult": (
        smuggle(adult_verified={"method": "looks old enough", "date": "2026-01-01"}),
        {"grant.recorded", "subject.adult_verified"},
    ),
    "adult tomorrow": (
        smuggle(adult_verified={"method": "passport", "date": "2026-03-03"}),
        {"grant.recorded", "subject.adult_verified"},
    ),
    "public figure": (lost_evidence, {"grant.recorded", "subject.public_figure_evidence"}),
    "erased": (
        erased,
        {"template.erased", "template.commitment", "embedder.hash", "face.match"},
    ),
    "another threshold": (smuggle(threshold=0.05), {"grant.recorded", "template.commitment"}),
    "another embedder": (another_embedder, {"embedder.hash"}),
    "another face": (lambda d: with_source(d, d.claim(0, "source", embedding=face(77))), {"face.match"}),
    "just too far": (
        lambda d: with_source(d, d.claim(0, "source", embedding=near(face(0), 55, 4.5))),
        {"face.match"},
    ),
    "the other's grant": (
        lambda d: with_source(d, d.claim(0, "source", grant_id=d.granted[1].id)),
        {"face.match"},
    ),
    "stolen manifest": (lambda d: evidence(d, state="untrusted"), {"evidence.manifest_trusted"}),
    "tampered manifest": (lambda d: evidence(d, state="tampered"), {"evidence.manifest_trusted"}),
    "a photograph": (lambda d: evidence(d, source_type=None), {"evidence.declares_synthesis"}),
    "a composite": (lambda d: evidence(d, source_type=SWAP_SOURCE_TYPE), {"evidence.declares_synthesis"}),
    "our composite, unrecorded": (
        lambda d: evidence(d, source_type=SWAP_SOURCE_TYPE, ours=True, asset_id="0" * 16),
        {"evidence.declares_synthesis"},
    ),
    "undeclared": (lambda d: folder(d, "declaration-0", FILE), {"evidence.declared"}),
    "no embedding, declared": (
        lambda d: folder(d, "declaration-0", FILE, embedding=None),
        {"evidence.declared", "face.embedding"},
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_rule_refuses(desk: Desk, name: str) -> None:
    make, expected = REFUSALS[name]
    assert set(desk.refused(make(desk))) == expected


def test_every_rule_has_a_refusal_of_its_own() -> None:
    tested = {rule for _, expected in REFUSALS.values() for rule in expected}
    assert tested == set(rules.statements())


def test_every_failed_rule_is_listed(desk: Desk) -> None:
    request = desk.request(
        desk.claim(0, "source", embedding=face(77)),
        desk.claim(1, "target", grant_id=None),
        purpose="advertising",
        use="publish",
        media="video",
        jurisdiction="US",
        num_target_faces=3,
    )
    assert set(desk.refused(request)) == {
        "target.accounted",
        "grant.purpose",
        "grant.use",
        "grant.scope_media",
        "grant.jurisdiction",
        "face.match",
        "face.accounted",
    }


@pytest.mark.parametrize(
    "embedding",
    [
        None,
        "face",
        [0.0] * 512,
        np.zeros(512, np.float32),
        np.full(512, np.nan, np.float32),
        np.full(512, np.inf, np.float32),
        np.ones(512, np.float32),
        np.ones(512, np.int64),
        face(0)[:511],
        face(0)[None],
        face(0).astype(complex),
        face(0).astype(object),
    ],
)
def test_an_embedding_that_is_none_fails_closed(desk: Desk, embedding: object) -> None:
    claim = desk.claim(0, "source", embedding=embedding)
    assert set(desk.refused(with_source(desk, claim))) == {"face.embedding", "face.match"}


@pytest.mark.parametrize("answer", [1, "yes", None, np.True_, [True], object()])
def test_a_rule_holds_only_if_it_returns_exactly_true(answer: object) -> None:
    rule = rules.Rule[int]("x", "x", lambda facts: answer)
    assert rules.failures((rule,), 0) == ("x",)
    assert rules.failures((rules.Rule[int]("x", "x", lambda facts: facts == 0),), 0) == ()
    assert rules.failures((rules.Rule[int]("x", "x", lambda facts: 1 / facts > 0),), 0) == ("x",)


def test_there_is_no_switch() -> None:
    """No setting, environment variable or role is read where consent is decided."""
    for name in rules.HASHED_FILES:
        source = Path(rules.__file__).with_name(name).read_text(encoding="utf-8")
        for word in ("environ", "getenv", "override", "bypass", "skip_", "force", "admin", "debug"):
            assert word not in source, (name, word)


def test_the_rule_set_is_named_by_its_source() -> None:
    digests = [
        hashlib.sha256(Path(rules.__file__).with_name(name).read_bytes()).digest()
        for name in rules.HASHED_FILES
    ]
    assert rules.ruleset_sha256() == hashlib.sha256(b"".join(digests)).hexdigest()


# --- people who do not exist -----------------------------------------------------------------------------------


def test_a_trusted_manifest_that_declares_synthesis_needs_no_grant(desk: Desk) -> None:
    decision = check(evidence(desk), desk.home)
    assert [each.ground for each in decision.faces] == ["manifest", "grant"]
    assert not decision.all_synthetic
    assert consent.evidence_labels(decision) == ("manifest:declares full synthesis",)


@pytest.mark.parametrize("nobodies", [True, False, 1, None])
def test_our_own_composite_counts_if_all_in_it_were_nobodies(desk: Desk, nobodies: object) -> None:
    asset = hashlib.sha256(repr(nobodies).encode()).hexdigest()
    body = {"asset_id": asset[:16], "content_sha256": asset, NOBODIES_FIELD: nobodies}
    desk.home.ledger.append({"kind": "output_recorded", **body})
    same = {"source_type": SWAP_SOURCE_TYPE, "ours": True, "asset_id": asset[:16], "content_sha256": asset}
    if nobodies is True:
        assert check(evidence(desk, **same), desk.home).allowed
        assert desk.refused(evidence(desk, **same | {"ours": False})) == ("evidence.declares_synthesis",)
        assert desk.refused(evidence(desk, **same | {"content_sha256": FILE})) == (
            "evidence.declares_synthesis",
        )
    else:
        assert desk.refused(evidence(desk, **same)) == ("evidence.declares_synthesis",)


def test_a_declared_folder_needs_no_grant(desk: Desk) -> None:
    files = [hashlib.sha256(bytes([n])).hexdigest() for n in range(5)]
    made = declare_synthetic(desk.home, files, "rendered by our portrait model")
    assert made.num_files == 5
    assert find_declaration(desk.home, files[3]) == made.id
    assert find_declaration(desk.home, FILE) is None
    decision = check(folder(desk, made.id, files[3]), desk.home)
    assert decision.faces[0].ground == "folder"
    assert desk.refused(folder(desk, made.id, FILE)) == ("evidence.declared",)
    assert desk.refused(folder(desk, "declaration-0", files[3])) == ("evidence.declared",)
    recorded = desk.home.ledger.entry(made.receipt.index)
    assert (recorded.kind, recorded.body["files_root"]) == ("declaration", made.files_root)


def test_two_nobodies_make_a_nobody(desk: Desk) -> None:
    source = evidence(desk).faces[0]
    request = desk.request(source, source.model_copy(update={"role": "target"}))
    assert check(request, desk.home).all_synthetic


@pytest.mark.parametrize(("files", "text"), [([], "x"), (["zz"], "x"), ([FILE], " "), ([FILE], "x" * 1001)])
def test_a_declaration_needs_files_and_evidence(desk: Desk, files: list[str], text: str) -> None:
    with pytest.raises(InputError, match="declaration"):
        declare_synthetic(desk.home, files, text)


# --- grants are signed -----------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: dict[str, Any], payload: bytes, sign: Callable[[bytes], bytes]) -> str:
    signing_input = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def forgeries(desk: Desk) -> dict[str, str]:
    grant = open_grant(desk.granted[0].jws, desk.home.keys)
    fields = json.loads(grant.model_dump_json())
    payload = rfc8785.dumps(fields)
    ours = OKPKey.import_key(desk.home.keys.grant_key.public_key())
    public = desk.home.keys.grant_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    stranger = Ed25519PrivateKey.generate()
    theirs = OKPKey.import_key(stranger.public_key())
    header = {"alg": "Ed25519", "typ": "consent-grant+jwt", "kid": ours.thumbprint()}
    head, body, signature = desk.granted[0].jws.split(".")
    more = {**fields, "override": True}
    less = {key: value for key, value in fields.items() if key != "adult_verified"}
    return {
        "nothing": "",
        "no signature": f"{head}.{body}.",
        "alg none": forge({**header, "alg": "none"}, payload, lambda _: b""),
        "alg HS256 with our public key": forge(
            {**header, "alg": "HS256"}, payload, lambda data: hmac.digest(public, data, "sha256")
        ),
        "alg EdDSA": forge({**header, "alg": "EdDSA"}, payload, desk.home.keys.grant_key.sign),
        "a key in the header": forge(
            {**header, "jwk": theirs.as_dict(private=False)}, payload, stranger.sign
        ),
        "a place to fetch keys": forge({**header, "jku": "https://evil.example/k"}, payload, stranger.sign),
        "a certificate to fetch": forge({**header, "x5u": "https://evil.example/c"}, payload, stranger.sign),
        "even if our key signed it": sign_payload(desk, fields, jku="https://example.org/keys"),
        "a stranger's kid": forge({**header, "kid": theirs.thumbprint()}, payload, stranger.sign),
        "a stranger's key": forge(header, payload, stranger.sign),
        "another type": forge({**header, "typ": "JWT"}, payload, desk.home.keys.grant_key.sign),
        "no type": forge(
            {"alg": "Ed25519", "kid": ours.thumbprint()}, payload, desk.home.keys.grant_key.sign
        ),
        "unencoded payload": forge(
            {**header, "b64": False, "crit": ["b64"]}, payload, desk.home.keys.grant_key.sign
        ),
        "altered payload": f"{head}.{b64(payload.replace(b'internal', b'publish'))}.{signature}",
        "altered signature": f"{head}.{body}.{b64(bytes(64))}",
        "one field more": sign_payload(desk, more),
        "one field less": sign_payload(desk, less),
        "no object": forge(header, b"[]", desk.home.keys.grant_key.sign),
        "no JSON": forge(header, b"\xff", desk.home.keys.grant_key.sign),
        "times as text": sign_payload(desk, {**fields, "exp": "2999"}),
        "not a number": forge(header, payload.replace(b"0.35", b"NaN"), desk.home.keys.grant_key.sign),
        "huge": desk.granted[0].jws + "A" * 200_000,
        "not ascii": "\ud800.é.\n",
    }


def test_no_forged_grant_opens(desk: Desk) -> None:
    assert open_grant(desk.granted[0].jws, desk.home.keys).jti == desk.granted[0].id
    for name, text in forgeries(desk).items():
        with pytest.raises(SignatureError, match=r"grant\.signature"):
            open_grant(text, desk.home.keys)
        assert name


@pytest.mark.parametrize("name", ["alg none", "a key in the header", "altered payload", "one field less"])
def test_a_forged_grant_in_the_database_covers_nothing(desk: Desk, name: str) -> None:
    grant = issue(desk.home, desk.terms(desk.people[0]))
    put_in_place(desk, grant.id, forgeries(desk)[name])
    claim = desk.claim(0, "source", grant_id=grant.id)
    assert desk.refused(with_source(desk, claim)) == ("grant.signature",)


def test_a_grant_of_another_home_covers_nothing(desk: Desk, tmp_path: Path) -> None:
    with Home.create(tmp_path / "other", "Example Lab") as other, pytest.raises(SignatureError):
        open_grant(desk.granted[0].jws, other.keys)


def test_a_grant_carries_everything_it_must(desk: Desk) -> None:
    grant = open_grant(desk.granted[0].jws, desk.home.keys)
    assert (grant.sub, grant.grantee, grant.purposes) == (desk.people[0], "Example Lab", ("demo", "film-42"))
    assert (grant.scope_roles, grant.scope_media, grant.uses) == (
        ("source", "target"),
        ("still",),
        ("internal",),
    )
    assert (grant.nbf, grant.exp) == (1772280000, 1774958400)
    assert (grant.jurisdictions, grant.evidence) == (("EU",), "paper form 17")
    assert grant.adult_verified == AdultVerified(method="passport", date=date(2026, 1, 5))
    assert grant.public_figure == PublicFigure(is_public_figure=False, evidence=None)
    assert grant.revocation_handle == f"{desk.home.deployment}#{grant.jti}"
    assert (grant.embedder_sha256, grant.threshold) == (EMBEDDER.sha256, 0.35)
    assert (grant.consent_text_sha256, grant.consent_text_language) == ("c0" * 32, "en")
    assert len(grant.template_commitment) == 64


def test_the_commitment_differs_between_grants_of_different_thresholds(desk: Desk) -> None:
    stricter = Embedder(sha256=EMBEDDER.sha256, threshold=0.5)
    grant = issue(desk.home, desk.terms(desk.people[0], embedder=stricter))
    one, other = (open_grant(each.jws, desk.home.keys) for each in (grant, desk.granted[0]))
    assert one.template_commitment != other.template_commitment


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expires": NOON - timedelta(seconds=1)}, "grant.past"),
        ({"not_before": NOON - timedelta(hours=25)}, "grant.backdated"),
        ({"not_before": NOON + timedelta(days=40)}, "grant.span"),
        ({"expires": datetime(2026, 4, 1)}, "grant.span"),
        ({"subject_id": "subject-0"}, "subject.unknown"),
        ({"embedder": Embedder(sha256="e2" * 32, threshold=0.35)}, "grant.no_template"),
    ],
)
def test_terms_that_cannot_be_granted(desk: Desk, changes: dict[str, Any], code: str) -> None:
    terms = desk.terms(desk.people[0], **changes)
    with pytest.raises(InputError) as caught:
        issue(desk.home, terms)
    assert caught.value.code == code


def test_grants_are_listed(desk: Desk) -> None:
    assert list_grants(desk.home, desk.people[0]) == [desk.granted[0]]
    revoke(desk.home, desk.granted[0].id, "changed my mind")
    (listed,) = list_grants(desk.home, desk.people[0])
    assert (listed.revoked_at, listed.revocation_reason) == ("2026-03-01T12:00:00Z", "changed my mind")
    with pytest.raises(InputError, match=r"grant\.revoked"):
        revoke(desk.home, desk.granted[0].id, "again")
    with pytest.raises(InputError, match=r"grant\.unknown"):
        revoke(desk.home, "grant-0", "never was")
    assert desk.granted[1].id in {each.id for each in list_grants(desk.home)}


# --- closed records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [ConsentRequest, FaceClaim, GrantTerms, Grant, Profile, ManifestEvidence, FolderEvidence, Embedder],
)
def test_no_field_has_a_default(record: Any) -> None:
    assert [name for name, each in record.model_fields.items() if not each.is_required()] == []
    assert record.model_config["extra"] == "forbid"


def test_a_missing_an_unknown_and_a_malformed_field_are_named(desk: Desk) -> None:
    fields = dict(desk.request())
    for name in fields:
        with pytest.raises(InputError, match=name):
            ConsentRequest.make(**{key: value for key, value in fields.items() if key != name})
    for change in ({"override": True}, {"purpose": "A Person"}, {"use": "any"}, {"jurisdiction": "Mars"}):
        with pytest.raises(InputError, match=next(iter(change))) as caught:
            ConsentRequest.make(**(fields | change))
        assert "A Person" not in str(caught.value)


# --- subjects --------------------------------------------------------------------------------------------------


def test_enrolment_needs_proof_of_adulthood(desk: Desk) -> None:
    before = len(list_subjects(desk.home))
    proofs = [
        AdultVerified(method="self-declared", date=date(2026, 1, 1)),
        AdultVerified(method="", date=date(2026, 1, 1)),
        AdultVerified(method="passport", date=date(2026, 3, 3)),
    ]
    for proof in proofs:
        with pytest.raises(ConsentError) as caught:
            enrol(desk.home, desk.profile(adult_verified=proof), [face(0)], EMBEDDER)
        assert caught.value.rules == ("subject.adult_verified",)
    figure = PublicFigure(is_public_figure=True, evidence=None)
    with pytest.raises(ConsentError) as caught:
        enrol(desk.home, desk.profile(public_figure=figure), [face(0)], EMBEDDER)
    assert caught.value.rules == ("subject.public_figure_evidence",)
    assert len(list_subjects(desk.home)) == before


@pytest.mark.parametrize(
    ("embeddings", "code"),
    [
        ([], "subject.no_embedding"),
        ([None], "subject.embedding"),
        ([np.full(512, np.nan, np.float32)], "subject.embedding"),
        ([face(0), face(0)[:100]], "subject.embedding"),
        (
            [face(0), face(1), face(2), face(3), face(4), face(5), face(6), face(7), face(8)],
            "subject.embeddings_disagree",
        ),
        ([face(0), -face(0)], "subject.embeddings_disagree"),
    ],
)
def test_a_template_is_of_one_face(desk: Desk, embeddings: list[Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        enrol(desk.home, desk.profile(), embeddings, EMBEDDER)
    assert caught.value.code == code


def test_few_pictures_are_noted(desk: Desk) -> None:
    assert enrol(desk.home, desk.profile(), [face(9)], EMBEDDER).notes
    assert not enrol(desk.home, desk.profile(), [near(face(9), n) for n in range(3)], EMBEDDER).notes


def test_name_and_template_lie_encrypted(desk: Desk) -> None:
    assert find_subject(desk.home, desk.people[0]).profile == desk.profile()
    stored = b"".join(each.read_bytes() for each in desk.home.path.rglob("*") if each.is_file())
    assert NAME.encode() not in stored
    template = np.mean([near(face(0), each) for each in range(3)], axis=0)
    template = np.asarray(template / np.linalg.norm(template), "<f4")
    assert template.tobytes()[:16] not in stored


def test_a_template_moved_to_another_subject_covers_nothing(desk: Desk) -> None:
    with desk.home.database.write() as conn:
        columns = ("wrapped_key", "profile")
        swap = conn.execute(sa.select(subjects).where(subjects.c.id == desk.people[1])).one()
        values = {name: getattr(swap, name) for name in columns}
        conn.execute(sa.update(subjects).where(subjects.c.id == desk.people[0]).values(values))
    failed = desk.refused(desk.request())
    assert {"template.erased", "template.commitment", "face.match"} <= set(failed)


def test_erasure_destroys_the_key_and_leaves_the_ledger_intact(desk: Desk) -> None:
    with desk.home.database.read() as conn:
        row = conn.execute(sa.select(subjects).where(subjects.c.id == desk.people[0])).one()
    erase(desk.home, desk.people[0])
    stored = b"".join(each.read_bytes() for each in desk.home.path.rglob("*") if each.is_file())
    assert row.wrapped_key not in stored
    assert row.profile not in stored
    assert find_subject(desk.home, desk.people[0]).profile is None
    with pytest.raises(InputError, match=r"subject\.erased"):
        erase(desk.home, desk.people[0])
    with pytest.raises(InputError, match=r"grant\.no_template"):
        issue(desk.home, desk.terms(desk.people[0]))
    assert desk.home.ledger.entries()[-1].kind == "template_erased"
    assert [each.code for each in verify(desk.home).problems if each.code.startswith("ledger.erasure")] == []


# --- what is recorded ------------------------------------------------------------------------------------------


def test_the_ledger_holds_no_personal_data(desk: Desk) -> None:
    desk.refused(desk.request(purpose="ada-quillfeather", grantee=NAME))
    erase(desk.home, desk.people[1])
    entries = [json.dumps(entry.body) for entry in desk.home.ledger.entries()]
    for text in (NAME, "quillfeather", desk.people[0], desk.granted[0].id, "paper form 17", "2026-01-05"):
        assert not any(text in entry for entry in entries), text
    assert not any("." in str(value) for entry in desk.home.ledger.entries() for value in numbers(entry.body))


def numbers(value: Any) -> list[float]:
    """Every number in nested JSON: an embedding or a likeness would show here."""
    if isinstance(value, dict):
        return [each for item in value.values() for each in numbers(item)]
    if isinstance(value, list):
        return [each for item in value for each in numbers(item)]
    return [value] if isinstance(value, float) else []


def test_a_refusal_is_recorded_with_its_rules_and_their_hash(desk: Desk) -> None:
    desk.refused(desk.request(use="publish"))
    body = desk.home.ledger.entries()[-1].body
    assert body["rules_sha256"] == rules.ruleset_sha256()
    assert body["use"] == "publish"
    assert [each["failed"] for each in body["faces"]] == [["grant.use"], ["grant.use"]]
    assert all(len(each["grant_ref"]) == 32 for each in body["faces"])


def test_what_is_accepted_commits_with_what_follows_from_it(desk: Desk) -> None:
    before = desk.home.ledger.tree_head().size
    with accept(desk.request(), desk.home) as (decision, conn):
        desk.home.ledger.append({"kind": "job_accepted", **decision.record}, conn)
    assert desk.home.ledger.tree_head().size == before + 1

    def stop_half_way() -> None:
        with accept(desk.request(), desk.home) as (decision, conn):
            desk.home.ledger.append({"kind": "job_accepted", **decision.record}, conn)
            raise KeyError("stop")

    with pytest.raises(KeyError):
        stop_half_way()
    assert desk.home.ledger.tree_head().size == before + 1


def test_the_block_is_not_run_where_consent_does_not_cover(desk: Desk) -> None:
    ran = []

    def ask() -> None:
        with accept(desk.request(use="publish"), desk.home):
            ran.append(1)

    with pytest.raises(ConsentError, match=r"consent\.denied"):
        ask()
    assert ran == []


def test_a_revocation_between_start_and_release_stops_the_release(desk: Desk) -> None:
    decision = check(desk.request(), desk.home)
    assert recheck(decision, desk.home).allowed
    revoke(desk.home, desk.granted[1].id, "changed my mind")
    with pytest.raises(ConsentError) as caught:
        recheck(decision, desk.home)
    assert caught.value.rules == ("grant.revoked",)


def test_an_acceptance_writes_nothing_of_its_own(desk: Desk) -> None:
    before = desk.home.ledger.checkpoint()
    check(desk.request(), desk.home)
    assert desk.home.ledger.checkpoint() == before
