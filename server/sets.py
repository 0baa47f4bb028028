"""Labelled sets that jobs make: where they lie, which files they hold, how large they may be; knows no queue.

A set in the making lies in `making/` of the home, outside what a backup takes. A whole one is moved to `store/sets/`
in one rename, and is never changed there. Which files it holds says its list, a JSON document with the sha256 of
each: that of the list is in the ledger, so whoever has the list can prove every file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tarfile import BLOCKSIZE, USTAR_FORMAT, TarInfo
from typing import Any, Final

from facesets.spec import SetFields
from fusion.files import make_folder, sync_folder
from provenance.errors import InputError, StoreError
from provenance.hashes import sha256_hex

LIST_SCHEMA: Final = "facsimile-faceset-files/1"
COPYING: Final = frozenset({"parquet", "webdataset"})
"""The formats that hold every picture again."""
_EXTRA_BYTES: Final = 1 << 18  # of a picture: its manifest with those of its parents, record, mask
_TAR_RECORD: Final = 20 * BLOCKSIZE


def most_bytes(spec: SetFields) -> int:
    """More than a set of this spec can take on the disk: every picture as raw pixels, once more in each copy."""
    count = spec.identities * spec.pictures + spec.fused + spec.self_blended
    copies = 1 + len(COPYING & {*spec.formats})
    return count * copies * (3 * spec.size_px**2 + _EXTRA_BYTES)


@dataclass(frozen=True)
class ListedFile:
    """One file of a set; `path` is below the set's folder, with slashes."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class FileList:
    """Every file of a whole set, by path."""

    name: str
    files: tuple[ListedFile, ...]

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(each.num_bytes for each in self.files)

    def dump(self) -> bytes:
        """JSON, the same list to the same bytes."""
        listed = [{"path": f.path, "bytes": f.num_bytes, "sha256": f.sha256} for f in self.files]
        return (
            json.dumps({"schema": LIST_SCHEMA, "name": self.name, "files": listed}, indent=1) + "\n"
        ).encode()

    @classmethod
    def load(cls, data: bytes) -> FileList:
        """A dumped list, whose hash was verified by the store that it comes from."""
        told: Mapping[str, Any] = json.loads(data)
        files = (ListedFile(each["path"], each["bytes"], each["sha256"]) for each in told["files"])
        return cls(str(told["name"]), tuple(files))

    def find(self, path: str) -> ListedFile:
        """The file of this path; InputError `faceset.no_such_file`."""
        for each in self.files:
            if each.path == path:
                return each
        raise InputError("faceset.no_such_file", "The set holds no such file.", "See its list of files.")


class SetStore:
    """The sets of one home, each in a folder that has its job's id as name."""

    def __init__(self, home_path: Path, store_path: Path) -> None:
        self._making = home_path / "making"
        self._whole = store_path / "sets"

    def begin(self, job_id: str) -> Path:
        """The folder to make a set in; what an earlier try left is in it."""
        folder, whole = self._making / job_id, self._whole / job_id
        make_folder(self._making)
        if whole.is_dir():  # it was put in place, and then its job's end was not recorded
            os.rename(whole, folder)
        return folder

    def list_files(self, job_id: str, name: str) -> FileList:
        """What the folder holds now, hidden files aside."""
        folder = self._making / job_id
        paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        shown = [path for path in paths if not any(part.startswith(".") for part in path.split("/"))]
        return FileList(name, tuple(_look_at(folder, path) for path in shown))

    def put_in_place(self, job_id: str) -> None:
        """The set is whole: move it to where it is read from."""
        make_folder(self._whole)
        try:
            os.rename(self._making / job_id, self._whole / job_id)
            sync_folder(self._whole)
        except OSError as error:
            raise StoreError(
                "faceset.not_in_place",
                f"The set cannot be put in place: {error.strerror}.",
                "Check the disk.",
            ) from error

    def read(self, job_id: str, file: ListedFile) -> bytes:
        """A file of a whole set; InputError `object.missing`, StoreError `object.altered`."""
        try:
            data = (self._whole / job_id / file.path).read_bytes()
        except FileNotFoundError:
            raise InputError("object.missing", "The file is no longer kept.", "Make it again.") from None
        if sha256_hex(data) != file.sha256:
            raise StoreError(
                "object.altered", f"{file.path} of {job_id} was altered.", "Restore the home from its backup."
            )
        return data

    def archive(self, job_id: str, listed: FileList) -> Iterator[bytes]:
        """All files as a tar archive (ustar), piece by piece; every file is verified before it goes in."""
        length = 0
        for each in listed.files:
            data = self.read(job_id, each)
            head = _tar_head(each.path, len(data))
            padded = data + bytes(-len(data) % BLOCKSIZE)
            length += len(head) + len(padded)
            yield head
            yield padded
        yield bytes(archive_bytes(listed) - length)

    def discard(self, job_id: str) -> None:
        """Remove what was made for a job that came to nothing."""
        shutil.rmtree(self._making / job_id, ignore_errors=True)

    def sweep(self, open_jobs: Collection[str], done_jobs: Collection[str], older_than: float) -> int:
        """Remove the sets of jobs that are neither, last changed before `older_than` (seconds since 1970); how many."""
        doomed = [
            folder
            for root, kept in ((self._making, {*open_jobs}), (self._whole, {*open_jobs, *done_jobs}))
            for folder in root.glob("*")
            if folder.name not in kept and folder.stat().st_mtime < older_than
        ]
        for folder in doomed:
            shutil.rmtree(folder, ignore_errors=True)
        return len(doomed)


def archive_bytes(listed: FileList) -> int:
    """How long the archive of a set is."""
    whole = sum(BLOCKSIZE + each.num_bytes + -each.num_bytes % BLOCKSIZE for each in listed.files)
    return whole + 2 * BLOCKSIZE + -(whole + 2 * BLOCKSIZE) % _TAR_RECORD


def _look_at(folder: Path, path: str) -> ListedFile:
    data = (folder / path).read_bytes()
    return ListedFile(path, len(data), sha256_hex(data))


def _tar_head(path: str, num_bytes: int) -> bytes:
    info = TarInfo(path)
    info.size, info.mode = num_bytes, 0o644
    return info.tobuf(USTAR_FORMAT)
