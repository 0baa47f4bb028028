"""What a labelled set shall hold: a closed record read from YAML, TOML or JSON; makes nothing.

Unknown fields are refused, so that a misspelt one is an error here and never a silent default.
"""

from __future__ import annotations

import json
import tomllib
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from facesets.errors import FacesetError


def _whole(given: object) -> object:
    """JSON knows one kind of number: 2.0 is a whole one, too."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


WHOLE: Final = BeforeValidator(_whole)
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,47}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S")]
Format = Literal["parquet", "coco", "deepfakebench", "webdataset", "croissant"]
Split = Literal["train", "val", "test"]

MAX_SPEC_BYTES: Final = 1 << 20
MAX_PICTURES: Final = 10_000_000
SEE_DOCS: Final = "see docs/facesets.md for every field"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SetFields(_Closed):
    """The fields of a labelled set, each good by itself; `SetSpec` also says that they fit together.

    identities      nobodies that are drawn; `pictures` of each
    fused           pictures with one person's identity on another's, pairs of one shard
    self_blended    pictures blended with an altered copy of themselves
    shard_people    people of one shard; a shard is written whole or not at all
    distinct        draw anew whoever the recogniser takes for somebody of the set already
    """

    name: Name
    purpose: Token
    licence: Text
    identities: Annotated[int, Field(ge=1), WHOLE]
    pictures: Annotated[int, Field(ge=1, le=100), WHOLE] = 4
    fused: Annotated[int, Field(ge=0), WHOLE] = 0
    self_blended: Annotated[int, Field(ge=0), WHOLE] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31), WHOLE] = 0
    size_px: Annotated[Literal[256, 512], WHOLE] = 256
    picture_format: Literal["png", "jpg", "webp"] = "png"
    engine: Token | None = None
    preset: Token = "film"
    splits: dict[Split, Annotated[float, Field(ge=0, le=1)]] = {"train": 0.8, "val": 0.1, "test": 0.1}
    shard_people: Annotated[int, Field(ge=2, le=1000), WHOLE] = 16
    distinct: bool = True
    formats: list[Format] = ["parquet", "coco", "deepfakebench"]


class SetSpec(SetFields):
    """One labelled set."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError("splits must sum up to 1")
        if self.num_pictures > MAX_PICTURES:
            raise ValueError(f"at most {MAX_PICTURES} pictures")
        if len(set(self.formats)) < len(self.formats):
            raise ValueError("formats names one twice")
        return self

    @property
    def num_pictures(self) -> int:
        """How many samples are asked for."""
        return self.identities * self.pictures + self.fused + self.self_blended

    @classmethod
    def of(cls, fields: Any) -> Self:
        """The record of plain values; FacesetError `faceset.spec` names every field that is wrong, and why."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            wrong = [
                f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}"
                for each in error.errors(include_input=False, include_url=False)
            ]
            raise FacesetError(
                "faceset.spec", f"the spec asks for what cannot be: {'; '.join(wrong)[:600]}", SEE_DOCS
            ) from None


def read_spec(data: bytes, name: str) -> SetSpec:
    """The spec in a file's bytes; its name ends in .yaml, .yml, .toml or .json. FacesetError `faceset.spec*`."""
    suffix = name.rpartition(".")[2].lower()
    try:
        text = data.decode()
        if suffix == "json":
            fields = json.loads(text)
        elif suffix == "toml":
            fields = tomllib.loads(text)
        elif suffix in ("yaml", "yml"):
            fields = yaml.safe_load(text)
        else:
            raise FacesetError(
                "faceset.spec_format", f"{name} is neither YAML, TOML nor JSON by its name", "name it .yaml"
            )
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, FacesetError):
            raise
        cause = " ".join(str(error).split())[:300]
        raise FacesetError("faceset.spec_syntax", f"{name} cannot be read: {cause}", SEE_DOCS) from None
    return SetSpec.of(fields)
