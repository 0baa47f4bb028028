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
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from detector.blend import FAMILIES
from facesets.portraits import EXPRESSIONS, LIGHTS, MAX_YAW_DEG
from facesets.record import Kind
from facesets.spec import SetSpec
from fusion.identity import MATCH_THRESHOLD
from provenance.errors import InputError, UsageError
from provenance.hashes import sha256_hex

if TYPE_CHECKING:
    from fusion.strangers import Strangers

PLAN_SCHEMA: Final = "facsimile-faceset-plan/1"
MAX_TRIES: Final = 10  # candidates per person before a cast is given up
Report = Callable[[int, int], None]
"""Called with (done, of)."""


@dataclass(frozen=True)
class Person:
    """One identity, who is nobody: `number` of the spec's seed."""

    id: str
    number: int


@dataclass(frozen=True)
class Task:
    """One sample to be made.

    look      sampled: (expression, light, yaw in degrees or None)
    source    fused: a sample of the shard
    target    fused, self_blended: a sample of the shard
    family    self_blended: of detector.blend
    """

    sample_id: str
    kind: Kind
    identity: str
    seed: int
    look: tuple[str, str, float | None] | None = None
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


def make_plan(spec: SetSpec, strangers: Strangers, models: dict[str, str], report: Report) -> Plan:
    """Deal a spec out; UsageError `set.nobody_to_fuse`, InputError `set.people_run_out`, FacesetError."""
    rng = np.random.default_rng([spec.seed, 1])
    nobodies = [
        Person(f"nobody-{spec.seed}-{number:06d}", number) for number in _cast(spec, strangers, report)
    ]
    people = _deal(nobodies, spec.splits, rng)
    groups = [(split, part) for split in spec.splits for part in _chunks(people[split], spec.shard_people)]
    fused = _spread(spec.fused, [len(part) if len(part) > 1 else 0 for _, part in groups])
    blended = _spread(spec.self_blended, [len(part) for _, part in groups])
    if sum(fused) < spec.fused:
        raise UsageError(
            "set.nobody_to_fuse",
            "Fused samples need a shard with two people, and no shard has.",
            "Ask for more identities, or for fewer splits.",
        )
    shards = [
        _deal_shard(spec, number, split, part, (fused[number], blended[number]))
        for number, (split, part) in enumerate(groups)
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


def _chunks(people: list[Person], size: int) -> Iterator[list[Person]]:
    """Nearly equal parts of at most `size`."""
    count = -(-len(people) // size)
    for number in range(count):
        yield people[number * len(people) // count : (number + 1) * len(people) // count]


def _deal_shard(
    spec: SetSpec, number: int, split: str, people: Sequence[Person], counts: tuple[int, int]
) -> Shard:
    rng = np.random.default_rng([spec.seed, 2, number])
    tasks: list[Task] = []

    def name() -> str:
        return f"{number:05d}-{len(tasks):05d}"

    for person in people:
        for picture in range(spec.pictures):
            tasks.append(Task(name(), "sampled", person.id, spec.seed, look=_look(spec, person, picture)))
    untouched = tuple(tasks)
    for _ in range(counts[0]):
        target = untouched[int(rng.integers(len(untouched)))]
        others = [task for task in untouched if task.identity != target.identity]
        source = others[int(rng.integers(len(others)))]
        tasks.append(
            Task(
                name(),
                "fused",
                source.identity,
                spec.seed,
                source=source.sample_id,
                target=target.sample_id,
            )
        )
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
