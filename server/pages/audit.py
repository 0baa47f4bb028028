"""Audit: what was granted, made, refused; each entry with a proof that the reader's own browser checks."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import rfc8785
import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response

from provenance import compliance
from provenance.checkpoint import open_checkpoint
from provenance.database import ledger_entries
from provenance.errors import InputError, LedgerError
from provenance.ledger import ENTRY_SCHEMA, KINDS, Entry
from provenance.requirements import STANDARDS
from server.gate import Serving, declare
from server.pages import figures
from server.pages.frame import PageRoute, render, words_of
from server.routes.audit import MAX_INDEX, Index
from server.service import Service

router = APIRouter(prefix="/audit", route_class=PageRoute, include_in_schema=False)

PAGE_SIZE: Final = 25
STATE_TONES: Final = {"pass": "proof", "fail": "danger", "needs a person": "warn"}


@router.get("", **declare("audit:read", 422))
def show_entries(
    request: Request,
    service: Serving,
    kind: Annotated[str, Query(max_length=32)] = "",
    since: Annotated[str, Query(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")] = "",
    before: Annotated[int | None, Query(ge=0, le=MAX_INDEX)] = None,
) -> Response:
    """The newest entries, filtered by kind and day, and figures of the whole ledger."""
    if kind and kind not in KINDS:
        raise InputError("page.unknown", "There is no such page.", "Go back to the start.")
    t = words_of(request)
    found = _select(service, kind, since, before)
    shown = found[:PAGE_SIZE]
    rows = [{"entry": each, "time": t.date_of(each.time), "about": _about(each)} for each in shown]
    return render(
        request,
        "audit.html",
        rows=rows,
        kinds=sorted(KINDS),
        chosen={"kind": kind, "since": since},
        older=shown[-1].index if len(found) > PAGE_SIZE else None,
        head=service.home.ledger.tree_head(),
        plots=figures.plots(service.home, t),
    )


@router.get("/compliance", **declare("audit:read"))
def show_compliance(request: Request, service: Serving) -> Response:
    """What laws and codes ask, and what a machine can tell of it here; released files are not looked at."""
    judged = compliance.judge(service.home, STANDARDS)
    groups = [
        (standard, [each for each in judged if each.requirement.standard == standard])
        for standard in STANDARDS
    ]
    return render(request, "compliance.html", groups=groups, tones=STATE_TONES)


@router.get("/entries/{index}", **declare("audit:read", 404, 422))
def show_entry(request: Request, index: Index, service: Serving) -> Response:
    """One entry, its proof, and everything a browser needs to check it by itself."""
    ledger = service.home.ledger
    with service.home.database.read() as conn:
        entry = ledger.entry(index, conn)
        proof = ledger.inclusion_proof(index, conn)
    head = open_checkpoint(proof.checkpoint, ledger.signer.verifier)
    leaf: dict[str, Any] = {
        "body": dict(entry.body),
        "index": index,
        "kind": entry.kind,
        "schema": ENTRY_SCHEMA,
        "time": entry.time,
    }
    try:
        proof.verify_inclusion(entry.leaf_sha256, head.root.hex())
        holds = True
    except LedgerError:
        holds = False
    material = {
        "entry": rfc8785.dumps(leaf).decode(),
        "index": index,
        "size": proof.size,
        "hashes": list(proof.hashes),
        "checkpoint": proof.checkpoint,
        "key": ledger.signer.verifier.text,
    }
    return render(
        request,
        "entry.html",
        entry=entry,
        body=json.dumps(entry.body, ensure_ascii=False, indent=2),
        time=words_of(request).date_of(entry.time),
        proof=proof,
        root=head.root.hex(),
        holds=holds,
        material=json.dumps(material),
    )


def _select(service: Service, kind: str, since: str, before: int | None) -> list[Entry]:
    """The newest entries that match, one more than a page; days are cut after reading, newest first."""
    query = sa.select(ledger_entries.c.leaf_index).order_by(ledger_entries.c.leaf_index.desc())
    if kind:
        query = query.where(ledger_entries.c.kind == kind)
    if before is not None:
        query = query.where(ledger_entries.c.leaf_index < before)
    with service.home.database.read() as conn:
        indices = conn.scalars(query.limit(PAGE_SIZE + 1)).all()
        entries = [service.home.ledger.entry(int(index), conn) for index in indices]
    return [each for each in entries if each.time[:10] >= since]


def _about(entry: Entry) -> str:
    """The few words that tell entries of a kind apart."""
    body: dict[str, Any] = dict(entry.body)
    if entry.kind == "decision_denied":
        failed = [
            *body.get("failed", []),
            *(rule for face in body.get("faces", []) for rule in face["failed"]),
        ]
        return ", ".join(dict.fromkeys(failed))
    for name in ("asset_id", "grant_ref", "subject_ref", "code", "deployment", "network"):
        if body.get(name):
            return str(body[name])
    return ""
