"""Whom a reader believes: our pinned keys, listed signers, nobody else, however much they look like us."""

from __future__ import annotations

import http.server
import io
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from seals import (
    ASSET_ID,
    CAPTURE,
    camera_picture,
    keys_of,
    pem,
    picture,
    sample_manifest,
    sealed_sample,
    sealed_swap,
    stranger_signs,
)
from timestamps import TimestampAuthority

from provenance import signing
from provenance.certificates import Chain, es256_signer, fingerprint, make_chain, make_leaf
from provenance.claim import MARK_ALGORITHM
from provenance.container import join_parts, split_parts, without_c2pa_store
from provenance.errors import SignatureError
from provenance.keys import SigningKeys, Trust, load_trust, make_keys, revoke_leaf, rotate_leaf
from provenance.signing import ManifestReading, read_manifest, sign
from provenance.xmp import embed_xmp

JPEG = "image/jpeg"
NOT_PINNED, UNKNOWN = "facsimile.key.notPinned", "facsimile.signer.unknown"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("home") / "keys"
    make_keys(directory, "Example Studio")
    return directory


@pytest.fixture(scope="module")
def keys(made: Path) -> SigningKeys:
    return SigningKeys.load(made)


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "keys"))


@pytest.fixture(scope="module")
def camera() -> Chain:
    return make_chain("Camera Works")


def listing(trust: Trust, *chains: Chain) -> Trust:
    return replace(trust, listed_anchors=pem(*(each.root for each in chains)).decode())


def test_namesake_with_a_ca_of_his_own_is_untrusted(keys: SigningKeys) -> None:
    twin = make_chain("Example Studio")
    forged = sealed_swap(keys_of(twin, keys))
    reading = read_manifest(forged, JPEG, keys.trust)
    assert reading.tree["validation_state"] == "Valid"
    assert reading.signer == "Example Studio"
    assert (reading.state, reading.ours) == ("untrusted", False)
    assert reading.codes == ("signingCredential.untrusted", UNKNOWN)


def test_another_leaf_of_our_own_ca_is_not_us(made: Path, keys: SigningKeys) -> None:
    issuing = x509.load_pem_x509_certificate((made / "issuing.crt.pem").read_bytes())
    issuing_key = serialization.load_pem_private_key((made / "issuing.key.pem").read_bytes(), None)
    assert isinstance(issuing_key, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    leaf = make_leaf(key.public_key(), issuing, issuing_key, organisation="Example Studio", now=now)
    trust = replace(keys.trust, pinned_leaves=pem(leaf).decode())
    rogue = replace(keys, chain_pem=pem(leaf, issuing), sign_claim=es256_signer(key), trust=trust)
    reading = read_manifest(sealed_sample(rogue), JPEG, keys.trust)
    assert reading.tree["validation_state"] == "Trusted"
    assert (reading.state, reading.ours, reading.codes) == ("untrusted", False, (NOT_PINNED,))


def test_reader_who_believes_nobody_finds_it_untrusted(keys: SigningKeys) -> None:
    reading = read_manifest(sealed_sample(keys), JPEG, Trust())
    assert (reading.state, reading.ours, reading.asset_id) == ("untrusted", False, ASSET_ID)


def test_listed_camera_is_valid_and_not_ours(keys: SigningKeys, camera: Chain) -> None:
    data = camera_picture(camera)
    assert read_manifest(data, JPEG, keys.trust).state == "untrusted"
    reading = read_manifest(data, JPEG, listing(keys.trust, camera))
    assert (reading.state, reading.ours, reading.signer) == ("valid", False, "Camera Works")
    assert (reading.source_type, reading.asset_id, reading.generator) == (CAPTURE, None, "camera 1")


def test_list_that_vouched_for_an_ingredient_does_not_vouch_for_the_picture(
    keys: SigningKeys, camera: Chain
) -> None:
    ours = sealed_sample(keys)
    theirs = sealed_swap(keys_of(camera, keys), target=ours, source=ours)
    reading = read_manifest(theirs, JPEG, listing(keys.trust, camera))
    assert reading.tree["validation_results"]["trustListUri"] == ""  # the pin, of our own ingredient
    assert (reading.state, reading.ours, reading.signer) == ("valid", False, "Camera Works")
    twin = make_chain("Example Studio")
    forged = sealed_swap(keys_of(twin, keys), target=ours, source=ours)
    assert read_manifest(forged, JPEG, keys.trust).state == "untrusted"


def test_picture_of_ours_stays_ours_over_a_foreign_ingredient(keys: SigningKeys, camera: Chain) -> None:
    for trust in (keys.trust, listing(keys.trust, camera)):
        reading = read_manifest(sealed_swap(keys, target=camera_picture(camera)), JPEG, trust)
        assert (reading.state, reading.ours) == ("valid", True)


def test_rotated_key_signs_and_the_old_one_stays_ours(home: Path) -> None:
    before = SigningKeys.load(home)
    old = sealed_sample(before)
    rotate_leaf(home)
    after = SigningKeys.load(home)
    for data in (old, sealed_sample(after)):
        assert read_manifest(data, JPEG, after.trust).ours
    assert read_manifest(sealed_sample(after), JPEG, before.trust).codes == (NOT_PINNED,)


def test_revoked_key_is_untrusted_and_signs_no_more(home: Path) -> None:
    keys = SigningKeys.load(home)
    data = sealed_sample(keys)
    revoke_leaf(home, fingerprint(x509.load_pem_x509_certificate(keys.chain_pem)))
    reading = read_manifest(data, JPEG, load_trust(home / "trust"))
    assert (reading.state, reading.codes) == ("untrusted", (NOT_PINNED,))
    with pytest.raises(SignatureError, match=r"signature\.not_ours"):
        sealed_sample(SigningKeys.load(home))


def test_what_the_signer_merely_gathered_is_not_believed(
    keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "CREATED_LABELS", ())
    reading = read_manifest(sealed_sample(keys), JPEG, keys.trust)
    assert (reading.state, reading.asset_id, reading.source_type) == ("valid", None, None)


def test_anchor_for_time_stamps_vouches_for_no_claim(keys: SigningKeys) -> None:
    clock = make_chain("Clock Ltd")
    trust = replace(keys.trust, timestamp_anchors=pem(clock.root).decode())
    reading = read_manifest(camera_picture(clock), JPEG, trust)
    assert reading.tree["validation_state"] == "Trusted"
    assert (reading.state, reading.ours, reading.codes) == ("untrusted", False, (UNKNOWN,))


def test_foreign_soft_binding_is_no_asset_id(keys: SigningKeys, camera: Chain) -> None:
    manifest = sample_manifest()
    binding = next(each for each in manifest["assertions"] if each["label"] == "c2pa.soft-binding")
    binding["data"]["alg"] = "com.example.mark"
    data = sign(picture(JPEG), JPEG, manifest, keys)
    assert read_manifest(data, JPEG, keys.trust).asset_id is None
    stranger = stranger_signs(sample_manifest(), camera, picture(JPEG), JPEG)
    assert read_manifest(stranger, JPEG, listing(keys.trust, camera)).asset_id is None  # gathered


@pytest.mark.parametrize(
    ("label", "content"),
    [
        ("c2pa.soft-binding", {"alg": MARK_ALGORITHM, "blocks": []}),
        ("c2pa.soft-binding", {"alg": MARK_ALGORITHM, "blocks": [{"scope": {}, "value": "not an id"}]}),
        ("c2pa.soft-binding", {"alg": MARK_ALGORITHM, "blocks": [{"scope": {}, "value": "0" * 17}]}),
    ],
)
def test_odd_content_under_a_good_signature_says_nothing(
    label: str, content: dict[str, Any], keys: SigningKeys
) -> None:
    manifest = sample_manifest()
    manifest["assertions"] = [
        each | {"data": content} if each["label"] == label else each for each in manifest["assertions"]
    ]
    reading = read_manifest(sign(picture(JPEG), JPEG, manifest, keys), JPEG, keys.trust)
    assert (reading.state, reading.asset_id) == ("valid", None)


def test_remote_manifest_is_never_fetched(keys: SigningKeys) -> None:
    asked: list[str] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        link = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        packet = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{link}"/>'
            "</rdf:RDF></x:xmpmeta>"
        )
        reading = read_manifest(embed_xmp(picture(JPEG), JPEG, packet.encode()), JPEG, keys.trust)
        server.shutdown()
    assert asked == []
    assert reading.state == "none"


def test_failing_or_lying_signer_releases_nothing(keys: SigningKeys) -> None:
    def unplugged(_: bytes) -> bytes:
        raise OSError("the module is gone")

    for sign_claim in (unplugged, lambda _: bytes(64), lambda _: b""):
        with pytest.raises(SignatureError, match=r"signature\.failed") as caught:
            sealed_sample(replace(keys, sign_claim=sign_claim))
        assert caught.value.exit_code == 3


def test_chain_nobody_pinned_signs_nothing(keys: SigningKeys) -> None:
    stranger = keys_of(make_chain("Example Studio"), keys)
    with pytest.raises(SignatureError, match=r"signature\.not_ours"):
        sealed_sample(replace(stranger, trust=keys.trust))


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[TimestampAuthority]:
    if not shutil.which("openssl"):
        pytest.skip("the local time-stamp authority needs the openssl program")
    with TimestampAuthority(tmp_path) as authority:
        yield authority


def test_time_stamp_is_trusted_under_its_own_list_only(keys: SigningKeys, clock: TimestampAuthority) -> None:
    data = sign(picture(JPEG), JPEG, sample_manifest(), keys, timestamp_url=clock.url)
    anchor = pem(clock.root).decode()
    trusts = [
        replace(keys.trust, timestamp_anchors=anchor),
        keys.trust,
        replace(keys.trust, listed_anchors=anchor),
    ]
    readings = [read_manifest(data, JPEG, trust) for trust in trusts]
    assert [each.timestamp_trusted for each in readings] == [True, False, False]
    for each in readings:
        assert (each.state, each.ours) == ("valid", True)
        assert each.timestamp is not None
        assert abs((datetime.fromisoformat(each.timestamp) - datetime.now(UTC)).total_seconds()) < 60


def test_unreachable_time_stamp_authority_is_an_error(keys: SigningKeys) -> None:
    with pytest.raises(SignatureError, match=r"signature\.failed"):
        sign(picture(JPEG), JPEG, sample_manifest(), keys, timestamp_url="http://127.0.0.1:9/")


def test_expired_key_counts_only_with_a_trusted_time_stamp(
    keys: SigningKeys, clock: TimestampAuthority
) -> None:
    brief = make_chain("Example Studio", leaf_days=3 / 86400)
    trust = replace(keys_of(brief, keys).trust, timestamp_anchors=pem(clock.root).decode())
    signer = replace(keys_of(brief, keys), trust=trust)
    bare = sealed_sample(signer)
    stamped = sign(picture(JPEG), JPEG, sample_manifest(), signer, timestamp_url=clock.url)
    time.sleep(max(0.0, (brief.leaf.not_valid_after_utc - datetime.now(UTC)).total_seconds() + 1.1))
    reading = read_manifest(bare, JPEG, trust)
    assert (reading.state, reading.codes[0]) == ("untrusted", "signingCredential.expired")
    assert read_manifest(stamped, JPEG, trust).state == "valid"
    with pytest.raises(SignatureError):
        sealed_sample(signer)


def test_reader_with_default_settings_trusts_us_by_our_root_alone(keys: SigningKeys) -> None:
    data = sealed_swap(keys)
    settings = {"trust": {"trust_anchors": keys.trust.own_anchors}}
    with (
        c2pa.Context.from_dict(settings) as context,
        c2pa.Reader(io.BytesIO(data), context=context) as reader,
    ):
        assert reader.get_validation_state() == "Trusted"


def test_signing_and_reading_in_many_threads(keys: SigningKeys) -> None:
    chain = x509.load_pem_x509_certificates(keys.chain_pem)
    private_key = serialization.load_pem_private_key(keys.leaf_key_pem, None)
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    assert private_key.public_key() == chain[0].public_key()
    signers = keys, replace(keys, sign_claim=es256_signer(private_key))

    def seal_and_read(seed: int) -> ManifestReading:
        return read_manifest(sealed_sample(signers[seed % 2], seed=seed), JPEG, keys.trust)

    with ThreadPoolExecutor(6) as pool:
        readings = list(pool.map(seal_and_read, range(18)))
    assert all(each.ours for each in readings)
    assert len({each.label for each in readings}) == 18


def test_stripped_picture_gives_no_reading_to_anybody(keys: SigningKeys) -> None:
    bare = join_parts(without_c2pa_store(split_parts(sealed_sample(keys))))
    assert read_manifest(bare, JPEG, keys.trust) == ManifestReading("none")
