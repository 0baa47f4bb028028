"""The warp engine at several sizes: untouched pixels stay to the bit, the face changes, bad input is refused."""

from pathlib import Path

import numpy as np
import pytest

from fusion import blend, mesh
from fusion.pose import load_shape_model
from fusion.warp import WarpOptions, outline_share, plan_geometry, plan_look, warp_face
from fusion.warp import _sample as sample
from fusion.warp import _sample_source as sample_source
from provenance.errors import FaceError


def landmarks(seed: int, centre: tuple[float, float], eyes_px: float, yaw_degrees: float = 0) -> np.ndarray:
    """478 points of a head of the model, irises in the middle of the eyes."""
    model, rng = load_shape_model(), np.random.default_rng(seed)
    shape = model.mean + np.tensordot(0.7 * rng.standard_normal(len(model.identity)), model.identity, 1)
    a = np.radians(yaw_degrees)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0]])
    points = (eyes_px * shape @ turn.T * [1, -1] + centre).astype(np.float32)
    irises = []
    for eye in (mesh.LEFT_EYE, mesh.RIGHT_EYE):
        middle, radius = points[list(eye)].mean(0), 0.09 * eyes_px
        irises += [middle, *(middle + radius * np.array(d) for d in ((1, 0), (0, -1), (-1, 0), (0, 1)))]
    return np.concatenate([points, np.array(irises, np.float32)]).astype(np.float32)


def picture(points: np.ndarray, size: tuple[int, int], skin: tuple[int, int, int], seed: int) -> np.ndarray:
    """Noise with a skin-coloured face, dark brows, red lips, white eyes and brown irises drawn at the landmarks."""
    import cv2

    rng = np.random.default_rng(seed)
    rgb = np.repeat(np.repeat(rng.integers(60, 140, (size[0] // 8 + 1, size[1] // 8 + 1, 3)), 8, 0), 8, 1)
    rgb = np.ascontiguousarray(rgb[: size[0], : size[1]].astype(np.uint8))
    parts = [(mesh.OVAL, skin), (mesh.OUTER_LIPS, (170, 70, 80)), (mesh.INNER_LIPS, (60, 20, 20))]
    parts += [(c, (50, 35, 25)) for c in (mesh.LEFT_BROW, mesh.RIGHT_BROW)]
    parts += [(c, (235, 235, 235)) for c in (mesh.LEFT_EYE, mesh.RIGHT_EYE)]
    for contour, colour in parts:
        cv2.fillPoly(rgb, [np.rint(points[list(contour)]).astype(np.int32)], colour)
    for iris in (mesh.LEFT_IRIS, mesh.RIGHT_IRIS):
        middle = np.rint(points[iris[0]]).astype(int).tolist()
        cv2.circle(rgb, middle, max(1, round(0.09 * float(np.ptp(points[:, 0])) / 2.2)), (110, 70, 40), -1)
    noise = rng.integers(-4, 5, rgb.shape)
    return np.clip(rgb.astype(int) + noise, 0, 255).astype(np.uint8)


PALE, BROWN = (222, 184, 160), (141, 94, 68)


@pytest.fixture(scope="module")
def source() -> tuple[np.ndarray, np.ndarray]:
    points = landmarks(1, (256, 270), 110)
    return picture(points, (512, 512), BROWN, 1), points


@pytest.mark.parametrize(
    ("size", "eyes_px"),
    [((512, 512), 110), ((1080, 1920), 230), ((2160, 3840), 420)],
    ids=["512", "1080p", "4k"],
)
def test_outside_the_face_nothing_changes_at_any_size(
    source: tuple[np.ndarray, np.ndarray], size: tuple[int, int], eyes_px: float
) -> None:
    points = landmarks(2, (size[1] / 2, size[0] / 2), eyes_px)
    target = picture(points, size, PALE, 2)
    before = target.copy()
    result = warp_face(target, points, *source)
    assert result.rgb.shape == target.shape
    assert (target == before).all()
    changed = (result.rgb != target).any(-1)
    x0, y0, x1, y1 = result.roi_xyxy
    allowed = np.zeros(size, bool)
    allowed[y0:y1, x0:x1] = result.altered
    assert not (changed & ~allowed).any()
    assert changed.sum() > 0.3 * eyes_px**2
    assert allowed.sum() < 12 * eyes_px**2
    assert set(result.timings_ms) == {"geometry", "look", "render"}


def test_the_share_of_the_source_lies_within_the_altered_region(
    source: tuple[np.ndarray, np.ndarray],
) -> None:
    points = landmarks(2, (256, 256), 110)
    result = warp_face(picture(points, (512, 512), PALE, 2), points, *source)
    assert result.mask.shape == result.altered.shape
    assert 0 <= result.mask.min() <= result.mask.max() <= 1
    assert (result.mask[~result.altered] == 0).all()
    assert result.mask.max() > 0.99


def test_skin_takes_the_targets_colour(source: tuple[np.ndarray, np.ndarray]) -> None:
    points = landmarks(2, (256, 256), 110)
    target = picture(points, (512, 512), PALE, 2)
    out = warp_face(target, points, *source).rgb
    x, y = np.rint(points[205]).astype(int)
    assert np.abs(out[y - 4 : y + 5, x - 4 : x + 5].mean((0, 1)) - PALE).max() < 8


def test_light_at_the_outline_follows_a_shining_forehead(source: tuple[np.ndarray, np.ndarray]) -> None:
    points = landmarks(2, (256, 256), 110)
    target = picture(points, (512, 512), PALE, 2)
    y, x = np.mgrid[:512, :512]
    shine = np.exp(-((x - points[10, 0]) ** 2 + (y - points[10, 1]) ** 2) / (2 * 30.0**2))[..., None]
    shining = np.clip(target + shine * (255 - target) * 0.3, 0, 255).astype(np.uint8)
    plan = plan_geometry((512, 512), points, source[1], WarpOptions(), load_shape_model())
    over, under = sample_source(source[0], plan, plan.size), sample(shining, plan.from_target, plan.size)
    top = np.rint(plan.points[10]).astype(int)
    apart = []
    for options in (WarpOptions(rim_scale=1.0), WarpOptions()):
        _, light = plan_look(over, under, plan, options)
        away = blend.blur(blend.relight(over, light) - under, 0.03 * plan.width)
        apart.append(np.abs(away[top[1] + 4 : top[1] + 14, top[0] - 12 : top[0] + 12]).mean())
    assert apart[1] < 0.6 * apart[0]


def test_mouth_and_eyes_stay_the_targets(source: tuple[np.ndarray, np.ndarray]) -> None:
    points = landmarks(2, (256, 256), 110)
    target = picture(points, (512, 512), PALE, 2)
    options = WarpOptions(shape_blend=0, iris_match=0)
    kept = warp_face(target, points, *source, options=options)
    taken = warp_face(target, points, *source, options=WarpOptions(shape_blend=0, keep_eyes=False))
    x0, y0, _, _ = kept.roi_xyxy
    x, y = np.rint(points[list(mesh.LEFT_EYE)].mean(0)).astype(int)
    assert kept.mask[y - y0, x - x0] < 0.05
    assert taken.mask[y - y0, x - x0] > 0.9
    assert np.abs(kept.rgb[y, x].astype(int) - target[y, x]).max() <= 2


def test_a_face_on_itself_stays_nearly_what_it_is() -> None:
    points = landmarks(2, (256, 256), 110)
    target = picture(points, (512, 512), PALE, 2)
    out = warp_face(target, points, target, points).rgb
    x0, y0, x1, y1 = (256 - 100, 256 - 100, 256 + 100, 256 + 100)
    error = np.abs(out[y0:y1, x0:x1].astype(int) - target[y0:y1, x0:x1])
    assert error.mean() < 3


def test_a_turned_head_and_a_face_at_the_rim_work(source: tuple[np.ndarray, np.ndarray]) -> None:
    points = landmarks(3, (60, 80), 110, yaw_degrees=35)
    target = picture(points, (300, 280), PALE, 3)
    result = warp_face(target, points, *source)
    x0, y0, x1, y1 = result.roi_xyxy
    assert (x0, y0) == (0, 0)
    assert x1 <= 280
    assert y1 <= 300
    assert (result.rgb != target).any()


def test_a_source_turned_away_is_filled_from_its_other_half() -> None:
    target, frontal = landmarks(2, (256, 256), 110), landmarks(1, (256, 270), 110)
    for yaw, hidden in ((40, "right"), (-40, "left")):
        turned = landmarks(1, (256, 270), 110, yaw_degrees=yaw)
        plan = plan_geometry((512, 512), target, turned, WarpOptions(), load_shape_model())
        middle = plan.size[1] // 2
        share = {"left": plan.turned_away[:, :middle].max(), "right": plan.turned_away[:, middle:].max()}
        assert share.pop(hidden) > 0.9
        assert max(share.values()) < 0.3
    plan = plan_geometry((512, 512), target, frontal, WarpOptions(), load_shape_model())
    assert plan.turned_away.max() < 0.3


@pytest.mark.parametrize("broken", ["short", "nan", "tiny", "outside"])
@pytest.mark.parametrize("role", ["target", "source"])
def test_unusable_landmarks_are_refused(
    source: tuple[np.ndarray, np.ndarray], broken: str, role: str
) -> None:
    points = landmarks(2, (256, 256), 110)
    bad = points.copy()
    if broken == "short":
        bad = bad[:468]
    elif broken == "nan":
        bad[5, 0] = np.nan
    elif broken == "tiny":
        bad = 256 + (bad - 256) * 0.05
    else:
        bad = bad + 2000
    target = picture(points, (512, 512), PALE, 2)
    args = (target, bad, *source) if role == "target" else (target, points, source[0], bad)
    with pytest.raises(FaceError) as caught:
        warp_face(*args)
    codes = {
        "short": "no_landmarks",
        "nan": "no_landmarks",
        "tiny": "face_too_small",
        "outside": "face_outside",
    }
    assert caught.value.code == f"swap.{codes[broken]}"
    assert role in caught.value.cause


def test_the_engine_knows_no_file() -> None:
    root = Path(__file__).resolve().parents[1] / "fusion"
    for name in ("mesh", "pose", "mask", "blend", "warp", "swap", "evaluate"):
        text = (root / f"{name}.py").read_text(encoding="utf-8")
        assert "open(" not in text
        assert "imread" not in text


def test_the_outline_takes_part_of_the_shape_and_the_features_take_all_of_it() -> None:
    share = outline_share(load_shape_model(), 0.6)[:, 0]
    assert np.allclose(share[list(mesh.OVAL)], 0.6, atol=1e-6)
    assert np.allclose(share[[1, 33, 263, 61, 291, 105, 334]], 1)
    target, source = landmarks(50, (200, 190), 90), landmarks(51, (200, 190), 90)
    plans = [
        plan_geometry((400, 400), target, source, WarpOptions(outline=each), load_shape_model())
        for each in (1.0, 0.6, 0.0)
    ]
    full, part, none = (
        (plan.points[: mesh.NUM_MESH] + 0.5) / plan.scale - 0.5 + plan.roi_xyxy[:2] - target[:468, :2]
        for plan in plans
    )
    oval = list(mesh.OVAL)
    assert np.abs(none[oval]).max() < 1e-3
    assert np.allclose(part[oval], 0.6 * full[oval], atol=1e-3)
    assert np.abs(full[oval]).max() > 1
    assert np.allclose(part[[1, 61, 291]], full[[1, 61, 291]], atol=1e-3)
