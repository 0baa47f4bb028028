"""Ids in paths: a segment that is no id matches no route, so that `/v1/grants/drafts` is not a grant of that name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import StringConstraints
from starlette.convertors import Convertor, register_url_convertor


class _IdConvertor(Convertor[str]):
    """A kind of thing, a dash, hex digits: the form of every id that this server gives."""

    regex = "[a-z]+-[0-9a-f]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _IdConvertor())

CheckId = Annotated[str, Path(pattern=r"^check-[0-9a-f]{20}$")]
JobId = Annotated[str, Path(pattern=r"^job-[0-9a-f]{20}$")]
SubjectId = Annotated[str, Path(pattern=r"^subject-[0-9a-f]{16}$")]
GrantRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
"""A grant as a request names it; whether there is one is the consent check's to say."""
GrantId = Annotated[str, Path(pattern=r"^grant-[0-9a-f]{16}$")]
