"""Whether the server lives, is ready and how it does; what an error code means; who you are."""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import HTMLResponse, JSONResponse

from provenance import statuslist
from provenance.errors import FacsimileError, InputError
from server.auth import SCOPES
from server.gate import PUBLIC, Caller, GatedRoute, Serving, declare
from server.headers import self_contained
from server.metrics import CONTENT_TYPE
from server.report import page
from server.schemas import Health, Readiness, Whoami
from server.service import Service

router = APIRouter(tags=["operations"], route_class=GatedRoute)
DOCS = FilePath(__file__).resolve().parent.parent.parent / "docs"


@router.get("/healthz", operation_id="readHealth", response_model=Health, **declare(PUBLIC))
async def read_health() -> Health:
    """The process answers. It says nothing of database and workers: see /readyz."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="readReadiness",
    response_model=Readiness,
    **declare(PUBLIC),
)
def read_readiness(service: Serving) -> Response:
    """Whether requests would be served: 200 or 503."""
    parts = {
        "database": _database_answers(service),
        "workers": _workers_live(service),
        "accepting": not service.draining,
    }
    ready = all(parts.values())
    headers = {} if ready else {"Retry-After": "5"}
    return JSONResponse({"ready": ready, "checks": parts}, 200 if ready else 503, headers)


@router.get("/metrics", operation_id="readMetrics", response_class=Response, **declare("operations:read"))
def read_metrics(service: Serving) -> Response:
    """Counters in the Prometheus text format."""
    slots = {"at_work": service.slots.at_work, "waiting": service.slots.waiting, "all": service.slots.size}
    size = service.home.ledger.tree_head().size
    service.metrics.set_gauges(service.queue.count_by_state(), slots, service.queue.count_workers(), size)
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/v1/status-list", operation_id="downloadStatusList", response_class=Response, **declare(PUBLIC))
def download_status_list(service: Serving) -> Response:
    """Which grants are withdrawn, for anybody: a Token Status List, signed, without a name in it."""
    return Response(statuslist.publish(service.home), media_type="application/statuslist+jwt")


@router.get("/v1/me", operation_id="readMe", response_model=Whoami, **declare("me:read"))
def read_me(caller: Caller) -> Whoami:
    """Your key's id, roles and scopes."""
    scopes = sorted(scope for scope in SCOPES if caller.may(scope))
    return Whoami(id=caller.id, roles=sorted(caller.roles), scopes=scopes)


@router.get(
    "/problems/{code}",
    operation_id="readProblemType",
    response_class=HTMLResponse,
    **declare(PUBLIC, 404, 422),
)
def read_problem_type(
    code: Annotated[str, Path(pattern=r"^[a-z_]+(\.[a-z_0-9]+)?$", max_length=60)],
) -> Response:
    """What an error code means, for people."""
    found = _documented().get(code)
    if found is None:
        raise InputError("problem.unknown", "No error has this code.", "See docs/errors.md.")
    what, step = (html.escape(re.sub(r"[`*\[\]]", "", text)) for text in found)
    body = f"<p>{what}</p><p>What to do: {step}</p>"
    return self_contained(page(code, body))


@cache
def _documented() -> dict[str, tuple[str, str]]:
    """Code → (what happened, what to do), from the pages that ship beside the code."""
    text = "".join((DOCS / name).read_text() for name in ("errors.md", "api.md") if (DOCS / name).is_file())
    found = re.findall(r"^\| `([a-z_.0-9]+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    return {code: (what.strip(), step.strip()) for code, what, step in found}


def _database_answers(service: Service) -> bool:
    try:
        service.home.ledger.tree_head()
    except FacsimileError:
        return False
    return True


def _workers_live(service: Service) -> bool:
    try:
        return service.settings.num_workers == 0 or service.queue.count_workers() > 0
    except FacsimileError:
        return False
