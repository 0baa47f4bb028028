"""Detached signatures: only these bytes, this kind and a pinned signer hold."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from provenance.attestation import sign_detached, verify_detached
from provenance.certificates import es256_signer
from provenance.errors import SignatureError
from provenance.keys import SigningKeys, make_keys

KIND = "facsimile-report+jws"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    folder = tmp_path_factory.mktemp("keys") / "ours"
    make_keys(folder, "Somebody")
    return SigningKeys.load(folder)


def test_a_document_is_signed_by_a_pinned_leaf(keys: SigningKeys) -> None:
    text = sign_detached(b"report", KIND, keys)
    found = verify_detached(b"report", text, KIND, keys.trust)
    assert found.signer == "Somebody"
    protected, payload, _ = text.split(".")
    header = json.loads(base64.urlsafe_b64decode(protected + "=="))
    assert (payload, header["alg"], header["kid"]) == ("", "ES256", found.fingerprint)
    assert len(header["x5c"]) == 2


def test_a_signer_outside_the_process_gives_the_same_kind_of_signature(keys: SigningKeys) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(keys.leaf_key_pem, None)
    outside = replace(keys, sign_claim=es256_signer(key))  # type: ignore[arg-type]
    text = sign_detached(b"report", KIND, outside)
    assert verify_detached(b"report", text, KIND, keys.trust).signer == "Somebody"


def forged(text: str, **changes: object) -> str:
    protected, payload, signature = text.split(".")
    header = json.loads(base64.urlsafe_b64decode(protected + "==")) | changes
    coded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{coded}.{payload}.{signature}"


def test_whatever_was_changed_does_not_hold(keys: SigningKeys) -> None:
    text = sign_detached(b"report", KIND, keys)
    attempts = [
        (b"other", text, KIND),
        (b"report", text, "another+jws"),
        (b"report", text[:-4] + "AAAA", KIND),
        (b"report", text.replace("..", ".cmVwb3J0."), KIND),
        (b"report", forged(text, alg="none"), KIND),
        (b"report", forged(text, iat="2000-01-01T00:00:00+00:00"), KIND),
        (b"report", forged(text, jwk={}), KIND),
        (b"report", "", KIND),
        (b"report", "a.b", KIND),
        (b"report", "!!..!!", KIND),
    ]
    for data, signature, kind in attempts:
        with pytest.raises(SignatureError):
            verify_detached(data, signature, kind, keys.trust)


def test_a_stranger_with_our_name_is_not_us(keys: SigningKeys, tmp_path: Path) -> None:
    make_keys(tmp_path / "theirs", "Somebody")
    text = sign_detached(b"report", KIND, SigningKeys.load(tmp_path / "theirs"))
    with pytest.raises(SignatureError, match="none of this home's"):
        verify_detached(b"report", text, KIND, keys.trust)


def test_a_withdrawn_leaf_signs_nothing_any_more(keys: SigningKeys) -> None:
    text = sign_detached(b"report", KIND, keys)
    found = verify_detached(b"report", text, KIND, keys.trust)
    with pytest.raises(SignatureError):
        verify_detached(b"report", text, KIND, replace(keys.trust, revoked=frozenset({found.fingerprint})))
