"""Builds what a finished picture declares of itself: C2PA manifest definition and XMP packet, as pure values.

Knows no file, no key, no C2PA library. Nothing private goes in: no names of people, no file names, no paths;
grants appear as references that only the holder of the ledger can resolve.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal
from xml.sax.saxutils import quoteattr

from provenance.errors import InputError

GENERATOR = "facsimile"
MARK_ALGORITHM = "org.facsimile.mark.1"
CONSENT_LABEL = "org.facsimile.consent"
PRODUCTION_LABEL = "org.facsimile.production"
SOFT_BINDING_LABEL = "c2pa.soft-binding"
TRAINING_LABEL = "cawg.training-mining"
INGREDIENT_LABEL = "c2pa.ingredient"
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SWAP_SOURCE_TYPE = _IPTC + "compositeWithTrainedAlgorithmicMedia"
SAMPLE_SOURCE_TYPE = _IPTC + "trainedAlgorithmicMedia"
SYNTHETIC_SOURCE_TYPES = frozenset(
    {SWAP_SOURCE_TYPE, SAMPLE_SOURCE_TYPE, _IPTC + "compositeSynthetic", _IPTC + "algorithmicMedia"}
)
# The signer vouches for these only because they are listed (they would be "gathered" otherwise); the library
# compares actions and ingredients without their version.
CREATED_LABELS = (
    "c2pa.actions",
    SOFT_BINDING_LABEL,
    TRAINING_LABEL,
    CONSENT_LABEL,
    PRODUCTION_LABEL,
    INGREDIENT_LABEL,
)
_KEPT_OF_INPUTS = (
    "c2pa.actions",
    "c2pa.hash.",
    "c2pa.ingredient",
    SOFT_BINDING_LABEL,
    "c2pa.time-stamp",
    "c2pa.training-mining",
    TRAINING_LABEL,
    "org.facsimile.",
)
_TRAINING_USES = ("ai_inference", "ai_generative_training", "ai_training", "data_mining")  # CAWG 1.1, 3.2
_NEUTRAL_TITLES = {"parentOf": "target", "componentOf": "source"}

Relationship = Literal["parentOf", "componentOf"]
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Ingredient:
    """An input of the picture: its original bytes, read for its own manifest store and not kept.

    Those of a video are a file open for reading: it may be too large to hold.

    One target ("parentOf") at most; sources ("componentOf") in the order of `manifest_for_swap`'s count.
    Readers are shown `title`: a neutral word (default: "target", "source"), never a file name (InputError).
    """

    data: bytes | BinaryIO = field(repr=False)
    mime: str
    relationship: Relationship
    title: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"((target|source|frame)(-[0-9]{1,3})?)?", self.title):
            raise InputError(
                "claim.title",
                "An ingredient's title is public: target, source or frame, with a number at most.",
                "Leave the title out.",
            )

    @property
    def public_title(self) -> str:
        """The title as the manifest carries it."""
        return self.title or _NEUTRAL_TITLES[self.relationship]


@dataclass(frozen=True)
class ConsentRecord:
    """On what ground the picture was made; every text is shown to whoever reads the file.

    grants        references by `grant_reference`, one per person whose face takes part
    evidence      why a face needed no grant, e.g. "manifest:trainedAlgorithmicMedia" or "folder:declared"
    ledger_index  leaf of the consent decision in the ledger; None if there is none before the picture's own
    rules_sha256  hash of the rule set that decided, 64 hex digits, or empty
    """

    purpose: str
    use: str
    media: str
    grants: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    ledger_index: int | None = None
    rules_sha256: str = ""


@dataclass(frozen=True)
class Production:
    """By what the picture was made; `models` maps a network's name to the SHA-256 of its weights."""

    version: str
    engine: str
    when: datetime
    models: Mapping[str, str] = field(default_factory=dict)


def grant_reference(grant_id: str, asset_id: str, key: bytes) -> str:
    """A grant's name inside one picture: HMAC-SHA256(key, asset ‖ grant), 32 hex digits (RFC 2104).

    Two pictures under one grant carry unlike references; only the holder of the key can recompute one.
    """
    message = f"facsimile grant reference 1\n{asset_id}\n{grant_id}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


def manifest_for_swap(
    asset_id: str, mime: str, production: Production, consent: ConsentRecord, *, num_sources: int = 1
) -> Manifest:
    """Manifest of a fused picture: opened (target) → placed (sources) → edited → watermarked."""
    sources = [ingredient_id("componentOf", i) for i in range(num_sources)]
    actions = [
        {"action": "c2pa.opened", "parameters": {"ingredientIds": [ingredient_id("parentOf", 0)]}},
        *({"action": "c2pa.placed", "parameters": {"ingredientIds": [each]}} for each in sources),
        _made("c2pa.edited", SWAP_SOURCE_TYPE, production),
        _marked(),
    ]
    return _manifest(asset_id, mime, production, consent, actions)


def manifest_for_sample(asset_id: str, mime: str, production: Production, consent: ConsentRecord) -> Manifest:
    """Manifest of a portrait of nobody: created, wholly by a trained algorithm → watermarked."""
    actions = [_made("c2pa.created", SAMPLE_SOURCE_TYPE, production), _marked()]
    return _manifest(asset_id, mime, production, consent, actions)


def assertions_to_redact(labels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Which assertions of an input's manifest store must not travel on; `labels` lists them by manifest.

    A store that an input brings is kept as proof of its origin. Its thumbnails would show the very face that
    was replaced or lent, its metadata the place and the person: only what says how it was made stays.
    """
    return tuple(
        f"self#jumbf=/c2pa/{manifest}/c2pa.assertions/{label}"
        for manifest, assertions in labels.items()
        for label in assertions
        if not label.startswith(_KEPT_OF_INPUTS)
    )


def with_redactions(manifest: Manifest, addresses: Sequence[str]) -> Manifest:
    """The manifest with those assertions of its ingredients redacted, and an action that says so for each."""
    if not addresses:
        return manifest
    redacted = [
        {"action": "c2pa.redacted", "reason": "c2pa.PII.present", "parameters": {"redacted": each}}
        for each in addresses
    ]
    first, *others = manifest["assertions"]
    opened, *later = first["data"]["actions"]
    actions = first | {"data": first["data"] | {"actions": [opened, *redacted, *later]}}
    return manifest | {"assertions": [actions, *others], "redactions": list(addresses)}


def manifest_for_sheet(
    asset_id: str, mime: str, production: Production, consent: ConsentRecord, *, num_pictures: int
) -> Manifest:
    """Manifest of a contact sheet of finished pictures: created, each placed → watermarked."""
    placed = [ingredient_id("componentOf", i) for i in range(num_pictures)]
    actions = [
        _made("c2pa.created", SWAP_SOURCE_TYPE, production),
        *({"action": "c2pa.placed", "parameters": {"ingredientIds": [each]}} for each in placed),
        _marked(),
    ]
    return _manifest(asset_id, mime, production, consent, actions)


def ingredient_id(relationship: Relationship, index: int) -> str:
    """The id by which an action names an ingredient: "target", "source-1", "source-2" ..."""
    return "target" if relationship == "parentOf" else f"source-{index + 1}"


def xmp_packet(asset_id: str, source_type: str, producer: str) -> bytes:
    """XMP with IPTC DigitalSourceType and the implicit label of GB 45438-2025 (TC260:AIGC), UTF-8.

    `source_type` is SWAP_SOURCE_TYPE or SAMPLE_SOURCE_TYPE, as in the manifest; `producer` the organisation.
    """
    text = aigc_label(asset_id, producer)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"'
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(source_type)}"
        f" TC260:AIGC={quoteattr(text)}/>"
        "</rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    ).encode()


def aigc_label(asset_id: str, producer: str) -> str:
    """The implicit label of GB 45438-2025 as JSON: in a picture's XMP, in an MP4 also under the key AIGC."""
    _check_asset_id(asset_id)
    aigc = {
        "Label": "1",
        "ContentProducer": producer,
        "ProduceID": asset_id,
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    return json.dumps(aigc, ensure_ascii=False, separators=(",", ":"))


def _manifest(
    asset_id: str, mime: str, production: Production, consent: ConsentRecord, actions: Sequence[Manifest]
) -> Manifest:
    _check_asset_id(asset_id)
    entries = {f"cawg.{use}": {"use": "notAllowed"} for use in _TRAINING_USES}
    binding = {"alg": MARK_ALGORITHM, "blocks": [{"scope": {}, "value": asset_id}]}
    made_by = {"engine": production.engine, "models": dict(production.models)}
    return {
        "claim_version": 2,
        "claim_generator_info": [{"name": GENERATOR, "version": production.version}],
        "title": f"facsimile {asset_id}",
        "format": mime,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": list(actions), "allActionsIncluded": True}},
            {"label": SOFT_BINDING_LABEL, "data": binding},
            {"label": TRAINING_LABEL, "data": {"entries": entries}},
            {"label": CONSENT_LABEL, "kind": "Json", "data": _consent(consent)},
            {"label": PRODUCTION_LABEL, "kind": "Json", "data": made_by},
        ],
    }


def _made(action: str, source_type: str, production: Production) -> Manifest:
    return {
        "action": action,
        "digitalSourceType": source_type,
        "softwareAgent": {"name": GENERATOR, "version": production.version},
        "when": production.when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _marked() -> Manifest:
    return {"action": "c2pa.watermarked.bound"}


def _consent(consent: ConsentRecord) -> Manifest:
    """Maps and strings only: arrays of integers come back from the store as base64 of their bytes."""
    record: Manifest = {
        "purpose": consent.purpose,
        "use": consent.use,
        "media": consent.media,
        "grants": list(consent.grants),
        "evidence": list(consent.evidence),
    }
    if consent.ledger_index is not None:
        record["ledger_index"] = str(consent.ledger_index)
    if consent.rules_sha256:
        record["rules_sha256"] = consent.rules_sha256
    return record


def _check_asset_id(asset_id: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{16}", asset_id):
        raise InputError(
            "claim.asset_id", "An asset id is 16 lower-case hex digits.", "Draw one with `secrets`."
        )
