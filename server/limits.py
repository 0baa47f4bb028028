"""What one client may take: requests per minute, places at work, time for its bytes; knows no route.

A request is refused (429, 503) before its body is read. Headers that come too slowly or are too large end the
connection; a body that trickles gets 408.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.events import TimerHandle
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.problems import TooBusyError, respond_to

HEADERS_WITHIN_S: Final = 10.0
MAX_HEADER_BYTES: Final = 32 << 10
BODY_GRACE_S: Final = 10.0
MAX_UNREAD_BYTES: Final = 4 << 20
FULL_RETRY_S: Final = 5


class Rates:
    """Sliding windows of one minute, kept in this process."""

    def __init__(self, requests_per_minute: int, logins_per_minute: int) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(requests_per_minute)
        self._logins = RateLimitItemPerMinute(logins_per_minute)

    def count_request(self, who: str) -> None:
        """TooBusyError `request.too_many` when a principal asks more often than is allowed."""
        self._count(self._requests, "request", who)

    def count_login(self, address: str) -> None:
        """The same for attempts to log in, by address: call it before the key is looked at."""
        self._count(self._logins, "login", address)

    def _count(self, limit: Any, what: str, who: str) -> None:
        if self._limiter.hit(limit, what, who):
            return
        reset_at = self._limiter.get_window_stats(limit, what, who).reset_time
        wait_s = max(1, min(60, round(reset_at - time.time()))) if reset_at else 60
        raise TooBusyError(
            "request.too_many",
            f"More than {limit.amount} {what}s came within a minute.",
            "Wait as long as Retry-After says.",
            wait_s,
        )


class Slots:
    """Places at work; those who find none wait, but not too many and not too long."""

    def __init__(self, size: int, max_waiting: int, deadline_s: float) -> None:
        self._free = asyncio.Semaphore(size)
        self._max_waiting = max_waiting
        self._deadline_s = deadline_s
        self.size = size
        self.waiting = 0
        self.at_work = 0

    def check(self) -> None:
        """TooBusyError `request.busy` when the queue is full: asked before a body is read."""
        if self.waiting >= self._max_waiting:
            raise self._busy()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A place at work for the block; TooBusyError when none comes free in time."""
        self.check()
        self.waiting += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._free.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self.waiting -= 1
        self.at_work += 1
        try:
            yield
        finally:
            self.at_work -= 1
            self._free.release()

    def _busy(self) -> TooBusyError:
        cause = f"All {self.size} places are taken and {self.waiting} requests wait."
        return TooBusyError("request.busy", cause, "Wait as long as Retry-After says.", 1 + self.waiting // 4)


class Shares:
    """How many of a thing are out, and whose: nobody has more than a share, all together no more than there are."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._out: Counter[str] = Counter()

    @contextmanager
    def take(self, who: str) -> Iterator[None]:
        """One for the block; TooBusyError `request.busy` where none is left."""
        if self._out[who] >= self._each or self._out.total() >= self._total:
            cause = (
                f"{self._out[who]} of your requests of this kind are under way, {self._out.total()} of all."
            )
            raise TooBusyError("request.busy", cause, "Wait as long as Retry-After says.", FULL_RETRY_S)
        self._out[who] += 1
        try:
            yield
        finally:
            self._out[who] -= 1
            if not self._out[who]:
                del self._out[who]


class BodyGuard:
    """ASGI middleware: a body has BODY_GRACE_S plus its length at `bytes_per_s` to arrive, else 408.

    One that grows beyond `max_bytes`, or what its route takes (`max_bytes` in the request's state), gets 413 there and
    then, whatever length it announced, or none.
    """

    def __init__(self, app: ASGIApp, bytes_per_s: int, max_bytes: int) -> None:
        self._app = app
        self._bytes_per_s = bytes_per_s
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        started, received, complete = loop.time(), 0, False

        async def receive_in_time() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(started + BODY_GRACE_S + received / self._bytes_per_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The body came too slowly.", {"Connection": "close"}) from None
            received += len(message.get("body", b""))
            most = scope.get("state", {}).get("max_bytes", self._max_bytes)
            if received > most:
                raise HTTPException(413, too_large(most), {"Connection": "close"})
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)


def too_large(max_bytes: int) -> str:
    """What is said of a body that is larger than the server takes."""
    size = f"{max_bytes >> 20} MiB" if max_bytes >= 1 << 20 else f"{max_bytes} bytes"
    return f"A body may have {size} here."


async def house_is_full(_: Scope, __: Receive, send: Send) -> None:
    """The answer when too many connections are open: 503, and when to come back."""
    busy = TooBusyError(
        "request.busy", "Too many connections are open.", "Wait as long as Retry-After says.", FULL_RETRY_S
    )
    answer = respond_to(busy)
    headers = [*answer.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(answer.body)})


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which has no limit of its own on how long and how large headers may be."""

    _header_timer: TimerHandle | None = None
    _header_bytes = 0
    _unread_bytes = 0
    _in_headers = True
    _tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_wait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            if self._header_timer is None:
                self._await_headers()
            self._header_bytes += self._length_of_head(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.transport.write(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                )
                self.transport.close()
                return
        elif self.cycle is not None and self.cycle.response_complete:
            self._unread_bytes += len(data)  # of a request that was answered already
            if self._unread_bytes > MAX_UNREAD_BYTES:
                self.transport.close()
                return
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if (
            self._in_headers
        ):  # trailers after a body are let fall: nobody reads them, and they might have no end
            super().on_header(name, value)

    def _length_of_head(self, data: bytes) -> int:
        """Bytes of this piece that belong to the head, whose end two pieces may share."""
        joined = self._tail + data
        end = joined.find(b"\r\n\r\n")
        before, self._tail = len(self._tail), joined[-3:]
        return len(data) if end < 0 else end + 4 - before

    def on_headers_complete(self) -> None:
        self._end_wait()
        self._in_headers = False
        usual, limit = self.app, self.limit_concurrency
        if limit is not None and len(self.connections) > limit:
            self.app = house_is_full  # uvicorn's own answer does not say when to come back
        self.limit_concurrency = None
        super().on_headers_complete()
        self.app, self.limit_concurrency = usual, limit

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers, self._header_bytes, self._unread_bytes, self._tail = True, 0, 0, b""

    def _await_headers(self) -> None:
        self._end_wait()
        self._header_timer = self.loop.call_later(HEADERS_WITHIN_S, self.transport.abort)

    def _end_wait(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
