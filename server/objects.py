"""Files kept by what they hold: sha256/aa/<hex>, put once, never changed, verified on every read.

Knows no job and no picture. A file is written beside its place, synced, then renamed: a put that returned survives
a power cut. The home's mode keeps others out. Names are hex digits that this module made or checked, so no path
leads out of the folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from fusion.files import make_folder, write_file_atomically
from provenance.errors import InputError, StoreError

_NAME = re.compile(r"[0-9a-f]{64}")


class ObjectStore:
    """The objects in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sha256"

    def put(self, data: bytes) -> str:
        """Keep the bytes; returns their sha256. What is there already is left as it is."""
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        if path.is_file():
            os.utime(path)
            return name
        make_folder(path.parent)
        write_file_atomically(path, data)
        return name

    def get(self, name: str) -> bytes:
        """The bytes; InputError `object.missing`, StoreError `object.altered` when they are not what they were."""
        try:
            data = self._path(name).read_bytes()
        except FileNotFoundError:
            raise InputError("object.missing", "The file is no longer kept.", "Make it again.") from None
        if hashlib.sha256(data).hexdigest() != name:
            raise StoreError(
                "object.altered", f"The stored file {name} was altered.", "Restore the home from its backup."
            )
        return data

    def has(self, name: str) -> bool:
        """Whether the object is still kept."""
        return self._path(name).is_file()

    def delete(self, name: str) -> None:
        """Forget it; what is not there is no error."""
        with suppress(FileNotFoundError):
            self._path(name).unlink()

    def sweep(self, keep: Collection[str], older_than: float) -> int:
        """Delete what is not in `keep` and was last put before `older_than` (seconds since 1970); how many."""
        doomed = [p for p in self._files() if p.name not in keep and p.stat().st_mtime < older_than]
        for path in doomed:
            path.unlink(missing_ok=True)
        return len(doomed)

    def _files(self) -> Iterator[Path]:
        yield from (path for path in self._folder.glob("??/*") if path.is_file())

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InputError("object.name", "This is no sha256 in hex.", "Use the name that was given.")
        return self._folder / name[:2] / name
