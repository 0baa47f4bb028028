"""How long each stage of a piece of work took; does not know what the stages are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds per stage, in the order the stages first ran; `enter` is called with a stage's name as it begins.

    A stage that runs again (one frame of a video after the other) adds to what it took before.
    `timings_ms` by the wall's clock, `cpu_ms` by the process's: on a busy machine only the second can be compared.
    """

    def __init__(self, enter: Callable[[str], None] = lambda stage: None) -> None:
        self.timings_ms: dict[str, float] = {}
        self.cpu_ms: dict[str, float] = {}
        self._enter = enter

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._enter(name)
        start, worked = time.perf_counter(), time.process_time()
        yield
        spent = (time.process_time() - worked) * 1e3, (time.perf_counter() - start) * 1e3
        self.cpu_ms[name] = round(self.cpu_ms.get(name, 0.0) + spent[0], 1)
        self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + spent[1], 1)
