"""Finds the manifest of a copy that lost it: soft binding → ledger → stored manifest; opens no picture file.

The four calls of the C2PA soft binding resolution API (docs/resolution.md), as a library. Only manifests that the
ledger recorded are handed out, each compared with the hash recorded for it. Does not know who asks.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from provenance import watermark
from provenance.claim import MARK_ALGORITHM
from provenance.errors import InputError
from provenance.hashes import (
    PERCEPTUAL_BITS,
    PERCEPTUAL_OTHER,
    PERCEPTUAL_SAME,
    content_sha256,
    hamming_distance,
    perceptual_hash,
)
from provenance.home import Home
from provenance.jumbf import active_manifest
from provenance.ledger import Entry
from provenance.manifests import find_manifest
from provenance.mark_search import Pose
from provenance.signing import ManifestReading, Trust, read_detached
from provenance.watermark import MarkReading

UInt8Array = npt.NDArray[np.uint8]

MAX_RESULTS = 10
MAX_SCALE_CHANGE, MAX_TURN_DEG, MAX_SHIFT_PX = 0.04, 1.5, 12.0
"""Beyond these, in the mark's own frame, a copy is a crop or a turn and its perceptual hash is not compared."""


@dataclass(frozen=True)
class Match:
    """One manifest that a soft binding leads to.

    perceptual_distance  bits of 64 between the asked picture and the recorded one; None where no picture was
                         asked about, or it is a crop or a turn: 24 or more means another picture
    """

    manifest_id: str
    asset_id: str
    ledger_index: int
    found_by: str
    perceptual_distance: int | None = None

    def as_dict(self) -> dict[str, object]:
        """An element of `matches` in the API's softBindingQueryResult; the score is the share of equal bits."""
        found: dict[str, object] = {"manifestId": self.manifest_id}
        if self.perceptual_distance is not None:
            found["similarityScore"] = round(100 * (1 - self.perceptual_distance / PERCEPTUAL_BITS))
        return found


class Resolver:
    """Answers over the ledger and the stored manifests of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def supported_algorithms(self) -> dict[str, list[dict[str, str]]]:
        """GET /services/supportedAlgorithms: our mark is all that can be asked for."""
        return {"watermarks": [{"alg": MARK_ALGORITHM}], "fingerprints": []}

    def by_binding(self, alg: str, value: str, max_results: int = MAX_RESULTS) -> list[Match]:
        """GET or POST /matches/byBinding: manifests of the id that a mark carries, newest first.

        `value` is base64 of the 8 bytes of the id, or of its 16 hex digits. InputError: `resolution.algorithm`,
        `resolution.value`, `resolution.max_results`.
        """
        _check_algorithm(alg)
        return self._matches(self._outputs_of(read_value(value)), "mark", None, max_results)

    def by_content(
        self, rgb: UInt8Array, content_sha256: str, alg: str | None = None, max_results: int = MAX_RESULTS
    ) -> tuple[list[Match], MarkReading]:
        """POST /matches/byContent: manifests of a picture, uint8 [H, W, 3] RGB, by its content hash or its mark.

        `content_sha256` as `hashes.content_sha256` gives it. Also returns what the mark said.
        """
        if alg is not None:
            _check_algorithm(alg)
        mark = watermark.extract(rgb, self._home.keys.mark_key)
        recorded = _outputs(self._home.ledger.find_by_content_hash(content_sha256))
        if recorded:
            return self._matches(recorded, "content", rgb, max_results), mark
        if mark.asset_id is None:
            return [], mark
        whole = picture_as_marked(rgb, mark.pose)
        return self._matches(self._outputs_of(mark.asset_id), "mark", whole, max_results), mark

    def manifest(self, manifest_id: str, active_only: bool = False) -> bytes:
        """GET /manifests/{manifestId}: the whole store, `application/c2pa`, or the active manifest alone.

        InputError: `manifest.id`, `manifest.unknown`; LedgerError where the store was altered.
        """
        store = find_manifest(self._home.ledger, manifest_id)[1]
        return active_manifest(store) if active_only else store

    def _outputs_of(self, asset_id: str) -> list[Entry]:
        return _outputs(self._home.ledger.find_by_asset_id(asset_id))

    def _matches(
        self, entries: list[Entry], found_by: str, rgb: UInt8Array | None, max_results: int
    ) -> list[Match]:
        if max_results < 1:
            raise InputError(
                "resolution.max_results", "At least one result must be asked for.", "Give 1 or more."
            )
        seen = None if rgb is None else perceptual_hash(rgb)
        return [
            Match(
                manifest_id=str(entry.body["manifest_id"]),
                asset_id=str(entry.body["asset_id"]),
                ledger_index=entry.index,
                found_by=found_by,
                perceptual_distance=_distance(entry, seen),
            )
            for entry in reversed(entries)
        ][:max_results]


@dataclass(frozen=True)
class Recovered:
    """The manifest that a stripped copy was given back.

    reading   what the store proves by itself: signature, assertions, trust (`signing.read_detached`)
    fits      the copy is byte for byte what was signed (then its own manifest was still there)
    same_picture  the perceptual hashes agree: True, False (a transplanted mark), or None: undecided, a crop or turn
    """

    match: Match
    store: bytes
    reading: ManifestReading
    fits: bool
    same_picture: bool | None
    mark: MarkReading

    def as_dict(self) -> dict[str, object]:
        """The JSON of `facsimile recover`."""
        return {
            "manifest_id": self.match.manifest_id,
            "asset_id": self.match.asset_id,
            "found_by": self.match.found_by,
            "ledger_index": self.match.ledger_index,
            "perceptual_distance": self.match.perceptual_distance,
            "same_picture": self.same_picture,
            "fits": self.fits,
            "manifest": {
                "state": self.reading.state,
                "ours": self.reading.ours,
                "signer": self.reading.signer,
                "source_type": self.reading.source_type,
                "timestamp": self.reading.timestamp,
                "codes": list(self.reading.codes),
            },
        }


def recover(resolver: Resolver, data: bytes, mime: str, rgb: UInt8Array, trust: Trust) -> Recovered:
    """The manifest of a copy (its bytes and its pixels), validated anew.

    InputError `recover.no_mark` where neither content nor mark is known, `recover.not_recorded` where the mark's
    id has no manifest here.
    """
    matches, mark = resolver.by_content(rgb, content_sha256(data), max_results=1)
    if not matches:
        raise _nothing_found(mark)
    store = resolver.manifest(matches[0].manifest_id)
    reading, fits = read_detached(store, data, mime, trust)
    distance = matches[0].perceptual_distance
    same = True if matches[0].found_by == "content" else _is_same(distance)
    return Recovered(matches[0], store, reading, fits, same, mark)


def _is_same(distance: int | None) -> bool | None:
    """True up to PERCEPTUAL_SAME bits, False from PERCEPTUAL_OTHER on, None in between or unknown."""
    if distance is None or PERCEPTUAL_SAME < distance < PERCEPTUAL_OTHER:
        return None
    return distance <= PERCEPTUAL_SAME


def _nothing_found(mark: MarkReading) -> InputError:
    if mark.asset_id is None:
        return InputError(
            "recover.no_mark",
            "The picture's content is not known here, and no mark of this home was read from it.",
            "Try a larger or less compressed copy; no mark proves nothing.",
        )
    return InputError(
        "recover.not_recorded",
        f"The mark {mark.asset_id} was read, and no manifest is kept for it.",
        "Run `facsimile audit verify`: the ledger or its manifests may be incomplete.",
    )


def read_value(value: str) -> str:
    """The asset id, 16 hex digits, of a soft binding's value; InputError `resolution.value`."""
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    text = raw.hex() if len(raw) == 8 else raw.decode("ascii", "replace")
    if not re.fullmatch(r"[0-9a-f]{16}", text):
        raise InputError(
            "resolution.value",
            "The value is not that of a mark: base64 of 8 bytes, or of 16 hex digits.",
            "Take it from the soft binding of a manifest.",
        )
    return text


def picture_as_marked(rgb: UInt8Array, pose: Pose) -> UInt8Array | None:
    """The picture as it lay when it was marked, or None for a crop or a turn: their hashes tell nothing."""
    moved = max(abs(shift) for shift in pose.shift_px)
    if abs(pose.scale - 1) > MAX_SCALE_CHANGE or abs(pose.turn_deg) > MAX_TURN_DEG or moved > MAX_SHIFT_PX:
        return None
    return np.ascontiguousarray(rgb[:, ::-1]) if pose.mirrored else rgb


def _check_algorithm(alg: str) -> None:
    if alg != MARK_ALGORITHM:
        raise InputError(
            "resolution.algorithm",
            "This soft binding algorithm is not resolved here.",
            f"Ask for {MARK_ALGORITHM}, or see /services/supportedAlgorithms.",
        )


def _outputs(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that recorded an output together with its manifest."""
    return [each for each in entries if each.kind == "output_recorded" and "manifest_id" in each.body]


def _distance(entry: Entry, seen: str | None) -> int | None:
    recorded = entry.body.get("perceptual_hash")
    return None if seen is None or recorded is None else hamming_distance(str(recorded), seen)
