"""COCO instances and key points, a file a split (pycocotools for the masks); knows no pixel.

Categories: 1 face, with the five points; 2 altered, the pixels that a fusion or a self-blend changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from pycocotools import mask as coco_mask

from facesets.formats import Files, SetView
from facesets.record import SampleRecord

_POINTS: Final = ["left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner"]
_CATEGORIES: Final = [
    {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": _POINTS,
        "skeleton": [[1, 2], [1, 3], [2, 3], [4, 5]],
    },
    {"id": 2, "name": "altered", "supercategory": "region"},
]


def write(view: SetView) -> Files:
    """One file a split; image and annotation ids count from 1 within it."""
    for split, records in view.by_split():
        annotations: list[dict[str, Any]] = []
        for number, record in enumerate(records, 1):
            annotations += _annotations(record, number, len(annotations))
        content = {
            "info": {"description": view.card.name, "version": view.card.version},
            "licenses": [{"id": 1, "name": view.card.licence, "url": ""}],
            "categories": _CATEGORIES,
            "images": [_image(record, number) for number, record in enumerate(records, 1)],
            "annotations": annotations,
        }
        yield f"coco/{split}.json", (json.dumps(content) + "\n").encode()


def _image(record: SampleRecord, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": record.file,
        "width": record.width,
        "height": record.height,
        "license": 1,
        "sample_id": record.sample_id,
        "kind": record.kind,
        "identity": record.identity,
    }


def _annotations(record: SampleRecord, image: int, before: int) -> list[dict[str, Any]]:
    left, top, right, bottom = record.box_xyxy
    face = {
        "category_id": 1,
        **_region(record.masks["face"], record),
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "keypoints": [value for x, y in record.points_px for value in (x, y, 2)],
        "num_keypoints": 5,
    }
    found = [face]
    if "blend" in record.masks:
        region = _region(record.masks["blend"], record)
        found.append({"category_id": 2, **region, "bbox": coco_mask.toBbox(region["segmentation"]).tolist()})
    return [{"id": before + at, "image_id": image, "iscrowd": 0, **one} for at, one in enumerate(found, 1)]


def _region(runs: Sequence[int], record: SampleRecord) -> dict[str, Any]:
    counts = np.asarray(runs, np.uint32).tolist()
    coded = coco_mask.frPyObjects(
        {"size": [record.height, record.width], "counts": counts}, record.height, record.width
    )
    text = {"size": [record.height, record.width], "counts": coded["counts"].decode()}
    return {"segmentation": text, "area": int(coco_mask.area(coded))}
