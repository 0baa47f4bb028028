"""The membrane at the outline on results whose colour step is known."""

import cv2
import numpy as np
import pytest
import torch
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion import mask, measures, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.seam import SeamOptions, close_seam, membrane_rim, membrane_step
from fusion.swap import finish
from fusion.train.generator_seam import FACE_WIDTH, close_seams, membrane_steps
from fusion.warp import WarpResult, warp_face

POINTS = landmarks(30, (160, 160), 70)
WIDTH = mesh.face_width(POINTS)


def face() -> UInt8Array:
    return picture(POINTS, (320, 320), PALE, 3)


def painted(rgb: UInt8Array, change: tuple[int, int, int]) -> tuple[WarpResult, FloatArray]:
    """The face with another colour within its outline, and how far that was painted."""
    hull = mask.fill_contour(POINTS[: mesh.NUM_MESH], mesh.OVAL, (320, 320))
    share = mask.feather_inside(hull, 0.06 * WIDTH)
    new = np.clip(np.rint(rgb + share[..., None] * np.array(change)), 0, 255).astype(np.uint8)
    return WarpResult(new, share, (0, 0, 320, 320), hull > 0), share


@pytest.mark.parametrize("change", [(25, 25, 25), (-25, -20, -15), (15, -5, -10)])
def test_a_step_in_colour_is_taken_away_at_the_outline_and_kept_in_the_middle(
    change: tuple[int, int, int],
) -> None:
    rgb = face()
    result, share = painted(rgb, change)
    closed = close_seam(rgb, result, POINTS)
    before = measures.seam_delta_e(result, rgb, WIDTH)
    after = measures.seam_delta_e(WarpResult(closed, share, result.roi_xyxy, result.altered), rgb, WIDTH)
    assert before > 2
    assert after < 0.35 * before
    deep = cv2.distanceTransform((share > 0).astype(np.uint8), cv2.DIST_L2, 5) > 0.14 * WIDTH
    assert deep.any()
    assert (closed[deep] == result.rgb[deep]).all()
    assert (closed[share == 0] == rgb[share == 0]).all()


def test_where_nothing_is_missing_nothing_is_added() -> None:
    rgb = face()
    result, _ = painted(rgb, (0, 0, 0))
    assert (close_seam(rgb, result, POINTS) == rgb).all()
    nowhere = WarpResult(rgb, np.zeros((320, 320), np.float32), (0, 0, 320, 320), np.zeros((320, 320), bool))
    assert (close_seam(rgb, nowhere, POINTS) == rgb).all()


def test_more_rounds_leave_less_and_the_cap_holds() -> None:
    inside = np.zeros((80, 80), np.float32)
    inside[10:70, 10:70] = 1
    missing = np.full((80, 80, 3), 0.1, np.float32)
    once, thrice = (membrane_step(missing, inside, 100, SeamOptions(rounds=n)) for n in (1, 3))
    left = [np.abs(missing - added)[15, 40].mean() for added in (once, thrice)]
    assert left[1] < left[0] < 0.1
    assert membrane_step(8 * missing, inside, 100, SeamOptions(rounds=1, cap=0.2)).max() <= 0.2001
    assert (once[inside == 0] == 0).all()


def test_the_finish_closes_the_seam_of_a_swap() -> None:
    rgb = face()
    points = landmarks(31, (150, 150), 66)
    source = picture(points, (300, 300), BROWN, 4)
    swapped = warp_face(rgb, POINTS, source, points)
    plain, closed = (finish(rgb, POINTS, swapped, None, None, **only) for only in ({"seam": None}, {}))
    assert (plain.rgb == swapped.rgb).all()
    seams = [measures.seam_delta_e(each, rgb, WIDTH) for each in (plain, closed)]
    assert seams[1] < seams[0]
    assert (closed.rgb[~padded(swapped)] == swapped.rgb[~padded(swapped)]).all()


def padded(result: WarpResult) -> np.ndarray:
    """`altered` over the whole picture."""
    whole = np.zeros((320, 320), bool)
    x0, y0, x1, y1 = result.roi_xyxy
    whole[y0:y1, x0:x1] = result.altered
    return whole


def test_membrane_of_a_training_batch_is_that_of_the_engine() -> None:
    rng = np.random.default_rng(3)
    inside = np.zeros((2, 64, 64), np.float32)
    cv2.ellipse(inside[0], (32, 35), (20, 25), 0, 0, 360, 1, -1)
    cv2.ellipse(inside[1], (30, 33), (17, 22), 20, 0, 360, 1, -1)
    missing = np.stack([cv2.resize(rng.random((8, 8, 3), np.float32) - 0.5, (64, 64)) for _ in range(2)])
    width, options = 64 * FACE_WIDTH, SeamOptions()
    rims = [membrane_rim(one, width, options) for one in inside]
    fade, near = (torch.from_numpy(np.stack(maps))[:, None] for maps in zip(*rims, strict=True))
    added = membrane_steps(torch.from_numpy(missing).permute(0, 3, 1, 2), fade, near, width, options)
    for number in range(2):
        step = membrane_step(missing[number], inside[number], width, options)
        assert np.abs(step).max() > 0.1
        assert added[number].permute(1, 2, 0).numpy() == pytest.approx(step, abs=1e-4)


def test_a_hole_in_the_trust_is_no_rim() -> None:
    trust = torch.zeros(1, 1, 128, 128)
    trust[:, :, 24:104, 28:100] = 1
    made, target = torch.full((1, 3, 128, 128), 0.4), torch.full((1, 3, 128, 128), 0.6)
    closed = close_seams(made, target, trust)
    trust[:, :, 56:66, 44:60] = 0
    assert torch.equal(close_seams(made, target, trust), closed)
    assert torch.equal(closed[:, :, 60:68, 60:68], made[:, :, 60:68, 60:68])
    assert torch.equal(closed[:, :, :20], made[:, :, :20])


def test_membrane_of_a_training_batch_has_a_gradient() -> None:
    made = torch.full((1, 3, 128, 128), 0.4, requires_grad=True)
    trust = torch.zeros(1, 1, 128, 128)
    trust[:, :, 24:104, 28:100] = 1
    closed = close_seams(made, torch.full((1, 3, 128, 128), 0.6), trust)
    (gradient,) = torch.autograd.grad(closed.sum(), made)
    assert float(gradient[0, 0, 64, 64]) == pytest.approx(1, abs=1e-3)  # the middle stays as painted
    assert float(gradient[0, 0, 64, 30]) < 0.5  # at the rim the target decides
    assert 0.52 < float(closed[0, 0, 64, 30].detach()) < 0.61
