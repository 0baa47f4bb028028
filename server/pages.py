"""The pages for people; the API is in server/routes."""

from __future__ import annotations

from fastapi import FastAPI


def add_to(app: FastAPI) -> None:
    """Include the pages."""
