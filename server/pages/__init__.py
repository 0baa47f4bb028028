"""The pages for people: plain HTML forms over the same calls as the API; a script makes them quicker, none needs it."""

from __future__ import annotations

from fastapi import FastAPI

from server.pages import audit, check, consent, entry, make


def add_to(app: FastAPI) -> None:
    """Include every page."""
    for module in (entry, check, make, consent, audit):
        app.include_router(module.router)
