"""Guests: registered with hash and licence, opened by the real runtimes; the models here are small stand-ins."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusion.align import ARCFACE_112
from fusion.face import Face
from fusion.guests import add_guest, list_guests, open_finder, open_recogniser, verify_guest
from provenance.errors import InputError, UsageError, WeightsError

SHARED = Path(os.environ.get("FACSIMILE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
YUNET_FILE = SHARED / "teachers" / "yunet.onnx"


def write_model(path: Path, nodes: list, inputs: list, outputs: list, tensors: dict[str, np.ndarray]) -> Path:
    initialisers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "stand-in", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def recogniser(path: Path) -> Path:
    """Means of 16 px squares times a fixed random matrix: 112 x 112 → 512."""
    matrix = np.random.default_rng(0).standard_normal((147, 512)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["embedding"]),
    ]
    return write_model(
        path, nodes, [value("input", 1, 3, 112, 112)], [value("embedding", 1, 512)], {"matrix": matrix}
    )


def bright_cells(
    stride: int, name: str, columns: np.ndarray, gain: float
) -> tuple[list, dict[str, np.ndarray]]:
    """One output: a convolution of `stride` whose channels are constants, plus the cell's brightness times `gain`."""
    count = len(columns)
    weight = np.full((count, 3, stride, stride), gain / (3 * stride * stride), np.float32)
    nodes = [
        helper.make_node(
            "Conv", ["input", f"w_{name}", f"b_{name}"], [f"c_{name}"], strides=[stride, stride]
        ),
        helper.make_node("Transpose", [f"c_{name}"], [f"t_{name}"], perm=[0, 2, 3, 1]),
    ]
    return nodes, {f"w_{name}": weight, f"b_{name}": columns.astype(np.float32)}


def scrfd(path: Path) -> Path:
    """insightface's detector interface: 9 outputs, two anchors a cell; white cells of 32 px are faces."""
    nodes: list = []
    tensors: dict[str, np.ndarray] = {"columns_1": np.array([-1, 1]), "columns_4": np.array([-1, 4])}
    tensors["columns_10"] = np.array([-1, 10])
    points = ((ARCFACE_112 / 112) * 2 - 1).ravel()  # in strides from the cell's corner
    outputs = []
    for kind, columns in (("score", [-6.0]), ("box", [1.0] * 4), ("points", list(points))):
        for stride in (8, 16, 32):
            name = f"{kind}_{stride}"
            wanted = np.array(columns * 2) if stride == 32 or kind != "score" else np.array([-20.0] * 2)
            gain = 12.0 if kind == "score" and stride == 32 else 0.0
            made, weights = bright_cells(stride, name, wanted, gain)
            last = f"r_{name}" if kind == "score" else name
            made.append(helper.make_node("Reshape", [f"t_{name}", f"columns_{len(columns)}"], [last]))
            if kind == "score":
                made.append(helper.make_node("Sigmoid", [last], [name]))
            nodes += made
            tensors |= weights
            outputs.append(value(name, "n", len(columns)))
    return write_model(path, nodes, [value("input", 1, 3, "height", "width")], outputs, tensors)


def yunet(path: Path) -> Path:
    """YuNet's interface: 12 outputs; cells of 8 px brighter than about half are faces 40 px wide."""
    nodes: list = []
    tensors: dict[str, np.ndarray] = {}
    outputs = []
    points = ((ARCFACE_112 / 112 - 0.5) * 5).ravel()
    rows = {"cls": [-8.0], "obj": [-8.0], "bbox": [0.0, 0.0, np.log(5), np.log(5)], "kps": list(points)}
    for kind, columns in rows.items():
        for stride in (8, 16, 32):
            name = f"{kind}_{stride}"
            score = kind in ("cls", "obj")
            wanted = np.array(columns) if stride == 8 or not score else np.array([-20.0])
            made, weights = bright_cells(stride, name, wanted, 16 / 255 if score and stride == 8 else 0.0)
            tensors |= weights | {f"shape_{name}": np.array([1, -1, len(columns)])}
            last = f"r_{name}" if score else name
            made.append(helper.make_node("Reshape", [f"t_{name}", f"shape_{name}"], [last]))
            if score:
                made.append(helper.make_node("Sigmoid", [last], [name]))
            nodes += made
            outputs.append(value(name, 1, "n", len(columns)))
    return write_model(path, nodes, [value("input", 1, 3, "height", "width")], outputs, tensors)


def dark_with(*squares: tuple[int, int, int]) -> np.ndarray:
    """A black picture 640 x 640 with white squares at (x, y, side)."""
    picture = np.zeros((640, 640, 3), np.uint8)
    for x, y, side in squares:
        picture[y : y + side, x : x + side] = 255
    return picture


def a_face() -> Face:
    return Face(np.array([10, 10, 90, 100], np.float32), ARCFACE_112 + 20, 1.0)


# --- registering


def test_a_guest_is_copied_hashed_and_listed_with_its_licence(tmp_path: Path) -> None:
    file, folder = recogniser(tmp_path / "any.onnx"), tmp_path / "home" / "models"
    guest = add_guest(folder, file, "mine", "MIT")
    assert (guest.kind, guest.licence) == ("recogniser", "MIT")
    assert (folder / "mine.onnx").read_bytes() == file.read_bytes()
    assert list_guests(folder) == (guest,)
    assert json.loads((folder / "mine.json").read_text())["files"] == dict(guest.files)
    assert list_guests(tmp_path / "nowhere") == ()


def test_what_cannot_be_registered_is_said(tmp_path: Path) -> None:
    file, folder = recogniser(tmp_path / "any.onnx"), tmp_path / "models"
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    add_guest(folder, file, "mine", "MIT")
    with pytest.raises(UsageError, match=r"guest\.name"):
        add_guest(folder, file, "../mine", "MIT")
    with pytest.raises(UsageError, match=r"guest\.licence"):
        add_guest(folder, file, "other", "  ")
    with pytest.raises(InputError, match=r"guest\.exists"):
        add_guest(folder, file, "mine", "MIT")
    with pytest.raises(InputError, match=r"guest\.missing"):
        add_guest(folder, tmp_path / "absent.onnx", "other", "MIT")
    with pytest.raises(InputError, match=r"guest\.kind"):
        add_guest(folder, text, "other", "MIT")
    assert len(list_guests(folder)) == 1


def test_a_zip_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    file = recogniser(tmp_path / "any.onnx")
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.write(file, "../../escaped.onnx")
        archive.writestr("readme.txt", "ignored")
    guest = add_guest(tmp_path / "deep" / "models", tmp_path / "pack.zip", "pack", "MIT")
    assert list(guest.files) == ["pack/escaped.onnx"]
    assert not (tmp_path / "escaped.onnx").exists()
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(InputError, match=r"guest\.kind"):
        add_guest(tmp_path / "models", tmp_path / "empty.zip", "empty", "MIT")


def test_an_altered_file_is_not_opened(tmp_path: Path) -> None:
    add_guest(tmp_path, recogniser(tmp_path / "any.model"), "mine", "MIT")
    with (tmp_path / "mine.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(WeightsError, match=r"weights\.altered"):
        open_recogniser(tmp_path, "mine")
    (tmp_path / "mine.onnx").unlink()
    with pytest.raises(WeightsError, match=r"weights\.missing"):
        open_recogniser(tmp_path, "mine")
    with pytest.raises(InputError, match=r"guest\.unknown"):
        open_recogniser(tmp_path, "nobody")


def test_a_guest_of_another_kind_is_refused(tmp_path: Path) -> None:
    add_guest(tmp_path, recogniser(tmp_path / "any.model"), "mine", "MIT")
    with pytest.raises(InputError, match=r"guest\.kind"):
        open_finder(tmp_path, "mine")
    assert verify_guest(tmp_path, "mine", "recogniser").licence == "MIT"


def test_a_pack_without_a_finder_is_broken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.write(recogniser(tmp_path / "any.model"), "w600k.onnx")
    add_guest(tmp_path / "models", tmp_path / "pack.zip", "half", "MIT")
    with pytest.raises(InputError, match=r"guest\.broken"):
        open_finder(tmp_path / "models", "half")


# --- using, through insightface, onnxruntime and OpenCV


def test_a_recogniser_embeds_the_suites_crop(tmp_path: Path) -> None:
    add_guest(tmp_path, recogniser(tmp_path / "any.model"), "mine", "MIT")
    guest = open_recogniser(tmp_path, "mine")
    rng = np.random.default_rng(1)
    picture = cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), (200, 200))
    embedding = guest.embed_face(picture, a_face())
    crop = picture[20:132, 20:132].astype(np.float32)
    pooled = (
        ((crop - 127.5) / 127.5).reshape(7, 16, 7, 16, 3).mean((1, 3)).transpose(2, 0, 1).ravel()
    )  # RGB planes
    expected = pooled @ np.random.default_rng(0).standard_normal((147, 512)).astype(np.float32)
    assert embedding.shape == (512,)
    assert float(embedding @ expected / np.linalg.norm(expected)) > 0.9999


def test_a_pack_finds_and_embeds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.write(scrfd(tmp_path / "a.model"), "buffalo/det.onnx")
        archive.write(recogniser(tmp_path / "b.model"), "buffalo/rec.onnx")
    add_guest(tmp_path / "models", tmp_path / "pack.zip", "pack", "research only")
    pack = open_finder(tmp_path / "models", "pack")
    picture = dark_with((320, 160, 32))
    faces = pack.find_faces(picture)
    assert len(faces) == 1
    np.testing.assert_allclose(faces[0].box_xyxy, [288, 128, 352, 192], atol=1)
    assert faces[0].points_px.shape == (5, 2)
    assert faces[0].points_px[0, 0] < faces[0].points_px[1, 0]
    assert faces[0].embedding is not None
    assert np.linalg.norm(faces[0].embedding) == pytest.approx(1, abs=1e-5)
    again = open_recogniser(tmp_path / "models", "pack").embed_face(picture, faces[0])
    np.testing.assert_allclose(again, faces[0].embedding, atol=1e-5)
    assert pack.find_faces(dark_with()) == []


def test_yunet_finds_bright_squares_largest_first(tmp_path: Path) -> None:
    add_guest(tmp_path, yunet(tmp_path / "any.model"), "yunet", "MIT")
    finder = open_finder(tmp_path, "yunet")
    faces = finder.find_faces(dark_with((160, 240, 8), (480, 80, 8)))
    assert len(faces) == 2
    centres = sorted(tuple((f.box_xyxy[:2] + f.box_xyxy[2:]) / 2) for f in faces)
    np.testing.assert_allclose(centres, [(160, 240), (480, 80)], atol=8)
    assert all(0.7 <= f.score <= 1 for f in faces)
    assert finder.find_faces(dark_with()[:480]) == []


@pytest.mark.shared
@pytest.mark.skipif(not YUNET_FILE.is_file(), reason=f"no YuNet at {YUNET_FILE}")
def test_the_real_yunet_agrees_with_the_points_of_a_portrait(tmp_path: Path) -> None:
    from fusion.train.identity_crops import POINT_COLUMNS

    add_guest(tmp_path, YUNET_FILE, "yunet", "BSD-3-Clause")
    finder = open_finder(tmp_path, "yunet")
    lines = (SHARED / "data" / "portraits.csv").read_text(encoding="utf-8").splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    rgb = np.asarray(
        cv2.imread(str(SHARED / "data" / "portraits" / row["file"]), cv2.IMREAD_COLOR_RGB), np.uint8
    )
    faces = finder.find_faces(rgb)
    wanted = np.array([float(row[c]) for c in POINT_COLUMNS]).reshape(5, 2)
    assert np.abs(faces[0].points_px - wanted).max() < 5
