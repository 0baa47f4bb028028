"""The compliance report over HTTP: the same rows as the command line writes, for who may audit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from conftest import Studio
from serving import Served, serve

from provenance.home import Home
from provenance.requirements import REQUIREMENTS


@pytest.fixture(scope="module")
def served(studio: Studio) -> Iterator[Served]:
    with Home.open(studio.home_path) as home, serve(home) as running:
        yield running


@pytest.mark.parametrize(
    ("kind", "begins"), [("html", b"<!doctype html>"), ("pdf", b"%PDF-"), ("csv", b"\xef\xbb\xbf")]
)
def test_the_compliance_report_is_an_auditor_s(served: Served, kind: str, begins: bytes) -> None:
    with served.client("auditor") as client, served.client("generator") as other:
        asked = {"standard": "cn", "format": kind}
        made = client.get("/v1/audit/report", params=asked)
        assert (made.status_code, made.content[: len(begins)]) == (200, begins), made.text
        assert f'filename="compliance-cn.{kind}"' in made.headers["content-disposition"]
        assert other.get("/v1/audit/report", params=asked).status_code == 403
        if kind == "csv":
            rows = list(csv.DictReader(io.StringIO(made.content.decode("utf-8-sig"))))
            wanted = [each for each in REQUIREMENTS if each.standard == "cn"]
            assert [row["id"] for row in rows] == [each.id for each in wanted]
            everything = client.get("/v1/audit/report", params={"format": "csv"}).content.decode("utf-8-sig")
            assert len(list(csv.DictReader(io.StringIO(everything)))) == len(REQUIREMENTS)
            assert client.get("/v1/audit/report", params={"standard": "us"}).status_code == 422
