"""The whole API against its own OpenAPI document: what schemathesis makes up gets only what is declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from conftest import Studio
from serving import FAST, Served, serve

from provenance.home import Home
from server.auth import ROLES

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (dev extra)")

MAX_EXAMPLES, SEED = 4, 20261123
SETTINGS = {
    "seed": SEED,
    "generation": {"max-examples": MAX_EXAMPLES, "deterministic": True, "database": "none"},
    "phases": {
        "coverage": {"enabled": True},  # the boundaries of each parameter, and just beyond
        "fuzzing": {"enabled": True},
        "examples": {"enabled": False},
        "stateful": {"enabled": False},
    },
    "checks": {  # all are on; data that fits the document may still be no picture, or say what cannot be: see below
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "401", "403", "404", "409", "410", "413", "415", "422"]
        }
    },
}


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    """One that takes no set: a set that fits the document would wait for a worker, and its events with it."""
    settings = replace(FAST, max_set_pictures=0)
    with Home.open(studio.home_path) as home, serve(home, settings) as running:
        running.service._perception = studio.perception
        yield running


@pytest.fixture(scope="module")
def recorders(served: Served) -> list[Any]:
    """What was sent and answered, by scenario."""
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events, from_schema

    headers = {"Authorization": f"Bearer {served.key(*ROLES)}"}
    config = SchemathesisConfig.from_dict({**SETTINGS, "headers": headers})
    schema = schemathesis.openapi.from_url(f"{served.url}/v1/openapi.json", config=config)
    found = []
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            found.append(event.recorder)
    return found


def test_no_check_of_schemathesis_fails(recorders: list[Any]) -> None:
    """Statuses, headers, types and bodies as declared, bad data refused, 405 with every method, no 5xx, no way in."""
    checks = [
        (recorder.label, node)
        for recorder in recorders
        for nodes in recorder.checks.values()
        for node in nodes
    ]
    failed = [
        (label, node.name, str(node.failure_info.failure)) for label, node in checks if node.failure_info
    ]
    assert failed == []
    assert len({node.name for _, node in checks}) > 8


def test_data_that_fits_the_document_is_refused_for_what_it_says_only(recorders: list[Any]) -> None:
    """Then the code is one of the suite's own (a picture that is none, a day that has passed), not one of the form."""
    unfit = [
        (recorder.label, answer["fields"])
        for recorder in recorders
        for case_id, each in recorder.interactions.items()
        if each.response is not None and each.response.status_code == 422
        if recorder.cases[case_id].value.meta.generation.mode.value == "positive"
        if (answer := each.response.json())["code"] == "request.invalid"
    ]
    assert unfit == []


def test_every_operation_was_asked_and_many_answered(served: Served, recorders: list[Any]) -> None:
    with served.client() as client:
        paths = client.get("/v1/openapi.json").json()["paths"]
    assert {recorder.label for recorder in recorders} >= {
        f"{method.upper()} {path}" for path, operations in paths.items() for method in operations
    }
    statuses = Counter(
        each.response.status_code
        for recorder in recorders
        for each in recorder.interactions.values()
        if each.response is not None
    )
    assert statuses.total() > 300
    assert statuses[200] > 50
    assert not any(status >= 500 for status in statuses)
