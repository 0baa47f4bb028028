"""Whole files or none: reading what is no file, writing where no room is."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusion.media import read_file, write_file_atomically
from provenance.errors import InputError, StoreError, UsageError


@contextmanager
def nobody() -> Iterator[None]:
    """Root reads and writes all; step down to a user that does not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def make_special(folder: Path, kind: str) -> Path:
    path = folder / kind
    match kind:
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "dangling":
            path.symlink_to(folder / "nowhere")
        case "behind_a_file":
            (folder / "file").write_bytes(b"x")
            path = folder / "file" / "inner"
        case "long":
            path = folder / ("n" * 300)
        case "null":
            path = folder / "a\0b"
        case "huge":
            with path.open("wb") as file:
                file.truncate(10 << 30)
        case "device":
            path = Path("/dev/zero")
    return path


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("missing", "file.missing"),
        ("dangling", "file.missing"),
        ("behind_a_file", "file.missing"),
        ("long", "file.missing"),
        ("null", "file.missing"),
        ("folder", "file.folder"),
        ("empty", "file.empty"),
        ("pipe", "file.special"),
        ("device", "file.special"),
        ("loop", "file.link_loop"),
        ("huge", "file.too_large"),
    ],
)
def test_what_is_no_readable_file_is_named(tmp_path: Path, kind: str, code: str) -> None:
    path = make_special(tmp_path, kind)
    with pytest.raises(InputError) as caught:
        read_file(path, 1 << 20)
    assert caught.value.code == code
    assert path.name.replace("\0", "") in str(caught.value).replace("\0", "")


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.write_bytes(b"secret")
    path.chmod(0)
    with nobody(), pytest.raises(InputError) as caught:
        read_file(path, 100)
    assert caught.value.code == "file.unreadable"


def test_the_limit_is_the_last_size_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    assert read_file(path, 100) == bytes(100)
    with pytest.raises(InputError):
        read_file(path, 99)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_file(tmp_path / "link", 10) == b"x"


def test_a_write_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    write_file_atomically(path, b"one")
    write_file_atomically(path, b"two" * 1_000_000)
    assert path.read_bytes() == b"two" * 1_000_000
    assert os.listdir(tmp_path) == ["out.png"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"keep")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    write_file_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "victim").read_bytes() == b"keep"
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "link").is_symlink()


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(b"original")
    (tmp_path / "other_name").symlink_to(path)
    for output in (path, tmp_path / "other_name"):
        with pytest.raises(UsageError) as caught:
            write_file_atomically(output, b"new", inputs=[tmp_path / "gone", path])
        assert caught.value.code == "usage.output_is_input"
    assert path.read_bytes() == b"original"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("folder", "store.not_a_file"),
        ("pipe", "store.not_a_file"),
        ("device", "store.not_a_file"),
        ("behind_a_file", "store.no_folder"),
        ("missing/inner", "store.no_folder"),
        ("long", "store.write_failed"),
        ("null", "store.write_failed"),
    ],
)
def test_where_nothing_can_be_written_is_named(tmp_path: Path, kind: str, code: str) -> None:
    path = make_special(tmp_path, kind)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(StoreError) as caught:
        write_file_atomically(path, b"data")
    assert caught.value.code == code
    assert sorted(os.listdir(tmp_path)) == before


def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with nobody(), pytest.raises(StoreError) as caught:
        write_file_atomically(folder / "out.png", b"data")
    assert caught.value.code == "store.not_writable"
    assert os.listdir(folder) == []


def check_full(folder: Path) -> None:
    path = folder / "out.png"
    write_file_atomically(path, b"old")
    with pytest.raises(StoreError) as caught:
        write_file_atomically(path, bytes(1 << 20))
    assert caught.value.code == "store.disk_full"
    assert path.read_bytes() == b"old"
    assert os.listdir(folder) == ["out.png"]
    with pytest.raises(StoreError):
        write_file_atomically(folder / "new.png", bytes(1 << 20))
    assert os.listdir(folder) == ["out.png"]


def test_a_limit_of_file_size_reads_as_a_full_disk(tmp_path: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    try:
        check_full(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip(
            "only root may mount the 64 KiB disk that this test fills; the limit of file size is tested"
        )
    try:
        check_full(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_failed_rename_or_interrupt_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file_atomically(tmp_path / "out.png", b"data")
    assert os.listdir(tmp_path) == []
