"""Signs media with C2PA and reads what a manifest proves; alone imports the C2PA library, knows no ledger.

Lessons this file rests on (c2pa-python 0.38.1, native 0.91.3), each held by a test:

- "Valid" says intact, not who: a stranger's CA under our name reads Valid. Only a trusted leaf counts, only
  a pinned one counts as ours.
- `validation_results.trustListUri` is that of the signature evaluated last, an ingredient's perhaps. The list
  that vouched for the active manifest stands in the explanation of its own signingCredential.trusted.
- A list's `trust_kind` is not enforced: anchors given for time stamps vouch for claim signers too. What they
  alone vouch for is unknown to us.
- `allowed_list` (the pin) works inside an entry of `trust.anchors` only; at the top level it is ignored. A
  match carries an empty list name.
- An ingredient that was tampered with leaves no failure in a reader's result: it stands in the record that
  the signer made of it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal
from uuid import uuid4

import c2pa

from provenance.claim import (
    CREATED_LABELS,
    MARK_ALGORITHM,
    SOFT_BINDING_LABEL,
    Ingredient,
    Manifest,
    assertions_to_redact,
    ingredient_id,
    with_redactions,
)
from provenance.container import join_parts, split_parts, without_c2pa_store
from provenance.errors import SignatureError
from provenance.keys import SigningKeys, Trust

__all__ = [
    "Ingredient",
    "ManifestReading",
    "State",
    "Trust",
    "read_detached",
    "read_manifest",
    "read_store",
    "sign",
    "sign_stream",
]

State = Literal["valid", "tampered", "untrusted", "none"]
# claimSigning, emailProtection, timeStamping
_EKU_CONFIG = "1.3.6.1.4.1.62558.2.1\n1.3.6.1.5.5.7.3.4\n1.3.6.1.5.5.7.3.8\n"
_OWN_URI, _LISTED_URI, _TIMESTAMP_URI = (
    f"urn:facsimile:trust:{name}" for name in ("own", "listed", "timestamp")
)
_PINNED_URI = ""  # what the library reports of a leaf found in an allowed_list
_LIST_NAME = re.compile(r"found in \[([^\]]*)\] trust anchors|trust list: (\S+)$")
_BINDING_FAILURES = frozenset({"assertion.dataHash.mismatch", "assertion.bmffHash.mismatch"})
_SEARCHED = 64 << 20
_CREDENTIAL_PREFIX = "signingCredential."  # who signed, as opposed to whether the bytes are intact


@dataclass(frozen=True)
class ManifestReading:
    """What the C2PA manifest of a file proves.

    state         valid      intact and signed by a pinned key of ours or under a listed anchor
                  untrusted  intact; signer unknown, revoked, expired, or under our root but not pinned
                  tampered   a hash or signature does not hold, or the store cannot be decoded
                  none       no manifest in the file (a remote one is never fetched)
    codes         C2PA status codes that explain the state, failures first; own codes begin with "facsimile."
    ours          the signer is a pinned key of ours
    signer        the organisation named in the certificate: anybody's word unless the state is valid
    source_type   IPTC digitalSourceType the signer vouches for, a URL; None if none
    asset_id      16 hex digits of our soft binding; None if none
    tree          the decoded store as plain dicts, {} if there is none; for reports, not for decisions
    """

    state: State
    codes: tuple[str, ...] = ()
    ours: bool = False
    signer: str | None = None
    source_type: str | None = None
    asset_id: str | None = None
    label: str | None = None
    generator: str | None = None
    timestamp: str | None = None
    timestamp_trusted: bool = False
    num_ingredients: int = 0
    tree: dict[str, Any] = field(default_factory=dict, repr=False)


def sign(
    data: bytes,
    mime: str,
    manifest: Manifest,
    keys: SigningKeys,
    ingredients: Sequence[Ingredient] = (),
    *,
    timestamp_url: str | None = None,
) -> bytes:
    """The media with `manifest` signed into it; nothing may change a byte of it from here on.

    The manifest stores of ingredients are kept, their pixels are not. `timestamp_url` names an RFC 3161
    authority: the only thing here that would use a network. SignatureError if the claim cannot be made, or if
    the result does not read as valid and ours.
    """
    signed = io.BytesIO()
    sign_stream(io.BytesIO(data), signed, mime, manifest, keys, ingredients, timestamp_url=timestamp_url)
    return signed.getvalue()


def sign_stream(
    unsigned: BinaryIO,
    signed: BinaryIO,
    mime: str,
    manifest: Manifest,
    keys: SigningKeys,
    ingredients: Sequence[Ingredient] = (),
    *,
    timestamp_url: str | None = None,
) -> None:
    """`sign` from one open file into another, which is empty and open for reading and writing."""
    try:
        with c2pa.Context.from_dict(_settings(keys.trust)) as context:
            inputs, labels = _admit(ingredients, context)
            definition = with_redactions(manifest, assertions_to_redact(labels))
            with (
                c2pa.Builder(definition, context=context) as builder,
                _signer(keys, timestamp_url) as signer,
            ):
                _build(builder, signer, unsigned, signed, mime, inputs)
    except c2pa.C2paError as error:
        cause = f"The manifest could not be signed into the file: {error}."
        raise SignatureError(
            "signature.failed", cause, "Run `facsimile doctor`; nothing was released."
        ) from error
    reading = read_manifest(signed, mime, keys.trust)
    if reading.state != "valid" or not reading.ours:
        cause = f"The signed file reads as {reading.state} ({', '.join(reading.codes)})."
        next_step = "Run `facsimile doctor`: the signing certificate may have expired or been revoked."
        raise SignatureError("signature.not_ours", cause, next_step)


def read_manifest(data: bytes | BinaryIO, mime: str, trust: Trust) -> ManifestReading:
    """What the file's own manifest proves to somebody who believes `trust`; fetches nothing, never raises.

    `data` is the file whole, or open for reading where it is too large to hold.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    stream.seek(0)
    try:
        with (
            c2pa.Context.from_dict(_settings(trust)) as context,
            c2pa.Reader(mime, stream, context=context) as reader,
        ):
            return _reading(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return ManifestReading("none")
    except (c2pa.C2paError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        state: State = "tampered" if _looks_signed(stream) else "none"
        return ManifestReading(state, codes=(f"facsimile.unreadable.{type(error).__name__.lstrip('_')}",))


def _looks_signed(stream: BinaryIO) -> bool:
    """Whether the words that every store holds stand in the first or last megabytes of a file."""
    length = stream.seek(0, io.SEEK_END)
    parts = []
    for start in (0, max(length - _SEARCHED, 0)):
        stream.seek(start)
        parts.append(stream.read(_SEARCHED))
    return all(any(word in part for part in parts) for word in (b"jumb", b"c2pa"))


def read_detached(
    store: bytes, data: bytes | BinaryIO, mime: str, trust: Trust
) -> tuple[ManifestReading, bool]:
    """What a manifest store kept elsewhere proves of a copy, and whether it fits the copy byte for byte.

    The reading judges signature and assertions alone: a copy that was encoded anew never fits its hash, and that is no
    tampering with the manifest. Whether the copy shows the same picture is for the perceptual hash to tell.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    stream.seek(0)
    try:
        with (
            c2pa.Context.from_dict(_settings(trust)) as context,
            c2pa.Reader(mime, stream, store, context=context) as reader,
        ):
            tree = json.loads(reader.json())
            failures = tree["validation_results"]["activeManifest"]["failure"]
            kept = [each for each in failures if each["code"] not in _BINDING_FAILURES]
            tree["validation_results"]["activeManifest"]["failure"] = kept
            fits = len(kept) == len(failures)
            tree["validation_state"] = tree["validation_state"] if fits or kept else "Trusted"
            return _reading(tree), fits
    except (c2pa.C2paError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        code = f"facsimile.unreadable.{type(error).__name__.lstrip('_')}"
        return ManifestReading("tampered", codes=(code,)), False


def read_store(store: bytes, trust: Trust) -> ManifestReading:
    """What a manifest store proves by itself, without the picture it was signed for."""
    return read_detached(store, store, "application/c2pa", trust)[0]


def _signer(keys: SigningKeys, timestamp_url: str | None) -> c2pa.Signer:
    if keys.sign_claim is not None:
        algorithm, chain = c2pa.C2paSigningAlg.ES256, keys.chain_pem.decode()
        return c2pa.Signer.from_callback(keys.sign_claim, algorithm, chain, timestamp_url)
    address = timestamp_url.encode() if timestamp_url else None
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", keys.chain_pem, keys.leaf_key_pem, address))


def _build(
    builder: c2pa.Builder,
    signer: c2pa.Signer,
    unsigned: BinaryIO,
    signed: BinaryIO,
    mime: str,
    ingredients: Sequence[Ingredient],
) -> None:
    for definition, ingredient in _named(ingredients):
        builder.add_ingredient(definition, ingredient.mime, _opened(ingredient))
    unsigned.seek(0)
    builder.sign(signer, mime, unsigned, signed)


def _opened(ingredient: Ingredient) -> BinaryIO:
    """An ingredient's bytes from their beginning."""
    if isinstance(ingredient.data, bytes):
        return io.BytesIO(ingredient.data)
    ingredient.data.seek(0)
    return ingredient.data


def _admit(
    ingredients: Sequence[Ingredient], context: c2pa.Context
) -> tuple[list[Ingredient], dict[str, list[str]]]:
    """The inputs as they can be signed for, and the assertion labels of every manifest they bring.

    A store that cannot be decoded would make the whole signature fail: such an input comes without its store.
    """
    admitted: list[Ingredient] = []
    labels: dict[str, list[str]] = {}
    for each in ingredients:
        try:
            with c2pa.Reader(each.mime, _opened(each), context=context) as reader:
                manifests = json.loads(reader.detailed_json())["manifests"]
            labels |= {label: list(content["assertion_store"]) for label, content in manifests.items()}
            admitted.append(each)
        except c2pa.C2paError.ManifestNotFound:
            admitted.append(each)
        except (c2pa.C2paError, ValueError, LookupError, RecursionError):
            admitted.append(_without_store(each))
    return admitted, labels


def _without_store(ingredient: Ingredient) -> Ingredient:
    """The same input bare; SignatureError for a video, whose copy would have to be rewritten."""
    if isinstance(ingredient.data, bytes):
        return replace(ingredient, data=join_parts(without_c2pa_store(split_parts(ingredient.data))))
    raise SignatureError(
        "signature.unreadable_input",
        "The manifest inside a video that was handed in cannot be decoded, so the result cannot name its origin.",
        "Copy the video's tracks into a new file, without other boxes, and retry.",
    )


def _settings(trust: Trust) -> dict[str, Any]:
    """Every setting that matters: by its defaults, the library fetches remote manifests from the network."""
    lists = (
        {"trust_uri": _PINNED_URI, "trust_anchors": "", "allowed_list": trust.pinned_leaves},
        {"trust_uri": _OWN_URI, "trust_anchors": trust.own_anchors},
        {"trust_uri": _LISTED_URI, "trust_anchors": trust.listed_anchors},
        {"trust_uri": _TIMESTAMP_URI, "trust_anchors": trust.timestamp_anchors, "trust_kind": "tsa"},
    )
    named = [
        {"trust_kind": "manifest", "trust_config": _EKU_CONFIG} | each for each in lists if any(each.values())
    ]
    return {
        "trust": {"anchors": [each for each in named if each["trust_anchors"] or each.get("allowed_list")]},
        "verify": {
            "verify_trust": True,
            "verify_after_sign": True,
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
        },
        "soft_binding": {"soft_binding_algorithms": [MARK_ALGORITHM]},
        "builder": {"thumbnail": {"enabled": False}, "created_assertion_labels": list(CREATED_LABELS)},
    }


def _named(ingredients: Sequence[Ingredient]) -> Iterable[tuple[dict[str, str], Ingredient]]:
    """Each ingredient with the definition that links it to its action; its instance id is not its XMP's."""
    counts = {"parentOf": 0, "componentOf": 0}
    for each in ingredients:
        name = ingredient_id(each.relationship, counts[each.relationship])
        counts[each.relationship] += 1
        definition = {"title": each.public_title, "relationship": each.relationship, "label": name}
        yield definition | {"instance_id": f"xmp:iid:{uuid4()}"}, each


def _reading(tree: dict[str, Any]) -> ManifestReading:
    label = str(tree["active_manifest"])
    active = tree["manifests"][label]
    state, codes, ours = _judge(tree, f"self#jumbf=/c2pa/{label}/c2pa.signature")
    vouched = [each for each in active.get("assertions", []) if _is_vouched(each, active)]
    signature = active.get("signature_info", {})
    return ManifestReading(
        state=state,
        codes=codes,
        ours=ours,
        signer=signature.get("issuer") or signature.get("common_name"),
        source_type=_source_type(vouched),
        asset_id=_asset_id(vouched),
        label=label,
        generator=_generator(active),
        timestamp=signature.get("time"),
        timestamp_trusted=_vouching_list(_successes(tree, "timeStamp.trusted")) == _TIMESTAMP_URI,
        num_ingredients=len(active.get("ingredients", [])),
        tree=tree,
    )


def _judge(tree: dict[str, Any], signature_address: str) -> tuple[State, tuple[str, ...], bool]:
    """State, codes and ownership by the status codes (C2PA 2.x section 15.2) and the list that vouched."""
    results = tree["validation_results"]
    failures = [each["code"] for each in results["activeManifest"]["failure"]]
    for delta in results.get("ingredientDeltas", []):
        failures += [each["code"] for each in delta["validationDeltas"]["failure"]]
    broken = [code for code in failures if not code.startswith(_CREDENTIAL_PREFIX)]
    if broken:
        return "tampered", tuple(dict.fromkeys(broken + failures)), False
    trusted = _successes(tree, "signingCredential.trusted")
    vouching = _vouching_list([each for each in trusted if each.get("url") == signature_address])
    believed = vouching in (_PINNED_URI, _LISTED_URI) and tree.get("validation_state") == "Trusted"
    if failures or not believed:
        own = "facsimile.key.notPinned" if vouching == _OWN_URI else "facsimile.signer.unknown"
        return "untrusted", tuple(dict.fromkeys([*failures, own])), False
    passed = [each["code"] for each in results["activeManifest"]["success"]]
    return "valid", tuple(dict.fromkeys(passed)), vouching == _PINNED_URI


def _successes(tree: dict[str, Any], code: str) -> list[dict[str, Any]]:
    return [each for each in tree["validation_results"]["activeManifest"]["success"] if each["code"] == code]


def _vouching_list(checks: Sequence[dict[str, Any]]) -> str | None:
    """Name of the trust list that one success was found in; None unless there is exactly one."""
    found = [_LIST_NAME.search(each.get("explanation", "")) for each in checks]
    return (found[0][1] or found[0][2] or "") if len(found) == 1 and found[0] else None


def _is_vouched(assertion: dict[str, Any], manifest: dict[str, Any]) -> bool:
    """Claims of version 2 tell what the signer vouches for from what it merely gathered."""
    return bool(assertion.get("created")) or manifest.get("claim_version", 1) < 2


def _source_type(assertions: Sequence[dict[str, Any]]) -> str | None:
    """The digitalSourceType of the last action that states one."""
    stated: list[str] = []
    for data in _contents(assertions, "c2pa.actions"):
        actions = data.get("actions")
        for action in actions if isinstance(actions, list) else []:
            value = action.get("digitalSourceType") if isinstance(action, dict) else None
            stated += [value] if isinstance(value, str) else []
    return stated[-1] if stated else None


def _asset_id(assertions: Sequence[dict[str, Any]]) -> str | None:
    """The value of the first soft binding by our mark."""
    for data in _contents(assertions, SOFT_BINDING_LABEL):
        blocks = data.get("blocks")
        if data.get("alg") == MARK_ALGORITHM and isinstance(blocks, list) and blocks:
            value = blocks[0].get("value") if isinstance(blocks[0], dict) else None
            return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}", value) else None
    return None


def _contents(assertions: Sequence[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    found = [each.get("data") for each in assertions if str(each.get("label")).startswith(label)]
    return [each for each in found if isinstance(each, dict)]


def _generator(manifest: dict[str, Any]) -> str | None:
    info = (manifest.get("claim_generator_info") or [{}])[0]
    return " ".join(filter(None, (info.get("name"), info.get("version")))) or manifest.get("claim_generator")
