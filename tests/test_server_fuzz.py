"""The whole API against its own OpenAPI document: what schemathesis makes up gets only what is declared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Studio
from hypothesis import HealthCheck, settings
from serving import Served, serve

from provenance.home import Home
from server.auth import ROLES

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (dev extra)")


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        running.service._perception = studio.perception
        yield running


@pytest.fixture(scope="module")
def api(served: Served) -> object:
    return schemathesis.openapi.from_url(f"{served.url}/v1/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_operation_keeps_to_its_declaration(case: schemathesis.Case, served: Served) -> None:
    key = served.key(*ROLES)
    answer = case.call(base_url=served.url, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code not in (500, 501, 502, 504)
    case.validate_response(
        answer,
        checks=[
            schemathesis.checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.content_type_conformance,
            schemathesis.specs.openapi.checks.response_schema_conformance,
        ],
    )
