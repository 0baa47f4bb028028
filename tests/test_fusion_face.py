"""What a face's box says of its size."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.face import Face


@pytest.mark.parametrize(
    ("box", "area"),
    [((10, 20, 110, 84), 6400.0), ((-8, -8, 8, 8), 256.0), ((5, 5, 5, 9), 0.0), ((9, 9, 1, 1), 0.0)],
)
def test_a_face_is_as_large_as_its_box(box: tuple[float, ...], area: float) -> None:
    face = Face(np.array(box, np.float32), np.zeros((5, 2), np.float32), 1.0)
    assert face.area_px == area
    assert face.side_px == pytest.approx(area**0.5)
