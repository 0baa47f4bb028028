"""The entrance: the start page, logging in and out, static files; knows no evidence."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from provenance import statuslist
from provenance.errors import InputError, RefusedError
from server import auth
from server.gate import (
    PUBLIC,
    Anybody,
    Serving,
    address_of,
    clear_session_cookie,
    cookie_name,
    declare,
    journey_cookie_name,
    set_journey_cookie,
    set_session_cookie,
)
from server.oidc_login import RETURN_PATH, Journey, SignIn
from server.pages.frame import YEAR_S, PageRoute, asset, redirect, render, safe_next, service_of
from server.service import Service

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/", **declare(PUBLIC))
def show_start(request: Request) -> Response:
    """What this is, and where to go."""
    return render(request, "start.html")


@router.get("/enter", **declare(PUBLIC))
@router.get("/login", **declare(PUBLIC))
def show_login(
    request: Request,
    next: Annotated[str | None, Query(max_length=300)] = None,
    code: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """The form for a key, or the button for a one-time link."""
    return _show_login(request, safe_next(next), code)


def _show_login(
    request: Request, next_path: str, code: str | None = None, *, failed: bool = False
) -> Response:
    sign_in = service_of(request).sign_in
    provider = sign_in.provider_name if sign_in and not code else None
    status = 401 if failed else 200
    return render(request, "login.html", status, next=next_path, code=code, failed=failed, provider=provider)


@router.get("/login/oidc", **declare(PUBLIC, 404, 422))
async def begin_sign_in(
    request: Request, service: Serving, next: Annotated[str | None, Query(max_length=300)] = None
) -> Response:
    """To the provider, with a secret of this browser to come back with."""
    service.rates.count_login(address_of(request))
    sign_in = _sign_in(service)
    journey = Journey.begin(safe_next(next))
    async with service.fetch_slots.take():
        response = redirect(await run_in_threadpool(sign_in.address, journey))
    set_journey_cookie(response, journey.cookie(), service)
    return response


@router.get(RETURN_PATH, **declare(PUBLIC, 401, 403, 404, 422))
async def end_sign_in(
    request: Request,
    service: Serving,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
    iss: Annotated[str, Query(max_length=300)] = "",
) -> Response:
    """From the provider: a session for whom it vouched for.

    The answer is a page that leads on, no redirect: browsers send a SameSite=Strict cookie only with steps that one
    of our own pages takes.
    """
    service.rates.count_login(address_of(request))
    sign_in = _sign_in(service)
    journey = Journey.read(request.cookies.get(journey_cookie_name(service)))
    given = {"state": state, "code": code, "error": error, "iss": iss}
    told = {name: value for name, value in given.items() if value}
    async with service.fetch_slots.take():
        who = await run_in_threadpool(sign_in.finish, journey, told)
    session = await run_in_threadpool(
        auth.open_session_for, service.home.database, who.id, who.roles, "sign-in by the provider"
    )
    response = render(request, "signed_in.html", next=safe_next(journey.next if journey else None))
    set_session_cookie(response, session, service)
    set_journey_cookie(response, "", service)
    return response


def _sign_in(service: Service) -> SignIn:
    if service.sign_in is None:
        raise InputError("page.unknown", "There is no such page.", "Go back to the start.")
    return service.sign_in


@router.post("/login", **declare(PUBLIC, 401, 422))
async def log_in(
    request: Request,
    service: Serving,
    key: Annotated[str, Form(max_length=200)] = "",
    code: Annotated[str, Form(max_length=100)] = "",
    next: Annotated[str, Form(max_length=300)] = "/",
) -> Response:
    """A session for a key or a one-time code; the same answer for every one that is not good."""
    service.rates.count_login(address_of(request))
    session = await run_in_threadpool(_open, service, key.strip(), code)
    if session is None:
        return _show_login(request, safe_next(next), failed=True)
    response = redirect(safe_next(next))
    set_session_cookie(response, session, service)
    return response


@router.post("/logout", **declare("me:read"))
def log_out(request: Request, service: Serving) -> Response:
    """End the session."""
    token = request.cookies.get(cookie_name(service))
    if token:
        auth.close_session(service.home.database, token)
    response = redirect("/")
    clear_session_cookie(response, service)
    return response


@router.get("/static/{name}", **declare(PUBLIC, 404, 422))
def read_static(name: Annotated[str, Path(max_length=40)]) -> Response:
    """The style sheet, the script, the icon."""
    data, mime = asset(name)
    return Response(data, media_type=mime, headers={"Cache-Control": f"public, max-age={YEAR_S}, immutable"})


@router.get("/status-list", **declare(PUBLIC))
def read_status_list(service: Serving, who: Anybody) -> Response:
    """The Token Status List of all grants; public, for it names nobody."""
    text = statuslist.publish(service.home)
    kept = {"Cache-Control": f"max-age={statuslist.TTL_S}"}
    return Response(text, media_type=statuslist.MEDIA_TYPE, headers=kept)


def _open(service: Serving, key: str, code: str) -> auth.Session | None:
    if code:
        key_id = service.entry_codes.use(code, time.time())
        return auth.open_session_of(service.home.database, key_id) if key_id else None
    try:
        return auth.open_session(service.home.database, key)
    except RefusedError:
        return None
