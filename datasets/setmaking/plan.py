"""What a set will hold, sample by sample, before anything is made: the same spec gives the same plan; makes no picture.

People are dealt to splits, the people of a split to shards, and whatever is fused or blended is made of pictures of its
own shard: no identity is in two splits, and a shard needs no other shard.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from detector.blend import FAMILIES
from facesets.portraits import EXPRESSIONS, LIGHTS, MAX_YAW_DEG
from facesets.record import Kind
from facesets.spec import SetSpec
from fusion.identity import MATCH_THRESHOLD
from fusion.media import LIMITS, PICTURE_SUFFIXES, read_file
from provenance.errors import InputError, UsageError
from provenance.hashes import content_sha256, sha256_hex

if TYPE_CHECKING:
    from fusion.strangers import Strangers

PLAN_SCHEMA: Final = "facsimile-faceset-plan/1"
MAX_TRIES: Final = 10  # candidates per person before a cast is given up
Report = Callable[[int, int], None]
"""Called with (done, of)."""


@dataclass(frozen=True)
class File:
    """A picture handed in: its place in the sorted folder and what it held when the plan was made. No name of it."""

    place: int
    content_sha256: str


@dataclass(frozen=True)
class Person:
    """One identity: drawn (`number` of the spec's seed), of the declared folder, or a lender."""

    id: str
    origin: Literal["nobody", "folder", "lender"]
    number: int = 0
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Task:
    """One sample to be made.

    look      sampled: (expression, light, yaw in degrees or None)
    file      pristine: which of the person's files
    source    fused: a sample of the shard, or None: the lender `identity`
    target    fused, self_blended: a sample of the shard
    family    self_blended: of detector.blend
    """

    sample_id: str
    kind: Kind
    identity: str
    seed: int
    look: tuple[str, str, float | None] | None = None
    file: int | None = None
    source: str | None = None
    target: str | None = None
    family: str | None = None


@dataclass(frozen=True)
class Shard:
    """People of one split and all that is made of them; tasks come after those they need."""

    name: str
    split: str
    people: tuple[Person, ...]
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Plan:
    """A spec dealt out. `models` are the sha256 of the networks that it was made with."""

    spec: dict[str, Any]
    models: dict[str, str]
    shards: tuple[Shard, ...]
    schema: Literal["facsimile-faceset-plan/1"] = PLAN_SCHEMA

    def dump(self) -> bytes:
        """JSON, the same plan to the same bytes."""
        return (json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n").encode()

    @property
    def sha256(self) -> str:
        """Of `dump`."""
        return sha256_hex(self.dump())

    @property
    def num_samples(self) -> int:
        """How many samples it lists."""
        return sum(len(shard.tasks) for shard in self.shards)


@cache
def _reader() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


def load_plan(data: bytes) -> Plan:
    """A dumped plan; InputError `set.plan`."""
    try:
        return _reader().validate_json(data)
    except ValidationError as error:
        raise InputError(
            "set.plan",
            f"plan.json is no plan of a set: {error.error_count()} value(s) are wrong.",
            "Restore it, or make the set in another folder.",
        ) from None


def make_plan(
    spec: SetSpec, base: Path, strangers: Strangers, models: dict[str, str], report: Report
) -> Plan:
    """Deal a spec out. Folders of the spec are relative to `base`; UsageError, InputError, FacesetError."""
    rng = np.random.default_rng([spec.seed, 1])
    nobodies = [
        Person(f"nobody-{spec.seed}-{number:06d}", "nobody", number)
        for number in _cast(spec, strangers, report)
    ]
    people = _deal([*nobodies, *_given(spec, base)], spec.splits, rng)
    lenders = _deal(_lenders(spec, base), spec.splits, rng)
    groups = [
        (split, mains, [one for one in lenders[split] if one is not None][number::count])
        for split in spec.splits
        for number, count, mains in _chunks(people[split], spec.shard_people)
    ]
    fused = _spread(spec.fused, [_can_fuse(spec, mains, lent) * len(mains) for _, mains, lent in groups])
    blended = _spread(spec.self_blended, [len(mains) for _, mains, _ in groups])
    if sum(fused) < spec.fused:
        raise UsageError(
            "set.nobody_to_fuse",
            "Fused samples need a shard with two people, or with a lender, and no shard has.",
            "Ask for more identities, or for fewer splits.",
        )
    shards = [
        _deal_shard(spec, number, split, [*mains, *lent], (fused[number], blended[number]))
        for number, (split, mains, lent) in enumerate(groups)
    ]
    return Plan(spec.model_dump(mode="json"), models, tuple(shards))


def _cast(spec: SetSpec, strangers: Strangers, report: Report) -> list[int]:
    """Numbers of nobodies of whom the recogniser takes no two for one person."""
    if not spec.distinct:
        return list(range(spec.identities))
    chosen: list[int] = []
    known = np.zeros((spec.identities, 512), np.float32)
    for number in range(MAX_TRIES * spec.identities):
        if len(chosen) == spec.identities:
            break
        embedding = strangers.choose(spec.seed, number).embedding
        if len(chosen) == 0 or float((known[: len(chosen)] @ embedding).max()) < MATCH_THRESHOLD:
            known[len(chosen)] = embedding
            chosen.append(number)
            report(len(chosen), spec.identities)
    if len(chosen) < spec.identities:
        raise InputError(
            "set.people_run_out",
            f"Only {len(chosen)} of {MAX_TRIES * spec.identities} drawn people differ from each other enough.",
            "Ask for fewer identities, or say `distinct: false`.",
        )
    return chosen


def pictures_below(folder: Path) -> list[Path]:
    """Pictures of a folder and those below it, sorted; InputError `set.folder` where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise InputError("set.folder", f"{folder} holds no picture.", "Name a folder of pictures.")
    return found


def _given(spec: SetSpec, base: Path) -> list[Person]:
    """The people of the declared folder."""
    if spec.pristine is None:
        return []
    folder = base / spec.pristine.folder
    files = pictures_below(folder)
    if len(files) < spec.pristine.count:
        raise InputError(
            "set.folder",
            f"{folder} holds {len(files)} picture(s), {spec.pristine.count} are asked for.",
            "Ask for fewer.",
        )
    of_person: dict[str, list[File]] = {}
    for place in _even(len(files), spec.pristine.count):
        name = str(files[place].relative_to(folder))
        person = Path(name).parts[0] if spec.pristine.people == "folder" else name
        of_person.setdefault(person, []).append(_file(place, files[place]))
    return [
        Person(f"given-{number:06d}", "folder", files=tuple(found))
        for number, found in enumerate(of_person.values())
    ]


def _lenders(spec: SetSpec, base: Path) -> list[Person]:
    if spec.lenders is None:
        return []
    return [
        Person(f"lender-{place:06d}", "lender", files=(_file(place, path),))
        for place, path in enumerate(pictures_below(base / spec.lenders.folder))
    ]


def _file(place: int, path: Path) -> File:
    return File(place, content_sha256(read_file(path, LIMITS.max_bytes)))


def _even(total: int, count: int) -> list[int]:
    return [number * total // count for number in range(count)]


def _deal(
    people: Sequence[Person], splits: dict[Any, float], rng: np.random.Generator
) -> dict[str, list[Person]]:
    """Every person in one split, in the shares asked for; a split with a share gets one person while there are."""
    counts = _spread(len(people), list(splits.values()))
    order = [people[place] for place in rng.permutation(len(people))]
    dealt = {}
    for split, count in zip(splits, counts, strict=True):
        dealt[str(split)], order = sorted(order[:count], key=lambda person: person.id), order[count:]
    return dealt


def _spread(count: int, weights: Sequence[float]) -> list[int]:
    """`count` dealt in proportion to weights by largest remainders; all zero where no weight is positive."""
    total = float(sum(weights))
    if total <= 0:
        return [0] * len(weights)
    exact = [count * weight / total for weight in weights]
    whole = [int(share + 1e-9) for share in exact]
    order = sorted(range(len(weights)), key=lambda at: (whole[at] - exact[at], at))
    for at in order[: count - sum(whole)]:
        whole[at] += 1
    return whole


def _chunks(people: list[Person], size: int) -> Iterator[tuple[int, int, list[Person]]]:
    """(number, how many, people) of nearly equal parts of at most `size`."""
    count = -(-len(people) // size)
    for number in range(count):
        yield (
            number,
            count,
            people[number * len(people) // count : (number + 1) * len(people) // count],
        )


def _can_fuse(spec: SetSpec, mains: Sequence[Person], lent: Sequence[Person]) -> bool:
    return len(lent) > 0 if spec.lenders is not None else len(mains) > 1


def _deal_shard(
    spec: SetSpec, number: int, split: str, people: Sequence[Person], counts: tuple[int, int]
) -> Shard:
    rng = np.random.default_rng([spec.seed, 2, number])
    tasks: list[Task] = []

    def name() -> str:
        return f"{number:05d}-{len(tasks):05d}"

    for person in people:
        if person.origin == "nobody":
            for picture in range(spec.pictures):
                tasks.append(Task(name(), "sampled", person.id, spec.seed, look=_look(spec, person, picture)))
        elif person.origin == "folder":
            for at in range(len(person.files)):
                tasks.append(Task(name(), "pristine", person.id, spec.seed, file=at))
    untouched = tuple(tasks)
    lent = [person.id for person in people if person.origin == "lender"]
    for _ in range(counts[0]):
        target = untouched[int(rng.integers(len(untouched)))]
        if lent:
            identity, source = lent[int(rng.integers(len(lent)))], None
        else:
            others = [task for task in untouched if task.identity != target.identity]
            chosen = others[int(rng.integers(len(others)))]
            identity, source = chosen.identity, chosen.sample_id
        tasks.append(Task(name(), "fused", identity, spec.seed, source=source, target=target.sample_id))
    for at in range(counts[1]):
        target = untouched[int(rng.integers(len(untouched)))]
        seed, family = int(rng.integers(2**31)), FAMILIES[at % len(FAMILIES)]
        tasks.append(
            Task(name(), "self_blended", target.identity, seed, target=target.sample_id, family=family)
        )
    return Shard(f"{number:05d}", split, tuple(people), tuple(tasks))


def _look(spec: SetSpec, person: Person, picture: int) -> tuple[str, str, float | None]:
    """The first picture of a person is their own; the others differ in expression, light and yaw."""
    if picture == 0:
        return ("own", "own", None)
    rng = np.random.default_rng([spec.seed, 3, person.number, picture])
    expression, light = (
        list(names)[int(rng.integers(len(names)))] for names in (list(EXPRESSIONS), list(LIGHTS))
    )
    return (expression, light, round(float(rng.uniform(-MAX_YAW_DEG, MAX_YAW_DEG)), 2))
