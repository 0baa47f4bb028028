"""A key that lies in a PKCS#11 token signs pictures as a file's key does, and never comes out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from seals import picture, sample_manifest

from provenance.errors import InputError, StoreError
from provenance.hardware import TOKEN_FILE, TokenKey, open_key
from provenance.keys import SigningKeys, list_leaves, make_keys, rotate_leaf
from provenance.signing import read_manifest, sign

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
PIN, JPEG = "4711", "image/jpeg"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> TokenKey:
    """A fresh SoftHSM2 token; apt-get install softhsm2 where this is skipped."""
    module = next((each for each in MODULES if Path(each).exists()), None)
    if module is None:
        pytest.skip("SoftHSM2 is not installed (Debian: softhsm2)")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    patch = pytest.MonkeyPatch()
    patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "tests",
        "--pin",
        PIN,
        "--so-pin",
        "0815",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return TokenKey(module, "tests", "claims")


@pytest.fixture(scope="module")
def directory(token: TokenKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key directory whose claim key was moved into the token by a rotation."""
    path: Path = tmp_path_factory.mktemp("home") / "keys"
    make_keys(path, "Example Studio")
    rotate_leaf(path, token=token, pin=PIN)
    return path


def test_a_picture_signed_in_the_token_is_valid_and_ours(directory: Path) -> None:
    keys = SigningKeys.load(directory, PIN)
    assert keys.leaf_key_pem == b""
    for seed in range(2):
        signed = sign(picture(JPEG, seed), JPEG, sample_manifest(), keys)
        reading = read_manifest(signed, JPEG, keys.trust)
        assert (reading.state, reading.ours) == ("valid", True)


def test_no_private_key_is_left_on_disk_and_none_can_be_read_out(directory: Path, token: TokenKey) -> None:
    assert not (directory / "leaf.key.pem").exists()
    assert json.loads((directory / TOKEN_FILE).read_text()) == {
        "module": token.module,
        "token": "tests",
        "label": "claims",
    }
    with pkcs11.lib(token.module).get_token(token_label="tests").open(user_pin=PIN) as session:
        private = next(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}))
        assert private[pkcs11.Attribute.EXTRACTABLE] is False
        with pytest.raises(pkcs11.AttributeSensitive):
            private[pkcs11.Attribute.VALUE]


def test_wrong_pin_wrong_label_and_wrong_library_say_so(directory: Path, token: TokenKey) -> None:
    with pytest.raises(StoreError, match=r"token\.unusable"):
        SigningKeys.load(directory, "0000")
    for other in (TokenKey(token.module, "tests", "none"), TokenKey("/nowhere.so", "tests", "claims")):
        with pytest.raises(StoreError, match=r"token\.unusable"):
            open_key(other, PIN)
    with pytest.raises(InputError, match=r"token\.label"):
        rotate_leaf(directory, token=token, pin=PIN)


def test_a_rotation_back_to_a_file_keeps_what_the_token_signed(directory: Path) -> None:
    old = sign(picture(JPEG), JPEG, sample_manifest(), SigningKeys.load(directory, PIN))
    rotate_leaf(directory)
    keys = SigningKeys.load(directory)
    assert not (directory / TOKEN_FILE).exists()
    assert read_manifest(old, JPEG, keys.trust).ours
    assert [each.state for each in list_leaves(directory)].count("in use") == 1
    assert len(list_leaves(directory)) == 3
