"""Subjects: people enrolled with pictures, and erased; decides nothing itself (provenance.subjects does)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile

from fusion.identity import MATCH_THRESHOLD
from fusion.media import read_picture
from fusion.request import only_face
from fusion.weights import IDENTITY
from provenance import subjects
from provenance.records import ADULT_METHODS, AdultVerified, Embedder, Profile, PublicFigure
from server.gate import FORM_LIMITS, Caller, GatedRoute, Serving, declare
from server.idempotency import Attempt, IdempotencyKey, attempt, fingerprint
from server.ids import SubjectId
from server.schemas import FULL_LINE, LINE, Day, Recorded, SubjectAnswer
from server.service import UPLOAD_LIMITS, Service

_METHOD = f"^({'|'.join(ADULT_METHODS)})$"
router = APIRouter(prefix="/v1/subjects", tags=["consent"], route_class=GatedRoute)


@router.post(
    "",
    operation_id="enrolSubject",
    status_code=201,
    response_model=SubjectAnswer,
    form_limits=FORM_LIMITS,
    **declare("subjects:write", 409, 415, 422, room="slots"),
)
async def enrol_subject(
    image: Annotated[
        list[UploadFile],
        File(
            min_length=1, max_length=16, description="Pictures of this one person; three or more are better."
        ),
    ],
    name: Annotated[
        str, Form(min_length=1, max_length=1000, pattern=FULL_LINE, description="Kept encrypted.")
    ],
    adult_verified: Annotated[str, Form(pattern=_METHOD, description="How adulthood was verified.")],
    adult_verified_on: Annotated[Day, Form(description="When.")],
    service: Serving,
    caller: Caller,
    public_figure: Annotated[bool, Form()] = False,
    evidence: Annotated[
        str | None, Form(max_length=1000, pattern=LINE, description="For a public figure.")
    ] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enrol a person: a face template and a profile, encrypted under a key of their own. Pictures are not kept."""
    profile = Profile.make(
        name=name,
        adult_verified=AdultVerified.make(method=adult_verified, date=adult_verified_on),
        public_figure=PublicFigure.make(is_public_figure=public_figure, evidence=evidence),
    )
    pictures = [await each.read() for each in image]
    print_ = fingerprint("enrolSubject", profile.model_dump(mode="json"), *pictures)
    async with attempt(service.home.database, caller.id, idempotency_key, print_) as tried:
        if tried.replayed is not None:
            return tried.replayed
        return await service.work(lambda: _enrol(profile, pictures, tried, service))


def embedder() -> Embedder:
    """The identity network in use and its threshold."""
    return Embedder.make(sha256=IDENTITY.sha256, threshold=MATCH_THRESHOLD)


def _enrol(profile: Profile, pictures: list[bytes], tried: Attempt, service: Service) -> Response:
    found = [
        only_face(service.perception.analyse(read_picture(data, UPLOAD_LIMITS).rgb)).embedding
        for data in pictures
    ]
    enrolment = subjects.enrol(service.home, profile, found, embedder())
    answer = SubjectAnswer(
        id=enrolment.subject_id,
        erased=False,
        num_embeddings=enrolment.num_embeddings,
        notes=list(enrolment.notes),
        ledger_index=enrolment.receipt.index,
    )
    return tried.answer(201, answer, f"/v1/subjects/{answer.id}")


@router.get(
    "/{subject_id:id}",
    operation_id="readSubject",
    response_model=SubjectAnswer,
    **declare("subjects:read", 404, 422),
)
def read_subject(subject_id: SubjectId, service: Serving, caller: Caller) -> SubjectAnswer:
    """Whether a subject is enrolled or erased. The profile is not handed out."""
    found = subjects.find_subject(service.home, subject_id)
    return SubjectAnswer(id=found.id, erased=found.erased, ledger_index=found.enrolled_index)


@router.delete(
    "/{subject_id:id}/template",
    operation_id="eraseSubject",
    response_model=Recorded,
    **declare("subjects:write", 404, 409, 422),
)
def erase_subject(subject_id: SubjectId, service: Serving, caller: Caller) -> Recorded:
    """Destroy a person's key, template and profile. The ledger keeps keyed references only, and stays intact."""
    receipt = subjects.erase(service.home, subject_id)
    return Recorded(id=subject_id, ledger_index=receipt.index, root=receipt.root)
