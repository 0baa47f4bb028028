"""A home in one file and back: keys, home.json, database, store; opens no server and signs nothing.

The database is copied by SQLite's own online backup, so a server may run meanwhile: the copy is one state of it. What
is in the store is never changed, so it may be copied before or after. A backup holds every private key and every
person's wrapped key: whoever has it can sign as the home, and an erasure reaches no backup made before it.
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from provenance.errors import InputError, StoreError
from provenance.fsck import FsckReport, verify
from provenance.home import Home

FILES: Final = ("home.json", "keys", "store")
DATABASE: Final = "ledger.db"
MAX_MEMBERS: Final = 5_000_000


def write_backup(home: Home, output: Path) -> int:
    """Write the home to a new .tar file of mode 0600; returns how many files are in it.

    StoreError `backup.exists` where the file is there already, `backup.server` where the database is a server's.
    """
    if home.database.sqlite_path is None:
        raise StoreError(
            "backup.server",
            "The database lies on a server, which has its own way to back up.",
            "Use pg_dump for it, and copy home.json, keys and store of the home; docs/deploy.md shows how.",
        )
    draft = output.with_name(f".{output.name}.part")
    try:
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise StoreError(
            "backup.unwritable", f"{output} cannot be written: {error.strerror}.", "Name another."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
            count = _fill(archive, home, home.database.sqlite_path)
            file.flush()
            os.fsync(file.fileno())
        if output.exists():
            raise StoreError(
                "backup.exists", f"{output} exists; a backup overwrites nothing.", "Name another file."
            )
        draft.rename(output)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    return count


def restore_backup(archive_path: Path, home_path: Path) -> FsckReport:
    """Unpack a backup into a new or empty folder and verify its ledger; the report of that.

    StoreError `backup.target` where the folder holds anything, InputError `backup.damaged` for no backup of ours.
    """
    if home_path.exists() and (not home_path.is_dir() or any(home_path.iterdir())):
        raise StoreError(
            "backup.target", f"{home_path} is not an empty folder.", "Name a folder that is not there."
        )
    home_path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".restore-", dir=home_path.parent))
    try:
        _unpack(archive_path, draft)
        draft.chmod(0o700)
        if home_path.exists():
            home_path.rmdir()
        draft.rename(home_path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    with Home.open(home_path) as home:
        return verify(home)


def _fill(archive: tarfile.TarFile, home: Home, database: Path) -> int:
    """The database last: every object that it names is in the archive by then, for objects come before their rows."""
    with tempfile.TemporaryDirectory(dir=home.path) as folder:
        copy = Path(folder) / DATABASE
        _copy_database(database, copy)
        members = [*_members(home.path), (copy, DATABASE)]
        for path, name in members:
            info = archive.gettarinfo(path, name)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o700 if path.is_dir() else 0o600
            archive.addfile(info, io.BytesIO(path.read_bytes()) if path.is_file() else None)
    return sum(path.is_file() for path, _ in members)


def _members(home: Path) -> Iterator[tuple[Path, str]]:
    for part in FILES:
        root = home / part
        yield root, part
        if root.is_dir():
            yield from (
                (path, str(path.relative_to(home))) for path in sorted(root.rglob("*")) if _kept(path)
            )


def _kept(path: Path) -> bool:
    """No link and no half-written file."""
    return not path.is_symlink() and not (path.name.startswith(".") and path.name.endswith(".part"))


def _copy_database(source: Path, copy: Path) -> None:
    with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(copy)) as writing:
        reading.backup(writing, pages=4096)


def _unpack(archive_path: Path, folder: Path) -> None:
    """Only plain files and folders of the names that a home has; tarfile's data filter stops every way out."""
    try:
        with tarfile.open(archive_path, "r:") as archive:
            for number, member in enumerate(archive):
                if number > MAX_MEMBERS or not _belongs(member):
                    raise _damaged(f"it holds {member.name!r}")
                archive.extract(member, folder, filter="data", set_attrs=False)
                (folder / member.name).chmod(0o700 if member.isdir() else 0o600)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _damaged(type(error).__name__) from error
    if not all((folder / name).exists() for name in (*FILES, DATABASE)):
        raise _damaged("a part is missing")


def _belongs(member: tarfile.TarInfo) -> bool:
    first, *rest = member.name.split("/")
    return (member.isfile() or member.isdir()) and first in (*FILES, DATABASE) and ".." not in rest


def _damaged(reason: str) -> InputError:
    return InputError(
        "backup.damaged", f"This is no whole backup of a home: {reason}.", "Use another backup."
    )
