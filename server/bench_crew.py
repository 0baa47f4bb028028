"""Measures the pairs of a fusion bench in this process or in several; knows no table and writes no file."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from provenance.errors import StoreError
from server.bench_material import Material, all_ways, find_bench, read_portraits, recognisers

if TYPE_CHECKING:
    from fusion.evaluate import Gallery, Pair, Sample
    from fusion.face import FloatArray

CHUNK: Final = 8  # pairs by ways that a process measures before it answers
PEOPLE_CHUNK: Final = 50
Task = tuple[str, "Pair"]  # way, pair
Done = tuple[str, "Pair", "Sample"]
T = TypeVar("T")
R = TypeVar("R")


def measure_all(material: Material, gallery: Path, tasks: Sequence[Task], jobs: int) -> Iterator[Done]:
    """Measure each task; a stream in no fixed order. StoreError `bench.worker_died` where a process was killed."""
    if jobs == 1:
        bench, people, ways = find_bench(material), read_gallery(gallery), all_ways()
        for way, pair in tasks:
            yield way, pair, bench.measure_pair(ways[way], pair, people)
        return
    for done in _spread(
        lambda pool, some: pool.submit(_measure, material, gallery, some), tasks, CHUNK, jobs
    ):
        yield from done


def embed_people(material: Material, names: Sequence[str], jobs: int) -> Gallery:
    """The gallery of the named portraits, in their order; StoreError `bench.worker_died`."""
    import numpy as np

    from fusion.evaluate import Gallery

    if jobs == 1:
        return _embed(material, names)
    parts = list(_spread(lambda pool, some: pool.submit(_embed, material, some), names, PEOPLE_CHUNK, jobs))
    row = {name: (part, k) for part in parts for k, name in enumerate(part.names)}
    found: dict[str, FloatArray] = {
        by: np.stack([row[name][0].embeddings[by][row[name][1]] for name in names])
        for by in parts[0].embeddings
    }
    return Gallery(tuple(names), found)


def read_gallery(path: Path) -> Gallery:
    """A gallery as `bench fusion` keeps it."""
    import numpy as np

    from fusion.evaluate import Gallery

    with np.load(path, allow_pickle=False) as archive:
        vectors = {key[3:]: archive[key] for key in archive.files if key.startswith("by_")}
        return Gallery(tuple(str(name) for name in archive["names"]), vectors)


def _spread(
    submit: Callable[[ProcessPoolExecutor, list[T]], Future[R]], items: Sequence[T], chunk: int, jobs: int
) -> Iterator[R]:
    """Chunks of items through a pool, two a process under way; answers as they come."""
    context = multiprocessing.get_context("spawn")
    chunks = (list(items[start : start + chunk]) for start in range(0, len(items), chunk))
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread) as pool:
        waiting = {submit(pool, some) for some in islice(chunks, 2 * jobs)}
        try:
            while waiting:
                finished = next(as_completed(waiting))
                waiting.remove(finished)
                waiting |= {submit(pool, some) for some in islice(chunks, 1)}
                yield finished.result()
        except BrokenProcessPool as error:
            raise StoreError(
                "bench.worker_died",
                "A process of the bench ended before its pairs were measured.",
                "See whether memory ran out; run it again with fewer --jobs: what was measured is kept.",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _measure(material: Material, gallery: Path, tasks: Sequence[Task]) -> list[Done]:
    bench, people, ways = find_bench(material), _people(gallery), all_ways()
    return [(way, pair, bench.measure_pair(ways[way], pair, people)) for way, pair in tasks]


@lru_cache(maxsize=1)
def _people(gallery: Path) -> Gallery:
    return read_gallery(gallery)


def _embed(material: Material, names: Sequence[str]) -> Gallery:
    from fusion.evaluate import Gallery

    return Gallery.of(read_portraits(material.data, names), recognisers(material.teacher_file))
