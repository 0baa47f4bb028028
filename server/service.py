"""What every request shares: the open home, the queue, the store, the limits, the counters; knows no route."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.concurrency import run_in_threadpool

from fusion.formats import LIMITS, Limits
from provenance.errors import RefusedError
from provenance.home import Home
from server.auth import EntryCodes
from server.fetch import FetchLimits, fetch
from server.jobs import Queue
from server.limits import Rates, Shares, Slots
from server.metrics import Metrics
from server.objects import ObjectStore
from server.oidc import Tokens
from server.oidc_login import SignIn
from server.sets import SetStore
from server.settings import ServeSettings
from server.tables import ensure_tables

if TYPE_CHECKING:
    from detector.check import Checker, Report
    from fusion.swap import Perception

T = TypeVar("T")
Fetch = Callable[[str, FetchLimits], bytes]

MAX_BODIES_EACH: Final = 24
"""Uploads of one principal that may come in at once; of all twice as many as find a place: they lie on the disk."""
MAX_STREAMS_EACH: Final = 16
"""Streams of events that one principal may hold open."""
FETCHES_AT_ONCE: Final = 4
"""Files fetched by address at once, and waiting: apart from the places of checks, so that slow servers block none."""

UPLOAD_LIMITS: Limits = replace(LIMITS, apart_above_pixels=-1)
"""Every upload is decoded in a child process under limits of memory and time, whatever its size."""


class RecentReports:
    """The latest reports with what their pages draw (previews, heat maps), in memory; the oldest goes first."""

    def __init__(self, size: int = 32) -> None:
        self._size = size
        self._reports: OrderedDict[str, Report] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, check_id: str, report: Report) -> None:
        """Remember a report."""
        with self._lock:
            self._reports[check_id] = report
            while len(self._reports) > self._size:
                self._reports.popitem(last=False)

    def find(self, check_id: str) -> Report | None:
        """A report that is still there."""
        with self._lock:
            return self._reports.get(check_id)


@dataclass
class Service:
    """One running server. Networks load once, when the first request (or `warm_up`) needs them."""

    settings: ServeSettings
    home: Home
    queue: Queue
    objects: ObjectStore
    sets: SetStore
    rates: Rates
    slots: Slots
    fetch_slots: Slots
    bodies: Shares
    streams: Shares
    metrics: Metrics
    entry_codes: EntryCodes = field(default_factory=EntryCodes)
    recent_reports: RecentReports = field(default_factory=RecentReports)
    fetch: Fetch = fetch
    tokens: Tokens | None = None
    sign_in: SignIn | None = None
    draining: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _perception: Perception | None = None
    _checker: Checker | None = None

    @classmethod
    def over(cls, home: Home, settings: ServeSettings) -> Service:
        """The service of an open home."""
        ensure_tables(home.database)
        metrics = Metrics()
        oidc = settings.oidc
        tokens = Tokens(oidc) if oidc else None
        return cls(
            settings=settings,
            home=home,
            queue=Queue(home, settings.lease_s, settings.max_attempts, settings.keep_results_s),
            objects=ObjectStore(home.store_path),
            sets=SetStore(home.path, home.store_path),
            rates=Rates(settings.requests_per_minute, settings.logins_per_minute),
            slots=Slots(settings.check_slots, settings.waiting_slots, settings.deadline_s),
            fetch_slots=Slots(FETCHES_AT_ONCE, FETCHES_AT_ONCE, settings.deadline_s),
            bodies=Shares(2 * (settings.check_slots + settings.waiting_slots + 1), MAX_BODIES_EACH),
            streams=Shares(settings.max_connections // 2, MAX_STREAMS_EACH),
            metrics=metrics,
            tokens=tokens,
            sign_in=SignIn(oidc, tokens, settings.base_url) if oidc and tokens and oidc.client else None,
        )

    @property
    def perception(self) -> Perception:
        """The networks that find and embed faces."""
        from fusion.swap import load_perception

        with self._lock:
            if self._perception is None:
                self._perception = load_perception("cpu")
            return self._perception

    @property
    def checker(self) -> Checker:
        """The one-click check of this home; it decodes in a child process."""
        from detector.check import Checker, shipped_scorer

        with self._lock:
            if self._checker is None:
                self._checker = Checker(self.home, shipped_scorer(), limits=UPLOAD_LIMITS)
            return self._checker

    def warm_up(self) -> None:
        """Load what the first request would otherwise wait for."""
        _ = self.checker
        _ = self.perception

    async def work(self, task: Callable[[], T]) -> T:
        """Run what computes in a thread, when a slot is free; TooBusyError when none comes free in time."""
        async with self.slots.take():
            return await run_in_threadpool(task)

    async def fetch_file(self, url: str) -> bytes:
        """The file at a public https address. RefusedError `fetch.disabled` where the operator did not allow it."""
        if not self.settings.url_checks:
            raise RefusedError(
                "fetch.disabled", "This server fetches no files by address.", "Hand in the file itself."
            )
        limits = FetchLimits(max_bytes=min(FetchLimits.max_bytes, self.settings.max_upload_bytes))
        async with self.fetch_slots.take():
            return await run_in_threadpool(lambda: self.fetch(url, limits))
