"""Consent desk: people enrolled with pictures, the text in their language, grants, receipts, withdrawal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Form, Request, Response, UploadFile

from provenance import grants, receipts, subjects
from provenance.errors import ConsentError, InputError, UsageError
from provenance.grants import StoredGrant
from provenance.notices import ConsentText, consent_text, find_text
from provenance.records import ADULT_METHODS, AdultVerified, Embedder, GrantTerms, Profile, PublicFigure
from server.gate import Caller, Serving, declare
from server.ids import GrantId, SubjectId
from server.language import TAGS, translator
from server.pages.frame import PageRoute, redirect, render, words_of
from server.routes.checks import attachment
from server.schemas import FULL_LINE, LINE, Day
from server.service import UPLOAD_LIMITS, Service

router = APIRouter(prefix="/consent", route_class=PageRoute, include_in_schema=False)

LAST_S: Final = 253_402_300_799
"""The last second of the year 9999."""
USES: Final = ("internal", "publish", "dataset")


@router.get("", **declare("grants:read"))
def show_desk(request: Request, service: Serving, caller: Caller) -> Response:
    """Everyone who was enrolled, with their grants."""
    by_subject: dict[str, list[dict[str, Any]]] = {}
    for stored in grants.list_grants(service.home):
        by_subject.setdefault(stored.subject_id, []).append(_row(stored, service))
    people = [
        {"subject": each, "grants": by_subject.get(each.id, [])}
        for each in subjects.list_subjects(service.home)
    ]
    return render(request, "consent.html", people=people, may_write=caller.may("grants:write"))


@router.get("/enrol", **declare("subjects:write"))
def show_enrolment(request: Request) -> Response:
    """The form for a new person."""
    return render(request, "enrol.html", methods=ADULT_METHODS, today=date.today().isoformat())


@router.post("/enrol", **declare("subjects:write", 415, 422, room="slots"))
async def enrol(
    service: Serving,
    name: Annotated[str, Form(max_length=200, pattern=FULL_LINE)],
    images: Annotated[list[UploadFile], File()],
    adult_method: Annotated[str, Form(max_length=40)],
    adult_date: Annotated[Day, Form()],
    public_figure: Annotated[bool, Form()] = False,
    evidence: Annotated[str, Form(max_length=1000, pattern=LINE)] = "",
) -> Response:
    """Enrol a person from pictures, which are read once and not kept."""
    profile = Profile.make(
        name=name.strip(),
        adult_verified=AdultVerified.make(method=adult_method, date=adult_date),
        public_figure=PublicFigure.make(is_public_figure=public_figure, evidence=evidence.strip() or None),
    )
    pictures = [await each.read() for each in images if each.filename]
    if not pictures:
        raise InputError("page.no_file", "No file was chosen.", "Choose a picture, then press the button.")
    enrolment = await service.work(lambda: _enrol(service, profile, pictures))
    return redirect(f"/consent/people/{enrolment}")


@router.get("/people/{subject_id}", **declare("subjects:read", 404, 422))
def show_person(request: Request, subject_id: SubjectId, service: Serving, caller: Caller) -> Response:
    """One person: their grants, and the form of a new one."""
    person = subjects.find_subject(service.home, subject_id)
    rows = [_row(each, service) for each in grants.list_grants(service.home, subject_id)]
    return render(
        request,
        "person.html",
        person=person,
        grants=rows,
        uses=USES,
        grantee=service.home.organisation,
        jurisdiction=service.home.jurisdiction,
        today=service.home.ledger.clock().date().isoformat(),
        may_write=caller.may("grants:write") and not person.erased,
    )


@router.post("/people/{subject_id}/text", **declare("grants:write", 404, 422))
def show_text(
    request: Request,
    subject_id: SubjectId,
    service: Serving,
    text_lang: Annotated[str, Form(pattern="^(en|zh)$")],
    purposes: Annotated[str, Form(max_length=400)],
    until: Annotated[Day, Form()],
    roles: Annotated[list[str], Form()] = [],  # noqa: B006
    media: Annotated[list[str], Form()] = [],  # noqa: B006
    uses: Annotated[list[str], Form()] = [],  # noqa: B006
    jurisdictions: Annotated[str, Form(max_length=200)] = "WORLD",
) -> Response:
    """The text that the person reads before anything is issued: in their language, not the operator's."""
    person = subjects.find_subject(service.home, subject_id)
    start = int(service.home.ledger.clock().timestamp())
    terms, text = _terms(
        service, subject_id, start, (purposes, roles, media, uses, jurisdictions), until, text_lang, "-"
    )
    grants.require_span(terms, service.home.ledger.clock())
    fields = {
        "text_lang": [text_lang],
        "purposes": [purposes],
        "until": [until.isoformat()],
        "start": [str(start)],
        "roles": list(terms.scope_roles),
        "media": list(terms.scope_media),
        "uses": list(terms.uses),
        "jurisdictions": [jurisdictions],
        "text_sha256": [text.sha256],
    }
    return render(
        request,
        "consent_text.html",
        person=person,
        text=text,
        paragraphs=text.text.strip().split("\n\n"),
        text_tag=TAGS["zh" if text_lang == "zh" else "en"],
        asked=translator("zh" if text_lang == "zh" else "en"),
        fields=fields,
    )


@router.post("/people/{subject_id}/grants", **declare("grants:write", 403, 404, 422))
def issue(
    subject_id: SubjectId,
    service: Serving,
    text_lang: Annotated[str, Form(pattern="^(en|zh)$")],
    purposes: Annotated[str, Form(max_length=400)],
    until: Annotated[Day, Form()],
    start: Annotated[int, Form(ge=0, le=LAST_S)],
    text_sha256: Annotated[str, Form(pattern="^[0-9a-f]{64}$")],
    evidence: Annotated[str, Form(max_length=1000, pattern=LINE)] = "",
    agreed: Annotated[bool, Form()] = False,
    roles: Annotated[list[str], Form()] = [],  # noqa: B006
    media: Annotated[list[str], Form()] = [],  # noqa: B006
    uses: Annotated[list[str], Form()] = [],  # noqa: B006
    jurisdictions: Annotated[str, Form(max_length=200)] = "WORLD",
) -> Response:
    """Issue the grant over exactly the text that was shown, when the person agreed to it."""
    if not agreed:
        raise ConsentError(
            "consent.not_agreed", "The person did not agree.", "Show them the text, and ask again.", ()
        )
    given = (purposes, roles, media, uses, jurisdictions)
    terms, text = _terms(service, subject_id, start, given, until, text_lang, evidence.strip())
    if text.sha256 != text_sha256:
        raise UsageError(
            "consent.other_text", "These terms are not the ones that were shown.", "Show the text again."
        )
    stored = grants.issue(service.home, terms)
    return redirect(f"/consent/grants/{stored.id}")


@router.get("/grants/{grant_id}", **declare("grants:read", 404, 422))
def show_grant(request: Request, grant_id: GrantId, service: Serving, caller: Caller) -> Response:
    """One grant: its terms from the verified signature, its text, its receipt."""
    stored = grants.find_grant(service.home, grant_id)
    grant = grants.open_grant(stored.jws, service.home.keys)
    text = find_text(grant)
    return render(
        request,
        "grant.html",
        row=_row(stored, service),
        grant=grant,
        stored=stored,
        paragraphs=text.text.strip().split("\n\n") if text else None,
        text_tag=TAGS["zh" if grant.consent_text_language == "zh" else "en"],
        span=[words_of(request).date(datetime.fromtimestamp(each, UTC)) for each in (grant.nbf, grant.exp)],
        may_write=caller.may("grants:write") and stored.revoked_at is None,
    )


@router.get("/grants/{grant_id}/receipt", **declare("grants:read", 404, 422))
def download_receipt(grant_id: GrantId, service: Serving) -> Response:
    """The signed receipt for the person to keep."""
    text = receipts.write_receipt(service.home, grant_id)
    return attachment(text.encode(), "application/jose", f"{grant_id}-receipt.jwt")


@router.post("/grants/{grant_id}/revocation", **declare("grants:write", 404, 409, 422))
def revoke(
    grant_id: GrantId, service: Serving, reason: Annotated[str, Form(max_length=1000, pattern=LINE)] = ""
) -> Response:
    """Withdraw a grant, effective at once; a person owes no reason."""
    grants.revoke(service.home, grant_id, reason.strip() or "not stated")
    return redirect(f"/consent/grants/{grant_id}")


@router.post("/people/{subject_id}/erasure", **declare("subjects:write", 404, 409, 422))
def erase(subject_id: SubjectId, service: Serving, sure: Annotated[bool, Form()] = False) -> Response:
    """Destroy a person's key, name and template."""
    if not sure:
        raise UsageError("page.not_sure", "Erasure was not confirmed.", "Tick the box that says so.")
    subjects.erase(service.home, subject_id)
    return redirect(f"/consent/people/{subject_id}")


def _enrol(service: Service, profile: Profile, pictures: Sequence[bytes]) -> str:
    from fusion.media import read_picture
    from fusion.request import only_face

    seen = [service.perception.analyse(read_picture(data, UPLOAD_LIMITS).rgb) for data in pictures]
    embeddings = [only_face(found).embedding for found in seen]
    return subjects.enrol(service.home, profile, embeddings, _embedder()).subject_id


def _terms(
    service: Service,
    subject_id: str,
    start: int,
    given: tuple[str, Sequence[str], Sequence[str], Sequence[str], str],
    until: date,
    lang: str,
    evidence: str,
) -> tuple[GrantTerms, ConsentText]:
    """The terms of a form, and the text that they make."""
    purposes, roles, media, uses, jurisdictions = given
    draft = GrantTerms.make(
        subject_id=subject_id,
        grantee=service.home.organisation,
        purposes=tuple(purposes.replace(",", " ").split()),
        scope_roles=tuple(roles),
        scope_media=tuple(media),
        uses=tuple(uses),
        not_before=datetime.fromtimestamp(start, UTC),
        expires=datetime.combine(until, datetime.max.time(), UTC).replace(microsecond=0),
        jurisdictions=tuple(jurisdictions.replace(",", " ").upper().split()),
        embedder=_embedder(),
        consent_text_sha256="0" * 64,
        consent_text_language=lang,
        evidence=evidence,
    )
    text = consent_text(draft)
    return draft.model_copy(update={"consent_text_sha256": text.sha256}), text


def _row(stored: StoredGrant, service: Service) -> dict[str, Any]:
    """A grant as lists show it."""
    grant = grants.open_grant(stored.jws, service.home.keys)
    now = service.home.ledger.clock().timestamp()
    state = "expired" if grant.exp <= now else "live" if grant.nbf <= now else "coming"
    return {
        "id": stored.id,
        "state": "revoked" if stored.revoked_at else state,
        "roles": grant.scope_roles,
        "purposes": grant.purposes,
        "until": datetime.fromtimestamp(grant.exp, UTC).date().isoformat(),
        "index": stored.issued_index,
    }


def _embedder() -> Embedder:
    from fusion.identity import MATCH_THRESHOLD
    from fusion.weights import IDENTITY

    return Embedder.make(sha256=IDENTITY.sha256, threshold=MATCH_THRESHOLD)
