"""Measures the whole path of one 1080p image, from its bytes to its release, stage by stage; knows no command line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fusion.media import encode_picture, read_picture
from fusion.pipeline import fuse, sample
from fusion.request import FuseRequest, SampleRequest
from fusion.stopwatch import Stopwatch
from fusion.swap import load_perception
from fusion.tables import Row, median_interval
from provenance.declarations import declare_synthetic
from provenance.hashes import content_sha256
from provenance.home import Home

WARM_UP = 2  # runs of a preset that are not counted: networks are loaded, memory is found


def measure_path(folder: Path, presets: Sequence[str], times: int, seed: int = 3) -> list[dict[str, Any]]:
    """Fuse nobodies into a 1080p JPEG `times` by each preset, in a new home in `folder`; rows of wall and CPU time."""
    perception = load_perception("cpu")
    with Home.create(folder / "home", "Bench") as home:
        people = [
            one.path.read_bytes() for one in sample(SampleRequest(3, seed=seed), home, folder / "people")
        ]
        target = scene_1080p(people[0])
        declare_synthetic(home, [content_sha256(target)], "drawn by the bench: nobody on plain ground")
        rows: list[dict[str, Any]] = []
        for preset in presets:
            watches = []
            for k in range(WARM_UP + times):
                request = FuseRequest((people[1 + k % 2],), target, "bench", preset=preset)
                watch, begun, worked = Stopwatch(), time.perf_counter(), time.process_time()
                fuse(request, home, perception, folder / "out.jpg", watch)
                watch.timings_ms["whole"] = 1e3 * (time.perf_counter() - begun)
                watch.cpu_ms["whole"] = 1e3 * (time.process_time() - worked)
                watches.append(watch)
            rows += [asdict(row) for row in path_rows(f"{preset}_1080p", watches[WARM_UP:])]
    return rows


def scene_1080p(face: bytes) -> bytes:
    """A JPEG of 1920 x 1080 with a portrait of 512 px in its middle, on noisy grey."""
    rgb = read_picture(face).rgb
    ground = np.random.default_rng(0).normal(128, 6, (1080, 1920, 3)).clip(0, 255)
    scene = np.asarray(ground, np.uint8)
    height, width = rgb.shape[:2]
    top, left = (1080 - height) // 2, (1920 - width) // 2
    scene[top : top + height, left : left + width] = rgb
    return encode_picture(scene, "jpeg", 90)


def path_rows(case: str, watches: Sequence[Stopwatch]) -> list[Row]:
    """Median of each stage by the wall's clock (ms_) and by the processor's (cpu_ms_), with its interval."""
    rows = []
    for metric, taken in (("ms", "timings_ms"), ("cpu_ms", "cpu_ms")):
        for stage in getattr(watches[0], taken):
            values = np.array([getattr(watch, taken)[stage] for watch in watches])
            median, interval = float(np.median(values)), median_interval(values)
            rows.append(Row(case, f"{metric}_{stage}", median, "ms", len(values), interval))
    return rows
