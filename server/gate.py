"""What stands before every route: who asks, may they, how often, is there room; reads no body.

A route declares its scope with `declare(...)`; one that declares none is not answered. Tests walk them all.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, Final, TypedDict

from fastapi import Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from provenance.errors import RefusedError
from server import auth
from server.auth import SCOPES, Principal
from server.limits import too_large
from server.oidc_login import JOURNEY_S
from server.problems import Problem, TooBusyError
from server.service import Service


class FormLimits(TypedDict, total=False):
    """What a form may hold: files, other fields, bytes of one of these."""

    max_files: int
    max_fields: int
    max_part_size: int


PUBLIC: Final = "public"
SCOPE_KEY: Final = "x-facsimile-scope"
ROOM_KEY: Final = "x-facsimile-room"
MAX_BYTES_KEY: Final = "x-facsimile-max-bytes"
FORM_LIMITS: Final[FormLimits] = {"max_files": 16, "max_fields": 200, "max_part_size": 1 << 13}
"""Of every form; fields that a route does not know are ignored, within these."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_MEANINGS: Final = {
    400: "The request cannot be read.",
    401: "No key, or one that is not good.",
    403: "Policy, a missing scope or consent says no.",
    404: "There is no such thing, or it is not yours.",
    408: "The body came too slowly.",
    409: "It conflicts with what is there.",
    410: "It was there, and is no more.",
    411: "The length of the body is missing.",
    413: "The body or the picture is too large.",
    415: "This is no file of an accepted format.",
    422: "What was handed in cannot be used.",
    429: "Too many requests; Retry-After says when to come back.",
    500: "The server failed.",
    503: "No room or no database; Retry-After says when to come back.",
    507: "The disk is full.",
}
_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def declare(
    scope: str, *statuses: int, room: str | None = None, max_bytes: int | None = None
) -> dict[str, Any]:
    """Keyword arguments of a route: its scope (or PUBLIC), its room ("slots", "jobs"), every error it answers.

    max_bytes: of its body, where it takes less than `max_upload_bytes`.
    """
    if scope != PUBLIC and scope not in SCOPES:
        raise ValueError(f"{scope} is no scope")
    common = (400, 408, 413, 429, 500, 503) if scope == PUBLIC else (400, 401, 403, 408, 413, 429, 500, 503)
    extra: dict[str, Any] = {SCOPE_KEY: scope, ROOM_KEY: room, MAX_BYTES_KEY: max_bytes}
    if scope != PUBLIC:
        extra["security"] = [{"key": []}, {"session": []}]
    responses = {status: _error_response(status) for status in sorted({*common, *statuses})}
    return {"openapi_extra": extra, "responses": responses}


def _error_response(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": _MEANINGS[status],
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in (429, 503):
        found["headers"] = _RETRY
    return found


class GatedRoute(APIRoute):
    """A route that is admitted before its body is read; the principal is then in `request.state.principal`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        extra = self.openapi_extra or {}
        scope, room, max_bytes = extra.get(SCOPE_KEY), extra.get(ROOM_KEY), extra.get(MAX_BYTES_KEY)

        async def admitted(request: Request) -> Response:
            principal = await _admit(request, scope, room, max_bytes)
            service: Service = request.app.state.service
            with service.bodies.take(principal.id) if room and principal else nullcontext():
                if (
                    principal
                    and principal.csrf_token
                    and request.method not in SAFE_METHODS
                    and scope != PUBLIC
                ):
                    principal.require_csrf(await self.csrf_token(request))
                return await handle(request)

        return admitted

    async def csrf_token(self, request: Request) -> str | None:
        """The CSRF token that a request carries; asked for when a cookie authenticates a change."""
        return request.headers.get("x-csrf-token")


async def _admit(
    request: Request,
    scope: str | None,
    room: str | None,
    max_bytes: int | None,
) -> Principal | None:
    """Who asks, when they may, not too often, with a body that is not too large, and there is room."""
    service: Service = request.app.state.service
    if scope is None:
        raise RefusedError("auth.undeclared", "This route declares no scope.", "Report it.")
    principal = None
    try:
        principal = await run_in_threadpool(authenticate, request, service)
    finally:  # who guesses keys is counted, too
        service.rates.count_request(principal.id if principal else f"address {address_of(request)}")
    request.state.principal = principal
    if scope != PUBLIC:
        if principal is None:
            raise RefusedError(
                "auth.missing", "The request carries no key.", "Send `Authorization: Bearer fk_…`."
            )
        principal.require(scope)
    _require_bounded(
        request, min(max_bytes or service.settings.max_upload_bytes, service.settings.max_upload_bytes)
    )
    if room is not None:
        await _require_room(service, room, principal)
    return principal


def _require_bounded(request: Request, max_bytes: int) -> None:
    """413 for a body that states to be larger; BodyGuard cuts off one that becomes so."""
    request.state.max_bytes = max_bytes
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise HTTPException(413, too_large(max_bytes), {"Connection": "close"})


async def _require_room(service: Service, room: str, principal: Principal | None) -> None:
    service.slots.check()
    if room == "jobs":
        most = service.settings.max_queued_jobs
        waiting, own = await run_in_threadpool(service.queue.count_waiting, principal.id if principal else "")
        if waiting >= most or own > most // 2:
            cause = f"{waiting} jobs wait, {own} of them yours."
            raise TooBusyError("request.busy", cause, "Wait as long as Retry-After says.", 10)


def authenticate(request: Request, service: Service) -> Principal | None:
    """Who asks: by bearer key, else by session cookie; None for nobody, RefusedError for a key that is not good."""
    header = request.headers.get("authorization", "")
    if header:
        kind, _, key = header.partition(" ")
        found = _find_bearer(key.strip(), service) if kind.lower() == "bearer" else None
        if found is None:
            raise RefusedError(
                "auth.invalid", "The key is unknown, expired or revoked.", "Ask an admin for a new key."
            )
        return found
    cookie = request.cookies.get(cookie_name(service))
    return auth.find_by_session(service.home.database, cookie) if cookie else None


def _find_bearer(key: str, service: Service) -> Principal | None:
    """By the form alone: our keys hold no dot, a token holds two."""
    if service.tokens is not None and key.count(".") == 2:
        return service.tokens.find(key)
    return auth.find_by_key(service.home.database, key)


def cookie_name(service: Service) -> str:
    """Over TLS the prefix makes browsers insist on Secure, path / and no domain (RFC 6265bis 4.1.3.2)."""
    return "__Host-facsimile" if service.settings.is_https else "facsimile"


def set_session_cookie(response: Response, session: auth.Session, service: Service) -> None:
    """Hand a session to a browser."""
    response.set_cookie(
        cookie_name(service),
        session.token,
        max_age=int(auth.SESSION_S),
        path="/",
        secure=service.settings.is_https,
        httponly=True,
        samesite="strict",
    )


def set_journey_cookie(response: Response, value: str, service: Service) -> None:
    """What a browser keeps while it signs in elsewhere; Lax, for it comes back from another site. Empty: forget it."""
    response.set_cookie(
        journey_cookie_name(service),
        value,
        max_age=JOURNEY_S if value else 0,
        path="/",
        secure=service.settings.is_https,
        httponly=True,
        samesite="lax",
    )


def journey_cookie_name(service: Service) -> str:
    """Named as the session's is."""
    return f"{cookie_name(service)}-sign-in"


def clear_session_cookie(response: Response, service: Service) -> None:
    """Take it back."""
    response.delete_cookie(
        cookie_name(service), path="/", secure=service.settings.is_https, httponly=True, samesite="strict"
    )


def address_of(request: Request) -> str:
    """The client's address, as uvicorn's proxy policy lets it be seen."""
    return request.client.host if request.client else "unknown"


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _principal(request: Request) -> Principal:
    """The one that the gate admitted."""
    principal: Principal = request.state.principal
    return principal


def _anybody(request: Request) -> Principal | None:
    found: Principal | None = request.state.principal
    return found


Serving = Annotated[Service, Depends(_service)]
Caller = Annotated[Principal, Depends(_principal)]
Anybody = Annotated[Principal | None, Depends(_anybody)]

__all__: Sequence[str] = ("Anybody", "Caller", "GatedRoute", "Problem", "Serving", "declare")
