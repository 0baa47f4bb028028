"""What lies before a face stays on top of a swap: the network's map, what is kept of it, and the engines behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facesets.portraits import PortraitModel
from fusion import mask, mesh
from fusion.covers import cover_measures, draw_cover
from fusion.engines import HybridEngine, StyleEngine, WarpEngine, load_hybrid, load_style
from fusion.face import FloatArray, UInt8Array
from fusion.identity import load_identity
from fusion.native import generator_crop_from_image
from fusion.occlusion import (
    LEAST_PX,
    LIKELY,
    MAP_PX,
    SURE,
    THICK_PX,
    OcclusionNet,
    find_cover,
    load_occlusion,
    predict_cover,
    settle,
)
from fusion.swap import ENGINES, Engine, models_of
from fusion.warp import target_in_shape, warp_face
from fusion.weights import OCCLUSION, WEIGHTS_FOLDER

Drawn = tuple[UInt8Array, FloatArray]
FACE = np.ones((MAP_PX, MAP_PX), np.float32)


@pytest.fixture(scope="module")
def people() -> list[Drawn]:
    """Four nobodies of the portrait model, 512 px, with their landmarks."""
    model = PortraitModel.load()
    portraits = [model.render(model.draw_one(21, k), size=512) for k in range(4)]
    return [(p.rgb, p.landmarks_px) for p in portraits]


@pytest.fixture(scope="module")
def net() -> OcclusionNet:
    return load_occlusion()


def engine_of(name: str, net: OcclusionNet | None) -> Engine:
    """An engine with the weights that ship, with or without a network of occlusion."""
    if name == "warp":
        return WarpEngine(net)
    if name == "hybrid":
        return HybridEngine(load_hybrid().net, load_identity(), net)
    return StyleEngine(load_style().net, load_identity(), net)


def chance_of(*blobs: tuple[int, int, int, float]) -> FloatArray:
    """A map with squares (row, column, side, chance)."""
    drawn = np.zeros((MAP_PX, MAP_PX), np.float32)
    for row, column, side, value in blobs:
        drawn[row : row + side, column : column + side] = value
    return drawn


def test_doubtful_small_and_thin_finds_are_nothing_at_all() -> None:
    assert not settle(chance_of((20, 20, 12, SURE - 0.05)), FACE).any()
    assert not settle(chance_of((20, 20, 3, 0.99)), FACE).any()
    assert LEAST_PX > 3 * 3
    assert not settle(chance_of((20, 20, 30, LIKELY - 0.05), (20, 40, 2, 0.99)), FACE).any()
    thin = np.zeros((MAP_PX, MAP_PX), np.float32)
    thin[20 : 20 + THICK_PX - 2, 10:50] = 0.99
    assert not settle(thin, FACE).any()
    assert not settle(chance_of((2, 2, 12, 0.99)), chance_of((30, 30, 20, 1.0))).any()  # beside the face


def test_a_sure_find_brings_its_likely_rest_and_has_a_soft_rim() -> None:
    share = settle(chance_of((20, 20, 10, 0.99), (20, 30, 10, 0.7), (50, 50, 6, 0.7)), FACE)
    assert share[21:29, 21:39].min() > 0.99
    assert share[25, 38] > 0.99
    assert 0 < share[25, 19] < 0.5  # the rim
    assert not share[44:, 44:].any()
    assert share.max() <= 1


def test_a_map_lies_in_the_picture_where_the_face_does(people: list[Drawn]) -> None:
    _, points = people[0]
    place = generator_crop_from_image(points, MAP_PX)
    marked = mask.CoverMap(chance_of((10, 40, 12, 1.0)), place)
    whole = marked.over((0, 0, 512, 512))
    grid = np.stack(np.meshgrid(np.arange(512), np.arange(512)), -1).astype(np.float32)
    np.testing.assert_allclose(marked.at(grid), whole, atol=0.04)
    y, x = (axis.mean() for axis in np.nonzero(whole > 0.5))
    there = place @ [x, y, 1]
    np.testing.assert_allclose(there, [45.5, 15.5], atol=0.2)
    np.testing.assert_allclose(marked.over((50, 60, 250, 300)), whole[60:300, 50:250], atol=1e-3)


def test_nothing_lies_before_our_nobodies_and_a_drawn_finger_does(
    people: list[Drawn], net: OcclusionNet
) -> None:
    """Fingers and microphones of fusion/covers.py, which no training saw."""
    assert [find_cover(rgb, points, net) for rgb, points in people] == [None] * len(people)
    for kind, least in (("fingers", 0.5), ("microphone", 0.6)):
        recalls = []
        for seed, (rgb, points) in enumerate(people):
            drawn, cover = draw_cover(rgb, points, kind, seed)
            found = find_cover(drawn, points, net)
            oval = mask.fill_contour(points[: mesh.NUM_MESH, :2], mesh.OVAL, (512, 512))
            core = (cover > 0.9) & (oval > 0.5)
            recalls.append(0.0 if found is None else float(found.over((0, 0, 512, 512))[core].mean()))
        assert np.mean(recalls) > least, kind


@pytest.mark.parametrize("name", ["warp", "hybrid", "style"])
def test_a_bare_face_is_swapped_as_without_the_network(
    name: str, people: list[Drawn], net: OcclusionNet
) -> None:
    (target, points), (source, others) = people[0], people[1]
    with_it, without = (engine_of(name, each)(target, points, source, others) for each in (net, None))
    assert (with_it.rgb == without.rgb).all()
    assert (with_it.mask == without.mask).all()
    assert (with_it.rgb != target).any()


class Certain(OcclusionNet):
    """Sure of a square from the middle of the face to its left, whatever it sees."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        square = torch.full((len(crops), 1, MAP_PX, MAP_PX), -9.0)
        square[:, :, 26:46, 18:34] = 9.0
        return square


@pytest.mark.parametrize("name", ["warp", "hybrid", "style"])
def test_an_engine_leaves_what_is_covered_as_it_is_to_the_level(name: str, people: list[Drawn]) -> None:
    (target, points), (source, others) = people[0], people[1]
    plain, result = (engine_of(name, each)(target, points, source, others) for each in (None, Certain()))
    cover = find_cover(target, points, Certain())
    assert cover is not None
    x0, y0, x1, y1 = result.roi_xyxy
    own = cover.over(result.roi_xyxy)
    as_picture = np.zeros_like(target)
    as_picture[y0:y1, x0:x1] = np.rint(own * 255).astype(np.uint8)[..., None]
    bent = target_in_shape(as_picture, result)[..., 0] > 0.995
    assert bent.sum() > 2000
    assert np.quantile(result.mask[bent], 0.99) < 0.05
    wanted = 255 * target_in_shape(target, result)
    kept, painted = (
        np.abs(each.rgb[y0:y1, x0:x1].astype(float) - wanted).max(-1)[bent] for each in (result, plain)
    )
    assert np.quantile(kept, 0.99) <= 1
    assert np.mean(painted > 2) > 0.3
    bare = ~(bent | (own > 0)) & (plain.mask > 0.9)
    assert result.mask[bare].mean() > 0.9


def test_fingers_stay_on_top_of_a_swap(people: list[Drawn]) -> None:
    (target, points), (source, others) = people[0], people[1]
    drawn, cover = draw_cover(target, points, "fingers", seed=0)
    kept = []
    for engine in (warp_face, ENGINES["warp"]):
        plain, result = (engine(rgb, points, source, others) for rgb in (target, drawn))
        kept.append(cover_measures(result, drawn, cover, plain, points)["cover_kept"])
    assert kept[1] > max(0.7, kept[0] + 0.3)


def test_every_engine_names_the_network_and_its_file_is_small() -> None:
    for name in ENGINES:
        assert models_of(name)["occlusion"] == OCCLUSION.sha256
    assert (WEIGHTS_FOLDER / OCCLUSION.file).stat().st_size <= 140_000
    assert len((WEIGHTS_FOLDER / OCCLUSION.card).read_text().split()) > 150


def test_the_answer_does_not_depend_on_the_batch(people: list[Drawn], net: OcclusionNet) -> None:
    crops = np.stack([rgb[100:228, 100:228] for rgb, _ in people[:3]])
    together = predict_cover(crops, net)
    assert together.shape == (3, MAP_PX, MAP_PX)
    np.testing.assert_allclose(together[1], predict_cover(crops[1:2], net)[0], atol=1e-5)
