"""A backup is a home again, whole and verified; a hostile archive is none."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from provenance.errors import InputError, StoreError
from provenance.home import Home
from server import auth
from server.backup import restore_backup, write_backup
from server.objects import ObjectStore
from server.tables import ensure_tables


def test_a_restored_home_verifies_and_holds_everything(tmp_path: Path) -> None:
    with Home.create(tmp_path / "home", "Example Lab") as home:
        ensure_tables(home.database)
        key, _ = auth.make_key(home.database, ["verifier"])
        name = ObjectStore(home.store_path).put(b"a finished picture")
        for number in range(20):
            home.ledger.append({"kind": "check", "n": number})
        with home.database.write() as open_write:  # a server is at work meanwhile
            home.ledger.append({"kind": "check", "n": "not yet"}, open_write)
            count = write_backup(home, tmp_path / "b.tar")
        root = home.ledger.tree_head().root
        before = home.ledger.tree_head().size
    assert count > 10
    assert stat.S_IMODE(os.stat(tmp_path / "b.tar").st_mode) == 0o600
    report = restore_backup(tmp_path / "b.tar", tmp_path / "again")
    assert report.ok, report.problems
    assert report.size == 21 == before - 1  # one state: what was not committed is not in it
    with Home.open(tmp_path / "again") as home:
        assert home.ledger.entry(20).body == {"n": 19}
        assert ObjectStore(home.store_path).get(name) == b"a finished picture"
        assert auth.find_by_key(home.database, key) is not None
        home.ledger.append({"kind": "check", "n": "goes on"})
        assert home.ledger.tree_head().root != root
        with pytest.raises(StoreError, match=r"backup\.unwritable|backup\.exists"):
            write_backup(home, tmp_path / "b.tar")
    with pytest.raises(StoreError, match=r"backup\.target"):
        restore_backup(tmp_path / "b.tar", tmp_path / "again")


def archive(folder: Path, *members: tuple[str, bytes | str]) -> Path:
    """A tar of files; a str is where a symbolic link leads."""
    path = folder / "hostile.tar"
    with tarfile.open(path, "w") as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "members",
    [
        [("../escaped", b"x")],
        [("/etc/escaped", b"x")],
        [("keys/../../escaped", b"x")],
        [("keys", "/etc"), ("keys/escaped", b"x")],
        [("store/link", "/etc/passwd")],
        [("home.json", b"{}")],
        [("ledger.db/../../escaped", b"x")],
    ],
)
def test_hostile_archives_are_refused_and_leave_nothing(
    tmp_path: Path, members: list[tuple[str, bytes | str]]
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=r"backup\.damaged"):
        restore_backup(archive(tmp_path, *members), tmp_path / "in" / "home")
    assert list((tmp_path / "in").iterdir()) == []
    assert not list(tmp_path.rglob("escaped"))


def test_what_is_no_archive_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"not a tar" * 100)
    with pytest.raises(InputError, match=r"backup\.damaged"):
        restore_backup(tmp_path / "text", tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_objects_are_put_once_and_verified_on_every_read(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    name = store.put(b"picture")
    assert store.put(b"picture") == name
    path = tmp_path / "sha256" / name[:2] / name
    assert path.read_bytes() == b"picture"
    path.write_bytes(b"another")
    with pytest.raises(StoreError, match=r"object\.altered"):
        store.get(name)
    for evil in ("../../etc/passwd", name.upper(), name[:-1], ""):
        with pytest.raises(InputError, match=r"object\.name"):
            store.get(evil)
    assert store.sweep({name}, 4e9) == 0
    assert store.sweep(set(), 4e9) == 1
    with pytest.raises(InputError, match=r"object\.missing"):
        store.get(name)
