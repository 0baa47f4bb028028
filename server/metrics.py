"""Counters in the Prometheus text format; labels come from closed sets only, so that their number is bounded.

Never a path with ids, a key, a name or a hash as a label: a route's template, a method, a status, a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
_BUCKETS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)


class Metrics:
    """The counters of one server; each server has its own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        on: dict[str, Any] = {"registry": self._registry}
        labels = ("method", "route", "status")
        self._requests = Counter("facsimile_requests_total", "Requests by route and status.", labels, **on)
        self._seconds = Histogram(
            "facsimile_request_seconds", "Time to answer.", ("route",), buckets=_BUCKETS, **on
        )
        self._checks = Counter("facsimile_checks_total", "Checks by verdict.", ("verdict",), **on)
        self._jobs = Gauge("facsimile_jobs", "Jobs by state.", ("state",), **on)
        self._slots = Gauge("facsimile_slots", "Places at work.", ("kind",), **on)
        self._workers = Gauge("facsimile_workers", "Workers that gave a sign of life lately.", **on)
        self._leaves = Gauge("facsimile_ledger_leaves", "Entries of the ledger.", **on)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request; `route` is a template such as /v1/checks/{check_id}, "none" for no route."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_check(self, verdict: str) -> None:
        """One finished check."""
        self._checks.labels(verdict).inc()

    def set_gauges(
        self, jobs: Mapping[str, int], slots: Mapping[str, int], workers: int, ledger_size: int
    ) -> None:
        """What is read from the database when somebody asks."""
        for state in ("queued", "running", "done", "failed", "refused", "cancelled", "dead"):
            self._jobs.labels(state).set(jobs.get(state, 0))
        for kind, count in slots.items():
            self._slots.labels(kind).set(count)
        self._workers.set(workers)
        self._leaves.set(ledger_size)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)
