"""Errors as RFC 9457 problem documents; decides the status, repeats nothing that was handed in.

`type` is a path of this server that says what the code means (`/problems/media.truncated`); `detail` and `next` are
the error's own cause and next step. What was handed in never appears: not in a problem, not in a log.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from facesets.errors import FacesetError
from provenance.errors import (
    ConsentError,
    FacsimileError,
    InputError,
    RefusedError,
    StoreError,
    UsageError,
    VerificationError,
)
from server.logs import log

MEDIA_TYPE: Final = "application/problem+json"

STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "auth.missing": 401,
    "auth.invalid": 401,
    "request.too_many": 429,
    "request.busy": 503,
    "request.too_slow": 408,
    "request.too_large": 413,
    "request.length": 411,
    "file.too_large": 413,
    "media.too_many_bytes": 413,
    "media.too_many_pixels": 413,
    "media.format": 415,
    "media.animated": 415,
    "media.unsupported": 415,
    "idempotency.in_flight": 409,
    "faceset.too_large": 413,
    "faceset.no_room": 507,
    "faceset.no_such_file": 404,
    "job.unknown": 404,
    "job.ended": 409,
    "job.not_done": 409,
    "job.expired": 410,
    "check.unknown": 404,
    "check.report_gone": 410,
    "subject.unknown": 404,
    "subject.erased": 409,
    "grant.unknown": 404,
    "grant.revoked": 409,
    "ledger.index": 404,
    "manifest.unknown": 404,
    "page.unknown": 404,
    "problem.unknown": 404,
    "consent.changed": 409,
    "store.locked": 503,
    "store.unreachable": 503,
    "store.disk_full": 507,
    "object.missing": 410,
}
"""Where the class of an error does not say enough."""

STATUS_OF_CLASS: Final[tuple[tuple[type[FacsimileError], int], ...]] = (
    (ConsentError, 403),
    (RefusedError, 403),
    (UsageError, 422),
    (InputError, 422),
    (StoreError, 503),
    (VerificationError, 500),
)
RETRY_AFTER_S: Final = 2
HTTP_NEXT: Final = "See docs/api.md."
_HTTP_CODES: Final = {
    400: "request.malformed",
    404: "request.no_such_path",
    405: "request.method",
    408: "request.too_slow",
    413: "request.too_large",
}


class Problem(BaseModel):
    """RFC 9457 problem document; `code`, `next`, `rules` and `fields` are this suite's own members."""

    type: str = Field(description="Path that says what the code means.")
    title: str = Field(description="The code in words.")
    status: int
    detail: str = Field(description="What happened.")
    instance: str = Field(description="Id of this very occurrence; it is in the server's log, too.")
    code: str = Field(description="Stable, dotted; see docs/errors.md.")
    next: str = Field(description="What to do now.")
    rules: list[str] = Field(default=[], description="Every failed rule of consent.")
    fields: list[str] = Field(default=[], description="Which parts of the request are at fault.")


class TooBusyError(RefusedError):
    """Refused before the body was read; `retry_after_s` says when to come back."""

    def __init__(self, code: str, cause: str, next_step: str, retry_after_s: int) -> None:
        super().__init__(code, cause, next_step)
        self.retry_after_s = retry_after_s


def status_of(error: FacsimileError) -> int:
    """The HTTP status of one of our errors."""
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next((status for kind, status in STATUS_OF_CLASS if isinstance(error, kind)), 500)


def problem_of(error: FacsimileError) -> dict[str, Any]:
    """The problem document of one of our errors."""
    rules = list(error.rules) if isinstance(error, ConsentError) else []
    return _problem(error.code, status_of(error), error.cause, error.next_step, rules=rules)


def _problem(
    code: str,
    status: int,
    detail: str,
    next_step: str,
    *,
    rules: list[str] | None = None,
    fields: list[str] | None = None,
) -> dict[str, Any]:
    return {
        "type": f"/problems/{code}",
        "title": code.replace(".", ": ").replace("_", " "),
        "status": status,
        "detail": detail,
        "instance": f"urn:facsimile:occurrence:{secrets.token_hex(8)}",
        "code": code,
        "next": next_step,
        "rules": rules or [],
        "fields": fields or [],
    }


def respond(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response."""
    body = json.dumps(problem, ensure_ascii=False).encode()
    return Response(body, int(problem["status"]), dict(headers or {}), MEDIA_TYPE)


def respond_to(error: FacsimileError) -> Response:
    """The response to one of our errors, with Retry-After where coming back helps."""
    problem = problem_of(error)
    headers = {}
    if isinstance(error, TooBusyError):
        headers["Retry-After"] = str(error.retry_after_s)
    elif problem["status"] == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    elif problem["status"] == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="facsimile"'
    log.info("refused", code=problem["code"], status=problem["status"], instance=problem["instance"])
    return respond(problem, headers)


def respond_to_http(error: HTTPException) -> Response:
    """The response to a refusal by the framework, or by what stands around the routes."""
    problem = _problem(http_code(error), error.status_code, str(error.detail), HTTP_NEXT)
    return respond(problem, error.headers)


def add_handlers(app: FastAPI) -> None:
    """Every exception becomes a problem document."""

    @app.exception_handler(FacsimileError)
    async def ours(_: Request, error: FacsimileError) -> Response:
        return respond_to(error)

    @app.exception_handler(FacesetError)
    async def of_sets(_: Request, error: FacesetError) -> Response:
        return respond_to(InputError(error.code, error.cause, error.next_step))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return respond(_invalid(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:  # the framework names the methods of the first route of this path only
            error.headers = {"Allow": ", ".join(sorted(methods_at(app, request.url.path)))}
        return respond_to_http(error)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return unforeseen_response(error)


def methods_at(app: FastAPI, path: str) -> set[str]:
    """The methods of every route that has this path."""
    found = ((each.path, each.original_route) for each in iter_route_contexts(app.routes))
    here = (route for at, route in found if at and compile_path(at)[0].match(path))
    methods = {method for route in here for method in getattr(route, "methods", None) or ()}
    return methods | {"HEAD"} if "GET" in methods else methods


def http_code(error: HTTPException) -> str:
    """The code of a refusal by the framework or by what stands around the routes."""
    return _HTTP_CODES.get(error.status_code, "request.refused")


def unforeseen_response(error: Exception) -> Response:
    """500 with an id; the log has its kind and where it came from, never its text: that may repeat what was sent."""
    problem = _problem(
        "internal", 500, "The server failed; this is its fault.", "Report it with the instance."
    )
    log.error("internal", kind=type(error).__name__, instance=problem["instance"], exc_info=error)
    return respond(problem)


def _invalid(error: RequestValidationError) -> dict[str, Any]:
    """Places and reasons only: pydantic's `input` and `ctx` would repeat what was sent."""
    places = [".".join(str(part) for part in each["loc"]) for each in error.errors()]
    reasons = sorted({str(each["type"]) for each in error.errors()})
    return _problem(
        "request.invalid",
        422,
        f"The request is not of the form that the API states: {', '.join(reasons)}.",
        "Compare it with /v1/openapi.json.",
        fields=sorted(set(places))[:50],
    )
