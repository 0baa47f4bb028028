"""The network that mends a composite, and fields drawn into pictures of any size."""

import dataclasses
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion import mesh
from fusion.align import apply_matrix, five_points
from fusion.covers import draw_cover
from fusion.engines import HybridEngine, StyleEngine, hybrid_face, predict_fields, spared_contours
from fusion.export import export_onnx
from fusion.face import UInt8Array
from fusion.generator import StyleConfig, StyleGenerator
from fusion.hybrid import HYBRID_PX, Block, HybridNet, drawn_share, mend
from fusion.identity import load_identity
from fusion.native import (
    TEMPLATE_128,
    apply_fields,
    crop_share,
    fields_in_roi,
    generator_crop_from_image,
    spare,
)
from fusion.warp import WarpOptions, warp_face
from fusion.weights import HYBRID, IDENTITY, STYLE, WEIGHTS_FOLDER, WeightSpec


def woken(seed: int = 0, amount: float = 0.05) -> HybridNet:
    """A network whose last layer is not zero, as after training."""
    torch.manual_seed(seed)
    net = HybridNet()
    torch.nn.init.normal_(net.out.weight, std=amount)
    return net.eval()


def stir(net: HybridNet) -> list[Block]:
    """Give the identity and every block a say; the blocks that the identity modulates."""
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    for block in blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.05)
    styled = [block for block in blocks if block.affine is not None]
    for block in styled:
        assert block.affine is not None
        torch.nn.init.normal_(block.affine.weight, std=0.3)
    return styled


def inputs(count: int = 2) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    coarse = [torch.rand(count, 3, 16, 16, generator=rng) for _ in range(2)]
    target, composite = (F.interpolate(c, size=(128, 128), mode="bilinear") for c in coarse)
    trust = torch.zeros(count, 1, 128, 128)
    trust[:, :, 30:100, 30:100] = 1
    identity = F.normalize(torch.randn(count, 512, generator=rng))
    return {"target": target, "composite": composite, "trust": trust, "identity": identity}


def test_a_fresh_network_gives_nearly_the_composite_back() -> None:
    given = inputs()
    with torch.inference_mode():
        fields = HybridNet()(**given)
        made = mend(given["target"], given["composite"], fields)
    assert fields.shape == (2, 4, 128, 128)
    assert float(fields[:, :3].abs().max()) == 0
    assert float((made - given["composite"]).abs().max()) < 0.05


def test_the_gate_lets_the_target_through() -> None:
    given = inputs()
    fields = torch.zeros(2, 4, 128, 128)
    fields[:, 3] = 1
    assert torch.allclose(mend(given["target"], given["composite"], fields), given["target"], atol=1e-6)


def test_every_input_matters_and_the_identity_enters_at_8_to_32_px_only() -> None:
    net, given = woken(amount=0.3), inputs(1)
    for value in given.values():
        value.requires_grad_()
    seen: list[tuple[int, ...]] = []
    for block in stir(net):
        block.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[-2:])))
    net(**given).square().mean().backward()
    for name, value in given.items():
        assert value.grad is not None, name
        assert float(value.grad.abs().sum()) > 0, name
        assert bool(torch.isfinite(value.grad).all()), name
    assert sorted(seen) == [(8, 8)] * 4 + [(16, 16)] * 4 + [(32, 32)] * 2


def test_no_grid_at_the_start() -> None:
    net, given = HybridNet(), inputs(1)
    torch.manual_seed(2)
    torch.nn.init.normal_(net.out.weight, std=0.2)
    with torch.inference_mode():
        fields = net(**given)[0, :3]
    phases = torch.stack([fields[:, y::4, x::4].mean() for y in range(4) for x in range(4)])
    inner = fields[:, 8:-8, 8:-8]
    assert float(phases.std()) < 0.15 * float(inner.std())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_moves_a_picture_by_less_than_a_grey_level(dtype: torch.dtype) -> None:
    import copy

    net, given = woken(), inputs(1)
    with torch.inference_mode():
        full = net(**given)
        half = copy.deepcopy(net).to(dtype)(**{k: v.to(dtype) for k, v in given.items()}).float()
    allowed = 1 / 255 if dtype is torch.float16 else 4 / 255
    assert float((full - half).abs().max()) < allowed


def test_onnx_gives_the_same_fields(tmp_path) -> None:
    import onnxruntime

    net, given = woken(), inputs(1)
    path = export_onnx(net, given, tmp_path / "hybrid.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    made = session.run(None, {name: value.numpy() for name, value in given.items()})[0]
    with torch.inference_mode():
        wanted = net(**given).numpy()
    assert np.abs(made - wanted).max() < 1e-4


def test_the_crop_puts_the_face_on_the_template_at_any_size() -> None:
    points = landmarks(4, (900, 500), 300, yaw_degrees=10)
    for size in (128, 256):
        crop = generator_crop_from_image(points, size)
        placed = apply_matrix(crop, five_points(points)) * (128 / size)
        assert np.abs(placed - TEMPLATE_128).mean() < 4
        oval = apply_matrix(crop, points[:468]) * (128 / size)
        assert oval.min() > 4
        assert oval.max() < 124


@pytest.fixture(scope="module")
def scene() -> tuple[UInt8Array, np.ndarray, UInt8Array, np.ndarray]:
    """A 1080p target with fine noise, and a source."""
    points, other = landmarks(2, (960, 540), 230), landmarks(1, (256, 270), 110)
    return picture(points, (1080, 1920), PALE, 2), points, picture(other, (512, 512), BROWN, 1), other


def test_fields_change_coarse_bands_and_leave_fine_ones(scene) -> None:
    target, points, source, other = scene
    composite = warp_face(target, points, source, other)
    crop = generator_crop_from_image(points)
    fields = np.zeros((HYBRID_PX, HYBRID_PX, 4), np.float32)
    fields[..., 0] = 0.1
    out = apply_fields(target, composite, fields, crop)
    x0, y0, _, _ = composite.roi_xyxy
    x, y = np.rint(points[5]).astype(int)  # on the nose, far from every rim
    window = (slice(y - 40, y + 40), slice(x - 40, x + 40))
    change = out[window].astype(float) - composite.rgb[window]
    assert np.abs(change[..., 0] - 25.5).max() < 1.01
    assert np.abs(change[..., 1:]).max() == 0
    assert (
        np.diff(change[..., 0], axis=0).std() < 0.75
    )  # rounding only: the composite's own grain is untouched
    altered = np.zeros(target.shape[:2], bool)
    x0, y0, x1, y1 = composite.roi_xyxy
    altered[y0:y1, x0:x1] = composite.altered
    assert (out[~altered] == target[~altered]).all()


def test_nothing_is_drawn_on_a_cover_that_the_composite_left_on_top(scene) -> None:
    target, points, source, other = scene
    composite = warp_face(target, points, source, other)
    x0, y0, _, _ = composite.roi_xyxy
    x, y = np.rint(points[5]).astype(int)
    share = composite.mask.copy()
    share[y - y0 - 10 : y - y0 + 10, x - x0 - 10 : x - x0 + 10] = 0
    covered = dataclasses.replace(composite, mask=share)
    fields = np.zeros((HYBRID_PX, HYBRID_PX, 4), np.float32)
    fields[..., :3] = -0.2
    out = apply_fields(target, covered, fields, generator_crop_from_image(points))
    inside, beside = (slice(y - 10, y + 10), slice(x - 10, x + 10)), (y, x + 14)
    assert (out[inside] == composite.rgb[inside]).all()
    assert (composite.rgb[beside].astype(int) - out[beside] > 40).all()


def test_the_gate_gives_the_targets_finest_bands_back(scene) -> None:
    target, points, source, other = scene
    composite = warp_face(target, points, source, other)
    fields = np.zeros((HYBRID_PX, HYBRID_PX, 4), np.float32)
    fields[..., 3] = 1
    out = apply_fields(target, composite, fields, generator_crop_from_image(points))
    x, y = np.rint(points[5]).astype(int)
    window = (slice(y - 40, y + 40), slice(x - 40, x + 40))
    assert (out[window] == target[window]).all()
    assert (composite.rgb[window] != target[window]).any()


def test_fields_end_with_the_source_and_with_the_face() -> None:
    trust = torch.zeros(1, 1, 128, 128)
    trust[:, :, :, 24:104] = 1
    trust[:, :, 48:56, 36:52] = 0  # an eye
    share = drawn_share(trust)[0, 0]
    assert float(share[40:60, 36:54].min()) > 0.95
    assert float(share[:, :16].max()) == float(share[:, 112:].max()) == 0
    assert float(share[:14].max()) < 0.01
    assert float(share[64, 64]) == 1
    assert float(share.diff(dim=0).abs().max()) < 0.15


def test_the_share_of_the_source_is_seen_in_the_crop(scene) -> None:
    target, points, source, other = scene
    composite = warp_face(target, points, source, other)
    crop = generator_crop_from_image(points)
    share = crop_share(composite, crop, 128)
    assert share.shape == (128, 128)
    x, y = np.rint(apply_matrix(crop, points[205])).astype(int)
    assert share[y, x] > 0.95
    assert share[:4].max() == 0
    back = fields_in_roi(share[..., None], crop, composite.roi_xyxy)[..., 0]
    assert np.abs(back - composite.mask).mean() < 0.03


def painting() -> StyleGenerator:
    """A small `style` that changes every pixel of the face."""
    torch.manual_seed(0)
    net = StyleGenerator(StyleConfig(128, (32, 32, 16, 16, 16), (16, 16, 16, 16, 16)))
    with torch.no_grad():
        net.paint[-1].weight.mul_(20)
        net.paint[-1].bias.fill_(0.8)
    return net


@pytest.mark.parametrize("kind", ["hybrid", "style"])
def test_an_engine_alters_the_face_alone_and_takes_a_known_identity(scene, kind: str) -> None:
    target, points, source, other = scene
    identity = load_identity()
    if kind == "hybrid":
        net = woken(amount=0.1)
        stir(net)
        engine = HybridEngine(net, identity)
    else:
        engine = StyleEngine(painting(), identity)
    before = target.copy()
    result = engine(target, points, source, other)
    assert (target == before).all()
    x0, y0, x1, y1 = result.roi_xyxy
    altered = np.zeros(target.shape[:2], bool)
    altered[y0:y1, x0:x1] = result.altered
    assert (result.rgb[~altered] == target[~altered]).all()
    assert (result.rgb[altered] != target[altered]).any(-1).mean() > 0.5
    assert 0 <= result.mask.min() <= result.mask.max() <= 1
    assert result.landmarks_px is not None
    told = engine(target, points, source, other, identity=np.eye(1, 512, 7, dtype=np.float32)[0])
    assert (told.rgb != result.rgb).any()
    again = engine(target, points, source, other)
    assert (again.rgb == result.rgb).all()


def test_the_style_engine_keeps_the_targets_finest_bands(scene) -> None:
    target, points, source, other = scene
    out = StyleEngine(painting(), load_identity())(target, points, source, other).rgb
    x, y = np.rint(points[205]).astype(int)
    window = (slice(y - 24, y + 24), slice(x - 24, x + 24))
    fine = [p[window].astype(float)[1:, 1:] - p[window].astype(float)[:-1, :-1] for p in (out, target)]
    assert np.abs(out[window].astype(float) - target[window]).mean() > 3
    assert np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1] > 0.8


def test_the_style_engine_leaves_eyes_mouth_and_covers_to_the_target(scene) -> None:
    target, points, source, other = scene
    covered, share = draw_cover(target, points, "microphone")
    result = StyleEngine(painting(), load_identity())(covered, points, source, other)
    changed = np.abs(result.rgb.astype(int) - covered).max(-1)
    for contour in (mesh.LEFT_EYE, mesh.RIGHT_EYE, mesh.INNER_LIPS):
        x, y = np.rint(points[list(contour), :2].mean(0)).astype(int)
        assert changed[y, x] <= 1
    x, y = np.rint(points[205]).astype(int)
    assert changed[y, x] > 10
    x0, y0, x1, y1 = result.roi_xyxy
    core = share[y0:y1, x0:x1] > 0.9
    assert core.sum() > 500
    assert (changed[y0:y1, x0:x1][core] <= 10).mean() > 0.8


def test_fields_do_not_depend_on_the_batch_or_the_run(scene) -> None:
    net, rng = woken(), np.random.default_rng(0)
    crops = [rng.integers(0, 255, (128, 128, 3)).astype(np.uint8) for _ in range(2)]
    vector = np.eye(1, 512, dtype=np.float32)[0]
    one = predict_fields(net, *crops, np.ones((128, 128), np.float32), vector)
    two = predict_fields(net, *crops, np.ones((128, 128), np.float32), vector)
    assert one.shape == (128, 128, 4)
    assert (one == two).all()


def test_the_network_that_ships_changes_the_face_a_little_and_nothing_else(scene) -> None:
    target, points, source, other = scene
    result = hybrid_face(target, points, source, other)
    composite = warp_face(target, points, source, other)
    x0, y0, x1, y1 = result.roi_xyxy
    altered = np.zeros(target.shape[:2], bool)
    altered[y0:y1, x0:x1] = result.altered
    assert (result.rgb[~altered] == target[~altered]).all()
    change = np.abs(result.rgb[altered].astype(int) - composite.rgb[altered])
    assert 0.2 < change.mean() < 12
    assert set(result.timings_ms) == {"cover", "geometry", "look", "render", "mend"}
    cast = (result.rgb[altered].astype(float) - composite.rgb[altered]).mean(0)
    assert np.ptp(cast) < 2  # no tint


def test_nothing_is_painted_between_the_lips_nor_between_the_lids() -> None:
    points = landmarks(2, (256, 256), 110)
    lower = [*mesh.INNER_LIPS[11:], 17]
    points[lower, 1] += 16
    crop = generator_crop_from_image(points)
    ones = np.ones((HYBRID_PX, HYBRID_PX, 4), np.float32)
    spared = spare(ones, points, crop, spared_contours(WarpOptions()))
    middles = [[13, 14], [159, 145], [386, 374]]  # of the mouth and of both eyes
    at = np.rint(apply_matrix(crop, np.stack([points[pair].mean(0) for pair in middles]))).astype(int)
    assert spared[at[:, 1], at[:, 0]].max() < 0.05
    cheeks = np.rint(apply_matrix(crop, points[[205, 425]])).astype(int)
    assert spared[cheeks[:, 1], cheeks[:, 0]].min() == 1
    own = WarpOptions(keep_eyes=False)
    assert spare(ones, points, crop, spared_contours(own))[at[1:, 1], at[1:, 0]].min() > 0.9
    assert spared_contours(WarpOptions(keep_eyes=False, keep_mouth=False)) == []


@pytest.mark.parametrize("spec", [HYBRID, STYLE], ids=lambda s: s.name)
def test_the_shipped_weights_belong_to_the_shipped_identity_network(spec: WeightSpec) -> None:
    """They learnt from its vectors: when another one ships, measure with it or train on, and name it in the card."""
    card = (WEIGHTS_FOLDER / spec.card).read_text(encoding="utf-8")
    named = re.search(r"identity\.safetensors\s+of sha256 ([0-9a-f]{8,})", card)
    assert named is not None
    assert IDENTITY.sha256.startswith(named[1])
