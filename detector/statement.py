"""A sentence with a code: English for people, code and values for other languages; knows none of them."""

from __future__ import annotations

from typing import Self


class Statement(str):
    """A str (the English sentence) that remembers its code, such as `gate.no_face`, and its values by name."""

    code: str
    values: dict[str, object]
    __slots__ = ("code", "values")

    def __new__(cls, code: str, template: str, **values: object) -> Self:
        made = super().__new__(cls, template.format_map(values))
        made.code, made.values = code, values
        return made
