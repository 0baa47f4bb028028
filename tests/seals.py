"""Small sealed pictures, and strangers who seal them, for the tests of signing."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import c2pa
import cv2
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from provenance.certificates import Chain, es256_signer
from provenance.claim import (
    SWAP_SOURCE_TYPE,
    ConsentRecord,
    Ingredient,
    Manifest,
    Production,
    manifest_for_sample,
    manifest_for_swap,
    xmp_packet,
)
from provenance.keys import SigningKeys, Trust
from provenance.signing import ManifestReading, sign
from provenance.xmp import embed_xmp

ASSET_ID = "0123456789abcdef"
FORMATS = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
PRODUCTION = Production("0.1.0", "warp", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {"identity": "a" * 64})
CONSENT = ConsentRecord("demo", "internal", "still", ("ab" * 16, "cd" * 16), (), 12, "c" * 64)
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def picture(mime: str, seed: int = 0) -> bytes:
    """128 x 96 soft noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
    ok, coded = cv2.imencode(FORMATS[mime], cv2.GaussianBlur(noise, (0, 0), 3))
    assert ok
    return coded.tobytes()


def swap_manifest(mime: str, num_sources: int = 1) -> Manifest:
    return manifest_for_swap(ASSET_ID, mime, PRODUCTION, CONSENT, num_sources=num_sources)


def sample_manifest(mime: str = "image/jpeg") -> Manifest:
    return manifest_for_sample(ASSET_ID, mime, PRODUCTION, CONSENT)


def sealed_sample(keys: SigningKeys, mime: str = "image/jpeg", seed: int = 0) -> bytes:
    return sign(picture(mime, seed), mime, sample_manifest(mime), keys)


def sealed_swap(
    keys: SigningKeys, mime: str = "image/jpeg", target: bytes | None = None, source: bytes | None = None
) -> bytes:
    """A swap with XMP; target and source default to pictures without a manifest."""
    packet = xmp_packet(ASSET_ID, SWAP_SOURCE_TYPE, keys.organisation)
    inputs = [
        Ingredient(target or picture(mime, 1), mime, "parentOf"),
        Ingredient(source or picture(mime, 2), mime, "componentOf"),
    ]
    return sign(embed_xmp(picture(mime), mime, packet), mime, swap_manifest(mime), keys, inputs)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def keys_of(chain: Chain, keys: SigningKeys) -> SigningKeys:
    """Another signer with the C2PA keys of `chain`, who believes himself."""
    trust = Trust(own_anchors=pem(chain.root).decode(), pinned_leaves=pem(chain.leaf).decode())
    chain_pem = pem(chain.leaf, chain.issuing)
    return replace(keys, chain_pem=chain_pem, sign_claim=es256_signer(chain.leaf_key), trust=trust)


def camera_picture(chain: Chain, seed: int = 1, mime: str = "image/jpeg") -> bytes:
    """A picture as a camera signs it: with a thumbnail, a file name and a place."""
    exif = {"@context": {"exif": "http://ns.adobe.com/exif/1.0/"}, "exif:GPSLatitude": "39,21.102N"}
    action = {"action": "c2pa.created", "digitalSourceType": CAPTURE}
    manifest = {
        "claim_generator_info": [{"name": "camera", "version": "1"}],
        "title": "IMG_0001.jpg",
        "format": mime,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": "stds.exif", "kind": "Json", "data": exif},
        ],
    }
    return stranger_signs(manifest, chain, picture(mime, seed), mime)


def stranger_signs(manifest: Manifest, chain: Chain, data: bytes, mime: str) -> bytes:
    """Sign by the library with its own defaults (thumbnails on), as other tools do."""
    anchors = {"trust_anchors": pem(chain.root).decode()}
    settings = {"trust": anchors, "builder": {"created_assertion_labels": ["c2pa.actions", "stds.exif"]}}
    signer = c2pa.Signer.from_callback(
        es256_signer(chain.leaf_key), c2pa.C2paSigningAlg.ES256, pem(chain.leaf, chain.issuing).decode(), None
    )
    signed = io.BytesIO()
    with (
        c2pa.Context.from_dict(settings) as context,
        c2pa.Builder(manifest, context=context) as builder,
        signer,
    ):
        builder.sign(signer, mime, io.BytesIO(data), signed)
    return signed.getvalue()


def assertions(reading: ManifestReading) -> dict[str, Any]:
    """Content of every assertion of the active manifest by its label."""
    manifest = reading.tree["manifests"][reading.label]
    return {each["label"]: each["data"] for each in manifest["assertions"]}
