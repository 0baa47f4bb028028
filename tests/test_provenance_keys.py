"""Keys of a home: made once, loaded only when whole and private, rotated and revoked."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

from provenance.certificates import CLAIM_SIGNING_EKU, check_chain, es256_signer, fingerprint, make_chain
from provenance.errors import FacsimileError, InputError, SignatureError, StoreError
from provenance.keys import PRIVATE_FILES, SigningKeys, load_trust, make_keys, revoke_leaf, rotate_leaf


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("home") / "keys"
    make_keys(directory, "Example Studio")
    return directory


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "keys"))


def test_loaded_keys_are_whole_and_distinct(made: Path) -> None:
    keys = SigningKeys.load(made)
    assert keys.organisation == "Example Studio"
    assert len(keys.mark_key) == len(keys.template_key) == 32
    assert keys.mark_key != keys.template_key
    assert keys.ledger_key.public_key() != keys.grant_key.public_key()
    assert keys.chain_pem.count(b"BEGIN CERTIFICATE") == 2
    assert keys.trust.own_anchors.encode() not in keys.chain_pem
    assert keys.trust.own_anchors.count("BEGIN CERTIFICATE") == 1
    assert keys.trust.pinned_leaves.encode() in keys.chain_pem


def test_end_of_the_leaf_is_told(made: Path) -> None:
    remaining = SigningKeys.load(made).expires_at - datetime.now(UTC)
    assert timedelta(days=1094) < remaining < timedelta(days=1096)


def test_private_files_are_for_their_owner_only(made: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o700
    assert {name: (made / name).stat().st_mode & 0o777 for name in PRIVATE_FILES} == dict.fromkeys(
        PRIVATE_FILES, 0o600
    )
    assert {path.name for path in made.rglob("*") if b"PRIVATE" in _bytes(path)} < set(PRIVATE_FILES)


def test_no_secret_shows_in_repr(made: Path) -> None:
    keys = SigningKeys.load(made)
    shown = repr(keys)
    assert repr(keys.mark_key) not in shown
    assert "Key object" not in shown
    assert "function" not in shown


def test_keys_are_never_overwritten(directory: Path) -> None:
    before = {path: _bytes(path) for path in directory.rglob("*")}
    with pytest.raises(StoreError, match=r"keys\.exist"):
        make_keys(directory, "Somebody Else")
    assert {path: _bytes(path) for path in directory.rglob("*")} == before


def test_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"keys\.write: .*No space"):
        make_keys(tmp_path / "home" / "keys", "Example Studio")
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "line\nbreak", "nul\0"])
def test_organisation_must_fit_a_certificate(name: str) -> None:
    with pytest.raises(InputError, match=r"keys\.organisation"):
        make_chain(name)


@pytest.mark.parametrize(
    "name",
    [*(name for name in PRIVATE_FILES if name[:4] not in ("root", "issu")), "leaf.crt.pem", "root.crt.pem"],
)
def test_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(StoreError, match=r"keys\.missing") as caught:
        SigningKeys.load(directory)
    assert name in caught.value.cause


def test_root_and_issuing_key_may_live_elsewhere(directory: Path) -> None:
    (directory / "root.key.pem").unlink()
    (directory / "issuing.key.pem").unlink()
    assert SigningKeys.load(directory).organisation == "Example Studio"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_private_file_open_to_others_is_refused(directory: Path, mode: int) -> None:
    (directory / "mark.key").chmod(mode)
    with pytest.raises(StoreError, match=r"keys\.permissions") as caught:
        SigningKeys.load(directory)
    assert "chmod 600" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("leaf.key.pem", b"not a key"),
        ("leaf.crt.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("mark.key", b"00" * 31),
        ("template.key", b"\xff" * 32),
        ("trust/revoked.txt", b"not-a-fingerprint\n"),
        ("trust/own/other.pem", b"nothing here"),
    ],
)
def test_broken_file_is_a_store_error(directory: Path, name: str, content: bytes) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(StoreError, match=r"keys\.broken"):
        SigningKeys.load(directory)


def test_keys_of_the_wrong_kind_are_refused(directory: Path) -> None:
    shutil.copy(directory / "leaf.key.pem", directory / "ledger.key.pem")
    with pytest.raises(StoreError, match=r"keys\.broken"):
        SigningKeys.load(directory)


@pytest.mark.parametrize("name", ["leaf.key.pem", "leaf.crt.pem", "issuing.crt.pem", "root.crt.pem"])
def test_files_of_two_homes_do_not_mix(directory: Path, tmp_path: Path, name: str) -> None:
    make_keys(tmp_path / "other", "Example Studio")
    shutil.copy(tmp_path / "other" / name, directory / name)
    with pytest.raises(SignatureError, match=r"keys\.mismatch"):
        SigningKeys.load(directory)


def test_leaf_has_exactly_the_profile_of_a_claim_signer() -> None:
    chain = make_chain("Example Studio")
    extensions = chain.leaf.extensions
    assert isinstance(chain.leaf.public_key(), ec.EllipticCurvePublicKey)
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value == x509.KeyUsage(True, *[False] * 8)
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [CLAIM_SIGNING_EKU, ExtendedKeyUsageOID.EMAIL_PROTECTION]
    assert _authority_id(chain.leaf) == _subject_id(chain.issuing)
    assert _authority_id(chain.issuing) == _subject_id(chain.root)
    assert _path_length(chain.root) == 1
    assert _path_length(chain.issuing) == 0
    assert len({each.serial_number for each in (chain.root, chain.issuing, chain.leaf)}) == 3


def test_chain_of_a_namesake_does_not_check() -> None:
    ours, twin = make_chain("Example Studio"), make_chain("Example Studio")
    assert ours.leaf.issuer == twin.issuing.subject
    check_chain(ours.leaf, ours.issuing, ours.root, ours.leaf_key.public_key())
    with pytest.raises(SignatureError, match=r"keys\.mismatch"):
        check_chain(ours.leaf, twin.issuing, twin.root, ours.leaf_key.public_key())


def test_certificates_begin_before_now_and_nest() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    chain = make_chain("Example Studio", now)
    assert chain.leaf.not_valid_before_utc == now - timedelta(hours=1)
    assert chain.leaf.not_valid_after_utc < chain.issuing.not_valid_after_utc < chain.root.not_valid_after_utc


def test_claim_signature_is_r_and_s_of_32_bytes() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signature = es256_signer(key)(b"claim")
    assert len(signature) == 64
    der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    key.public_key().verify(der, b"claim", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        key.public_key().verify(der, b"other", ec.ECDSA(hashes.SHA256()))


def test_rotation_changes_the_key_and_keeps_the_old_pin(directory: Path) -> None:
    before = SigningKeys.load(directory)
    name = rotate_leaf(directory)
    after = SigningKeys.load(directory)
    assert after.chain_pem != before.chain_pem
    assert fingerprint(x509.load_pem_x509_certificate(after.chain_pem)) == name
    assert before.trust.pinned_leaves in after.trust.pinned_leaves
    assert after.trust.pinned_leaves.count("BEGIN CERTIFICATE") == 2
    assert after.organisation == before.organisation


def test_revoked_leaf_is_no_longer_pinned(directory: Path) -> None:
    leaf = x509.load_pem_x509_certificate(SigningKeys.load(directory).chain_pem)
    revoke_leaf(directory, fingerprint(leaf))
    revoke_leaf(directory, fingerprint(leaf))
    trust = load_trust(directory / "trust")
    assert trust.pinned_leaves == ""
    assert trust.revoked == {fingerprint(leaf)}
    assert (directory / "trust" / "revoked.txt").read_text() == fingerprint(leaf) + "\n"


def test_revocation_needs_a_fingerprint(directory: Path) -> None:
    with pytest.raises(InputError, match=r"keys\.fingerprint"):
        revoke_leaf(directory, "AB:CD")


def test_absent_trust_directory_believes_nobody(tmp_path: Path) -> None:
    trust = load_trust(tmp_path / "nothing")
    assert trust.own_anchors + trust.listed_anchors + trust.pinned_leaves == ""


def test_every_error_says_what_to_do(directory: Path) -> None:
    (directory / "leaf.key.pem").unlink()
    with pytest.raises(FacsimileError) as caught:
        SigningKeys.load(directory)
    assert caught.value.exit_code == 2
    assert caught.value.next_step


def test_listed_anchors_are_read_from_bundles(directory: Path) -> None:
    form = serialization.Encoding.PEM
    bundle = b"".join(make_chain(name).root.public_bytes(form) for name in ("Camera A", "Camera B"))
    (directory / "trust" / "listed" / "cameras.pem").write_bytes(bundle)
    assert SigningKeys.load(directory).trust.listed_anchors.encode() == bundle


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _path_length(certificate: x509.Certificate) -> int | None:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length


def _authority_id(certificate: x509.Certificate) -> bytes | None:
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def _subject_id(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier
