"""The portrait model draws people who differ, copies nobody, and renders each of them the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facesets.errors import FacesetError
from facesets.portraits import EXPRESSIONS, LIGHTS, STATISTICS_FILE, WEIGHTS, PortraitModel

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def model() -> PortraitModel:
    return PortraitModel.load()


def test_weights_stay_small() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.safetensors")) <= 30 * MEGABYTE


def test_an_identity_depends_on_its_seed_and_index_alone(model: PortraitModel) -> None:
    alone, among = model.draw(5, 1)[0], model.draw(5, 3)
    assert np.array_equal(alone.texture, among[0].texture)
    assert not np.array_equal(among[0].texture, among[1].texture)
    assert not np.array_equal(alone.texture, model.draw(6, 1)[0].texture)


def test_the_same_nobody_renders_to_the_same_pixels(model: PortraitModel) -> None:
    nobody = model.draw(5, 1)[0]
    first, again = model.render(nobody, expression="smile"), model.render(nobody, expression="smile")
    assert np.array_equal(first.rgb, again.rgb)
    assert first.rgb.shape == (256, 256, 3)
    assert first.rgb.dtype == np.uint8


def test_512_is_the_256_picture_enlarged_with_its_landmarks(model: PortraitModel) -> None:
    nobody = model.draw(5, 1)[0]
    small, large = model.render(nobody), model.render(nobody, size=512)
    back = large.rgb.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    assert np.abs(back - small.rgb).mean() < 2
    assert np.allclose(large.landmarks_px, (small.landmarks_px + 0.5) * 2 - 0.5, atol=1e-3)


def test_nobodies_lie_farther_from_training_people_than_those_from_each_other(model: PortraitModel) -> None:
    limit = float(model.tensors["copy.threshold"][0])
    assert max(model.copy_cosine(nobody) for nobody in model.draw(3, 20)) < limit


def test_a_copy_of_a_training_person_is_redrawn(model: PortraitModel) -> None:
    nobody = model.draw(5, 1)[0]
    signatures = model.tensors["copy.signatures"].copy()
    signatures[0] = np.round(model.signature(nobody) * 127)
    redrawn = PortraitModel({**model.tensors, "copy.signatures": signatures}, None).draw(5, 1)[0]
    assert redrawn.redraws == nobody.redraws + 1
    assert not np.array_equal(redrawn.texture, nobody.texture)


def test_five_hundred_nobodies_are_distinct(model: PortraitModel) -> None:
    signatures = np.stack([model.signature(nobody) for nobody in model.draw(1, 500)])
    cosines = signatures @ signatures.T
    np.fill_diagonal(cosines, -1)
    assert cosines.max() < 0.75


def test_expressions_move_the_mouth_and_the_lids(model: PortraitModel) -> None:
    nobody = model.draw(5, 1)[0]

    def opening(expression: str) -> float:
        points = model.statistical(nobody, expression)[2]
        return float(np.linalg.norm(points[13] - points[14]))

    assert opening("neutral") < opening("smile") < opening("laugh")


def test_light_from_the_left_brightens_the_left_cheek(model: PortraitModel) -> None:
    nobody = model.draw(5, 1)[0]

    def balance(light: str) -> float:
        picture, _, points = model.statistical(nobody, light=light)
        y, left, right = int(points[1, 1]), int(points[50, 0]), int(points[280, 0])
        cheeks = [picture[y - 6 : y + 7, x - 6 : x + 7].mean() for x in (left, right)]
        return float(cheeks[0] / cheeks[1])

    assert balance("left") > balance("own") > balance("right")


def test_yaw_turns_the_nose_and_keeps_the_hair(model: PortraitModel) -> None:
    nobody = model.draw(5, 1)[0]
    left, right = (model.statistical(nobody, yaw=yaw)[2] for yaw in (-8.0, 8.0))

    def turn(points: np.ndarray) -> float:
        return float(points[1, 0] - points[[234, 454], 0].mean())

    assert abs(turn(left) - turn(right)) > 5


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"size": 300}, "faceset.size"),
        ({"yaw": 40.0}, "faceset.yaw"),
        ({"yaw": float("nan")}, "faceset.yaw"),
        ({"expression": "grin"}, "faceset.expression"),
        ({"light": "moon"}, "faceset.light"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    model: PortraitModel, arguments: dict[str, object], code: str
) -> None:
    with pytest.raises(FacesetError) as caught:
        model.render(model.draw(5, 1)[0], **arguments)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.next_step


def test_every_expression_and_light_is_within_the_statistics(model: PortraitModel) -> None:
    nobody = model.draw(5, 1)[0]
    for expression in EXPRESSIONS:
        for light in LIGHTS:
            assert np.abs(model.posed(nobody, expression, light, None).shape).max() < 8


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_broken_weights_are_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / STATISTICS_FILE).write_bytes(content)
    with pytest.raises(FacesetError) as caught:
        PortraitModel.load(tmp_path)
    assert caught.value.code == "faceset.weights"
