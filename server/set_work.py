"""Makes the labelled set of one job, shard by shard, and gives way to others between shards; knows no HTTP.

What a killed worker had finished is kept: the next one goes on from there. The list of the set's files is recorded in
the transaction that ends the job; before that nobody can read a file of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from facesets.errors import FacesetError
from facesets.spec import SetSpec
from provenance.errors import InputError
from provenance.home import Home
from server.jobs import Job, Queue
from server.objects import ObjectStore
from server.sets import FileList, SetStore
from setmaking.make import Made, make_set

STEPS: Final = 50
"""Of a stage that are told at most, while one worker is at it."""


class GiveWayError(Exception):
    """The worker is to stop, or others wait: the job goes back into the queue with what is finished of it."""


@dataclass
class SetMaking:
    """One try at one job."""

    job: Job
    home: Home
    open_home: Callable[[], Home]
    queue: Queue
    objects: ObjectStore
    sets: SetStore
    stopping: threading.Event
    require_lease: Callable[[], None]
    _told: tuple[str, int] = ("", -1)

    def run(self) -> None:
        """Make the set, list and record it, end the job. GiveWayError; errors of the pipeline; LeaseLostError."""
        spec = SetSpec.of(self.job.request["spec"])
        folder = self.sets.begin(self.job.id)
        try:
            made = make_set(spec, folder, self.open_home, self._report)
        except FacesetError as error:
            raise InputError(error.code, error.cause, error.next_step) from error
        self.queue.enter(self.job, "record")
        listed = self.sets.list_files(self.job.id, spec.name)
        name = self.objects.put(listed.dump())
        self.queue.renew(self.job)
        self.sets.put_in_place(self.job.id)
        self._record(made, listed, name)

    def _record(self, made: Made, listed: FileList, name: str) -> None:
        told: dict[str, Any] = {"name": listed.name, "samples": made.num_samples, "files_sha256": name}
        with self.home.database.write() as conn:
            entry = {"kind": "set_recorded", "accepted_index": self.job.accepted_index, **told}
            receipt = self.home.ledger.append(entry, conn)
            result = {
                **told,
                "left_out": made.num_left_out,
                "files": len(listed.files),
                "bytes": listed.num_bytes,
                "ledger": {"index": receipt.index, "root": receipt.root},
                "object": name,
            }
            self.queue.finish(self.job, result, conn)

    def _report(self, stage: str, done: int, of: int) -> None:
        """Called after every person, picture, shard and format."""
        self.require_lease()
        if self.stopping.is_set():
            raise GiveWayError
        if stage == "shards":
            if done < of and self.queue.count_waiting()[0] > 0:
                raise GiveWayError
            return
        step = (stage, STEPS * done // of)
        if step != self._told:
            self._told = step
            self.queue.enter(self.job, stage, {"done": done, "of": of})
