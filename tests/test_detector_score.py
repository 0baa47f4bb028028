"""Crop, gates, bands and the loader of the detector, with a network of random weights; knows no trained figures."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.crop import crop_face, face_window
from detector.model import SIZES, EvidenceNet
from detector.score import Calibration, Scorer, fine_detail, flat_share, load_scorer
from detector.weights import DETECTOR
from fusion.face import Face, UInt8Array
from fusion.weights import write_weights
from provenance.errors import WeightsError

CALIBRATION = Calibration(temperature=2.0, offset=0.5, clear=-1.0, weak=1.0, moderate=2.0, strong=3.0)


@pytest.fixture(scope="module")
def net() -> EvidenceNet:
    torch.manual_seed(0)
    return EvidenceNet(SIZES["narrow"]).eval()


def ramp(side: int) -> UInt8Array:
    """A picture whose every pixel tells where it lies."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    return np.stack([x % 256, y % 256, (x + y) % 256], 2).astype(np.uint8)


def face(x0: float, y0: float, x1: float, y1: float) -> Face:
    return Face(np.array([x0, y0, x1, y1], np.float32), np.zeros((5, 2), np.float32), 1.0)


def test_a_small_face_is_cut_out_pixel_for_pixel() -> None:
    crop, window = crop_face(ramp(400), np.array([100, 100, 180, 200], np.float32), 192)
    # 1.25 · 100 = 125 px, trimmed to 112, around the box's middle (140, 150): golden place
    assert (window.left, window.top, window.side) == (78, 88, 112)
    np.testing.assert_array_equal(crop, ramp(400)[88:200, 78:190])


def test_a_large_face_is_averaged_down() -> None:
    picture = np.zeros((800, 800, 3), np.uint8)
    picture[:, ::2] = 200
    crop, window = crop_face(picture, np.array([100, 100, 400, 600], np.float32), 192)
    assert window.side == 625
    assert crop.shape == (192, 192, 3)
    assert abs(float(crop.mean()) - 100) < 2
    assert int(crop.max()) - int(crop.min()) < 50  # no stripe is left: averaged, not picked


@pytest.mark.parametrize("box", [(-50, -50, 60, 60), (350, 350, 500, 460), (0, 0, 900, 900)])
def test_windows_stay_in_the_picture(box: tuple[int, int, int, int]) -> None:
    window = face_window((400, 300), np.array(box, np.float32))
    x0, y0, x1, y1 = window.box_xyxy
    assert 0 <= x0 < x1 <= 300
    assert 0 <= y0 < y1 <= 400
    assert x1 - x0 == y1 - y0


def test_bands_follow_the_thresholds() -> None:
    wanted = {
        -5.0: "none found",
        -1.0: "none found",
        0.0: "inconclusive",
        1.0: "weak",
        2.5: "moderate",
        9.0: "strong",
    }
    assert {value: CALIBRATION.band(value) for value in wanted} == wanted
    assert CALIBRATION.band(float("nan")) == "not applicable"
    assert CALIBRATION.logit(4.5) == 2.0


def test_a_face_too_small_is_not_scored(net: EvidenceNet) -> None:
    (found,) = Scorer(net, CALIBRATION, "cpu").score_faces(ramp(400), [face(10, 10, 60, 70)])
    assert (found.band, found.reliability, found.heatmap) == ("not applicable", 0.0, None)
    assert np.isnan(found.logit)
    assert "60 px" in found.reason


def test_a_blurred_face_and_a_drawing_are_not_scored(net: EvidenceNet) -> None:
    scorer = Scorer(net, replace(CALIBRATION, min_detail=1.0, max_flat=0.6), "cpu")
    flat = np.full((300, 300, 3), 90, np.uint8)
    x, y = np.meshgrid(np.arange(300), np.arange(300))
    grain = np.random.default_rng(0).integers(0, 60, (300, 300, 3)).astype(np.uint8)
    squares = (255 * ((x // 5 + y // 5) % 2)).astype(np.uint8)[..., None].repeat(3, 2)
    bands = [scorer.score_faces(p, [face(50, 50, 200, 200)])[0] for p in (flat, squares, grain)]
    assert "blurred" in bands[0].reason
    assert "drawing" in bands[1].reason
    assert bands[2].band != "not applicable"
    assert fine_detail(flat) == 0.0
    assert flat_share(flat) == 1.0


def test_score_and_heat_map_belong_to_the_band(net: EvidenceNet) -> None:
    always = replace(CALIBRATION, clear=-1e9, weak=-1e8, moderate=-1e7, strong=-1e6, min_reliability=0.0)
    (found,) = Scorer(net, always, "cpu").score_faces(ramp(500), [face(50, 50, 400, 450)])
    assert found.band == "strong"
    assert found.heatmap is not None
    assert found.heatmap.shape == (48, 48)
    assert 0 <= float(found.heatmap.min()) <= float(found.heatmap.max()) <= 1
    assert found.score == pytest.approx(1 / (1 + np.exp(-found.logit)))
    (hidden,) = Scorer(net, replace(always, min_reliability=1.1), "cpu").score_faces(
        ramp(500), [face(50, 50, 400, 450)]
    )
    assert hidden.heatmap is None
    high = replace(CALIBRATION, clear=1e6, weak=1e7, moderate=1e8, strong=1e9)
    (clear,) = Scorer(net, high, "cpu").score_faces(ramp(500), [face(50, 50, 400, 450)])
    assert (clear.band, clear.heatmap) == ("none found", None)


def test_a_score_is_the_mean_over_the_views_of_its_calibration(net: EvidenceNet) -> None:
    rgb, each = ramp(400), face(100, 100, 300, 300)

    def logit(*views: str) -> float:
        scorer = Scorer(net, replace(CALIBRATION, views=views), "cpu")
        return scorer.score_faces(rgb, [each])[0].logit

    single = [logit("plain"), logit("coded"), logit("shifted")]
    assert len({round(value, 4) for value in single}) == 3
    assert logit("plain", "coded", "shifted") == pytest.approx(np.mean(single), abs=1e-5)
    small = Scorer(net, replace(CALIBRATION, views=("shifted",)), "cpu")
    assert np.isfinite(small.score_faces(rgb, [face(0, 0, 70, 80)])[0].logit)


def test_a_header_names_its_views_and_no_others() -> None:
    told = json.loads(json.dumps(asdict(replace(CALIBRATION, views=("coded", "shifted")))))
    assert Calibration.from_note({"calibration": told}).views == ("coded", "shifted")
    told.pop("views")
    assert Calibration.from_note({"calibration": told}).views == ("plain",)
    for wrong in ([], ["mirrored"]):
        with pytest.raises(WeightsError) as caught:
            Calibration.from_note({"calibration": told | {"views": wrong}})
        assert caught.value.code == "weights.uncalibrated"


def test_scores_do_not_depend_on_the_other_faces(net: EvidenceNet) -> None:
    scorer, faces = Scorer(net, CALIBRATION, "cpu"), [face(10, 10, 150, 160), face(200, 200, 380, 390)]
    together = [f.logit for f in scorer.score_faces(ramp(400), faces)]
    alone = [scorer.score_faces(ramp(400), [f])[0].logit for f in faces]
    assert together == alone
    assert scorer.score_faces(ramp(400), []) == []


def write(net: EvidenceNet, folder: Path, note: dict[str, object]) -> str:
    return write_weights(
        folder / DETECTOR.file, net.state_dict(), {key: json.dumps(value) for key, value in note.items()}
    )


def test_a_written_detector_loads_with_its_calibration(net: EvidenceNet, tmp_path: Path) -> None:
    note = {"config": net.config.as_dict(), "calibration": asdict(CALIBRATION)}
    spec = replace(DETECTOR, sha256=write(net, tmp_path, note))
    scorer = load_scorer("cpu", spec, tmp_path)
    assert scorer.calibration == CALIBRATION
    direct = Scorer(net, CALIBRATION, "cpu").score_faces(ramp(400), [face(100, 100, 300, 300)])[0]
    loaded = scorer.score_faces(ramp(400), [face(100, 100, 300, 300)])[0]
    assert loaded.logit == pytest.approx(direct.logit, abs=0.05)  # half precision on disk


@pytest.mark.parametrize(
    ("note", "code"),
    [
        ({"config": SIZES["narrow"].as_dict()}, "weights.uncalibrated"),
        (
            {"config": {"backbone": "resnet18d", "colour": 3}, "calibration": asdict(CALIBRATION)},
            "weights.mismatch",
        ),
        ({"config": SIZES["resnet18d"].as_dict(), "calibration": asdict(CALIBRATION)}, "weights.mismatch"),
        ({"size": "narrow", "calibration": {"temperature": 1.0}}, "weights.uncalibrated"),
    ],
)
def test_headers_that_do_not_fit_are_refused(
    net: EvidenceNet, tmp_path: Path, note: dict[str, object], code: str
) -> None:
    spec = replace(DETECTOR, sha256=write(net, tmp_path, note))
    with pytest.raises(WeightsError) as caught:
        load_scorer("cpu", spec, tmp_path)
    assert caught.value.code == code


def test_without_registered_weights_there_is_no_scorer(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_scorer("cpu", replace(DETECTOR, sha256=""), tmp_path)
    assert caught.value.code == "weights.missing"
    with pytest.raises(WeightsError) as gone:
        load_scorer("cpu", replace(DETECTOR, sha256="0" * 64), tmp_path)
    assert gone.value.code == "weights.missing"
