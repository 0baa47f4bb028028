"""An export is verified by its own script, the standard library and cryptography; every change is found."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import merkle, verify_export
from provenance.checkpoint import Signer, sign_checkpoint
from provenance.database import Database
from provenance.ledger import Ledger
from provenance.tiles import VERIFIER, export_ledger
from provenance.verify_export import NotVerifiedError, root_of, tile_path, verify

SIGNER = Signer("Test/ledger", Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEY = SIGNER.verifier.text
ENTRIES = 700  # two full tiles and a part, so a second level


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """An export of 700 entries, and the checkpoint over the first 300."""
    database = Database.at(tmp_path_factory.mktemp("tiles") / "ledger.db")
    database.create()
    ledger = Ledger(database, SIGNER)
    earlier = ""
    with database.write() as conn:
        ledger.create({"organisation": "Häus & 北京"}, conn)
        for number in range(ENTRIES - 1):
            if number == 299:
                earlier = ledger.checkpoint(conn)
            ledger.append({"kind": "check", "n": number, "half": 0.5}, conn)
    data = export_ledger(ledger)
    assert data == export_ledger(ledger)
    database.close()
    return data, earlier


@pytest.fixture
def folder(made: tuple[bytes, str], tmp_path: Path) -> Path:
    zipfile.ZipFile(io.BytesIO(made[0])).extractall(tmp_path / "export")
    return tmp_path / "export"


def test_the_layout_is_that_of_tlog_tiles(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "checkpoint", "key", VERIFIER,
        "tile/0/000", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2",
        "tile/entries/000", "tile/entries/001", "tile/entries/002.p/188",
    }  # fmt: skip
    assert (folder / "tile/0/000").stat().st_size == 256 * 32
    assert [tile_path("0", number, 256) for number in (999, 1000, 1234067)] == [
        "tile/0/999",
        "tile/0/x001/000",
        "tile/0/x001/x234/067",
    ]


def test_the_shipped_script_verifies_folder_and_zip_in_a_bare_interpreter(
    made: tuple[bytes, str], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "export.zip").write_bytes(made[0])
    (tmp_path / "earlier").write_text(made[1])
    for source in (folder, tmp_path / "export.zip"):
        ran = subprocess.run(
            [sys.executable, "-I", folder / VERIFIER, source, KEY, tmp_path / "earlier"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert json.loads(ran.stdout)["entries"] == ENTRIES


def test_the_script_needs_nothing_but_cryptography_and_is_short() -> None:
    text = Path(verify_export.__file__).read_text()
    modules = set()
    for statement in ast.walk(ast.parse(text)):
        if isinstance(statement, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            modules.add(str(statement.module).split(".")[0])
    assert modules - set(sys.stdlib_module_names) == {"cryptography"}
    assert len(text.splitlines()) < 200


@pytest.mark.parametrize(
    "name", ["tile/0/001", "tile/entries/000", "tile/1/000.p/2", "checkpoint", "tile/0/002.p/188"]
)
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_changed_byte_anywhere_is_found(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    at = int(len(data) * place) if place >= 0 else len(data) - 2
    data[at] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises((NotVerifiedError, ValueError)):
        verify(folder, KEY, [])


def test_a_missing_tile_a_wrong_key_and_a_rewritten_past_are_found(
    made: tuple[bytes, str], folder: Path
) -> None:
    other = Signer("Test/ledger", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01"))
    with pytest.raises(NotVerifiedError, match="not signed by this key"):
        verify(folder, other.verifier.text, [])
    forked = sign_checkpoint(300, bytes(32), SIGNER)
    with pytest.raises(NotVerifiedError, match="not a beginning"):
        verify(folder, KEY, [made[1], forked])
    longer = sign_checkpoint(ENTRIES + 1, bytes(32), SIGNER)
    with pytest.raises(NotVerifiedError, match="not a beginning"):
        verify(folder, KEY, [longer])
    (folder / "tile/0/000").unlink()
    with pytest.raises(NotVerifiedError, match="lacks"):
        verify(folder, KEY, [])


def test_an_entry_written_another_way_is_not_canonical() -> None:
    verify_export.check_entry(b'{"body":{"n":1},"index":3}', 3)
    for entry, index in (
        (b'{"index":3,"body":{"n":1}}', 3),
        (b'{"body":{"n":1},"index":3}', 4),
        (b"[]", 0),
        (b"{", 0),
    ):
        with pytest.raises(NotVerifiedError):
            verify_export.check_entry(entry, index)


def test_roots_are_those_of_the_ledger_for_every_size() -> None:
    leaves = [merkle.hash_leaf(bytes([n])) for n in range(40)]
    for size in range(41):
        assert root_of(leaves[:size]) == merkle.build_frontier(leaves[:size]).root
