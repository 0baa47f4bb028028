"""The parts of `bench mark`: what is to be measured of which picture, item by item; keeps nothing.

A part yields items, each a name and the work behind it, in an order in which a run may stop anywhere.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from provenance.mark_adversaries import Regenerator, common_residual, measure_copies
from provenance.mark_attacks import ATTACKS
from provenance.mark_bench import (
    Found,
    SpreadSpectrum,
    measure_1080p,
    measure_picture,
    measure_unmarked,
)
from provenance.mark_clips import MOTIONS, SIZES, Clip, measure_clip
from provenance.mark_pattern import FloatArray
from provenance.mark_rivals import FEW, METHODS, installed, measure_rival
from provenance.mark_signal import UInt8Array
from provenance.watermark import Search
from server.bench_pictures import Shown

Work = Callable[[], list[Found]]
Items = Iterator[tuple[str, Work]]
CROPS: Final[Mapping[str, tuple[Search, int, int]]] = {
    "unmarked": ("fast", 500, 1),
    "unmarked_full": ("full", 20, 100),
}
"""Case → search, crops an item, and of how many crops one is read so."""


def bench_key(seed: int) -> bytes:
    """A bench's own key: nothing real is ever marked under it."""
    return hashlib.sha256(b"facsimile bench mark %d" % seed).digest()


@dataclass(frozen=True)
class Gallery:
    """What is measured: pictures, their groups taking turns, and how much of each part."""

    pictures: Sequence[Shown]
    seed: int
    unmarked: int
    rivals: int
    learned: Path | None = None

    @property
    def scheme(self) -> SpreadSpectrum:
        return SpreadSpectrum(bench_key(self.seed))

    @property
    def victims(self) -> int:
        """How many pictures an attacker with a hundred outputs goes for."""
        return min(20, len(self.pictures) // 2)

    @cached_property
    def few(self) -> list[UInt8Array]:
        """Up to 60 pictures for crops, decoded once."""
        return [each.read() for each in self.pictures[:60]]

    @cached_property
    def common(self) -> FloatArray:
        """What the attacker makes of a hundred outputs, none of them a victim's."""
        collected = self.pictures[self.victims :][:100]
        return common_residual(
            [
                self.scheme.embed(each.read(), hashlib.sha256(each.name.encode()).digest()[:8])
                for each in collected
            ]
        )

    @cached_property
    def artist(self) -> Regenerator:
        """An autoencoder of pictures like those that are measured."""
        return Regenerator.learn(self.few)


def _pictures(shown: Gallery) -> Items:
    def work(each: Shown) -> list[Found]:
        return [measure_picture(shown.scheme, each.read(), each.seed(shown.seed))]

    return ((each.name, partial(work, each)) for each in shown.pictures)


def _large(shown: Gallery) -> Items:
    def work(each: Shown) -> list[Found]:
        return [measure_1080p(shown.scheme, each.read(), each.seed(shown.seed))]

    return ((each.name, partial(work, each)) for each in shown.pictures[:12])


def _video(shown: Gallery) -> Items:
    """Every size with every motion, three pictures each."""
    kinds = [(size, motion) for size in SIZES for motion in MOTIONS]

    def work(each: Shown, size: str, motion: str) -> list[Found]:
        clip = Clip(size, motion, each.read())
        return [measure_clip(clip, h264_crf28, bench_key(shown.seed), each.seed(shown.seed))]

    for number, each in enumerate(shown.pictures[: 3 * len(kinds)]):
        size, motion = kinds[number % len(kinds)]
        yield f"{size} {motion} {each.name}", partial(work, each, size, motion)


def h264_crf28(frames: Sequence[UInt8Array]) -> list[UInt8Array]:
    """What a viewer sees of frames uint8 [h, w, 3] coded by libx264, preset medium, CRF 28, 25 a second."""
    from fusion.video import open_video
    from fusion.video_codec import VideoWriter

    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, width, height, crf=28) as out:
            for number, rgb in enumerate(frames):
                out.write(rgb, number / 25)
        with open_video(path) as video:
            return [frame.rgb for frame in video.frames()]


def _unmarked(shown: Gallery) -> Items:
    def work(seed: tuple[int, ...], search: Search, count: int) -> list[Found]:
        return measure_unmarked(shown.few, count, seed, search)

    for case, (search, chunk, share) in CROPS.items():
        for number in range(shown.unmarked // share // chunk):
            yield f"{case} {number}", partial(work, (shown.seed, share, number), search, chunk)


def _adversaries(shown: Gallery) -> Items:
    def work(each: Shown, other: Shown) -> list[Found]:
        seed = each.seed(shown.seed)
        return [measure_copies(shown.scheme, each.read(), other.read(), shown.common, shown.artist, seed)]

    for each, other in zip(shown.pictures[: shown.victims], shown.pictures[1:], strict=False):
        yield each.name, partial(work, each, other)


def _rivals(shown: Gallery) -> Items:
    def work(method: str, each: Shown) -> list[Found]:
        attacks = FEW if method == "rivaGan" else ATTACKS
        return [measure_rival(method, each.read(), each.seed(shown.seed), attacks)]

    for method in METHODS if installed() else ():
        for each in shown.pictures[: shown.rivals]:
            yield f"{method} {each.name}", partial(work, method, each)


def _learned(shown: Gallery) -> Items:
    """The same pictures, attacks and seeds as `pictures`, by what `train mark` left in a folder."""
    if shown.learned is None:
        return
    from fusion.train.mark_judge import LearnedMark
    from server.learned_mark import LearnedScheme

    scheme = LearnedScheme(bench_key(shown.seed), LearnedMark.load(shown.learned))

    def work(each: Shown) -> list[Found]:
        found = measure_picture(scheme, each.read(), each.seed(shown.seed))
        return [{f"learned:{case}": figures for case, figures in found.items()}]

    for each in shown.pictures[: shown.rivals]:
        yield each.name, partial(work, each)


PARTS: Final[Mapping[str, Callable[[Gallery], Items]]] = {
    "pictures": _pictures,
    "large": _large,
    "video": _video,
    "unmarked": _unmarked,
    "adversaries": _adversaries,
    "rivals": _rivals,
    "learned": _learned,
}
