"""The entrance: the start page, logging in and out, static files; knows no evidence."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from provenance import statuslist
from provenance.errors import RefusedError
from server import auth
from server.gate import (
    PUBLIC,
    Anybody,
    Serving,
    address_of,
    clear_session_cookie,
    cookie_name,
    declare,
    set_session_cookie,
)
from server.pages.frame import YEAR_S, PageRoute, asset, redirect, render, safe_next

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
    return render(request, "login.html", next=safe_next(next), code=code, failed=False)


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
        return render(request, "login.html", 401, next=safe_next(next), code=None, failed=True)
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


@router.get("/static/{name}", **declare(PUBLIC, 422))
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
