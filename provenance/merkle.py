"""Merkle trees of RFC 6962: roots, proofs and their verification; knows nothing of entries, storage or keys.

A tree of `size` leaves is held as the hashes of its complete subtrees: the node (level, index) covers the
leaves [index << level, (index + 1) << level). A complete subtree never changes, so nodes are written once.
The few that make up the right edge (`Frontier`) are all that an append needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from provenance.errors import InputError, LedgerError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Coordinate = tuple[int, int]  # level, index within the level
Span = tuple[int, int]  # leaves [start, stop)
ReadNodes = Callable[[Sequence[Coordinate]], dict[Coordinate, bytes]]


@dataclass(frozen=True)
class Node:
    """The hash of one complete subtree."""

    level: int
    index: int
    hash: bytes


def hash_leaf(entry: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Root of neighbouring complete subtrees of falling size, given left to right."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = hash_children(left, root)
    return root


def cover(start: int, stop: int) -> list[Coordinate]:
    """The largest complete subtrees that make up the leaves [start, stop), left to right."""
    found: list[Coordinate] = []
    while start < stop:
        aligned = (start & -start).bit_length() - 1 if start else stop.bit_length()
        level = min(aligned, (stop - start).bit_length() - 1)
        found.append((level, start >> level))
        start += 1 << level
    return found


@dataclass(frozen=True)
class Frontier:
    """The right edge of a tree: one hash for each bit set in `size`, largest subtree first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise LedgerError(
                "ledger.frontier",
                f"{len(self.hashes)} edge hashes do not make a tree of {self.size} leaves.",
                "Run `facsimile audit verify` and restore the ledger from its backup.",
            )

    @property
    def root(self) -> bytes:
        """The tree's root hash, 32 bytes."""
        return fold(self.hashes)

    def append(self, leaf_hash: bytes) -> tuple[Frontier, list[Node]]:
        """The next frontier, and every complete subtree that this leaf finishes (the leaf first)."""
        hashes = list(self.hashes)
        nodes = [Node(0, self.size, leaf_hash)]
        while (self.size >> (len(nodes) - 1)) & 1:
            last = nodes[-1]
            nodes.append(Node(last.level + 1, last.index >> 1, hash_children(hashes.pop(), last.hash)))
        return Frontier(self.size + 1, (*hashes, nodes[-1].hash)), nodes


def build_frontier(leaf_hashes: Sequence[bytes]) -> Frontier:
    """The frontier of a whole tree, in O(n)."""
    frontier = Frontier()
    for leaf_hash in leaf_hashes:
        frontier, _ = frontier.append(leaf_hash)
    return frontier


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The subtrees whose hashes are PATH(index, D[size]) of RFC 6962 section 2.1.1, nearest first."""
    _require(0 <= index < size, f"Leaf {index} is not in a tree of {size} leaves.")
    spans: list[Span] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            spans.append((middle, stop))
            stop = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(first: int, second: int) -> list[Span]:
    """The subtrees whose hashes are PROOF(first, D[second]) of RFC 6962 section 2.1.2, in its order."""
    _require(0 < first <= second, f"No proof leads from {first} leaves to {second}.")
    spans: list[Span] = []
    start, stop = 0, second
    while stop != first:
        middle = start + _split(stop - start)
        if first <= middle:
            spans.append((middle, stop))
            stop = middle
        else:
            spans.append((start, middle))
            start = middle
    if start:
        spans.append((start, stop))
    return spans[::-1]


def hash_spans(spans: Sequence[Span], read: ReadNodes) -> list[bytes]:
    """The hash of each subtree, with one call of `read` for all the stored nodes it takes."""
    covers = [cover(*span) for span in spans]
    stored = read([coordinate for each in covers for coordinate in each])
    try:
        return [fold([stored[coordinate] for coordinate in each]) for each in covers]
    except KeyError as error:
        raise LedgerError(
            "ledger.node_missing",
            f"The stored tree lacks node {error.args[0]}.",
            "Run `facsimile audit verify` and restore the ledger from its backup.",
        ) from error


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check an audit path (RFC 9162 section 2.1.3.2); raises LedgerError where it does not hold."""
    if not 0 <= index < size:
        raise _broken("inclusion")
    position, last, result = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise _broken("inclusion")
        if position & 1 or position == last:
            result = hash_children(sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = hash_children(result, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or result != root:
        raise _broken("inclusion")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a tree only grew (RFC 9162 section 2.1.4.2); raises LedgerError where it does not hold.

    Every tree contains the empty one; the proof is then empty.
    """
    if not 0 <= first <= second:
        raise _broken("consistency")
    if first in (0, second):
        expected = EMPTY_ROOT if first == 0 else second_root
        if proof or first_root != expected:
            raise _broken("consistency")
        return
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        raise _broken("consistency")
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _broken("consistency")
        if position & 1 or position == last:
            before, after = hash_children(sibling, before), hash_children(sibling, after)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            after = hash_children(after, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or before != first_root or after != second_root:
        raise _broken("consistency")


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (k of RFC 6962 section 2.1)."""
    return 1 << ((size - 1).bit_length() - 1)


def _require(holds: bool, cause: str) -> None:
    if not holds:
        raise InputError("ledger.index", cause, "Ask for the ledger's size first.")


def _broken(kind: str) -> LedgerError:
    return LedgerError(
        f"ledger.{kind}_proof",
        f"The {kind} proof does not lead to the root.",
        "Fetch the proof and the checkpoint again; if it fails again, keep both: they prove tampering.",
    )
