"""The pages for people: plain HTML forms over the same calls as the API; a script makes them quicker, none needs it."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from provenance.errors import InputError
from server.pages import audit, check, consent, entry, make
from server.pages.frame import error_page
from server.problems import respond_to_http


def add_to(app: FastAPI) -> None:
    """Include every page; a path that leads nowhere is a page, too, for who reads pages."""
    for module in (entry, check, make, consent, audit):
        app.include_router(module.router)

    @app.exception_handler(404)
    async def nowhere(request: Request, error: HTTPException) -> Response:
        if request.url.path.startswith("/v1/") or "text/html" not in request.headers.get("accept", ""):
            return respond_to_http(error)
        told = InputError("page.unknown", "There is no such page.", "Go back to the start.")
        return await run_in_threadpool(error_page, request, told, 404)
