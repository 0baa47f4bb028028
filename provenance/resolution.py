"""Finds the manifest of a copy that lost it: soft binding → ledger → stored manifest; opens no picture and no video.

The four calls of the C2PA soft binding resolution API (docs/resolution.md), as a library. Only manifests that the
ledger recorded are handed out, each compared with the hash recorded for it. Does not know who asks.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from provenance import looks, watermark
from provenance.claim import MARK_ALGORITHM
from provenance.errors import InputError
from provenance.hashes import PERCEPTUAL_BITS
from provenance.home import Home
from provenance.jumbf import active_manifest
from provenance.ledger import Entry
from provenance.looks import Likeness, Look
from provenance.manifests import find_manifest
from provenance.mark_search import Pose
from provenance.signing import ManifestReading, Trust, read_detached
from provenance.watermark import STRAIGHT, MarkReading

UInt8Array = npt.NDArray[np.uint8]

MAX_RESULTS = 10
MAX_SCALE_CHANGE, MAX_TURN_DEG, MAX_SHIFT_PX = 0.04, 1.5, 12.0
"""Beyond these, in the mark's own frame, a copy is a crop or a turn, and a perceptual hash that differs tells nothing.

A video's mark goes where its scene goes: how far it was shifted says nothing there.
"""


@dataclass(frozen=True)
class Match:
    """One manifest that a soft binding leads to.

    likeness  of what was asked about to what was recorded; None where it was no picture or video, or a crop or a turn
    """

    manifest_id: str
    asset_id: str
    ledger_index: int
    found_by: str
    likeness: Likeness | None = None

    @property
    def perceptual_distance(self) -> int | None:
        """Bits of 64 that differ."""
        return None if self.likeness is None else self.likeness.distance

    def as_dict(self) -> dict[str, object]:
        """An element of `matches` in the API's softBindingQueryResult; the score is the share of equal bits."""
        found: dict[str, object] = {"manifestId": self.manifest_id}
        if self.perceptual_distance is not None:
            found["similarityScore"] = round(100 * (1 - self.perceptual_distance / PERCEPTUAL_BITS))
        return found


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was found in a copy.

    content_sha256  as `hashes` gives it of a picture or of a video
    seen            looks of the picture, or of the video's frames that carry the mark
    """

    content_sha256: str
    mark: MarkReading
    seen: Sequence[Look]


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
        return self._matches(self._outputs_of(read_value(value)), "mark", (), max_results)

    def by_content(
        self, rgb: UInt8Array, content_sha256: str, alg: str | None = None, max_results: int = MAX_RESULTS
    ) -> tuple[list[Match], MarkReading]:
        """POST /matches/byContent: manifests of a picture, uint8 [H, W, 3] RGB, by its content hash or its mark.

        `content_sha256` as `hashes.content_sha256` gives it. Also returns what the mark said.
        """
        mark = watermark.extract(rgb, self._home.keys.mark_key)
        return self.by_evidence(Evidence(content_sha256, mark, [Look.of(rgb)]), alg, max_results), mark

    def by_evidence(
        self, found: Evidence, alg: str | None = None, max_results: int = MAX_RESULTS
    ) -> list[Match]:
        """The same of what was found in a picture or a video."""
        if alg is not None:
            _check_algorithm(alg)
        recorded = _outputs(self._home.ledger.find_by_content_hash(found.content_sha256))
        if recorded:
            return self._matches(recorded, "content", found.seen, max_results)
        mark = found.mark
        if mark.asset_id is None:
            return []
        return self._matches(self._outputs_of(mark.asset_id), "mark", found.seen, max_results, mark.pose)

    def manifest(self, manifest_id: str, active_only: bool = False) -> bytes:
        """GET /manifests/{manifestId}: the whole store, `application/c2pa`, or the active manifest alone.

        InputError: `manifest.id`, `manifest.unknown`; LedgerError where the store was altered.
        """
        store = find_manifest(self._home.ledger, manifest_id)[1]
        return active_manifest(store) if active_only else store

    def _outputs_of(self, asset_id: str) -> list[Entry]:
        return _outputs(self._home.ledger.find_by_asset_id(asset_id))

    def _matches(
        self,
        entries: list[Entry],
        found_by: str,
        seen: Sequence[Look],
        max_results: int,
        pose: Pose = STRAIGHT,
    ) -> list[Match]:
        if max_results < 1:
            raise InputError(
                "resolution.max_results", "At least one result must be asked for.", "Give 1 or more."
            )
        return [
            Match(
                manifest_id=str(entry.body["manifest_id"]),
                asset_id=str(entry.body["asset_id"]),
                ledger_index=entry.index,
                found_by=found_by,
                likeness=likeness_of(entry, seen, pose),
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


@dataclass(frozen=True, eq=False)
class Copy:
    """A picture or video that lost its manifest: the file, whole or open, and what was found in it."""

    data: bytes | BinaryIO
    mime: str
    found: Evidence


def recover(resolver: Resolver, copy: Copy, trust: Trust) -> Recovered:
    """The manifest of a copy, validated anew.

    InputError `recover.no_mark` where neither content nor mark is known, `recover.not_recorded` where the mark's
    id has no manifest here.
    """
    matches = resolver.by_evidence(copy.found, max_results=1)
    if not matches:
        raise _nothing_found(copy.found.mark)
    store = resolver.manifest(matches[0].manifest_id)
    reading, fits = read_detached(store, copy.data, copy.mime, trust)
    likeness = matches[0].likeness
    same = None if likeness is None else likeness.same
    same = True if matches[0].found_by == "content" else same
    return Recovered(matches[0], store, reading, fits, same, copy.found.mark)


def _nothing_found(mark: MarkReading) -> InputError:
    if mark.asset_id is None:
        return InputError(
            "recover.no_mark",
            "The file's content is not known here, and no mark of this home was read from it.",
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


def likeness_of(entry: Entry, seen: Sequence[Look], pose: Pose) -> Likeness | None:
    """What carries a mark against what was recorded for it; None for a crop or a turn that does not look the same."""
    found = looks.compare(entry.body, [look.mirrored for look in seen] if pose.mirrored else seen)
    if found is None or found.same:
        return found
    moved = 0.0 if looks.FIELD in entry.body else max(abs(shift) for shift in pose.shift_px)
    is_whole = abs(pose.scale - 1) <= MAX_SCALE_CHANGE and abs(pose.turn_deg) <= MAX_TURN_DEG
    return found if is_whole and moved <= MAX_SHIFT_PX else None


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
