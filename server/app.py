"""Assembles the server: one app for programs and people; each route is in server/routes or server/pages.

create_app(home, settings)   the ASGI app over an open home; closing the home stays the caller's
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from provenance import __version__
from provenance.home import Home
from server import pages
from server.headers import Outermost
from server.limits import BodyGuard
from server.logs import configure, log
from server.problems import Problem, add_handlers
from server.routes import audit, checks, facesets, fusions, grants, operations, resolution, subjects
from server.service import Service
from server.settings import ServeSettings
from server.supervisor import workers_of


def create_app(home: Home, settings: ServeSettings | None = None) -> FastAPI:
    """The server over an open home. Logging is set up first: no line of it may repeat what was sent."""
    configure()
    service = Service.over(home, settings or ServeSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with workers_of(service):
            await run_in_threadpool(service.warm_up)
            log.info("ready", version=__version__)
            yield
            service.draining = True
        log.info("stopped")

    app = FastAPI(
        title="facsimile",
        version=__version__,
        summary="Synthetic faces that always carry a mark and a signature; what can be proven of any file.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    add_handlers(app)
    for module in (operations, checks, fusions, facesets, subjects, grants, audit, resolution):
        app.include_router(module.router)
    pages.add_to(app)
    app.openapi = _openapi_of(app)  # type: ignore[method-assign]
    limits = service.settings
    app.add_middleware(BodyGuard, bytes_per_s=limits.body_bytes_per_s, max_bytes=limits.max_upload_bytes)
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=list(service.settings.allowed_hosts), www_redirect=False
    )
    app.add_middleware(Outermost, service=service)
    return app


def _openapi_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """OpenAPI 3.1 with the problem document and the two ways to authenticate."""

    def make() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
            components["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "facsimile"},
            }
            _declare_problems(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    return make


def _declare_problems(schema: dict[str, Any]) -> None:
    """FastAPI states its own shape of 422; ours are problem documents."""
    for path in schema["paths"].values():
        for operation in path.values():
            for status, response in operation.get("responses", {}).items():
                if int(status) >= 400:
                    response["content"] = {
                        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                    }
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
