"""Idempotency-Key: the same request twice is done once and answered twice; knows no route.

A key belongs to a principal and to one request (`fingerprint`): the same again is answered as the first was, another
body under the same key is an error, and while the first is at work the second is told so. A fusion completes its key
in the very transaction that accepts it; other routes do so right after theirs, so a crash in between frees the key
LOCK_S later though the thing was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import Header, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool

from provenance.database import Database
from provenance.errors import RefusedError, UsageError
from server.tables import idempotency, now

LOCK_S: Final = 120.0
KEEP_S: Final = 86_400.0

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any unique text, such as a UUID: the same request with the same key is done once.",
    ),
]


def fingerprint(operation: str, *parts: object) -> str:
    """One hash for what is asked: bytes by their content, everything else as JSON."""
    digest = hashlib.sha256(operation.encode())
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


@dataclass
class Attempt:
    """One request under a key. `answer` stores what will be replayed; `replayed` is set when it was done before."""

    database: Database
    principal: str
    key: str | None
    print_: str
    replayed: Response | None = None
    _answered: bool = field(default=False)

    def answer(
        self,
        status: int,
        body: BaseModel | Mapping[str, Any],
        location: str | None,
        conn: Connection | None = None,
    ) -> Response:
        """The response, remembered under the key: in the caller's transaction where there is one."""
        content = body.model_dump(mode="json") if isinstance(body, BaseModel) else dict(body)
        if self.key is not None:
            if conn is None:
                with self.database.write(ledger=False) as own:
                    self._store(status, content, location, own)
            else:
                self._store(status, content, location, conn)
        self._answered = True
        return _response(status, content, location)

    def _store(self, status: int, content: Mapping[str, Any], location: str | None, conn: Connection) -> None:
        values = {"status": status, "body": json.dumps(content), "location": location}
        conn.execute(sa.update(idempotency).where(*self._mine()).values(**values))

    def begin(self) -> None:
        """Take the key; a finished one is replayed. RefusedError `idempotency.in_flight`, UsageError `.reused`."""
        if self.key is None:
            return
        with self.database.write(ledger=False) as conn:
            time = now(conn)
            conn.execute(sa.delete(idempotency).where(idempotency.c.created_at < time - KEEP_S))
            mine = sa.select(idempotency).where(
                idempotency.c.principal == self.principal, idempotency.c.key == self.key
            )
            row = conn.execute(mine.with_for_update()).one_or_none()
            if row is None:
                conn.execute(sa.insert(idempotency), self._row(time))
            elif row.fingerprint != self.print_:
                raise UsageError(
                    "idempotency.reused",
                    "This Idempotency-Key was used for another request.",
                    "Use a new key.",
                )
            elif row.status is not None:
                self.replayed = _response(row.status, json.loads(row.body), row.location)
                self.replayed.headers["Idempotent-Replayed"] = "true"
            elif row.locked_until > time:
                raise RefusedError(
                    "idempotency.in_flight",
                    "The first request with this key is still at work.",
                    "Wait, retry.",
                )
            else:
                conn.execute(sa.update(idempotency).where(*self._mine()).values(locked_until=time + LOCK_S))

    def _row(self, time: float) -> dict[str, Any]:
        return {
            "principal": self.principal,
            "key": self.key,
            "fingerprint": self.print_,
            "created_at": time,
            "locked_until": time + LOCK_S,
        }

    def _mine(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (idempotency.c.principal == self.principal, idempotency.c.key == self.key)

    def abandon(self) -> None:
        """Nothing was answered: the key may be used again."""
        if self.key is None or self._answered:
            return
        with self.database.write(ledger=False) as conn:
            conn.execute(sa.delete(idempotency).where(*self._mine(), idempotency.c.status.is_(None)))


@asynccontextmanager
async def attempt(database: Database, principal: str, key: str | None, print_: str) -> AsyncIterator[Attempt]:
    """The request under its key; an error inside the block frees the key again."""
    tried = Attempt(database, principal, key, print_)
    await run_in_threadpool(tried.begin)
    if tried.replayed is not None:
        yield tried
        return
    try:
        yield tried
    except BaseException:
        await run_in_threadpool(tried.abandon)
        raise


def _response(status: int, content: Mapping[str, Any], location: str | None) -> Response:
    headers = {"Location": location} if location else {}
    return JSONResponse(dict(content), status, headers)
