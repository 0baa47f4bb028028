"""The recogniser outside every loss: read as dlib reads it, aligned as dlib aligns, and refused when altered."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fusion_warp import PALE, landmarks, picture

from fusion.align import similarity_from_points, warp_crop
from fusion.native import generator_crop_from_image
from fusion.train import judge
from provenance.errors import WeightsError

FILE = judge.judge_file()
installed = pytest.mark.skipif(FILE is None, reason="the extra `judge` is not installed")


def packed(number: int) -> bytes:
    size = max(1, math.ceil(number.bit_length() / 8))
    return bytes([size]) + number.to_bytes(size, "little")


def tensor(values: torch.Tensor) -> bytes:
    sizes = b"".join(packed(size) for size in (values.numel(), 1, 1, 1))
    return packed(2) + sizes + values.numpy().astype("<f4").tobytes()


def test_a_file_is_read_with_its_affine_layers_folded_in() -> None:
    torch.manual_seed(1)
    wanted = judge.JudgeNet().requires_grad_(False)
    data = b"\x01\x01\x00"
    for layer in wanted.convolutions():
        weights = torch.cat([layer.weight.flatten(), torch.zeros(layer.out_channels)])
        gain, shift = torch.full((layer.out_channels,), 2.0), torch.randn(layer.out_channels)
        data += b"\x01\x05con_4" + tensor(weights) + b"\x00\x01\x07affine_" + tensor(torch.cat([gain, shift]))
        layer.weight.mul_(2)
        layer.bias.copy_(shift)
    data += b"\x04fc_2" + packed(128) + packed(256) + tensor(wanted.last.weight.T.contiguous().flatten())
    found = judge.read_net(data)
    chips = torch.rand(2, 3, 150, 150)
    assert torch.allclose(found(chips), wanted(chips), atol=1e-4)
    assert float(found(chips).norm(dim=1).min()) > 0.01


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / judge.JUDGE_FILE).write_bytes(b"\x05con_4")
    with pytest.raises(WeightsError) as caught:
        judge.load_judge(tmp_path / judge.JUDGE_FILE)
    assert caught.value.code == "weights.altered"


@installed
def test_vectors_are_dlibs_own() -> None:
    dlib = pytest.importorskip("dlib", reason="dlib itself is not installed")
    points = landmarks(3, (160, 160), 70)
    rgb = picture(points, (320, 320), PALE, 3)
    shape = dlib.full_object_detection(
        dlib.rectangle(90, 90, 230, 230),
        [dlib.point(*p) for p in judge.judged_points(points).round().astype(int)],
    )
    assert FILE is not None
    chip = dlib.get_face_chip(rgb, shape, size=150, padding=0.25)
    theirs = np.array(dlib.face_recognition_model_v1(str(FILE)).compute_face_descriptor(chip))
    theirs /= np.linalg.norm(theirs)
    mine = judge.load_judge(FILE)
    assert np.abs(mine.vectors([np.ascontiguousarray(chip)])[0] - theirs).max() < 1e-5
    chip_from_image = similarity_from_points(judge.judged_points(points), judge.CHIP_POINTS)
    ours = warp_crop(rgb, chip_from_image, judge.CHIP_PX, border="replicate")
    assert np.abs(ours.astype(int) - chip).mean() < 6
    assert mine.embed(rgb, points) @ theirs > 0.98


@installed
def test_a_crop_gives_nearly_the_pictures_vector() -> None:
    found = judge.find_judge()
    assert found is not None
    points = [landmarks(k, (160, 160), 70) for k in (3, 4)]
    rgbs = [picture(one, (320, 320), PALE, k) for k, one in enumerate(points)]
    crops = [
        warp_crop(rgb, generator_crop_from_image(one), 128, border="replicate")
        for rgb, one in zip(rgbs, points, strict=True)
    ]
    by_crop = found.embed_crops(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255).numpy()
    by_picture = np.stack([found.embed(rgb, one) for rgb, one in zip(rgbs, points, strict=True)])
    assert np.allclose(np.linalg.norm(by_crop, axis=1), 1, atol=1e-5)
    assert (by_crop * by_picture).sum(1).min() > 0.97
