"""The pictures a bench is run on: reals, identity passes, swaps and blends of every kind, and how they arrive.

Makes pictures and knows their truth; scores nothing. One portrait is one identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from detector.blend import ALL_FAMILIES, self_blend
from detector.collage import collage_face
from detector.delivery import Delivery, deliver
from detector.held_out import HELD_OUT
from detector.pairs import (
    IDENTITY_PASS,
    Person,
    Recipe,
    draw_options,
    pass_through,
    swap_pair,
)
from fusion.engines import style_face
from fusion.face import FloatArray, UInt8Array
from fusion.paste import paste_face
from fusion.swap import Engine
from fusion.warp import WarpOptions
from provenance.errors import FaceError

OTHER_ENGINES: Final[Mapping[str, Engine]] = {
    "paste": paste_face,
    "collage": collage_face,
    "style": style_face,
}
"""Beside those learnt from: one affine map, with a seam by Poisson's equation, and with a tint and a feathered seam;
and the suite's own generator, which the shipped detector never saw."""

CLEAN: Final = "clean"
Q60_R75: Final = "q60_r75"
DELIVERIES: Final[Mapping[str, Delivery]] = {
    CLEAN: Delivery(),
    Q60_R75: Delivery(jpeg=60, resize=0.75),
    **{f"jpeg_q{q}": Delivery(jpeg=q) for q in (40, 60, 85, 95)},
    **{f"resize_{f}": Delivery(resize=f, jpeg=90) for f in (0.5, 0.75, 1.25, 1.5)},
    "crop_10": Delivery(jpeg=90, crop=0.1),
}
"""How a picture may arrive within the bars: JPEG quality 40-95, resized 0.5-1.5, cropped."""
SWEEPS: Final[Mapping[str, Delivery]] = {
    **{f"jpeg_q{q}": Delivery(jpeg=q) for q in (20, 10)},
    **{f"webp_q{q}": Delivery(webp=q) for q in (80, 40)},
    **{f"blur_{s}": Delivery(blur=s) for s in (1.0, 2.0)},
    **{f"noise_{n}": Delivery(noise=n) for n in (4.0, 12.0)},
    "resize_0.35": Delivery(resize=0.35, jpeg=90),
    "screenshot": Delivery(resize=1.1, gain=0.97, gamma=1.05, jpeg=85),
}
"""Beyond the bars."""


@dataclass(frozen=True, eq=False)
class Case:
    """One picture uint8 [H, W, 3] and what is true of it.

    kind      `real`, `identity_pass`, `own_<engine>`, `default_<engine>`, `setting_<held out>`, `engine_<other>`,
              `sbi_<family>`
    box_xyxy  the face [4] in its pixels; share  float32 [H, W] of foreign pixels, or None for a real
    person    the identity whose picture it is (target); source whose face it shows, equal for reals and blends
    """

    kind: str
    person: str
    source: str
    rgb: UInt8Array
    box_xyxy: FloatArray
    share: FloatArray | None

    @property
    def altered(self) -> bool:
        return self.share is not None


def make_cases(
    people: Sequence[Person], engines: Mapping[str, Engine], seed: int, kinds: Sequence[str] = ()
) -> Iterator[Case]:
    """Every kind of case of every person (or those of `kinds`, by first word); sources are others of the set.

    A pair that an engine refuses (FaceError) is left out.
    """
    for index, person in enumerate(people):
        rng = np.random.default_rng((seed, index))
        source = people[(index + 1 + int(rng.integers(len(people) - 1))) % len(people)]
        for kind in _kinds(engines):
            if kinds and kind.split("_")[0] not in kinds:
                continue
            try:
                yield _make(kind, person, source, engines, rng)
            except FaceError:
                continue


def _kinds(engines: Mapping[str, Engine]) -> list[str]:
    ours = sorted(engines)
    return [
        "real",
        IDENTITY_PASS,
        *(f"own_{name}" for name in ours),
        *(f"default_{name}" for name in ours),
        *(f"setting_{name}" for name in HELD_OUT.settings),
        *(f"engine_{name}" for name in OTHER_ENGINES),
        *(f"sbi_{name}" for name in ALL_FAMILIES),
    ]


def _make(
    kind: str, person: Person, source: Person, engines: Mapping[str, Engine], rng: np.random.Generator
) -> Case:
    first, _, rest = kind.partition("_")
    own = Case(kind, person.name, person.name, person.rgb, person.box_xyxy, None)
    if kind == "real":
        return own
    if kind == IDENTITY_PASS:
        recipe = Recipe(person.name, person.name, IDENTITY_PASS, "seen", draw_options(rng))
        return replace(own, rgb=pass_through(person, rng, recipe).rgb)
    if first == "sbi":
        rgb, share = self_blend(person.rgb, person.landmarks_px.astype(np.float32), rng, rest)
        return replace(own, rgb=rgb, share=share)
    options = (
        WarpOptions() if first == "default" else draw_options(rng, rest if first == "setting" else "seen")
    )
    engine = OTHER_ENGINES[rest] if first == "engine" else engines.get(rest, next(iter(engines.values())))
    done = swap_pair(person, source, engine, Recipe(person.name, source.name, kind, rest, options))
    return replace(own, source=source.name, rgb=done.rgb, share=done.share)


def arrive(case: Case, delivery: Delivery) -> Case:
    """The case as it arrives: cropped, resized, coded; box and share move along."""
    rgb, box, share = case.rgb, case.box_xyxy, case.share
    if delivery.crop:
        left, top = (int(delivery.crop * n * 0.7) for n in (rgb.shape[1], rgb.shape[0]))
        rgb = np.ascontiguousarray(rgb[top:, left:])
        share = None if share is None else share[top:, left:]
        box = (box - np.array([left, top, left, top])).astype(np.float32)
    delivered = deliver(rgb, delivery)
    ratio = delivered.shape[1] / rgb.shape[1]
    if share is not None and ratio != 1:
        share = np.asarray(cv2.resize(share, (delivered.shape[1], delivered.shape[0])), np.float32)
    return replace(case, rgb=delivered, box_xyxy=(box * ratio).astype(np.float32), share=share)
