"""Several faces with their own sources, and the bundle of networks, here made of stand-ins."""

import numpy as np
import pytest
from test_fusion_warp import BROWN, PALE, landmarks, picture

from fusion.align import five_points, landmarks_box
from fusion.face import Face
from fusion.swap import ENGINES, PRESETS, Perception, load_perception, swap_faces
from provenance.errors import FaceError, UsageError


def face(points: np.ndarray) -> Face:
    return Face(landmarks_box(points), five_points(points), 0.9, points)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, list[np.ndarray]]:
    """Two faces side by side, drawn one over the other's picture."""
    left, right = landmarks(10, (200, 200), 90), landmarks(11, (560, 210), 90)
    rgb, other = picture(left, (400, 760), PALE, 10), picture(right, (400, 760), PALE, 10)
    rgb[:, 380:] = other[:, 380:]
    return rgb, [left, right]


def test_each_face_gets_its_own_source(scene: tuple[np.ndarray, list[np.ndarray]]) -> None:
    rgb, (left, right) = scene
    mine, yours = landmarks(12, (256, 256), 110), landmarks(13, (256, 256), 110)
    one, two = picture(mine, (512, 512), BROWN, 12), picture(yours, (512, 512), PALE, 13)
    only = swap_faces(rgb, [(one, face(mine), face(left))])
    assert (only[:, 400:] == rgb[:, 400:]).all()
    assert (only[:, :380] != rgb[:, :380]).any()
    both = swap_faces(rgb, [(one, face(mine), face(left)), (two, face(yours), face(right))])
    assert (both[:, :360] == only[:, :360]).all()
    assert (both[:, 400:] != rgb[:, 400:]).any()
    swapped = swap_faces(rgb, [(two, face(yours), face(left)), (one, face(mine), face(right))])
    assert (swapped != both).any()


def test_nothing_assigned_is_a_copy(scene: tuple[np.ndarray, list[np.ndarray]]) -> None:
    out = swap_faces(scene[0], [])
    assert (out == scene[0]).all()
    assert out is not scene[0]


def test_mistakes_are_refused(scene: tuple[np.ndarray, list[np.ndarray]]) -> None:
    rgb, (left, _) = scene
    mine = landmarks(12, (256, 256), 110)
    one = picture(mine, (512, 512), BROWN, 12)
    with pytest.raises(UsageError) as unknown:
        swap_faces(rgb, [], engine="magic")
    assert unknown.value.code == "swap.unknown_engine"
    assert all(name in unknown.value.next_step for name in ENGINES)
    with pytest.raises(UsageError) as unheard:
        swap_faces(rgb, [], preset="magic")
    assert unheard.value.code == "swap.unknown_preset"
    with pytest.raises(FaceError) as twice:
        swap_faces(rgb, [(one, face(mine), face(left)), (one, face(mine), face(left))])
    assert twice.value.code == "swap.face_twice"
    bare = Face(landmarks_box(left), five_points(left), 0.9)
    with pytest.raises(FaceError) as without:
        swap_faces(rgb, [(one, face(mine), bare)])
    assert without.value.code == "swap.no_landmarks"


def test_presets_differ_only_in_detail_and_an_option_overrides_them(
    scene: tuple[np.ndarray, list[np.ndarray]],
) -> None:
    rgb, (left, _) = scene
    mine = landmarks(12, (256, 256), 110)
    job = [(picture(mine, (512, 512), BROWN, 12), face(mine), face(left))]
    made = {name: swap_faces(rgb, job, engine="warp", preset=name) for name in PRESETS}
    assert (made["mobile"] != made["film"]).any()
    assert np.abs(made["mobile"].astype(int) - made["film"]).mean() < 1
    same = swap_faces(rgb, job, engine="warp", options=PRESETS["mobile"].warp, detail=False)
    assert (same == made["mobile"]).all()
    assert {preset.engine for preset in PRESETS.values()} <= set(ENGINES)


def test_perception_fills_every_face_and_finds_once(scene: tuple[np.ndarray, list[np.ndarray]]) -> None:
    rgb, points = scene
    calls: list[str] = []

    def find(_: np.ndarray) -> list[Face]:
        calls.append("find")
        return [Face(landmarks_box(p), five_points(p), 0.9) for p in points]

    perception = Perception(
        find=find,
        locate=lambda _, faces: points[: len(faces)],
        embed=lambda _, faces: np.eye(512, dtype=np.float32)[: len(faces)],
        models={"detect": "00"},
    )
    faces = perception.analyse(rgb)
    assert calls == ["find"]
    assert [f.landmarks_px is p for f, p in zip(faces, points, strict=True)] == [True, True]
    assert faces[1].embedding is not None
    assert faces[1].embedding[1] == 1
    nobody = Perception(find=lambda _: [], locate=lambda _, f: [], embed=lambda _, f: np.zeros((0, 512)))
    assert nobody.analyse(rgb) == []


def test_the_shipped_networks_load_as_one_bundle() -> None:
    perception = load_perception()
    assert set(perception.models) == {"detect", "landmark", "identity", "face_shape"}
    assert all(len(digest) == 64 for digest in perception.models.values())
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    assert perception.analyse(noise) == []
