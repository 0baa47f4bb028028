"""The outermost layer: security headers on every answer, one line of log and one count each; reads no body."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from typing import Final

from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.logs import log
from server.service import Service

API_CSP: Final = "default-src 'none'; frame-ancestors 'none'"
PAGE_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "object-src 'none'"
)
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
HSTS: Final = "max-age=31536000; includeSubDomains"


def self_contained(page: str) -> HTMLResponse:
    """A page with its style inside and no script, under a policy that allows just that style and inline pictures."""
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in styles]
    allowed = " ".join(hashes) or "'none'"
    policy = f"default-src 'none'; style-src {allowed}; img-src data:; frame-ancestors 'none'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


class Outermost:
    """ASGI middleware around everything, the error pages of the framework included."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (
            scope["method"] == "HEAD"
        ):  # as GET (RFC 9110, 9.3.2); uvicorn sends no body, for it keeps its own scope
            scope = {**scope, "method": "GET"}
        started, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                message = {**message, "headers": self._headers(list(message["headers"]))}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._account(scope, status, time.perf_counter() - started)

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower(): value for name, value in headers}
        is_page = present.get(b"content-type", b"").startswith(b"text/html")
        wanted = {**SECURITY_HEADERS, "Content-Security-Policy": PAGE_CSP if is_page else API_CSP}
        if self._service.settings.is_https:
            wanted["Strict-Transport-Security"] = HSTS
        added = [(name.lower().encode(), value.encode()) for name, value in wanted.items()]
        return headers + [(name, value) for name, value in added if name not in present]

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        principal = scope.get("state", {}).get("principal")
        self._service.metrics.count_request(scope["method"], route, status, seconds)
        log.info(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1e3, 1),
            principal=getattr(principal, "id", None),
        )
