"""The index of DeepfakeBench: dataset → label → split → video → {label, frames, masks}; knows no pixel.

Layout of its `preprocessing/dataset_json` (arXiv 2307.01426). Labels: `…_original`, pictures that nobody altered
after they were drawn (they are synthetic all the same), `…_fused` and `…_self_blended`. The untouched pictures of one
person are one video, an altered picture is one of its own.
"""

from __future__ import annotations

import json
from typing import Any

from facesets.formats import Files, SetView
from facesets.record import ALTERED, SampleRecord


def write(view: SetView) -> Files:
    """One file; frames are relative to the set's folder."""
    labels: dict[str, dict[str, dict[str, Any]]] = {}
    for record in view.records:
        label = f"{view.card.name}_{record.kind if record.kind in ALTERED else 'original'}"
        videos = labels.setdefault(label, {}).setdefault(record.split, {})
        video = videos.setdefault(_video(record), {"label": label, "frames": [], "masks": []})
        video["frames"].append(record.file)
        if record.mask_file is not None:
            video["masks"].append(record.mask_file)
    for splits in labels.values():
        for split in ("train", "val", "test"):
            splits.setdefault(split, {})
    yield (
        f"deepfakebench/{view.card.name}.json",
        (json.dumps({view.card.name: labels}, indent=1) + "\n").encode(),
    )


def _video(record: SampleRecord) -> str:
    return record.sample_id if record.kind in ALTERED else record.identity
