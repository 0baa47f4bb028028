"""The closed records of consent: who, what was granted, what is asked; decides nothing and stores nothing.

Every field is required and none has a default, so that a forgotten one is an error here and never a permission
later. Unknown fields are refused.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from provenance.errors import InputError

EMBEDDING_SIZE = 512
MAX_FACES = 64  # of one request
GRANT_SCHEMA = "facsimile-grant/1"
WORLD = "WORLD"  # as a jurisdiction: anywhere
ADULT_METHODS = ("passport", "id_card", "driving_licence", "eid", "video_ident", "in_person", "notary")

Role = Literal["source", "target"]  # source: lends the identity; target: lends the picture that is altered
Media = Literal["still", "video"]
Use = Literal["internal", "publish", "dataset"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
Jurisdiction = Annotated[
    str, StringConstraints(pattern=r"^([A-Z]{2}|WORLD)$")
]  # ISO 3166-1 alpha-2, EU, WORLD
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"\S")]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=40)]


class ClosedRecord(BaseModel):
    """Base of all: frozen, strict in types, closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """The record with these fields; InputError names those that are missing, unknown or malformed."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            places = sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False)})
            raise InputError(
                "consent.record",
                f"A {cls.__name__} needs other values in: {', '.join(places)}.",
                "Give every field, in the form that docs/consent.md states.",
            ) from None


class AdultVerified(ClosedRecord):
    """How and when it was verified that the person is an adult; `method` is one of ADULT_METHODS."""

    method: str
    date: date


class PublicFigure(ClosedRecord):
    """Whether the person is known to the public, and then what proves that it is they who agreed."""

    is_public_figure: bool
    evidence: str | None


class Profile(ClosedRecord):
    """Who a subject is; kept encrypted under the subject's own key."""

    name: Text
    adult_verified: AdultVerified
    public_figure: PublicFigure


class Embedder(ClosedRecord):
    """The network that made an embedding: hash of its weights, and the cosine from which two faces are one."""

    sha256: Sha256
    threshold: Annotated[float, Field(ge=0.05, lt=1.0)]


class GrantTerms(ClosedRecord):
    """What a person agrees to. `embedder_sha256` names the enrolled template, `threshold` is for that embedder."""

    subject_id: Identifier
    grantee: Text
    purposes: Annotated[tuple[Token, ...], Field(min_length=1)]
    scope_roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    scope_media: Annotated[tuple[Media, ...], Field(min_length=1)]
    uses: Annotated[tuple[Use, ...], Field(min_length=1)]
    not_before: datetime
    expires: datetime
    jurisdictions: Annotated[tuple[Jurisdiction, ...], Field(min_length=1)]
    embedder: Embedder
    consent_text_sha256: Sha256
    consent_text_language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
    evidence: Text


class Grant(ClosedRecord):
    """A grant as it is signed; times are seconds since 1970 (RFC 7519 NumericDate)."""

    schema_id: Literal["facsimile-grant/1"]
    iss: Text
    aud: Text
    jti: Identifier
    sub: Identifier
    iat: int
    nbf: int
    exp: int
    grantee: Text
    purposes: Annotated[tuple[Token, ...], Field(min_length=1)]
    scope_roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    scope_media: Annotated[tuple[Media, ...], Field(min_length=1)]
    uses: Annotated[tuple[Use, ...], Field(min_length=1)]
    jurisdictions: Annotated[tuple[Jurisdiction, ...], Field(min_length=1)]
    adult_verified: AdultVerified
    public_figure: PublicFigure
    revocation_handle: Text
    template_commitment: Sha256
    embedder_sha256: Sha256
    threshold: Annotated[float, Field(ge=0.05, lt=1.0)]
    consent_text_sha256: Sha256
    consent_text_language: Text
    evidence: Text


class ManifestEvidence(ClosedRecord):
    """What the C2PA manifest of the face's own file proves, as `signing.read_manifest` read it.

    `content_sha256` is `hashes.content_sha256` of that file.
    """

    kind: Literal["manifest"]
    content_sha256: Sha256
    state: str
    ours: bool
    source_type: str | None
    asset_id: str | None


class FolderEvidence(ClosedRecord):
    """The operator's recorded declaration that a folder holds only people who do not exist."""

    kind: Literal["folder"]
    content_sha256: Sha256
    declaration_id: Identifier


class FaceClaim(ClosedRecord):
    """One face that takes part, and on what ground.

    `embedding` is float32 [512] of unit length; anything else fails the rule face.embedding. With neither
    `grant_id` nor evidence the request's offered grants are tried, one to one.
    """

    role: Role
    embedding: Any
    grant_id: str | None
    synthetic_evidence: ManifestEvidence | FolderEvidence | None


class ConsentRequest(ClosedRecord):
    """What is asked. `num_*_faces` are the faces that the finder saw; each needs its claim in `faces`.

    `grantee` is who asks, `jurisdiction` where the result will be used, `embedder_sha256` the weights that made
    the embeddings.
    """

    purpose: Token
    use: Use
    media: Media
    grantee: Text
    jurisdiction: Jurisdiction
    embedder_sha256: Sha256
    num_source_faces: Annotated[int, Field(ge=0)]
    num_target_faces: Annotated[int, Field(ge=0)]
    offered_grants: Annotated[tuple[str, ...], Field(max_length=MAX_FACES)]
    faces: Annotated[tuple[FaceClaim, ...], Field(max_length=MAX_FACES)]
