"""bench.json and bench.md of a suite: the same rows twice; measures nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.console import emit, say


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One line a row: case, metric, value with its interval, unit, n."""
    lines = ["| case | metric | value | 95 % | unit | n |", "|---|---|---|---|---|---|"]
    for row in rows:
        interval = "" if row["ci95"] is None else f"{row['ci95'][0]:.3g} to {row['ci95'][1]:.3g}"
        lines.append(
            f"| {row['case']} | {row['metric']} | {row['value']:.4g} | {interval} | {row['unit']} | {row['n']} |"
        )
    return "\n".join(lines) + "\n"


def store_suite(
    suite: str,
    rows: Sequence[dict[str, Any]],
    markdown: str,
    out: Path,
    device: str = "cpu",
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """bench.json and bench.md of one suite in `out`; what bench.json holds."""
    from detector.weights import DETECTOR
    from fusion.files import make_folder, write_file_atomically
    from fusion.weights import REGISTRY
    from provenance import __version__

    payload = {
        "suite": suite,
        "version": __version__,
        "device": device,
        "rows": list(rows),
        "models": {spec.name: spec.sha256 for spec in (*REGISTRY.values(), DETECTOR)},
        **(extra or {}),
    }
    make_folder(out)
    write_file_atomically(out / "bench.json", json.dumps(payload, indent=2).encode())
    write_file_atomically(out / "bench.md", markdown.encode())
    return payload


def write_suite(
    suite: str,
    rows: Sequence[dict[str, Any]],
    markdown: str,
    out: Path,
    json_output: bool,
    device: str = "cpu",
    extra: dict[str, Any] | None = None,
) -> None:
    """`store_suite`, and the same rows on stdout."""
    payload = store_suite(suite, rows, markdown, out, device, extra)
    if json_output:
        emit(payload)
    else:
        say(markdown.rstrip())
