"""The eye branch on eyes drawn by code, whose head, gaze and lamp are known."""

import dataclasses

import numpy as np
import pytest

from fusion import cornea, eyes, highlights
from fusion.pose import fit_head, load_shape_model
from fusion.rendered_eyes import DrawnEyes, EyeScene, direction, draw_eyes, random_scene


def corneas_of(drawn: DrawnEyes) -> tuple[cornea.Cornea | None, cornea.Cornea | None]:
    return cornea.find_corneas(
        drawn.rgb, drawn.landmarks_px, fit_head(drawn.landmarks_px, load_shape_model())
    )


def jittered(points: np.ndarray, rng: np.random.Generator, width_px: float) -> np.ndarray:
    """Landmarks with a noise of 1 % of the eye's width."""
    return (points + rng.normal(0, 0.01 * width_px, points.shape)).astype(np.float32)


def brightened_at(after: np.ndarray, before: np.ndarray, where: np.ndarray) -> np.ndarray | None:
    """Middle of what became brighter where `where` is."""
    rise = np.clip(after.astype(float) - before, 0, None).sum(-1) * (where > 0.02)
    if rise.sum() < 1:
        return None
    y, x = np.mgrid[: rise.shape[0], : rise.shape[1]]
    return np.array([(x * rise).sum(), (y * rise).sum()]) / rise.sum()


def lit_pair(rng: np.random.Generator) -> tuple[EyeScene, EyeScene]:
    """A target, and a result that looks up to 6° elsewhere with irises of another colour."""
    scene = random_scene(rng)
    gaze = (scene.gaze[0] + rng.uniform(-6, 6), scene.gaze[1] + rng.uniform(-3, 3))
    iris = tuple(float(v) for v in rng.uniform(0.05, 0.5, 3))
    return scene, dataclasses.replace(scene, gaze=gaze, iris_rgb=iris)


def unlit(scene: EyeScene) -> DrawnEyes:
    return draw_eyes(dataclasses.replace(scene, lamp=None))


def test_highlights_land_within_a_pixel_at_a_64_px_eye() -> None:
    """Few scenes with noisy landmarks; the figure over many stands in docs/eyes-and-detail.md."""
    rng = np.random.default_rng(7)
    errors: list[float] = []
    for _ in range(28):
        scene, other = lit_pair(rng)
        target, truth, result = draw_eyes(scene), draw_eyes(other), unlit(other)
        points = [jittered(d.landmarks_px, rng, 64) for d in (result, target)]
        out = eyes.match_eyes(result.rgb, points[0], target.rgb, points[1])
        added = (target.rgb.mean(-1) - unlit(scene).rgb.mean(-1)) / 255
        for k in (0, 1):
            place, own = truth.highlights_px[k], target.highlights_px[k]
            if place is None or own is None or not (target.seen[k] and truth.seen[k]):
                continue
            x, y = np.rint(own).astype(int)
            if added[y - 2 : y + 3, x - 2 : x + 3].max() < 0.15:  # no catch-light that anyone would see
                continue
            found = brightened_at(out.rgb, result.rgb, result.corneas[k])
            errors.append(99.0 if found is None else float(np.linalg.norm(found - place)))
    assert len(errors) >= 35
    assert np.mean(np.array(errors) <= 1) >= 0.92
    assert np.median(errors) < 0.5


def test_nothing_outside_the_cornea_changes() -> None:
    rng = np.random.default_rng(3)
    scene, other = lit_pair(rng)
    target, result = draw_eyes(scene), unlit(other)
    before = result.rgb.copy()
    out = eyes.match_eyes(result.rgb, result.landmarks_px, target.rgb, target.landmarks_px)
    assert (result.rgb == before).all()
    assert "drawn" in out.actions
    allowed = np.zeros(result.rgb.shape[:2], bool)
    for one in corneas_of(result):
        assert one is not None
        allowed |= one.mask() > 0
    assert (out.rgb[~allowed] == result.rgb[~allowed]).all()
    assert (out.rgb[allowed] != result.rgb[allowed]).any()


def test_eyes_that_already_mirror_the_target_are_left_to_the_bit() -> None:
    drawn = draw_eyes(EyeScene(seed=4))
    out = eyes.match_eyes(drawn.rgb, drawn.landmarks_px, drawn.rgb, drawn.landmarks_px)
    assert out.actions == ("kept", "kept")
    assert (out.rgb == drawn.rgb).all()


def test_a_lamp_of_the_source_goes_and_the_targets_comes() -> None:
    target = draw_eyes(EyeScene(lamp=(25.0, -30.0), seed=5))
    wrong = draw_eyes(EyeScene(lamp=(-30.0, -5.0), seed=5, iris_rgb=(0.1, 0.2, 0.35)))
    right = draw_eyes(EyeScene(lamp=(25.0, -30.0), seed=5, iris_rgb=(0.1, 0.2, 0.35)))
    out = eyes.match_eyes(wrong.rgb, wrong.landmarks_px, target.rgb, target.landmarks_px)
    assert out.actions == ("drawn", "drawn")
    for k in (0, 1):
        here = right.corneas[k] > 0.5
        error = np.abs(out.rgb.astype(float) - right.rgb)[here].mean()
        assert error < 0.35 * np.abs(wrong.rgb.astype(float) - right.rgb)[here].mean()


def test_a_target_without_lamp_clears_the_sources() -> None:
    dark = draw_eyes(EyeScene(lamp=None, seed=6))
    lit = draw_eyes(EyeScene(lamp=(20.0, -25.0), seed=6))
    out = eyes.match_eyes(lit.rgb, lit.landmarks_px, dark.rgb, dark.landmarks_px)
    assert out.actions == ("cleared", "cleared")
    for k in (0, 1):
        place = lit.highlights_px[k]
        assert place is not None
        x, y = np.rint(place).astype(int)
        assert out.rgb[y, x].max() < 0.6 * lit.rgb[y, x].max()
    same = eyes.match_eyes(dark.rgb, dark.landmarks_px, dark.rgb, dark.landmarks_px)
    assert (same.rgb == dark.rgb).all()


@pytest.mark.parametrize(("opening", "width_px", "action"), [(0.1, 64.0, "closed"), (1.1, 14.0, "small")])
def test_closed_and_tiny_eyes_are_left_alone(opening: float, width_px: float, action: str) -> None:
    target = draw_eyes(EyeScene(seed=8, width_px=width_px))
    shut = draw_eyes(EyeScene(seed=8, width_px=width_px, opening=opening, lamp=None))
    same_frame = np.resize(target.rgb, shut.rgb.shape)
    out = eyes.match_eyes(shut.rgb, shut.landmarks_px, same_frame, shut.landmarks_px)
    assert out.actions == (action, action)
    assert (out.rgb == shut.rgb).all()


def test_corneas_are_found_under_noisy_landmarks() -> None:
    """Intersection over union with the drawn cornea; refined on pixels it must beat the landmarks alone."""
    rng = np.random.default_rng(2)
    unions: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(12):
        drawn = draw_eyes(random_scene(rng))
        noisy = jittered(drawn.landmarks_px, rng, 64)
        noisy[468:] += rng.normal(0, 1.2, 2).astype(np.float32)
        head = fit_head(noisy, load_shape_model())
        for refine, kept in unions.items():
            for one, truth in zip(
                cornea.find_corneas(drawn.rgb, noisy, head, refine=refine), drawn.corneas, strict=True
            ):
                assert one is not None
                mine, real = one.mask() > 0.5, truth > 0.5
                kept.append(float((mine & real).sum() / (mine | real).sum()))
    assert np.mean(unions[True]) > 0.86
    assert np.mean(unions[True]) > np.mean(unions[False]) + 0.01


def test_a_highlight_tells_where_its_lamp_is_and_both_eyes_agree() -> None:
    lamp = (22.0, -28.0)
    drawn = draw_eyes(EyeScene(lamp=lamp, gaze=(6.0, 0.0), seed=9))
    left, right = corneas_of(drawn)
    assert left is not None
    assert right is not None
    lights = highlights.agree(
        [highlights.find_highlights(drawn.rgb, left), highlights.find_highlights(drawn.rgb, right)]
    )
    assert [len(one) for one in lights] == [1, 1]
    for one in lights:
        assert np.degrees(np.arccos(one[0].lamp @ direction(lamp))) < 12


def test_highlights_without_partner_are_dropped() -> None:
    def spot(x: float, strength: float) -> highlights.Highlight:
        return highlights.Highlight(
            np.float32([x, -0.2]), strength, np.float32([0, 0]), np.ones((1, 1), bool)
        )

    left, right = highlights.agree([[spot(0.1, 0.6), spot(0.6, 0.3)], [spot(0.12, 0.5)]])
    assert [one.strength for one in left] == [0.6]
    assert [one.strength for one in right] == [0.5]
    left, right = highlights.agree([[spot(0.1, 0.6), spot(0.2, 0.2)], [spot(0.9, 0.5)]])
    assert len(left) == len(right) == 1


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_light_on_a_face_is_seen_on_the_side_it_comes_from(side: float) -> None:
    import cv2

    from fusion.mesh import rasterise
    from fusion.pose import mesh_normals

    model = load_shape_model()
    points = (120 * model.mean[:, :2] * [1, -1] + 200).astype(np.float32)
    landmarks = np.concatenate([points, np.tile(points[[33, 263]], (5, 1))]).astype(np.float32)
    towards = np.array([0.6 * side, 0.3, 0.74])  # y up
    luma = 0.25 + 0.5 * np.clip(mesh_normals(fit_head(landmarks, model), model) @ towards, 0, 1)
    raster = rasterise(points, model.triangles, (400, 400))
    corners = luma[model.triangles[np.maximum(raster.triangle, 0)]]
    grey = 255 * (corners * raster.weights).sum(-1)
    rgb = cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2RGB)
    found = eyes.light_of_face(rgb, landmarks)
    assert found[0] * side > 0.2
    assert found[1] < 0
    assert np.degrees(np.arccos(found @ (towards * [1, -1, 1]) / np.linalg.norm(towards))) < 25


def test_a_light_is_invented_only_when_asked() -> None:
    dark = draw_eyes(EyeScene(lamp=None, seed=10, noise=0.0))
    asked = eyes.EyeOptions(invent=True)
    out = eyes.match_eyes(dark.rgb, dark.landmarks_px, dark.rgb, dark.landmarks_px, asked)
    assert out.actions == ("drawn", "drawn")
    assert out.rgb.max() > dark.rgb[dark.corneas[0] > 0.9].max() + 60
    assert eyes.match_eyes(dark.rgb, dark.landmarks_px, dark.rgb, dark.landmarks_px).actions == (
        "unlit",
        "unlit",
    )


def test_eyes_beyond_the_picture_are_left_alone() -> None:
    drawn = draw_eyes(EyeScene(seed=11))
    away = drawn.landmarks_px + np.array([5000, 0], np.float32)
    out = eyes.match_eyes(drawn.rgb, away, drawn.rgb, drawn.landmarks_px)
    assert out.actions == ("small", "small")
    assert (out.rgb == drawn.rgb).all()
