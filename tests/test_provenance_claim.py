"""What a picture declares: complete, in the order that validates, and nothing private in it."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree

import pytest

from provenance.claim import (
    CONSENT_LABEL,
    CREATED_LABELS,
    MARK_ALGORITHM,
    PRODUCTION_LABEL,
    SAMPLE_SOURCE_TYPE,
    SWAP_SOURCE_TYPE,
    SYNTHETIC_SOURCE_TYPES,
    ConsentRecord,
    Ingredient,
    Manifest,
    Production,
    assertions_to_redact,
    grant_reference,
    manifest_for_sample,
    manifest_for_swap,
    with_redactions,
    xmp_packet,
)
from provenance.errors import InputError

ASSET_ID = "0123456789abcdef"
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=8)))
PRODUCTION = Production("0.1.0", "warp", WHEN, {"identity": "a" * 64})
CONSENT = ConsentRecord("film", "internal", "still", ("ab" * 16,), ("folder:declared",), 12, "c" * 64)


def assertion(manifest: Manifest, label: str) -> Any:
    (found,) = [each["data"] for each in manifest["assertions"] if each["label"] == label]
    return found


def action_names(manifest: Manifest) -> list[str]:
    return [each["action"] for each in assertion(manifest, "c2pa.actions.v2")["actions"]]


def test_swap_opens_its_target_and_places_every_source() -> None:
    manifest = manifest_for_swap(ASSET_ID, "image/png", PRODUCTION, CONSENT, num_sources=2)
    assert action_names(manifest) == [
        "c2pa.opened",
        "c2pa.placed",
        "c2pa.placed",
        "c2pa.edited",
        "c2pa.watermarked.bound",
    ]
    opened, first, second, edited, _ = assertion(manifest, "c2pa.actions.v2")["actions"]
    assert [each["parameters"]["ingredientIds"] for each in (opened, first, second)] == [
        ["target"],
        ["source-1"],
        ["source-2"],
    ]
    assert edited["digitalSourceType"] == SWAP_SOURCE_TYPE
    assert edited["softwareAgent"] == {"name": "facsimile", "version": "0.1.0"}
    assert edited["when"] == "2026-03-03T21:06:07Z"


def test_sample_is_created_by_an_algorithm() -> None:
    manifest = manifest_for_sample(ASSET_ID, "image/jpeg", PRODUCTION, CONSENT)
    assert action_names(manifest) == ["c2pa.created", "c2pa.watermarked.bound"]
    assert assertion(manifest, "c2pa.actions.v2")["actions"][0]["digitalSourceType"] == SAMPLE_SOURCE_TYPE


def test_source_types_are_the_published_terms() -> None:
    assert SWAP_SOURCE_TYPE.endswith("/digitalsourcetype/compositeWithTrainedAlgorithmicMedia")
    assert SAMPLE_SOURCE_TYPE.endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert {SWAP_SOURCE_TYPE, SAMPLE_SOURCE_TYPE} < SYNTHETIC_SOURCE_TYPES


def test_soft_binding_carries_the_id_of_the_mark() -> None:
    binding = assertion(manifest_for_sample(ASSET_ID, "image/jpeg", PRODUCTION, CONSENT), "c2pa.soft-binding")
    assert binding == {"alg": MARK_ALGORITHM, "blocks": [{"scope": {}, "value": ASSET_ID}]}


def test_training_use_is_forbidden_in_all_four_entries() -> None:
    manifest = manifest_for_sample(ASSET_ID, "image/jpeg", PRODUCTION, CONSENT)
    entries = assertion(manifest, "cawg.training-mining")["entries"]
    assert set(entries) == {
        "cawg.ai_inference",
        "cawg.ai_generative_training",
        "cawg.ai_training",
        "cawg.data_mining",
    }
    assert {each["use"] for each in entries.values()} == {"notAllowed"}


def test_consent_assertion_holds_text_only() -> None:
    manifest = manifest_for_swap(ASSET_ID, "image/png", PRODUCTION, CONSENT)
    assert assertion(manifest, CONSENT_LABEL) == {
        "purpose": "film",
        "use": "internal",
        "media": "still",
        "grants": ["ab" * 16],
        "evidence": ["folder:declared"],
        "ledger_index": "12",
        "rules_sha256": "c" * 64,
    }
    assert assertion(manifest, PRODUCTION_LABEL) == {"engine": "warp", "models": {"identity": "a" * 64}}
    assert not re.search(r"[\[:,]\s*-?\d+(\.\d+)?\s*[,\]}]", json.dumps(assertion(manifest, CONSENT_LABEL)))


def test_consent_without_ledger_leaf_says_nothing_of_one() -> None:
    record = ConsentRecord("demo", "internal", "still")
    data = assertion(manifest_for_sample(ASSET_ID, "image/jpeg", PRODUCTION, record), CONSENT_LABEL)
    assert set(data) == {"purpose", "use", "media", "grants", "evidence"}


def test_every_assertion_is_one_the_signer_vouches_for() -> None:
    manifest = manifest_for_swap(ASSET_ID, "image/png", PRODUCTION, CONSENT)
    labels = {each["label"].removesuffix(".v2") for each in manifest["assertions"]}
    assert labels < set(CREATED_LABELS)


def test_manifest_is_plain_json() -> None:
    manifest = manifest_for_swap(ASSET_ID, "image/png", PRODUCTION, CONSENT)
    assert json.loads(json.dumps(manifest)) == manifest


@pytest.mark.parametrize(
    "asset_id", ["", "0123", "0123456789ABCDEF", "0123456789abcdeg", "0123456789abcdef\n"]
)
def test_asset_id_is_16_hex_digits(asset_id: str) -> None:
    with pytest.raises(InputError, match=r"claim\.asset_id"):
        manifest_for_sample(asset_id, "image/jpeg", PRODUCTION, CONSENT)
    with pytest.raises(InputError, match=r"claim\.asset_id"):
        xmp_packet(asset_id, SWAP_SOURCE_TYPE, "Example Studio")


def test_grant_references_cannot_be_linked_without_the_key() -> None:
    one = grant_reference("grant-1", ASSET_ID, b"k" * 32)
    assert re.fullmatch(r"[0-9a-f]{32}", one)
    assert one == grant_reference("grant-1", ASSET_ID, b"k" * 32)
    others = {
        grant_reference("grant-1", "f" * 16, b"k" * 32),
        grant_reference("grant-2", ASSET_ID, b"k" * 32),
        grant_reference("grant-1", ASSET_ID, b"j" * 32),
    }
    assert len({one} | others) == 4


@pytest.mark.parametrize("title", ["anna.jpg", "/home/anna/1.png", "target picture", "source-x"])
def test_ingredient_titles_are_neutral(title: str) -> None:
    with pytest.raises(InputError, match=r"claim\.title"):
        Ingredient(b"", "image/png", "parentOf", title)


def test_ingredient_shows_no_bytes() -> None:
    ingredient = Ingredient(b"private pixels", "image/png", "componentOf")
    assert ingredient.public_title == "source"
    assert "private" not in repr(ingredient)


def test_redaction_keeps_how_an_input_was_made_and_drops_what_it_shows() -> None:
    labels = {
        "urn:c2pa:a": ["c2pa.actions.v2", "c2pa.hash.data", "c2pa.thumbnail.claim", "c2pa.soft-binding"],
        "urn:c2pa:b": ["c2pa.ingredient.v3__1", "stds.exif", "cawg.identity", "cawg.training-mining"],
    }
    assert assertions_to_redact(labels) == (
        "self#jumbf=/c2pa/urn:c2pa:a/c2pa.assertions/c2pa.thumbnail.claim",
        "self#jumbf=/c2pa/urn:c2pa:b/c2pa.assertions/stds.exif",
        "self#jumbf=/c2pa/urn:c2pa:b/c2pa.assertions/cawg.identity",
    )


def test_redactions_are_listed_and_stated_as_actions() -> None:
    manifest = manifest_for_swap(ASSET_ID, "image/png", PRODUCTION, CONSENT)
    redacted = with_redactions(manifest, ["self#jumbf=/c2pa/a/c2pa.assertions/stds.exif"])
    assert action_names(redacted)[:3] == ["c2pa.opened", "c2pa.redacted", "c2pa.placed"]
    assert redacted["redactions"] == ["self#jumbf=/c2pa/a/c2pa.assertions/stds.exif"]
    assert "redactions" not in manifest
    assert action_names(manifest)[:2] == ["c2pa.opened", "c2pa.placed"]
    assert with_redactions(manifest, []) is manifest


def test_xmp_packet_is_framed_and_well_formed() -> None:
    packet = xmp_packet(ASSET_ID, SAMPLE_SOURCE_TYPE, "Example Studio").decode()
    assert packet.startswith("<?xpacket begin=")
    assert packet.endswith('<?xpacket end="r"?>')
    (description,) = ElementTree.fromstring(packet).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    label = json.loads(description.attrib["{http://www.tc260.org.cn/ns/AIGC/1.0/}AIGC"])
    assert (label["Label"], label["ProduceID"]) == ("1", ASSET_ID)
