"""Specs are closed, and masks count as COCO counts."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from facesets.errors import FacesetError
from facesets.rle import decode_runs, encode_runs
from facesets.spec import SetSpec, read_spec

GOOD = {"name": "tiny", "purpose": "research", "licence": "CC-BY-4.0", "identities": 4}


@pytest.mark.parametrize("seed", range(4))
def test_masks_count_as_coco_counts_and_come_back(seed: int) -> None:
    mask = np.random.default_rng(seed).random((7, 11)) < (0.0, 0.3, 0.7, 1.0)[seed]
    runs = encode_runs(mask)
    np.testing.assert_array_equal(decode_runs(runs, 7, 11), mask)
    coded = coco_mask.frPyObjects({"size": [7, 11], "counts": runs}, 7, 11)
    assert coded["counts"] == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_a_mask_that_does_not_fill_its_picture_is_refused() -> None:
    with pytest.raises(FacesetError) as caught:
        decode_runs([1, 2], 2, 2)
    assert caught.value.code == "faceset.mask"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"identites": 3}, "identites"),
        ({"identities": 0}, "identities"),
        ({"splits": {"train": 0.5}}, "splits"),
        ({"size_px": 300}, "size_px"),
        ({"formats": ["coco", "coco"]}, "formats"),
    ],
)
def test_a_bad_spec_names_the_field(changes: dict[str, object], named: str) -> None:
    with pytest.raises(FacesetError, match=named) as caught:
        SetSpec.of({**GOOD, **changes})
    assert caught.value.code == "faceset.spec"


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"a: [", "s.yaml", "faceset.spec_syntax"),
        (b"\xff", "s.json", "faceset.spec_syntax"),
        (b"{}", "s.txt", "faceset.spec_format"),
        (b"{}", "s.json", "faceset.spec"),
        (b"[]", "s.yaml", "faceset.spec"),
    ],
)
def test_a_file_that_is_no_spec_says_why(data: bytes, name: str, code: str) -> None:
    with pytest.raises(FacesetError) as caught:
        read_spec(data, name)
    assert caught.value.code == code
