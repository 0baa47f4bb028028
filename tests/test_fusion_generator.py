"""The style generator: eighteen layers, identity only where it belongs, target features only as far as allowed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fusion.export import export_onnx
from fusion.generator import (
    IDENTITY_LAYERS,
    STYLE_128,
    STYLE_256,
    AttentionGate,
    ModulatedConv,
    StyleConfig,
    StyleGenerator,
    face_cap,
)

# The 128 px form with a quarter of the channels, for tests that need more than one pass.
SMALL = StyleConfig(128, (96, 96, 64, 32, 16), (80, 64, 40, 24, 12))


def inputs(size: int, count: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    target = F.interpolate(
        torch.rand(count, 3, 16, 16, generator=rng), size=(size, size), mode="bicubic"
    ).clamp(0, 1)
    return target, F.normalize(torch.randn(count, 512, generator=rng))


@pytest.fixture(scope="module")
def net() -> StyleGenerator:
    torch.manual_seed(3)
    made = StyleGenerator(SMALL)
    with torch.no_grad():
        for paint in made.paint:
            paint.weight.mul_(20)  # a fresh one hardly paints
    return made


def test_a_fresh_generator_gives_the_target_back() -> None:
    torch.manual_seed(4)
    target, identity = inputs(128)
    with torch.inference_mode():
        picture = StyleGenerator(SMALL)(target, identity)
    assert 0 < float((picture - target).abs().max()) < 0.1


def test_there_are_three_layers_per_resolution_and_10_to_20_million_parameters() -> None:
    for config, layers in ((STYLE_256, 18), (STYLE_128, 15)):
        with torch.device("meta"):
            made = StyleGenerator(config)
        assert len(made.layers) == layers
        assert config.resolutions[0] == 8
        assert config.resolutions[-1] == config.size_px
        assert 10e6 < sum(p.numel() for p in made.parameters()) < 20e6


def test_the_256_px_generator_paints_a_picture_and_refuses_other_sizes() -> None:
    torch.manual_seed(0)
    made = StyleGenerator(STYLE_256)
    with torch.inference_mode():
        picture = made(*inputs(256, 1))
    assert picture.shape == (1, 3, 256, 256)
    assert bool(torch.isfinite(picture).all())
    assert float(picture.std()) > 1e-3
    with pytest.raises(ValueError, match="256"):
        made(*inputs(128, 1))


def test_another_identity_changes_codes_1_to_6_only(net: StyleGenerator) -> None:
    target, identity = inputs(128)
    with torch.inference_mode():
        features = net.encoder(target)
        one, other = net.styles(features, identity), net.styles(features, identity.flip(0))
    assert len(one) == 15
    changed = [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]
    assert changed == [True] * IDENTITY_LAYERS + [False] * 9


def test_another_target_leaves_the_identitys_codes_alone(net: StyleGenerator) -> None:
    target, identity = inputs(128)
    with torch.inference_mode():
        one = net.styles(net.encoder(target), identity)
        other = net.styles(net.encoder(1 - target), identity)
    changed = [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]
    assert changed == [False] * IDENTITY_LAYERS + [True] * 9


def test_both_inputs_reach_every_pixel(net: StyleGenerator) -> None:
    target, identity = (x.requires_grad_() for x in inputs(128, 1))
    picture = net(target, identity)
    inside = picture[:, :, 56:72, 56:72].square().mean()
    by_target, by_identity = torch.autograd.grad(inside, [target, identity])
    assert float(by_target.abs().sum()) > 0
    assert float(by_identity.abs().sum()) > 0
    assert bool(torch.isfinite(by_target).all() and torch.isfinite(by_identity).all())


def test_every_parameter_learns(net: StyleGenerator) -> None:
    net.zero_grad()
    net(*inputs(128)).square().mean().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert silent == []


def test_demodulation_equals_the_papers_on_the_weights() -> None:
    torch.manual_seed(1)
    layer, x, code = ModulatedConv(6, 5), torch.randn(3, 6, 9, 9), torch.randn(3, 512)
    scale = layer.affine(code)
    expected = []
    for row, s in zip(x, scale, strict=True):
        weight = layer.weight * s[None, :, None, None]  # eq. 1
        weight = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()  # eq. 3
        expected.append(F.conv2d(row[None], weight, padding=1))
    wanted = F.leaky_relu(torch.cat(expected) + layer.bias[:, None, None], 0.2) * 2**0.5
    assert torch.allclose(layer(x, code), wanted, atol=2e-4)


def test_the_start_holds_no_statistics_of_the_target(net: StyleGenerator) -> None:
    features = torch.rand(1, SMALL.encoder[0], 8, 8)
    brighter = 3 * features + 2
    assert torch.allclose(F.instance_norm(features), F.instance_norm(brighter), atol=1e-3)
    assert not any(isinstance(p, torch.nn.Parameter) and p.shape[-2:] == (8, 8) for p in net.parameters())


def test_fine_skips_are_narrow_and_bounded_inside_the_face(net: StyleGenerator) -> None:
    finest = [gate for gate in net.gates if gate.cap.numel() > 1]
    assert [gate.cap.shape[-1] for gate in finest] == [64, 128]
    for gate in finest:
        assert gate.project[0].out_channels == SMALL.skip_width
        side = gate.cap.shape[-1]
        assert float(gate.cap[0, 0, side // 2, side // 2]) == pytest.approx(SMALL.skip_cap)
        assert float(gate.cap[0, 0, 0, 0]) == 1
    h, features = torch.zeros(1, 4, 16, 16), torch.randn(1, 6, 16, 16)
    wide_open = AttentionGate(4, 6, 2, face_cap(16, 0.3))
    torch.nn.init.constant_(wide_open.mask.bias, 50.0)
    out, seen = wide_open(h, features), wide_open.project(features)
    assert torch.allclose(out[..., 8, 8], 0.3 * seen[..., 8, 8], atol=1e-5)
    assert torch.allclose(out[..., 0, 0], seen[..., 0, 0], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_full(net: StyleGenerator, dtype: torch.dtype) -> None:
    import copy

    target, identity = inputs(128, 1)
    with torch.inference_mode():
        full = net(target, identity)
        half = copy.deepcopy(net).to(dtype)(target.to(dtype), identity.to(dtype)).float()
    assert float((full - half).abs().mean()) < 0.02 * float(full.abs().mean())


def test_onnx_gives_the_same_picture(net: StyleGenerator, tmp_path) -> None:
    import onnxruntime

    target, identity = inputs(128, 1, seed=5)
    path = export_onnx(net.eval(), {"target": target, "identity": identity}, tmp_path / "style.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    made = session.run(None, {"target": target.numpy(), "identity": identity.numpy()})[0]
    with torch.inference_mode():
        wanted = net(target, identity).numpy()
    assert np.abs(made - wanted).max() < 2e-4
