"""Consent texts, receipts and the status list: re-derived, signed, proven; revocation is effective within a second."""

from __future__ import annotations

import base64
import json
import time
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey
from test_provenance_consent import EMBEDDER, NOON, Desk, face, near

from provenance import notices, receipts, statuslist
from provenance.consent import check
from provenance.errors import ConsentError, FacsimileError, InputError, LedgerError, SignatureError
from provenance.grants import StoredGrant, issue, open_grant, revoke
from provenance.home import Home
from provenance.subjects import enrol, erase
from provenance.tokens import open_token, public_jwk, sign_token


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(Home.create(tmp_path / "home", "Example Lab"))
    desk.home.ledger.clock = lambda: desk.now
    for number in (0, 1):
        pictures = [near(face(number), 10 * number + k) for k in range(3)]
        desk.people += (enrol(desk.home, desk.profile(), pictures, EMBEDDER).subject_id,)
    desk.granted = tuple(_issue(desk, number) for number in (0, 1))
    return desk


def _issue(desk: Desk, number: int, lang: str = "en", **changes: Any) -> StoredGrant:
    draft = desk.terms(desk.people[number], consent_text_language=lang, **changes)
    text = notices.consent_text(draft)
    return issue(desk.home, draft.model_copy(update={"consent_text_sha256": text.sha256}))


def _claims(text: str) -> dict[str, Any]:
    body = text.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def test_the_text_follows_from_the_signed_grant_in_both_languages(desk: Desk) -> None:
    for lang, words in (("en", "I allow Example Lab"), ("zh", "本人允许 Example Lab")):
        grant = open_grant(_issue(desk, 0, lang).jws, desk.home.keys)
        found = notices.find_text(grant)
        assert found is not None
        assert found.sha256 == grant.consent_text_sha256
        assert found.lang == grant.consent_text_language == lang
        assert words in found.text
        for said in ("2026-03-31 12:00 UTC", "demo", "film-42", "EU"):
            assert said in found.text


def test_the_first_wording_still_matches_grants_that_hold_its_hash(desk: Desk) -> None:
    draft = desk.terms(desk.people[0])
    old = notices.consent_text(draft, wording=1)
    assert old.text.startswith(
        "I allow Example Lab to give my face to a picture and to have my picture altered, in"
    )
    assert "until 2026-03-31T12:00:00Z. I can withdraw" in old.text
    grant = issue(desk.home, draft.model_copy(update={"consent_text_sha256": old.sha256}))
    assert notices.find_text(open_grant(grant.jws, desk.home.keys)) == old


def test_wordings_in_use_never_change(desk: Desk) -> None:
    """A changed text would no longer match the hashes in grants: add a wording instead."""
    found = {
        (wording, lang): notices.consent_text(
            desk.terms("subject-1", consent_text_language=lang), wording
        ).sha256[:16]
        for wording in (1, 2)
        for lang in notices.languages(wording)
    }
    assert found == {
        (1, "en"): "91f38368f1965c8f",
        (2, "en"): "fe530e8a0d906cdf",
        (2, "zh"): "2b2f4330377c5501",
    }


def test_the_text_changes_with_every_term(desk: Desk) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"grantee": "Other Lab"},
        {"purposes": ("demo",)},
        {"scope_roles": ("source",)},
        {"scope_media": ("still", "video")},
        {"uses": ("publish",)},
        {"jurisdictions": ("WORLD",)},
        {"expires": NOON + timedelta(days=31)},
    ]
    for lang in notices.languages():
        texts = [
            notices.consent_text(desk.terms(desk.people[0], consent_text_language=lang, **each)).sha256
            for each in changes
        ]
        assert len(set(texts)) == len(changes)


def test_a_text_of_others_is_not_made_up(desk: Desk) -> None:
    grant = open_grant(issue(desk.home, desk.terms(desk.people[0])).jws, desk.home.keys)
    assert notices.find_text(grant) is None
    with pytest.raises(InputError) as caught:
        notices.consent_text(desk.terms(desk.people[0], consent_text_language="fr"))
    assert caught.value.code == "consent.language"


def test_a_receipt_has_every_field_that_ts_27560_requires(desk: Desk) -> None:
    document = receipts.open_receipt(
        receipts.write_receipt(desk.home, desk.granted[0].id), desk.home
    ).document
    record = document["dpv:hasRecordOfActivity"]
    assert (document["@type"], record["@type"]) == ("dpv:ConsentReceipt", "dpv:ConsentRecord")
    for holder in (document, record):
        assert holder["dct:conformsTo"].startswith("https://w3id.org/dpv/schema/dpv-27560#")
        assert holder["dct:identifier"]
    for field in ("hasDataSubject", "hasDataController", "hasJurisdiction", "hasConsentControl", "hasNotice"):
        assert record[f"dpv:{field}"]
    for field in ("hasPurpose", "hasRecipient", "hasPersonalData", "hasStorageCondition"):
        assert record["dpv:hasProcess"][f"dpv:{field}"]
    assert record["dpv:hasNotice"]["dct:language"] == "en"
    assert "I allow Example Lab" in record["dpv:hasNotice"]["schema:text"]
    assert "dpv:ConsentGiven" in record["dpv:hasConsentStatus"][0]["@type"]


def test_a_receipt_names_no_person_and_holds_no_face(desk: Desk) -> None:
    text = json.dumps(_claims(receipts.write_receipt(desk.home, desk.granted[0].id)))
    assert "Quillfeather" not in text
    assert len(text) < 20_000


def test_any_jose_library_verifies_a_receipt_with_the_public_key(desk: Desk) -> None:
    key = OKPKey.import_key(public_jwk(desk.home.keys.grant_key.public_key()))  # type: ignore[arg-type]
    text = receipts.write_receipt(desk.home, desk.granted[0].id)
    found = jws.deserialize_compact(text, key, algorithms=["Ed25519"])
    assert found.headers()["typ"] == "consent-receipt+jwt"


def _forged(desk: Desk, **changes: Any) -> str:
    claims = _claims(receipts.write_receipt(desk.home, desk.granted[0].id)) | changes
    return sign_token(claims, receipts.TYPE, desk.home.keys.grant_key)


def test_a_receipt_that_was_touched_or_is_of_another_home_fails(desk: Desk, tmp_path: Path) -> None:
    text = receipts.write_receipt(desk.home, desk.granted[0].id)
    other = receipts.write_receipt(desk.home, desk.granted[1].id)
    head, body, signature = text.split(".")
    proof_of_other = _claims(other)["facsimile:ledgerProof"]
    wrong: list[tuple[str, type[FacsimileError]]] = [
        (f"{head}.{other.split('.')[1]}.{signature}", SignatureError),
        (f"{head}.{body}.{'A' * len(signature)}", SignatureError),
        (desk.granted[0].jws, SignatureError),
        (statuslist.publish(desk.home), SignatureError),
        ("", SignatureError),
        (_forged(desk, **{"facsimile:ledgerProof": proof_of_other}), LedgerError),
        (_forged(desk, **{"facsimile:grant": 7}), SignatureError),
        (_forged(desk, **{"dpv:hasRecordOfActivity": {}}), SignatureError),
    ]
    for forged, kind in wrong:
        with pytest.raises(kind):
            receipts.open_receipt(forged, desk.home)
    with Home.create(tmp_path / "other", "Example Lab") as stranger, pytest.raises(SignatureError):
        receipts.open_receipt(text, stranger)


def test_the_ledger_proof_fails_when_the_entry_is_changed(desk: Desk) -> None:
    proof = _claims(receipts.write_receipt(desk.home, desk.granted[0].id))["facsimile:ledgerProof"]
    proof["entry"]["time"] = "2020-01-01T00:00:00.000Z"
    with pytest.raises(LedgerError):
        receipts.open_receipt(_forged(desk, **{"facsimile:ledgerProof": proof}), desk.home)


def test_a_receipt_tells_what_happened_since(desk: Desk) -> None:
    grant = desk.granted[0]
    assert not receipts.open_receipt(receipts.write_receipt(desk.home, grant.id), desk.home).withdrawn
    receipt = revoke(desk.home, grant.id, "changed my mind")
    erase(desk.home, desk.people[0])
    desk.now += timedelta(days=60)
    text = receipts.write_receipt(desk.home, grant.id)
    read = receipts.open_receipt(text, desk.home)
    events = read.document["dpv:hasRecordOfActivity"]["dpv:hasConsentStatus"]
    assert read.withdrawn
    assert [each["@type"] for each in events[1:]] == [
        "dpv:ConsentWithdrawn",
        "dpv:ConsentInvalidated",
        "dpv:ConsentExpired",
    ]
    assert events[1]["facsimile:ledgerIndex"] == receipt.index
    assert "changed my mind" not in json.dumps(_claims(text))


def test_the_drafts_own_vector_packs_and_unpacks() -> None:
    """Section 4.1: the statuses of 16 tokens are the bytes b9 a3 (draft-ietf-oauth-status-list, section 4.2)."""
    bits = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]
    assert statuslist.unpack("eNrbuRgAAhcBXQ") == bytes.fromhex("b9a3")
    assert statuslist.unpack(statuslist.pack(bits))[:3] == bytes.fromhex("b9a300")


def test_the_list_has_the_claims_of_the_draft(desk: Desk) -> None:
    text = statuslist.publish(desk.home)
    claims = open_token(text, "statuslist+jwt", desk.home.keys.grant_key.public_key())
    assert set(claims) == {"sub", "iss", "iat", "exp", "ttl", "status_list"}
    assert claims["status_list"]["bits"] == 1
    reference = receipts.open_receipt(receipts.write_receipt(desk.home, desk.granted[1].id), desk.home)
    assert reference.document["status"] == {"status_list": {"idx": 1, "uri": claims["sub"]}}


def test_revocation_and_erasure_set_the_bit_and_nothing_else(desk: Desk) -> None:
    third = _issue(desk, 1)
    revoke(desk.home, desk.granted[1].id, "x")
    listed = statuslist.open_list(statuslist.publish(desk.home), desk.home)
    assert [listed.status(index) for index in range(4)] == [0, 1, 0, 0]
    erase(desk.home, desk.people[1])
    listed = statuslist.open_list(statuslist.publish(desk.home), desk.home)
    assert [listed.status(index) for index in range(4)] == [0, 1, 1, 0]
    assert statuslist.reference_of(desk.home, third.issued_index)["status_list"]["idx"] == 2
    with pytest.raises(InputError):
        listed.status(statuslist.MIN_ENTRIES)


@pytest.mark.parametrize(
    "lst", ["", "!!", base64.urlsafe_b64encode(zlib.compress(bytes(1 << 24))).decode(), "eNrbuRgAAhcB"]
)
def test_a_list_that_is_a_bomb_or_cut_short_is_refused(desk: Desk, lst: str) -> None:
    claims = {"sub": "x", "iat": 1, "exp": 2, "status_list": {"bits": 1, "lst": lst}}
    text = sign_token(claims, statuslist.TYPE, desk.home.keys.grant_key)
    with pytest.raises(InputError) as caught:
        statuslist.open_list(text, desk.home)
    assert caught.value.code == "status.list"


def test_revocation_is_effective_within_a_second(desk: Desk) -> None:
    request = desk.request()
    assert check(request, desk.home).allowed
    start = time.perf_counter()
    revoke(desk.home, desk.granted[0].id, "now")
    with pytest.raises(ConsentError) as caught:
        check(request, desk.home)
    listed = statuslist.open_list(statuslist.publish(desk.home), desk.home)
    elapsed_s = time.perf_counter() - start
    assert caught.value.rules == ("grant.revoked",)
    assert listed.status(0) == statuslist.INVALID
    assert elapsed_s < 1.0
