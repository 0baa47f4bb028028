"""Canonical JSON: one way to write each entry, and the offline verifier agrees with the ledger on it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import InputError
from provenance.ledger import MAX_ENTRY_BYTES, make_leaf
from provenance.verify_export import NotVerifiedError, check_entry

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "kind")
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=12)
)
values = st.recursive(
    scalars | st.floats(-1e15, 1e15),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(names.filter(lambda n: n not in ("asset_id", "content_sha256")), values, max_size=5)


def entry_of(body: dict[str, Any], index: int = 7) -> bytes:
    data: bytes = make_leaf({"kind": "check", **body}, index, NOW)["entry"]
    return data


def shuffled(value: Any) -> Any:
    """The same value, every object's names the other way round."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


@given(bodies)
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_back_and_is_written_the_same_again(body: dict[str, Any]) -> None:
    data = entry_of(body)
    leaf = json.loads(data)
    assert leaf["body"] == body
    assert rfc8785.dumps(leaf) == data
    assert (leaf["index"], leaf["kind"], leaf["time"]) == (7, "check", "2026-01-02T03:04:05.678Z")


@given(bodies)
@settings(max_examples=60, deadline=None)
def test_the_order_of_names_is_no_matter(body: dict[str, Any]) -> None:
    assert entry_of(shuffled(body)) == entry_of(body)


@given(bodies, bodies)
@settings(max_examples=60, deadline=None)
def test_unlike_entries_are_unlike_bytes(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (entry_of(a) == entry_of(b)) == (json.loads(entry_of(a)) == json.loads(entry_of(b)))
    assert entry_of(a, 7) != entry_of(a, 8)


@given(bodies, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_offline_verifier_accepts_what_the_ledger_writes(body: dict[str, Any], index: int) -> None:
    data = entry_of(body, index)
    check_entry(data, index)
    with pytest.raises(NotVerifiedError):
        check_entry(data, index + 1)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53 + 1, 2.0**53, 1e17, {1: 2}, object(), "x" * MAX_ENTRY_BYTES]
)
def test_what_is_no_json_or_too_large_is_not_recorded(value: object) -> None:
    with pytest.raises(InputError, match=r"ledger\.entry"):
        entry_of({"value": value})
