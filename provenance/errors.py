"""The one tree of exceptions of the suite; knows no other module.

FacsimileError                 base: code, cause, next step, exit code
├── UsageError            (2)  an option or argument cannot be obeyed
├── InputError            (2)  a file or value handed in cannot be used
│   ├── MediaError             not readable as a picture we accept
│   ├── FaceError              no face, or not the faces the request needs
│   └── WeightsError           a weights file is missing, altered or of another kind
├── StoreError            (2)  home, database or disk cannot be used
├── RefusedError          (1)  policy says no
│   └── ConsentError           failed rules are listed in `rules`
└── VerificationError     (3)  a proof does not hold
    ├── SignatureError         a signature or certificate chain fails
    └── LedgerError            a leaf, root or checkpoint does not re-derive

Any other exception is an internal error (4).
"""

from __future__ import annotations

from typing import ClassVar


class FacsimileError(Exception):
    """Base of every error the suite raises on purpose.

    `code` is stable, dotted and documented (docs/errors.md); `cause` is one sentence for people; `next_step`
    says what to do now.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, code: str, cause: str, next_step: str) -> None:
        super().__init__(f"{code}: {cause}")
        self.code = code
        self.cause = cause
        self.next_step = next_step


class UsageError(FacsimileError):
    """An option or argument cannot be obeyed."""

    exit_code = 2


class InputError(FacsimileError):
    """A file or value handed in cannot be used."""

    exit_code = 2


class MediaError(InputError):
    """The bytes are not readable as a picture of an accepted format and size."""


class FaceError(InputError):
    """The picture does not hold the faces that the request needs."""


class WeightsError(InputError):
    """A weights file is missing, altered or of another kind."""


class StoreError(FacsimileError):
    """Home, database or disk cannot be used."""

    exit_code = 2


class RefusedError(FacsimileError):
    """Policy says no."""

    exit_code = 1


class ConsentError(RefusedError):
    """Consent does not cover the request; `rules` lists the id of every failed rule."""

    def __init__(self, code: str, cause: str, next_step: str, rules: tuple[str, ...]) -> None:
        super().__init__(code, cause, next_step)
        self.rules = rules


class VerificationError(FacsimileError):
    """A proof does not hold."""

    exit_code = 3


class SignatureError(VerificationError):
    """A signature or a certificate chain fails."""


class LedgerError(VerificationError):
    """A leaf, a root or a checkpoint does not re-derive."""
