"""The errors of the facesets package; knows no other module of the project."""

from __future__ import annotations


class FacesetError(ValueError):
    """A value or file handed to facesets cannot be used.

    `code` is stable, dotted and documented (docs/errors.md); `cause` is one sentence for people; `next_step`
    says what to do now.
    """

    def __init__(self, code: str, cause: str, next_step: str) -> None:
        super().__init__(f"{code}: {cause}")
        self.code = code
        self.cause = cause
        self.next_step = next_step
