"""One JSON line per event on stderr; never pictures, embeddings, names, keys or query strings.

What may be logged is named in FIELDS; a field that is not there is dropped, so that a careless call leaks nothing.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final

import structlog

FIELDS: Final = frozenset(
    {
        "event", "level", "timestamp", "code", "status", "instance", "kind", "where", "method", "route", "ms",
        "principal", "job", "state", "stage", "attempt", "worker", "count", "port", "host", "version", "pid",
        "exit", "verdict", "roles",
    }
)  # fmt: skip

log: Final[Any] = structlog.stdlib.get_logger("facsimile")


def configure(level: int = logging.INFO) -> None:
    """Send everything, uvicorn's own lines too, through one renderer to stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _name_the_place,
            _drop_unlisted,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )
    handler = _ToStructlog()
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)


class _Stderr:
    """Writes each line to whatever is stderr at that moment."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, message: str) -> None:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    log = debug = info = warning = error = critical = exception = msg


class _ToStructlog(logging.Handler):
    """Lines of libraries: the template of the message, never its arguments, which may hold what was sent."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        log.log(
            record.levelno,
            f"{record.name}: {text.splitlines()[0][:120] if text else ''}",
            exc_info=record.exc_info,
        )


def _name_the_place(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as its type and its frames; its text may repeat what was sent."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["kind"] = type(error).__name__
        event["where"] = _frames(error.__traceback__)
    return event


def _frames(trace: TracebackType | None) -> list[str]:
    return [f"{f.filename.rsplit('/', 2)[-1]}:{f.lineno} {f.name}" for f in traceback.extract_tb(trace)[-8:]]


def _drop_unlisted(_: Any, __: str, event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key in FIELDS}
