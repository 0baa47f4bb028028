"""RFC 6962 trees: known vectors, and every proof against the recursive definitions of the RFC."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import InputError, LedgerError
from provenance.merkle import (
    EMPTY_ROOT,
    Coordinate,
    Frontier,
    build_frontier,
    consistency_spans,
    cover,
    fold,
    hash_children,
    hash_leaf,
    hash_spans,
    inclusion_spans,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves and the roots of the Certificate Transparency reference tests.
CT_LEAVES = [bytes.fromhex(h) for h in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def rfc_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = largest_power_below(len(leaves))
    return hashlib.sha256(b"\x01" + rfc_root(leaves[:k]) + rfc_root(leaves[k:])).digest()


def rfc_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = largest_power_below(len(leaves))
    if m < k:
        return [*rfc_path(m, leaves[:k]), rfc_root(leaves[k:])]
    return [*rfc_path(m - k, leaves[k:]), rfc_root(leaves[:k])]


def rfc_subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [rfc_root(leaves)]
    k = largest_power_below(len(leaves))
    if m <= k:
        return [*rfc_subproof(m, leaves[:k], whole), rfc_root(leaves[k:])]
    return [*rfc_subproof(m - k, leaves[k:], False), rfc_root(leaves[:k])]


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def stored_nodes(leaves: Sequence[bytes]) -> dict[Coordinate, bytes]:
    frontier, nodes = Frontier(), {}
    for leaf in leaves:
        frontier, new = frontier.append(hash_leaf(leaf))
        nodes.update({(node.level, node.index): node.hash for node in new})
    return nodes


def make_leaves(count: int) -> list[bytes]:
    return [f"leaf {i}".encode() for i in range(count)]


def test_empty_tree_has_the_rfc_root() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Frontier().root == EMPTY_ROOT == fold([])


def test_roots_of_the_reference_vectors() -> None:
    roots = [build_frontier([hash_leaf(d) for d in CT_LEAVES[:n]]).root.hex() for n in range(1, 9)]
    assert roots == CT_ROOTS


def test_reference_inclusion_and_consistency_proofs() -> None:
    nodes = stored_nodes(CT_LEAVES)
    path = hash_spans(inclusion_spans(5, 8), lambda wanted: nodes)
    assert [h.hex() for h in path] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    growth = hash_spans(consistency_spans(6, 8), lambda wanted: nodes)
    assert [h.hex() for h in growth] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_a_leaf_cannot_pose_as_a_node() -> None:
    left, right = hash_leaf(b"a"), hash_leaf(b"b")
    assert hash_leaf(left + right) != hash_children(left, right)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_proof_of_small_trees(size: int) -> None:
    leaves = make_leaves(size)
    nodes = stored_nodes(leaves)
    root = build_frontier([hash_leaf(leaf) for leaf in leaves]).root
    assert root == rfc_root(leaves)
    for index in range(size):
        proof = hash_spans(inclusion_spans(index, size), lambda wanted: nodes)
        assert proof == rfc_path(index, leaves)
        verify_inclusion(hash_leaf(leaves[index]), index, size, proof, root)
    for first in range(1, size + 1):
        growth = hash_spans(consistency_spans(first, size), lambda wanted: nodes)
        assert growth == rfc_subproof(first, leaves, True)
        verify_consistency(first, size, rfc_root(leaves[:first]), root, growth)


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_proofs_hold_and_no_altered_proof_does(size: int, data: st.DataObject) -> None:
    leaves = make_leaves(size)
    nodes = stored_nodes(leaves)
    root = rfc_root(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = hash_spans(inclusion_spans(index, size), lambda wanted: nodes)
    verify_inclusion(hash_leaf(leaves[index]), index, size, proof, root)
    for broken in alterations(proof, data):
        with pytest.raises(LedgerError):
            verify_inclusion(hash_leaf(leaves[index]), index, size, broken, root)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        with pytest.raises(LedgerError):
            verify_inclusion(hash_leaf(leaves[index]), other, size, proof, root)
    with pytest.raises(LedgerError):
        verify_inclusion(hash_leaf(b"another"), index, size, proof, root)


@given(st.integers(2, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_growth_holds_and_no_rewritten_history_does(size: int, data: st.DataObject) -> None:
    leaves = make_leaves(size)
    nodes = stored_nodes(leaves)
    first = data.draw(st.integers(1, size - 1))
    before, after = rfc_root(leaves[:first]), rfc_root(leaves)
    proof = hash_spans(consistency_spans(first, size), lambda wanted: nodes)
    verify_consistency(first, size, before, after, proof)
    for broken in alterations(proof, data):
        with pytest.raises(LedgerError):
            verify_consistency(first, size, before, after, broken)
    rewritten = [b"rewritten", *leaves[1:]]
    with pytest.raises(LedgerError):
        verify_consistency(first, size, rfc_root(rewritten[:first]), after, proof)
    with pytest.raises(LedgerError):
        verify_consistency(first, size, before, rfc_root(rewritten), proof)


def alterations(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    """The proof with one bit flipped, one hash dropped, one hash added."""
    found = [[*proof, bytes(32)]]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        found += [[*proof[:at], flipped, *proof[at + 1 :]], proof[:at] + proof[at + 1 :]]
    return found


@given(st.integers(0, 500), st.integers(0, 500))
def test_cover_tiles_the_span_with_aligned_subtrees(start: int, length: int) -> None:
    at = start
    for level, index in cover(start, start + length):
        assert index << level == at
        at += 1 << level
    assert at == start + length


def test_an_append_touches_only_the_edge() -> None:
    frontier = build_frontier([hash_leaf(leaf) for leaf in make_leaves(1023)])
    assert len(frontier.hashes) == 10
    grown, nodes = frontier.append(hash_leaf(b"the 1024th"))
    assert [node.level for node in nodes] == list(range(11))
    assert grown.hashes == (nodes[-1].hash,)


def test_trivial_growth() -> None:
    root = rfc_root(make_leaves(3))
    verify_consistency(0, 3, EMPTY_ROOT, root, [])
    verify_consistency(3, 3, root, root, [])
    for arguments in [(0, 3, root, root, []), (3, 3, EMPTY_ROOT, root, []), (3, 3, root, root, [root])]:
        with pytest.raises(LedgerError):
            verify_consistency(*arguments)
    for sizes in [(4, 3), (-1, 3)]:
        with pytest.raises(LedgerError):
            verify_consistency(*sizes, root, root, [])
    with pytest.raises(LedgerError):
        verify_consistency(3, 5, root, root, [])


def test_positions_outside_the_tree_are_input_errors() -> None:
    for index, size in [(3, 3), (-1, 3), (0, 0)]:
        with pytest.raises(InputError, match=r"ledger\.index"):
            inclusion_spans(index, size)
    for first, second in [(0, 3), (4, 3)]:
        with pytest.raises(InputError, match=r"ledger\.index"):
            consistency_spans(first, second)
    with pytest.raises(LedgerError):
        verify_inclusion(bytes(32), 3, 3, [], bytes(32))


def test_a_missing_node_and_a_false_frontier_are_ledger_errors() -> None:
    with pytest.raises(LedgerError, match="node_missing"):
        hash_spans(inclusion_spans(0, 4), lambda wanted: {})
    with pytest.raises(LedgerError, match="frontier"):
        Frontier(3, (bytes(32),))
