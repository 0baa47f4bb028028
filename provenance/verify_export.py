"""Verifies an exported ledger offline: python verify_export.py EXPORT KEY [EARLIER_CHECKPOINT...]; knows no facsimile.

EXPORT is what `facsimile audit export` wrote, a zip or its unpacked folder; KEY the ledger's key (name+id+base64)
as you had it from the operator by another way than the export. Needs Python 3.11 and the package `cryptography` alone.

Checked: the checkpoint's signature (C2SP signed-note, Ed25519); every entry's place and canonical form as far as the
standard library can tell; every leaf hash, every tile, the root (RFC 6962, C2SP tlog-tiles); that earlier checkpoints,
signed by the same key, are beginnings of this ledger. Not checked: whether what an entry says is true, or whether
others were shown another ledger: compare checkpoints with theirs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256


class NotVerifiedError(Exception):
    """What does not hold."""


class Export:
    """Reads files of a zip or of a folder."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path) if path.is_file() else None
        self.folder = path

    def read(self, name: str) -> bytes:
        try:
            return self.zip.read(name) if self.zip else (self.folder / name).read_bytes()
        except (KeyError, OSError) as error:
            raise NotVerifiedError(f"the export lacks {name}") from error


def tile_path(kind: str, number: int, width: int) -> str:
    """C2SP tlog-tiles: groups of three digits, all but the last with an x; .p/W for a partial tile."""
    digits = f"{number % 1000:03d}"
    while number >= 1000:
        number //= 1000
        digits = f"x{number % 1000:03d}/{digits}"
    return f"tile/{kind}/{digits}" + ("" if width == WIDTH else f".p/{width}")


def widths(size: int) -> Iterator[tuple[int, int]]:
    """(number, width) of the tiles over `size` nodes."""
    for number in range((size + WIDTH - 1) // WIDTH):
        yield number, min(WIDTH, size - number * WIDTH)


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1 over leaf hashes."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    while len(hashes) > 1:
        pairs = [node(hashes[at], hashes[at + 1]) for at in range(0, len(hashes) - 1, 2)]
        hashes = pairs + hashes[len(pairs) * 2 :]
    return hashes[0]


def open_checkpoint(note: str, key: str) -> tuple[str, int, bytes]:
    """(origin, size, root) of a checkpoint that this key signed."""
    name, key_id, payload = key.strip().split("+", 2)
    raw = base64.b64decode(payload, validate=True)
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if raw[:1] != b"\x01" or len(raw) != 33 or expected.hex() != key_id:
        raise NotVerifiedError("the key is no Ed25519 key in the form name+id+base64")
    text, _, signatures = note.rpartition("\n\n")
    for line in signatures.splitlines():
        dash, signer, encoded = [*line.split(" "), "", ""][:3]
        signature = base64.b64decode(encoded) if dash == "—" and signer == name else b""
        if signature[:4] == expected:
            try:
                Ed25519PublicKey.from_public_bytes(raw[1:]).verify(signature[4:], f"{text}\n".encode())
            except InvalidSignature as error:
                raise NotVerifiedError("the checkpoint's signature fails") from error
            origin, size, root, *_ = text.split("\n")
            if origin != name:
                raise NotVerifiedError("the checkpoint is of another ledger")
            return origin, int(size), base64.b64decode(root)
    raise NotVerifiedError("the checkpoint is not signed by this key")


def entries_of(export: Export, size: int) -> Iterator[bytes]:
    """Every entry, out of bundles in which each stands behind its length (two bytes, big-endian)."""
    for number, width in widths(size):
        bundle, at = export.read(tile_path("entries", number, width)), 0
        for _ in range(width):
            length = int.from_bytes(bundle[at : at + 2], "big")
            if at + 2 + length > len(bundle):
                raise NotVerifiedError(f"entry bundle {number} ends inside an entry")
            yield bundle[at + 2 : at + 2 + length]
            at += 2 + length
        if at != len(bundle):
            raise NotVerifiedError(f"entry bundle {number} holds more than it should")


def check_entry(entry: bytes, index: int) -> None:
    """An entry states its own place, and is the one way to write what it says (RFC 8785)."""
    try:
        leaf = json.loads(entry)
        written = json.dumps(leaf, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        place = leaf["index"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotVerifiedError(f"entry {index} is no entry") from error
    if place != index or (written != entry and _is_simple(leaf)):
        raise NotVerifiedError(f"entry {index} states another place, or is not canonical")


def _is_simple(value: object) -> bool:
    """Whether the standard library writes this as RFC 8785 does: ASCII names, no fractions."""
    if isinstance(value, dict):
        return all(name.isascii() and _is_simple(each) for name, each in value.items())
    if isinstance(value, list):
        return all(_is_simple(each) for each in value)
    return not isinstance(value, float)


def check_tiles(export: Export, leaves: list[bytes]) -> None:
    """Every stored tile is made of the hashes that the entries give."""
    level, hashes = 0, leaves
    while hashes:
        for number, width in widths(len(hashes)):
            derived = b"".join(hashes[number * WIDTH : number * WIDTH + width])
            if export.read(tile_path(str(level), number, width)) != derived:
                raise NotVerifiedError(f"tile {number} of level {level} is not that of the entries")
        full = len(hashes) // WIDTH
        hashes = [root_of(hashes[at * WIDTH : (at + 1) * WIDTH]) for at in range(full)]
        level += 1


def verify(path: Path, key: str, earlier: list[str]) -> dict[str, object]:
    """What was verified; NotVerifiedError where anything does not hold."""
    export = Export(path)
    origin, size, root = open_checkpoint(export.read("checkpoint").decode(), key)
    leaves: list[bytes] = []
    for index, entry in enumerate(entries_of(export, size)):
        check_entry(entry, index)
        leaves.append(hashlib.sha256(b"\x00" + entry).digest())
    check_tiles(export, leaves)
    if root_of(leaves) != root:
        raise NotVerifiedError("the entries do not lead to the root that was signed")
    for note in earlier:
        _, old_size, old_root = open_checkpoint(note, key)
        if old_size > size or root_of(leaves[:old_size]) != old_root:
            raise NotVerifiedError(
                f"the checkpoint over {old_size} entries is not a beginning of this ledger"
            )
    return {"verified": True, "origin": origin, "entries": size, "root": root.hex(), "earlier": len(earlier)}


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        sys.stderr.write("usage: verify_export.py EXPORT KEY [EARLIER_CHECKPOINT...]\n")
        return 2
    try:
        notes = [Path(name).read_text(encoding="utf-8") for name in arguments[2:]]
        found = verify(Path(arguments[0]), arguments[1], notes)
    except (NotVerifiedError, OSError, ValueError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"NOT VERIFIED: {error}\n")
        return 3
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
