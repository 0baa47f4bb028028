"""Makes shards on this machine, one after the other or in a pool of processes; knows no plan and no format."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from facesets.spec import SetSpec
from provenance.errors import StoreError
from provenance.home import Home
from setmaking.plan import Shard
from setmaking.shards import Maker, make_shard

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, of); stages are "pictures" and, after each that is finished, "shards"."""


@dataclass(frozen=True)
class Work:
    """What a process needs to make any shard of a set; it travels to other processes as it is."""

    spec: SetSpec
    folder: Path
    open_home: Callable[[], Home]


def run_local(work: Work, shards: Sequence[Shard], workers: int, progress: Progress) -> None:
    """Make the shards with this many processes; the first error ends it, finished shards stay.

    StoreError `set.worker_died` where a process was killed; errors of the pipeline.
    """
    if workers == 1 or len(shards) < 2:
        _run_here(work, shards, progress)
        return
    done, num_shards, total = 0, 0, sum(len(shard.tasks) for shard in shards)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=context) as pool:
        waiting = {pool.submit(make_alone, work, shard): shard for shard in shards}
        try:
            for finished in as_completed(waiting):
                finished.result()
                done += len(waiting[finished].tasks)
                num_shards += 1
                progress("pictures", done, total)
                progress("shards", num_shards, len(shards))
        except BrokenProcessPool as error:
            raise StoreError(
                "set.worker_died",
                "A worker process ended before its shard was done.",
                "See whether memory ran out; run it again: finished shards are kept.",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _run_here(work: Work, shards: Sequence[Shard], progress: Progress) -> None:
    done, total = 0, sum(len(shard.tasks) for shard in shards)

    def count() -> None:
        nonlocal done
        done += 1
        progress("pictures", done, total)

    with work.open_home() as home:
        maker = Maker(work.spec, home)
        for number, shard in enumerate(shards, 1):
            make_shard(maker, shard, work.folder, count)
            progress("shards", number, len(shards))


_makers: dict[Path, Maker] = {}
"""Of a pool's process: networks are loaded once, not once a shard."""


def make_alone(work: Work, shard: Shard) -> None:
    """Make one shard in a process of its own."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if work.folder not in _makers:
        _makers[work.folder] = Maker(work.spec, work.open_home())
    make_shard(_makers[work.folder], shard, work.folder, lambda: None)
