"""A set from its spec: plan it, make the shards that are missing, compile the formats; knows no command line.

Whoever runs it again on the same folder goes on where it stopped: finished shards are never touched.
"""

from __future__ import annotations

import fcntl
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from facesets.formats import require_libraries
from facesets.spec import SetSpec
from fusion.files import make_folder, read_file, write_file_atomically
from provenance.errors import StoreError, UsageError
from provenance.home import Home
from setmaking.compile import compile_set
from setmaking.local import Work, run_local
from setmaking.plan import Plan, load_plan, make_plan
from setmaking.shards import Maker, is_finished, recover

PLAN: Final = "plan.json"
LOCK: Final = ".lock"
MAX_PLAN_BYTES: Final = 1 << 32

Report = Callable[[str, int, int], None]
"""Called with (stage, done, of); stages: "people", "pictures", "shards", "formats". What it raises ends it."""


@dataclass(frozen=True)
class Made:
    """What came of making a set. `wall_s`, `cpu_s` and `num_made` are of the samples of this run alone."""

    folder: Path
    num_samples: int
    num_made: int
    num_left_out: int
    num_shards: int
    num_skipped: int
    wall_s: float
    cpu_s: float
    files: tuple[str, ...]

    @property
    def images_per_s(self) -> float | None:
        """Samples per second of wall clock; None where none was made."""
        return self.num_made / self.wall_s if self.num_made else None

    @property
    def cpu_s_per_1000(self) -> float | None:
        """Processor seconds per thousand samples; None where none was made."""
        return 1000 * self.cpu_s / self.num_made if self.num_made else None

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `facsimile faceset make`."""
        return {
            "folder": str(self.folder),
            "samples": self.num_samples,
            "made": self.num_made,
            "left_out": self.num_left_out,
            "shards": self.num_shards,
            "shards_skipped": self.num_skipped,
            "images_per_s": self.images_per_s,
            "cpu_s_per_1000": self.cpu_s_per_1000,
            "files": list(self.files),
        }


def make_set(
    spec: SetSpec, folder: Path, open_home: Callable[[], Home], report: Report, workers: int = 1
) -> Made:
    """Make, or go on making, the set of a spec in `folder`.

    `open_home` is called here and in every worker process. UsageError `set.*` where the folder holds something else
    or another process is at it; errors of the pipeline.
    """
    require_libraries(spec.formats)
    with locked(folder):
        with open_home() as home:
            plan = _plan(Maker(spec, home), folder, report)
        recover(folder)
        waiting = [shard for shard in plan.shards if not is_finished(folder, shard)]
        begun, cpu = time.perf_counter(), _cpu_s()
        if waiting:
            work = Work(spec, folder, open_home)
            run_local(work, waiting, workers, report)
        wall_s, cpu_s = time.perf_counter() - begun, _cpu_s() - cpu
        compiled = compile_set(folder, spec, lambda done, of: report("formats", done, of))
    fresh = {shard.name for shard in waiting}
    return Made(
        folder,
        num_samples=len(compiled.records),
        num_made=sum(record.shard in fresh for record in compiled.records),
        num_left_out=compiled.num_left_out,
        num_shards=len(plan.shards),
        num_skipped=len(plan.shards) - len(waiting),
        wall_s=wall_s,
        cpu_s=cpu_s,
        files=compiled.files,
    )


def _plan(maker: Maker, folder: Path, report: Report) -> Plan:
    """The folder's own plan, which must be the spec's; else a new one, written before anything is made."""
    path = folder / PLAN
    if path.exists():
        plan = read_plan(folder)
        if plan.spec != maker.spec.model_dump(mode="json"):
            raise UsageError(
                "set.other_spec", f"{folder} holds the set of another spec.", "Name another folder with -o."
            )
        if plan.models != maker.models:
            raise UsageError(
                "set.other_models",
                f"{folder} was begun with other networks than are here now.",
                "Name another folder with -o, or bring the networks back.",
            )
        return plan
    if any(each.name != LOCK for each in folder.iterdir()):
        raise UsageError(
            "set.folder_in_use", f"{folder} holds files that are no set.", "Name an empty or a new folder."
        )
    plan = make_plan(maker.spec, maker.strangers, maker.models, lambda done, of: report("people", done, of))
    write_file_atomically(path, plan.dump())
    return plan


def read_plan(folder: Path) -> Plan:
    """The plan of a set; UsageError `set.not_a_set` where the folder holds none, InputError `set.plan`."""
    if not (folder / PLAN).is_file():
        raise UsageError(
            "set.not_a_set",
            f"{folder} holds no plan.json.",
            "Name a folder that `facsimile faceset make` made.",
        )
    return load_plan(read_file(folder / PLAN, MAX_PLAN_BYTES))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the set meanwhile; UsageError `set.busy` where one is at it."""
    make_folder(folder)
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StoreError(
            "set.not_writable", f"{folder} cannot be written: {error.strerror}.", "Name another folder."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("set.busy", f"Another process works on {folder}.", "Wait for it.") from error
        yield
    finally:
        os.close(handle)


def _cpu_s() -> float:
    """Processor seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
