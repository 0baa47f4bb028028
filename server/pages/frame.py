"""What all pages share: their frame, language, navigation, static files and error page; knows no page.

Markup holds no inline script and no inline style: the content security policy allows neither. A form of a logged-in
browser carries the session's CSRF token in the field `csrf_token`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from facesets.errors import FacesetError
from provenance.errors import ConsentError, FacsimileError, InputError, UsageError
from server.auth import Principal
from server.gate import FORM_LIMITS, GatedRoute, authenticate
from server.language import LANGUAGES, TAGS, Lang, Translator, choose_language, translator
from server.problems import HTTP_NEXT, TooBusyError, http_code, status_of
from server.service import Service

FOLDER: Final = Path(__file__).resolve().parent.parent
STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
LANGUAGE_COOKIE: Final = "lang"
YEAR_S: Final = 31_536_000


@dataclass(frozen=True)
class Place:
    """One entry of the navigation: where it leads, and the scope that shows it."""

    name: str
    path: str
    scope: str


PLACES: Final = (
    Place("check", "/check", "checks:create"),
    Place("make", "/make", "fusions:create"),
    Place("consent", "/consent", "grants:read"),
    Place("audit", "/audit", "audit:read"),
)


class PageRoute(GatedRoute):
    """A gated route whose refusals are pages; who is not logged in is led to the entrance."""

    async def csrf_token(self, request: Request) -> str | None:
        """Of a form the field `csrf_token`, else the header."""
        if request.headers.get("content-type", "").startswith(("multipart/", "application/x-www-form")):
            _require_bounded(request)
            form = await request.form(**FORM_LIMITS)
            return str(form.get("csrf_token", ""))
        return await super().csrf_token(request)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await handle(request)
            except FacsimileError as error:
                return await run_in_threadpool(error_page, request, error)
            except FacesetError as error:
                told = InputError(error.code, error.cause, error.next_step)
                return await run_in_threadpool(error_page, request, told)
            except RequestValidationError as error:
                return await run_in_threadpool(error_page, request, _unreadable(error))
            except HTTPException as error:
                told = InputError(http_code(error), str(error.detail), HTTP_NEXT)
                page = await run_in_threadpool(error_page, request, told, error.status_code)
                page.headers.update(error.headers or {})
                return page
            finally:
                await request.close()

        return shown


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page in the language of the request."""
    lang = language_of(request)
    principal: Principal | None = getattr(request.state, "principal", None)
    context = {
        "t": translator(lang),
        "lang": lang,
        "tag": TAGS[lang],
        "languages": [(code, TAGS[code], name, _here_in(request, code)) for code, name in LANGUAGES.items()],
        "principal": principal,
        "csrf_token": principal.csrf_token if principal else None,
        "places": [p for p in PLACES if principal and principal.may(p.scope)],
        "path": request.url.path,
        "asset": asset_url,
        "organisation": service_of(request).home.organisation,
    }
    response = HTMLResponse(environment().get_template(template).render(context | values), status)
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, lang, max_age=YEAR_S, path="/", httponly=True, samesite="lax")
    response.headers["Content-Language"] = TAGS[lang]
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def error_page(request: Request, error: FacsimileError, status: int | None = None) -> Response:
    """A refusal in words; who is not logged in gets the entrance instead."""
    status = status or status_of(error)
    if status == 401 and request.method == "GET":
        return RedirectResponse(f"/login?{urlencode({'next': request.url.path})}", 303)
    if not hasattr(request.state, "principal"):
        request.state.principal = _known(request)
    rules = error.rules if isinstance(error, ConsentError) else ()
    response = render(request, "error.html", status, error=error, rules=rules)
    if status in (429, 503):
        wait_s = error.retry_after_s if isinstance(error, TooBusyError) else 2
        response.headers["Retry-After"] = str(wait_s)
    return response


def redirect(path: str) -> Response:
    """See Other: the answer to a form that changed something."""
    return RedirectResponse(path, 303)


def service_of(request: Request) -> Service:
    """The running server."""
    service: Service = request.app.state.service
    return service


def words_of(request: Request) -> Translator:
    """The translator of the request's language."""
    return translator(language_of(request))


def language_of(request: Request) -> Lang:
    """By ?lang=, cookie, Accept-Language."""
    return choose_language(
        request.query_params.get("lang"),
        request.cookies.get(LANGUAGE_COOKIE),
        request.headers.get("accept-language"),
    )


@functools.cache
def environment() -> Environment:
    """The templates: everything is escaped, and a name that does not exist is an error."""
    return Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def asset(name: str) -> tuple[bytes, str]:
    """A static file and its type; InputError where there is none of this name."""
    if name not in STATIC:
        raise InputError("page.unknown", "There is no such page.", "Go back to the start.")
    return (FOLDER / "static" / name).read_bytes(), STATIC[name]


@functools.cache
def asset_url(name: str) -> str:
    """Its address with its hash, so that it may be kept for ever."""
    return f"/static/{name}?v={hashlib.sha256(asset(name)[0]).hexdigest()[:12]}"


def safe_next(path: str | None) -> str:
    """A path of our own to go on to; anything else leads to the start."""
    ours = path and path.startswith("/") and not path.startswith(("//", "/\\"))
    return quote(path, safe="/-_.~") if ours and path else "/"


def _require_bounded(request: Request) -> None:
    """InputError where a form does not state its length, or states more than is taken; it is not read then."""
    length = request.headers.get("content-length", "")
    most = service_of(request).settings.max_upload_bytes
    if not length.isdecimal() or int(length) > most:
        raise InputError(
            "file.too_large", f"A form of at most {most >> 20} MiB is taken.", "Choose smaller files."
        )


def _here_in(request: Request, lang: str) -> str:
    """This page in another language."""
    kept = [(key, value) for key, value in request.query_params.multi_items() if key != "lang"]
    return f"{request.url.path}?{urlencode([*kept, ('lang', lang)])}"


def _known(request: Request) -> Principal | None:
    try:
        return authenticate(request, service_of(request))
    except FacsimileError:
        return None


def _unreadable(error: RequestValidationError) -> UsageError:
    fields = sorted({str(each["loc"][-1]) for each in error.errors()})
    return UsageError(
        "page.form",
        f"Some fields are missing or out of form: {', '.join(fields)}.",
        "Go back and fill them in.",
    )
