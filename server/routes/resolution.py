"""The C2PA soft binding resolution API over the ledger: a copy that lost its manifest is led back to it.

The paths and answers are the specification's (docs/resolution.md), under /v1/resolution.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, Response, UploadFile
from fastapi import Path as PathPart
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from fusion.media import read_picture
from fusion.video import is_video
from provenance.hashes import content_sha256
from provenance.resolution import MAX_RESULTS, Match, Resolver
from server.copies import open_copy
from server.gate import FORM_LIMITS, PUBLIC, Caller, GatedRoute, Serving, declare
from server.service import UPLOAD_LIMITS

router = APIRouter(prefix="/v1/resolution", tags=["resolution"], route_class=GatedRoute)

MaxResults = Annotated[int, Query(alias="maxResults", ge=1, le=MAX_RESULTS)]
Algorithm = Annotated[str, Query(max_length=100)]


class Binding(BaseModel):
    """A soft binding whose manifests are wanted."""

    model_config = ConfigDict(extra="forbid")

    alg: str = Field(max_length=100)
    value: str = Field(max_length=1000)


class AlgorithmName(BaseModel):
    alg: str


class Algorithms(BaseModel):
    watermarks: list[AlgorithmName]
    fingerprints: list[AlgorithmName]


class ManifestMatch(BaseModel):
    manifestId: str  # noqa: N815
    similarityScore: int | None = None  # noqa: N815


class Matches(BaseModel):
    matches: list[ManifestMatch]


@router.get(
    "/services/supportedAlgorithms",
    operation_id="listAlgorithms",
    response_model=Algorithms,
    **declare(PUBLIC),
)
def list_algorithms(service: Serving) -> dict[str, Any]:
    """Which marks can be asked for: ours."""
    return dict(Resolver(service.home).supported_algorithms())


@router.get(
    "/matches/byBinding",
    operation_id="findByBinding",
    response_model=Matches,
    response_model_exclude_none=True,
    **declare("checks:create", 422),
)
def find_by_binding(
    alg: Algorithm,
    value: Annotated[str, Query(max_length=1000)],
    service: Serving,
    caller: Caller,
    max_results: MaxResults = MAX_RESULTS,
) -> dict[str, Any]:
    """Manifests of the id that a mark carries, the newest first."""
    return _answer(Resolver(service.home).by_binding(alg, value, max_results))


@router.post(
    "/matches/byBinding",
    operation_id="findByBindingBody",
    response_model=Matches,
    response_model_exclude_none=True,
    **declare("checks:create", 422, max_bytes=1 << 14),
)
def find_by_binding_body(
    binding: Binding, service: Serving, caller: Caller, max_results: MaxResults = MAX_RESULTS
) -> dict[str, Any]:
    """The same, with the binding in the body."""
    return _answer(Resolver(service.home).by_binding(binding.alg, binding.value, max_results))


@router.post(
    "/matches/byContent",
    operation_id="findByContent",
    response_model=Matches,
    response_model_exclude_none=True,
    form_limits=FORM_LIMITS,
    **declare("checks:create", 415, 422, room="slots"),
)
async def find_by_content(
    file: Annotated[UploadFile, File(description="A picture or video that lost its manifest.")],
    service: Serving,
    caller: Caller,
    alg: Annotated[str | None, Query(max_length=100)] = None,
    max_results: MaxResults = MAX_RESULTS,
) -> dict[str, Any]:
    """Manifests of a picture or a video, by its content or by its mark."""
    data = await file.read()

    def find() -> list[Match]:
        resolver = Resolver(service.home)
        if not is_video(data[:16]):
            rgb = read_picture(data, UPLOAD_LIMITS).rgb
            return resolver.by_content(rgb, content_sha256(data), alg, max_results)[0]
        with NamedTemporaryFile(suffix=".mp4") as kept:
            kept.write(data)
            kept.flush()
            with open_copy(Path(kept.name), service.home.keys.mark_key) as copy:
                return resolver.by_evidence(copy.found, alg, max_results)

    return _answer(await service.work(find))


@router.get(
    "/manifests/{manifest_id}",
    operation_id="downloadManifest",
    response_class=Response,
    **declare("checks:create", 404, 422),
)
async def download_manifest(
    manifest_id: Annotated[str, PathPart(max_length=100)],
    service: Serving,
    caller: Caller,
    return_active_manifest: Annotated[bool, Query(alias="returnActiveManifest")] = False,
) -> Response:
    """A manifest store as `application/c2pa`; only those that the ledger recorded, each compared with its hash."""
    store = await run_in_threadpool(Resolver(service.home).manifest, manifest_id, return_active_manifest)
    return Response(store, media_type="application/c2pa")


def _answer(found: list[Match]) -> dict[str, Any]:
    return {"matches": [match.as_dict() for match in found]}
