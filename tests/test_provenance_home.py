"""A home: made whole or not at all, never overwritten, every unusable one told apart."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from provenance import home as home_module
from provenance.errors import FacsimileError, InputError, SignatureError, StoreError, UsageError
from provenance.fsck import verify
from provenance.home import Home


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "home"
    Home.create(path, "Example Lab").close()
    return path


@pytest.fixture
def home_path(made_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_home, tmp_path / "home"))


def refusal(path: Path) -> FacsimileError:
    with pytest.raises(FacsimileError) as caught:
        Home.open(path)
    assert caught.value.cause
    assert caught.value.next_step
    return caught.value


def test_a_new_home_is_complete_private_and_logged(home_path: Path) -> None:
    with Home.open(home_path) as home:
        assert home.organisation == "Example Lab"
        assert home.deployment.startswith("urn:uuid:")
        assert home.jurisdiction == "WORLD"
        assert home.store_path.is_dir()
        report = verify(home)
        first = home.ledger.entry(0)
    assert report.ok
    assert report.size == 1
    assert report.checkpoint.startswith("Example-Lab/ledger\n1\n")
    assert first.kind == "init"
    assert first.body["deployment"] == home.deployment
    assert first.body["ledger_key"] == home.ledger.signer.verifier.text
    for folder in (home_path, home_path / "keys", home_path / "store"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("home.json", "ledger.db", "keys/ledger.key.pem", "keys/template.key"):
        assert stat.S_IMODE((home_path / name).stat().st_mode) == 0o600


def test_two_homes_share_nothing(made_home: Path, tmp_path: Path) -> None:
    with Home.create(tmp_path / "other", "Example Lab") as other, Home.open(made_home) as home:
        assert other.deployment != home.deployment
        assert other.keys.template_key != home.keys.template_key
        assert other.ledger.signer.verifier.text != home.ledger.signer.verifier.text


def test_a_home_is_never_overwritten(home_path: Path) -> None:
    before = {path: path.read_bytes() for path in home_path.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=r"home\.exists"):
        Home.create(home_path, "Another")
    assert {path: path.read_bytes() for path in home_path.rglob("*") if path.is_file()} == before


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"home\.not_empty"):
        Home.create(tmp_path, "Example Lab")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_empty_folder_becomes_a_home_and_private(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir(mode=0o755)
    Home.create(path, "Example Lab").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_an_organisation_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"home\.organisation"):
        Home.create(tmp_path / "home", "  ")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("step", ["make_keys", "_init_body", "_write_record"])
def test_a_failed_creation_leaves_nothing(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(home_module, step, fail)
        with pytest.raises(StoreError, match=r"home\.disk_full"):
            Home.create(tmp_path / "home", "Example Lab")
    assert list((tmp_path / "home").iterdir()) == []
    Home.create(tmp_path / "home", "Example Lab").close()


def test_an_interrupted_creation_is_told_and_not_built_upon(home_path: Path) -> None:
    (home_path / "home.json").unlink()
    assert refusal(home_path).code == "home.incomplete"
    with pytest.raises(StoreError, match=r"home\.incomplete"):
        Home.create(home_path, "Example Lab")


def test_missing_empty_and_file_are_told_apart(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").code == "home.missing"
    assert refusal(tmp_path).code == "home.empty"
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file").code == "home.not_a_folder"
    with pytest.raises(StoreError, match=r"home\.not_a_folder"):
        Home.create(tmp_path / "file", "Example Lab")
    with pytest.raises(StoreError, match=r"home\.not_a_folder"):
        Home.create(tmp_path / "file" / "below", "Example Lab")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_id": 1}', "\udcff"])
def test_a_damaged_record_is_corrupt(home_path: Path, text: str) -> None:
    (home_path / "home.json").write_bytes(text.encode(errors="surrogateescape"))
    assert refusal(home_path).code == "home.corrupt"


def test_a_record_of_another_version_is_corrupt(home_path: Path) -> None:
    record = home_path / "home.json"
    record.write_text(record.read_text().replace("facsimile-home/1", "facsimile-home/2"))
    assert refusal(home_path).code == "home.corrupt"


@pytest.mark.parametrize("part", [".", "keys"])
def test_a_home_open_to_others_is_refused(home_path: Path, part: str) -> None:
    (home_path / part).chmod(0o755)
    error = refusal(home_path)
    assert error.code == "home.permissions"
    assert "chmod 700" in error.next_step


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, "home.unreadable"),
        (errno.EROFS, "home.read_only"),
        (errno.EIO, "home.failed"),
        (errno.ENOSPC, "home.disk_full"),
    ],
)
def test_what_the_system_refuses_is_stated(
    home_path: Path, number: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_text", fail)
    assert refusal(home_path).code == code


def test_lost_and_damaged_parts_are_stated(home_path: Path) -> None:
    database = home_path / "ledger.db"
    kept = database.read_bytes()
    database.write_bytes(b"not a database" * 1000)
    assert refusal(home_path).code == "store.corrupt"
    database.unlink()
    assert refusal(home_path).code == "store.missing"
    database.write_bytes(kept)
    (home_path / "keys" / "grant.key.pem").unlink()
    assert refusal(home_path).code == "keys.missing"
    shutil.rmtree(home_path / "keys")
    assert isinstance(refusal(home_path), StoreError)


def test_the_ledger_of_another_home_is_not_accepted(home_path: Path, tmp_path: Path) -> None:
    Home.create(tmp_path / "other", "Example Lab").close()
    shutil.copy(tmp_path / "other" / "ledger.db", home_path / "ledger.db")
    with Home.open(home_path) as home:
        assert not verify(home).ok
        with pytest.raises(SignatureError):
            home.ledger.append({"kind": "check"})


def test_a_database_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    with Home.create(tmp_path / "home", "Example Lab", database_url=url) as home:
        home.ledger.append({"kind": "check"})
    assert not (tmp_path / "home" / "ledger.db").exists()
    with Home.open(tmp_path / "home", url) as home:
        assert verify(home).size == 2
    with pytest.raises(StoreError, match=r"store\.in_use"):
        Home.create(tmp_path / "second", "Example Lab", database_url=url)
    with pytest.raises(InputError, match=r"store\.url"):
        Home.create(tmp_path / "third", "Example Lab", database_url="mysql://host/name")
    assert list((tmp_path / "third").iterdir()) == []
