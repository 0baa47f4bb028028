"""One deployment's folder (FACSIMILE_HOME): keys, database, store; does not know what is asked of it.

    home.json     deployment id, organisation, jurisdiction; written last, so it marks a complete home
    keys/         see keys.py
    ledger.db     ledger, subjects, grants (absent where FACSIMILE_DATABASE names a server)
    store/        manifests and outputs kept by content hash

Folders have mode 0700, private files 0600. Nothing here is ever overwritten.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from provenance.checkpoint import Signer, key_name
from provenance.database import Database
from provenance.errors import StoreError, UsageError
from provenance.keys import SigningKeys, make_keys
from provenance.ledger import Ledger
from provenance.records import WORLD

HOME_SCHEMA = "facsimile-home/1"
_PARTS = (".init", "keys", "ledger.db", "ledger.db-wal", "ledger.db-shm", "store")


class HomeRecord(BaseModel):
    """What home.json holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_id: str
    deployment: str
    organisation: str
    jurisdiction: str
    created: str


@dataclass(frozen=True)
class Home:
    """An open home; close it, or use it as a context manager."""

    path: Path
    record: HomeRecord
    keys: SigningKeys
    database: Database
    ledger: Ledger
    timestamp_url: str | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        organisation: str,
        *,
        jurisdiction: str = WORLD,
        database_url: str | None = None,
    ) -> Home:
        """Make keys, database and ledger in a new or empty folder, whole or not at all; StoreError otherwise.

        `jurisdiction` says where the outputs will be used: an ISO 3166 code, EU or WORLD, the widest claim and so
        the hardest to get a grant for.
        """
        if not organisation.strip():
            raise UsageError(
                "home.organisation", "The organisation has no name.", "Give --organisation NAME."
            )
        with _stated_errors(path):
            _claim_folder(path)
            try:
                _fill(path, organisation.strip(), jurisdiction, database_url)
            except BaseException:
                _remove_parts(path)
                raise
            (path / ".init").unlink()
        return cls.open(path, database_url)

    @classmethod
    def open(
        cls, path: Path, database_url: str | None = None, *, timestamp_url: str | None = None, pin: str = ""
    ) -> Home:
        """Open a complete home; StoreError: missing, incomplete, unreadable, damaged, open to others.

        `timestamp_url` names the RFC 3161 authority that stamps what is sealed: the only thing that uses a network.
        `pin` opens the token where the signing key lies in one (provenance/hardware.py).
        """
        with _stated_errors(path):
            record = _read_record(path)
            _require_private(path)
            _require_private(path / "keys")
        keys = SigningKeys.load(path / "keys", pin)
        database = _database(path, database_url)
        try:
            database.require_schema()
        except BaseException:
            database.close()
            raise
        return cls(path, record, keys, database, make_ledger(database, keys), timestamp_url)

    @property
    def organisation(self) -> str:
        """Who operates this home."""
        return self.record.organisation

    @property
    def deployment(self) -> str:
        """The id that grants are addressed to (their `aud`)."""
        return self.record.deployment

    @property
    def jurisdiction(self) -> str:
        """Where the outputs of this home will be used."""
        return self.record.jurisdiction

    @property
    def store_path(self) -> Path:
        """Folder for what is kept by content hash."""
        return self.path / "store"

    def close(self) -> None:
        """Give back the database."""
        self.database.close()

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_ledger(database: Database, keys: SigningKeys) -> Ledger:
    """The ledger of these keys, named after their organisation."""
    return Ledger(database, Signer(key_name(keys.organisation), keys.ledger_key))


def _database(path: Path, url: str | None) -> Database:
    return Database(url) if url else Database.at(path / "ledger.db")


def _claim_folder(path: Path) -> None:
    """Make the folder, or take an empty one; only one process can."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise _refuse_to_fill(path)
    path.chmod(0o700)
    os.close(os.open(path / ".init", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _refuse_to_fill(path: Path) -> StoreError:
    if (path / "home.json").exists():
        return StoreError(
            "home.exists",
            f"{path} already is a home, and is never overwritten.",
            "Use it as it is, or choose another FACSIMILE_HOME.",
        )
    if any((path / part).exists() for part in _PARTS):
        return _incomplete(path)
    return StoreError(
        "home.not_empty", f"{path} holds other files.", "Choose an empty folder, or one that does not exist."
    )


def _fill(path: Path, organisation: str, jurisdiction: str, database_url: str | None) -> None:
    make_keys(path / "keys", organisation)
    (path / "store").mkdir(mode=0o700)
    record = HomeRecord(
        schema_id=HOME_SCHEMA,
        deployment=f"urn:uuid:{uuid.uuid4()}",
        organisation=organisation,
        jurisdiction=jurisdiction,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    keys = SigningKeys.load(path / "keys")
    database = _database(path, database_url)
    try:
        database.create()
        ledger = make_ledger(database, keys)
        with database.write() as conn:
            ledger.create(_init_body(record, ledger), conn)
    finally:
        database.close()
    _write_record(path, record)


def _init_body(record: HomeRecord, ledger: Ledger) -> dict[str, Any]:
    return {
        "deployment": record.deployment,
        "organisation": record.organisation,
        "jurisdiction": record.jurisdiction,
        "ledger_key": ledger.signer.verifier.text,
    }


def _write_record(path: Path, record: HomeRecord) -> None:
    draft = path / ".home.json"
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps(record.model_dump(), indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path / "home.json")


def _remove_parts(path: Path) -> None:
    """Undo a failed `_fill`: only what it made itself, in a folder it found empty."""
    for part in (*_PARTS, ".home.json"):
        if (path / part).is_dir():
            shutil.rmtree(path / part, ignore_errors=True)
        else:
            (path / part).unlink(missing_ok=True)


def _read_record(path: Path) -> HomeRecord:
    if not path.exists():
        raise StoreError("home.missing", f"There is no home at {path}.", "Run `facsimile init`.")
    if not path.is_dir():
        raise _not_a_folder(path)
    try:
        text = (path / "home.json").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if any(path.iterdir()):
            raise _incomplete(path) from error
        raise StoreError("home.empty", f"{path} is an empty folder.", "Run `facsimile init`.") from error
    try:
        record = HomeRecord.model_validate_json(text)
        if record.schema_id != HOME_SCHEMA:
            raise ValueError(record.schema_id)
    except (ValidationError, ValueError) as error:
        raise StoreError(
            "home.corrupt",
            f"{path / 'home.json'} does not hold what it should.",
            "Restore it from the home's backup.",
        ) from error
    return record


def _require_private(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        raise StoreError(
            "home.permissions", f"{path} is open to others (mode {mode:03o}).", f"chmod 700 {path}"
        )


def _incomplete(path: Path) -> StoreError:
    return StoreError(
        "home.incomplete",
        f"{path} was never completely initialised: an `init` was interrupted, or home.json was lost.",
        "If it was never used, remove the folder and run `facsimile init`; else restore it from its backup.",
    )


def _not_a_folder(path: Path) -> StoreError:
    return StoreError("home.not_a_folder", f"{path} is not a folder.", "Choose another FACSIMILE_HOME.")


@contextmanager
def _stated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _state(error, path) from error
    except UnicodeDecodeError as error:
        raise StoreError(
            "home.corrupt", f"{path / 'home.json'} is not text.", "Restore it from the home's backup."
        ) from error


def _state(error: OSError, path: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("home.disk_full", f"The disk of {path} is full.", "Free some space and try again.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError("home.unreadable", f"{path} may not be used by you.", "Check its owner and mode.")
    if error.errno == errno.EROFS:
        return StoreError("home.read_only", f"The disk of {path} is read-only.", "Choose another folder.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return _not_a_folder(path)
    return StoreError("home.failed", f"{path} cannot be used: {error.strerror}.", "Check the disk.")
