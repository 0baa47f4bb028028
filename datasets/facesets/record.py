"""What is known of one sample of a labelled set: a frozen record, one JSON line; opens no file, judges no picture.

Pixels: x right, y down, of the picture as it lies in the set. "left" and "right" are the picture's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from facesets.errors import FacesetError

SCHEMA: Final = "facsimile-faceset-record/1"
KINDS = ("sampled", "fused", "self_blended")
ALTERED = frozenset({"fused", "self_blended"})
MASKS = ("face", "eyes", "mouth", "blend")

Kind = Literal["sampled", "fused", "self_blended"]
Point = tuple[float, float]
_CLOSED: ConfigDict = {"extra": "forbid"}


@dataclass(frozen=True)
class Origin:
    """A picture of the set that took part: who is on it, its sample and its content hash."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    identity: str
    sample_id: str
    content_sha256: str


@dataclass(frozen=True)
class CatchLight:
    """A highlight on a cornea: which eye, where, and how much brighter than the iris, in [0, 1]."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    eye: Literal["left", "right"]
    place_px: Point
    strength: float


@dataclass(frozen=True)
class Generator:
    """What made the picture; `models` maps a network's name to the sha256 of its weights."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    name: str
    version: str
    models: dict[str, str]


@dataclass(frozen=True)
class Pose:
    """Degrees; yaw > 0 turns the head to the picture's right, pitch > 0 up, roll > 0 clockwise."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class SampleRecord:
    """One picture and all that is known of it.

    sample_id        unique in the set; the stem of `file`
    kind             sampled: drawn; fused; self_blended
    split, shard     train, val or test, by identity; the shard that holds the file
    file             path below the set's folder, and the hashes of the file
    identity         whom the picture shows: for a fused one, its source
    source, target   the pictures that a fused one was made of; `target` alone for a self-blended one
    box_xyxy         of the landmarks; points_px [5], landmarks_px [478] (MediaPipe's order, irises last)
    labelled_by      "generator": known from the drawing; "network": found in the picture
    masks            name → COCO run lengths (facesets.rle); `blend`: the pixels that the alteration changed
    catchlights      of both eyes
    seed, parameters what the generator was told
    compression      what the pixels went through, oldest first
    asset_id         the mark; with manifest hash and ledger index it leads to the proof
    basis            why no grant was needed
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    sample_id: str
    kind: Kind
    split: str
    shard: str
    file: str
    file_sha256: str
    content_sha256: str
    width: int
    height: int
    identity: str
    source: Origin | None
    target: Origin | None
    box_xyxy: tuple[float, float, float, float]
    points_px: tuple[Point, ...]
    landmarks_px: tuple[Point, ...] = field(repr=False)
    labelled_by: Literal["generator", "network"]
    pose: Pose
    masks: dict[str, tuple[int, ...]] = field(repr=False)
    catchlights: tuple[CatchLight, ...]
    generator: Generator
    seed: int
    parameters: dict[str, str | float | int | bool | None]
    compression: tuple[str, ...]
    asset_id: str
    manifest_sha256: str
    ledger_index: int
    basis: str
    licence: str
    schema: Literal["facsimile-faceset-record/1"] = SCHEMA

    @property
    def identities(self) -> frozenset[str]:
        """Everybody who took part: no one of them may be in two splits."""
        origins = (origin.identity for origin in (self.source, self.target) if origin is not None)
        return frozenset({self.identity, *origins})

    @property
    def parents(self) -> frozenset[str]:
        """The samples of the set that it was made of."""
        return frozenset(each.sample_id for each in (self.source, self.target) if each is not None)

    @property
    def mask_file(self) -> str | None:
        """Path below the set's folder of the blend mask as a picture; None where nothing was altered."""
        return f"shards/{self.shard}/masks/{self.sample_id}.png" if self.kind in ALTERED else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dataclasses.asdict(self)


@cache
def _reader() -> TypeAdapter[SampleRecord]:
    return TypeAdapter(SampleRecord)


def write_lines(records: Iterable[SampleRecord]) -> bytes:
    """JSON lines, UTF-8, one record each, a line break after the last."""
    lines = (json.dumps(each.as_dict(), ensure_ascii=False, separators=(",", ":")) for each in records)
    return "".join(f"{line}\n" for line in lines).encode()


def read_lines(data: bytes, name: str) -> list[SampleRecord]:
    """The records of a file called `name`; FacesetError `faceset.record` says which line is none."""
    records = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            records.append(_reader().validate_json(line))
        except ValidationError as error:
            places = sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False)})
            raise FacesetError(
                "faceset.record",
                f"line {number} of {name} is no record: {', '.join(places)[:200]}",
                "restore the set, or make it again",
            ) from None
    return records


def flaws_of(record: SampleRecord) -> list[str]:
    """Where a record contradicts itself, in plain words; empty where it does not."""
    inside = [(0 <= x <= record.width and 0 <= y <= record.height) for x, y in record.points_px]
    left, top, right, bottom = record.box_xyxy
    pixels = record.width * record.height
    altered = record.kind in ALTERED
    checks: Sequence[tuple[bool, str]] = (
        (len(record.points_px) == 5 and all(inside), "five points inside the picture"),
        (len(record.landmarks_px) == 478, "478 landmarks"),
        (left < right and top < bottom, "a box with an inside"),
        (all(sum(runs) == pixels for runs in record.masks.values()), "masks of the picture's size"),
        (set(record.masks) == set(MASKS if altered else MASKS[:3]), "the masks of its kind"),
        (not altered or sum(record.masks.get("blend", ())[1::2]) > 0, "a blend mask that is not empty"),
        ((record.source is not None) == (record.kind == "fused"), "a source where it is fused, and only there"),
        ((record.target is not None) == altered, "a target where it is altered, and only there"),
        (record.kind != "fused" or record.source is None or record.identity == record.source.identity,
         "its source's identity"),
    )  # fmt: skip
    return [text for holds, text in checks if not holds]
