"""Cursors of pages: opaque to the client, a place in an order to us; knows no table."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Query

from provenance.errors import UsageError

MAX_PAGE: Final = 200
_NAME: Final = re.compile(r"[a-z]+-[0-9a-f]+")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many items at most.")]
Cursor = Annotated[
    str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9_-]+$", description="`next` of the page before.")
]


def cursor_of(time: float, name: str) -> str:
    """The cursor behind an item that was made at `time` and is called `name`."""
    return base64.urlsafe_b64encode(json.dumps([time, name]).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> tuple[float, str] | None:
    """(time, name) of a cursor; UsageError `request.cursor` for one that we did not make."""
    if cursor is None:
        return None
    try:
        time, name = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(time, float) and math.isfinite(time) and _NAME.fullmatch(name):
            return time, name
    except (ValueError, TypeError, binascii.Error):
        pass
    raise UsageError(
        "request.cursor", "This is no cursor of ours.", "Use `next` of the page before, unchanged."
    )


def stamp(time: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
