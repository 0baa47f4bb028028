"""The ledger for readers: entries, the signed checkpoint, proofs. Nothing here writes, and nothing can delete."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import rfc8785
from fastapi import APIRouter, Path, Query, Response

from provenance.checkpoint import open_checkpoint
from provenance.compliance import judge
from provenance.ledger import ENTRY_SCHEMA, Entry
from provenance.requirements import STANDARDS
from server.gate import Caller, GatedRoute, Serving, declare
from server.paging import Limit
from server.report_compliance import KINDS, Kind, render
from server.routes.checks import attachment
from server.schemas import CheckpointAnswer, EntryPage, LedgerEntry, ProofAnswer

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=GatedRoute)

MAX_INDEX = 2**53 - 1
Index = Annotated[int, Path(ge=0, le=MAX_INDEX)]


@router.get(
    "/entries", operation_id="listEntries", response_model=EntryPage, **declare("audit:read", 404, 422)
)
def list_entries(
    service: Serving,
    caller: Caller,
    limit: Limit = 50,
    cursor: Annotated[
        int, Query(ge=0, le=MAX_INDEX, description="First index; `next` of the page before.")
    ] = 0,
) -> EntryPage:
    """The entries from an index on, oldest first."""
    found = service.home.ledger.entries(cursor, limit + 1)
    items = [LedgerEntry(**{**vars(entry), "body": dict(entry.body)}) for entry in found[:limit]]
    return EntryPage(items=items, next=str(found[limit].index) if len(found) > limit else None)


@router.get(
    "/checkpoint", operation_id="readCheckpoint", response_model=CheckpointAnswer, **declare("audit:read")
)
def read_checkpoint(service: Serving, caller: Caller) -> CheckpointAnswer:
    """The newest signed checkpoint (C2SP note). Without a witness outside, a split view stays possible."""
    ledger = service.home.ledger
    note, verifier = ledger.checkpoint(), ledger.signer.verifier
    head = open_checkpoint(note, verifier)
    return CheckpointAnswer(checkpoint=note, size=head.size, root=head.root.hex(), verifier_key=verifier.text)


@router.get(
    "/proofs/{index}",
    operation_id="proveInclusion",
    response_model=ProofAnswer,
    **declare("audit:read", 404, 422),
)
def prove_inclusion(index: Index, service: Serving, caller: Caller) -> ProofAnswer:
    """Proof that an entry is under the newest checkpoint, with the bytes that are hashed (RFC 6962)."""
    ledger = service.home.ledger
    with ledger.database.read() as conn:
        entry, proof = ledger.entry(index, conn), ledger.inclusion_proof(index, conn)
    return ProofAnswer(
        **{**vars(proof), "hashes": list(proof.hashes)},
        leaf_sha256=entry.leaf_sha256,
        entry_base64=base64.b64encode(_leaf_bytes(entry)).decode(),
    )


@router.get(
    "/consistency",
    operation_id="proveConsistency",
    response_model=ProofAnswer,
    **declare("audit:read", 404, 422),
)
def prove_consistency(
    service: Serving,
    caller: Caller,
    older: Annotated[int, Query(ge=0, le=MAX_INDEX, description="Leaves of the older checkpoint.")],
    newer: Annotated[int | None, Query(ge=0, le=MAX_INDEX, description="Of the newer; default: all.")] = None,
) -> ProofAnswer:
    """Proof that the ledger of an older checkpoint is the beginning of a newer one's."""
    proof = service.home.ledger.consistency_proof(older, newer)
    return ProofAnswer(**{**vars(proof), "hashes": list(proof.hashes)})


@router.get(
    "/report",
    operation_id="downloadComplianceReport",
    response_class=Response,
    **declare("audit:read", 422, room="slots"),
)
async def download_report(
    service: Serving,
    caller: Caller,
    standard: Annotated[Literal["eu", "cn", "ca", "all"], Query(description="Whose requirements.")] = "all",
    format: Annotated[Kind, Query(description="Of the file.")] = "html",
) -> Response:
    """This home against what laws and standards ask: pass, fail, or needs a person.

    Released files are not looked at; `facsimile audit report --files` does that.
    """
    chosen = STANDARDS if standard == "all" else tuple(each for each in STANDARDS if each == standard)
    home = service.home
    body = await service.work(lambda: render(format, judge(home, chosen), home.organisation))
    return attachment(body, KINDS[format], f"compliance-{standard}.{format}")


def _leaf_bytes(entry: Entry) -> bytes:
    """RFC 8785 bytes of the leaf; canonical, so that making them anew gives the stored ones."""
    leaf: dict[str, Any] = {
        "body": dict(entry.body),
        "index": entry.index,
        "kind": entry.kind,
        "schema": ENTRY_SCHEMA,
        "time": entry.time,
    }
    return rfc8785.dumps(leaf)
