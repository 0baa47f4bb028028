"""The card of a set: the facts that data card and datasheet tell in their own ways; judges no picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from facesets.record import KINDS, SampleRecord

WARNING: Final = (
    "All pictures are synthetic or altered. Each carries an imperceptible mark and a signed C2PA manifest that say so; "
    "re-encoding a picture breaks its signature, not its mark."
)
LIMITS: Final = (
    "The drawn people come from a statistical model of portraits of people who do not exist: frontal, plain ground, "
    "soft hair, no hands, few glasses. What a model learns here need not hold on photographs.",
    "Labels of drawn pictures are those that the drawing was made with; labels of fused pictures were found by a "
    "network and carry its error.",
    "The mark lies in every picture alike: it cannot tell an altered one from an untouched one of this set, yet a "
    "model that is also shown unmarked pictures may learn the mark instead of the face. Mark those, too.",
    "That two people differ, and that nobody of the training set is copied, is measured by one recogniser.",
)


@dataclass(frozen=True)
class Card:
    """What is told of a set in words.

    counts   split → kind → samples; `people` split → identities
    spec     the whole spec, as it was given
    """

    name: str
    version: str
    licence: str
    purpose: str
    counts: Mapping[str, Mapping[str, int]]
    people: Mapping[str, int]
    models: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def num_samples(self) -> int:
        """Samples of all splits."""
        return sum(sum(kinds.values()) for kinds in self.counts.values())

    @property
    def description(self) -> str:
        """One sentence."""
        kinds = Counter[str]()
        for split in self.counts.values():
            kinds.update(split)
        parts = ", ".join(f"{kinds[kind]} {kind.replace('_', '-')}" for kind in KINDS if kinds[kind])
        return f"{self.num_samples} labelled faces ({parts}) of {sum(self.people.values())} identities."


def make_card(spec: Mapping[str, Any], records: Sequence[SampleRecord], version: str) -> Card:
    """The card of the records that a spec led to."""
    splits = sorted({record.split for record in records})
    counts = {
        split: Counter[str](record.kind for record in records if record.split == split) for split in splits
    }
    people = {
        split: len({one for record in records if record.split == split for one in record.identities})
        for split in splits
    }
    models = {name: sha256 for record in records for name, sha256 in record.generator.models.items()}
    return Card(
        str(spec["name"]),
        version,
        str(spec["licence"]),
        str(spec["purpose"]),
        {split: dict(kinds) for split, kinds in counts.items()},
        people,
        dict(sorted(models.items())),
        spec,
    )


def data_card(card: Card) -> str:
    """README.md of the set: YAML head as Hugging Face reads it, then what is in it."""
    rows = [
        f"| {split} | {card.people[split]} | {' | '.join(str(kinds.get(kind, 0)) for kind in KINDS)} |"
        for split, kinds in card.counts.items()
    ]
    lines = [
        "---",
        f"pretty_name: {card.name}",
        "tags: [synthetic, faces, c2pa, watermarked]",
        f"license_name: {_quoted(card.licence)}",
        "---",
        "",
        f"# {card.name}",
        "",
        f"{card.description} {WARNING}",
        "",
        f"Purpose: {card.purpose}. Licence: {card.licence}.",
        "",
        f"| split | people | {' | '.join(KINDS)} |",
        f"|---|---|{'---|' * len(KINDS)}",
        *rows,
        "",
        "No identity is in two splits. `records.jsonl` has a line per picture; `plan.json` says how each came about.",
        "",
        "Check it with `facsimile faceset verify .`.",
        "",
        "## Limits",
        "",
        *(f"- {each}" for each in LIMITS),
        "",
    ]
    return "\n".join(lines)


def datasheet(card: Card) -> str:
    """Datasheet in the questions of Gebru et al. 2021 (arXiv 1803.09010), answered as far as the card knows."""
    spec = card.spec
    answers = (
        ("Motivation", f"Made for {card.purpose}, so that models of faces can be trained and audited without pictures "
         "of people who exist."),
        ("Composition", f"{card.description} Labels: box, 5 and 478 points, pose, masks of face, eyes, mouth and "
         "altered pixels, highlights on the cornea. Records and plan.json say how each came about."),
        ("Collection", f"Drawn by code from seed {spec['seed']} at {spec['size_px']} px. "
         "Nobody who exists lent a face."),
        ("Preprocessing", "Each picture was marked, encoded once "
         f"({spec['picture_format']}), signed and recorded in a ledger before it was written here."),
        ("Uses", "Training and auditing of detectors, recognisers and moderation. Not for identifying people; not as "
         "evidence that a method works on photographs."),
        ("Distribution", f"Licence: {card.licence}. Keep marks and manifests in place."),
        ("Maintenance", "The same spec and networks make the same people again; `facsimile faceset verify` finds what "
         "was changed since."),
        ("Limits", " ".join(LIMITS)),
    )  # fmt: skip
    models = [f"- {name}: sha256 {sha256}" for name, sha256 in card.models.items()]
    text = [f"## {title}\n\n{answer}\n" for title, answer in answers]
    return "\n".join([f"# Datasheet of {card.name}\n", *text, "## Networks\n", *models, ""])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
