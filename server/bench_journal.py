"""What a long bench has measured so far, a line of JSON each, so that it can be cut off and go on; measures nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance.errors import UsageError

if TYPE_CHECKING:
    from fusion.evaluate import Pair, Sample
    from provenance.mark_bench import Found


class Journal:
    """Samples by way and pair, kept in one file; the first line says what run it belongs to.

    A line that was cut off in the middle is dropped. UsageError `bench.other_run` when the file belongs to a run of
    other pictures, networks, code or seed: rows of two runs would be mixed.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        lines = _lines_of(path, run)
        self.samples: dict[tuple[str, str, str], Sample] = {
            (line["way"], line["source"], line["target"]): _from_json(line["sample"]) for line in lines[1:]
        }
        if not lines:
            _append(path, {"run": dict(run)})

    def get(self, way: str, pair: Pair) -> Sample | None:
        """What was measured of a pair, if it was."""
        return self.samples.get((way, pair.source, pair.target))

    def add(self, way: str, pair: Pair, sample: Sample) -> None:
        """Keep one measurement, at once on disk."""
        self.samples[way, pair.source, pair.target] = sample
        _append(
            self.path, {"way": way, "source": pair.source, "target": pair.target, "sample": _to_json(sample)}
        )


class Notes:
    """What was found of each item of each part of a bench, kept like a Journal; UsageError `bench.other_run`."""

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        lines = _lines_of(path, run)
        self.found: dict[tuple[str, str], list[Found]] = {
            (line["part"], line["item"]): line["found"] for line in lines[1:]
        }
        if not lines:
            _append(path, {"run": dict(run)})

    def add(self, part: str, item: str, found: list[Found]) -> None:
        """Keep what was found of an item, at once on disk."""
        self.found[part, item] = found
        _append(self.path, {"part": part, "item": item, "found": found})


def _lines_of(path: Path, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The file's lines, the run's first; none where there is no file."""
    lines = list(_whole_lines(path))
    if lines and lines[0].get("run") != run:
        raise UsageError(
            "bench.other_run",
            f"{path} holds measurements of another run (other data, networks, code, gallery or seed).",
            "Use another --out, or remove the file.",
        )
    return lines


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The file's lines; a last one without its end is cut off, on disk too."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    for line in whole.splitlines():
        yield json.loads(line)


def _to_json(sample: Sample) -> dict[str, Any]:
    """Floats of six digits, NaN as null, vectors as lists."""
    return {
        name: [float(f"{x:.5g}") for x in value]
        if not isinstance(value, float)
        else (float(f"{value:.6g}") if not math.isnan(value) else None)
        for name, value in sample.items()
    }


def _from_json(values: Mapping[str, Any]) -> Sample:
    import numpy as np

    return {
        name: np.array(value, np.float32)
        if isinstance(value, list)
        else (float("nan") if value is None else float(value))
        for name, value in values.items()
    }
