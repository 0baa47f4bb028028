"""Reads and writes whole files, so that no file is ever half-written; does not know what is in them."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from provenance.errors import InputError, StoreError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def read_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file. InputError `file.*` when it is missing, a folder, empty, too large, …

    Never waits: a FIFO or device is refused, also when it takes the file's place between look and open.
    """
    with open_file(path, max_bytes) as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise _cannot_read(path, error) from error
    if len(data) > max_bytes:
        raise _too_large(path, len(data), max_bytes)
    if not data:
        raise InputError("file.empty", f"{path} is empty.", "Name a file that holds a picture.")
    return data


@contextmanager
def open_file(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """A regular file, open for reading; InputError `file.*` as `read_file`."""
    try:
        _check_readable(path, os.stat(path), max_bytes)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(handle, "rb")
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from error
    with file:
        try:
            _check_readable(path, os.fstat(handle), max_bytes)
        except OSError as error:
            raise _cannot_read(path, error) from error
        yield file


def write_file_atomically(path: Path, data: bytes | BinaryIO, *, inputs: Iterable[Path] = ()) -> None:
    """Put `data` at `path` whole or not at all: a new file beside it, synced, then renamed over it.

    An open file is copied from its beginning, piece by piece.

    `inputs` are files that may not be overwritten (UsageError). StoreError `store.*` when the disk is full,
    the folder missing or closed to us, …; then nothing of the new file stays and an old one is untouched. A
    symbolic link at `path` is replaced, not followed.
    """
    check_writable(path, inputs)
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        try:
            _write_synced(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from error


@contextmanager
def nameless_files(folder: Path, count: int) -> Iterator[tuple[BinaryIO, ...]]:
    """One new, empty file in `folder`, open `count` times, each with a place of its own, for reading and writing.

    It has no name any more: nobody else can open it, and it is gone when this ends, or the process does, however.
    StoreError `store.*` where it cannot be made.
    """
    path = folder / f".{secrets.token_hex(8)}.part"
    with ExitStack() as stack:
        try:
            first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            files = [stack.enter_context(os.fdopen(first, "w+b"))]
            try:
                files += [stack.enter_context(open(path, "r+b")) for _ in range(count - 1)]
            finally:
                os.unlink(path)
        except (OSError, ValueError) as error:
            raise _cannot_write(path, error) from error
        yield tuple(files)


def copy_into(file: BinaryIO, source: BinaryIO) -> None:
    """Copy an open file whole into another; StoreError where the disk is full."""
    source.seek(0)
    try:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
    except OSError as error:
        raise _cannot_write(Path("a working file"), error) from error


def _check_readable(path: Path, found: os.stat_result, max_bytes: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise InputError("file.folder", f"{path} is a folder, not a file.", "Name a file inside it.")
    if not stat.S_ISREG(found.st_mode):
        raise InputError("file.special", f"{path} is a pipe or a device, not a file.", "Name a regular file.")
    if found.st_size > max_bytes:
        raise _too_large(path, found.st_size, max_bytes)


def _too_large(path: Path, num_bytes: int, max_bytes: int) -> InputError:
    return InputError(
        "file.too_large",
        f"{path} has {num_bytes / 1e6:.0f} MB or more; {max_bytes / 1e6:.0f} MB are accepted.",
        "Name a smaller file.",
    )


def _cannot_read(path: Path, error: OSError | ValueError) -> InputError:
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return InputError("file.missing", f"{path} does not exist.", "Check the name and the folder.")
    if number == errno.ELOOP:
        return InputError("file.link_loop", f"{path} is a link that leads back to itself.", "Name the file.")
    return InputError(
        "file.unreadable", f"{path} cannot be read: {_reason(error)}.", "Check its permissions."
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing; StoreError `store.*` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _cannot_write(folder, error) from error


def check_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """UsageError where an output would overwrite an input, StoreError where it cannot be a file; writes nothing."""
    if _is_missing(path.parent):
        raise StoreError("store.no_folder", f"The folder of {path} does not exist.", "Make it and retry.")
    for other in inputs:
        with suppress(OSError, ValueError):
            if os.path.samefile(path, other):
                raise UsageError(
                    "usage.output_is_input", f"{path} is also an input.", "Name another file for the output."
                )
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise StoreError("store.not_a_file", f"{path} is {kind}.", "Name a file for the output.")


def _is_missing(folder: Path) -> bool:
    """Whether a folder is surely not there; one that may not be looked at is told by the write itself."""
    try:
        return not folder.is_dir()
    except OSError:
        return False


def _write_synced(path: Path, data: bytes | BinaryIO) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(handle, "wb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            data.seek(0)
            shutil.copyfileobj(data, file, 1 << 20)
        file.flush()
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; OSError where the disk refuses."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError | ValueError) -> StoreError:
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    if number in _FULL:
        return StoreError(
            "store.disk_full", f"No room is left to write {path}.", "Free some space and retry."
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return StoreError("store.no_folder", f"The folder of {path} does not exist.", "Make it and retry.")
    if number in _FORBIDDEN:
        return StoreError(
            "store.not_writable", f"{path} may not be written: {_reason(error)}.", "Name another folder."
        )
    return StoreError("store.write_failed", f"{path} cannot be written: {_reason(error)}.", "Check the disk.")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
