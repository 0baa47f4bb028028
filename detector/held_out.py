"""What no training of the detector shows it, so that a table can say what the unseen costs; knows no network, no file.

One constant, HELD_OUT, is the rule for every training from now on. What a network was really kept from stands in its
weights' header: a table calls `leave_…` only what that network never saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from provenance.errors import WeightsError


@dataclass(frozen=True)
class HeldOut:
    """Names of engines (detector.cases), blend families (detector.blend) and settings (detector.pairs)."""

    engines: tuple[str, ...]
    families: tuple[str, ...]
    settings: tuple[str, ...]

    def as_dict(self) -> dict[str, tuple[str, ...]]:
        """For a header."""
        return asdict(self)


HELD_OUT: Final = HeldOut(engines=("collage",), families=("pyramid",), settings=("source_eyes", "soft_seam"))
"""Leave-one-out is one training with all of these held out, not one training for each."""

FIRST_HELD_OUT: Final = HeldOut(
    engines=("paste", "collage"), families=("poisson", "pyramid"), settings=HELD_OUT.settings
)
"""Of networks whose header says nothing: those of the first two trainings."""


def held_out_of(note: Mapping[str, Any]) -> HeldOut:
    """What the header of a weights file says of its training; WeightsError `weights.mismatch` for another shape."""
    if "held_out" not in note:
        return FIRST_HELD_OUT
    try:
        return HeldOut(**{name: tuple(map(str, values)) for name, values in dict(note["held_out"]).items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            "weights.mismatch",
            f"the header does not say what was held out: {error}",
            "Use the file as `facsimile train detector` wrote it.",
        ) from error
