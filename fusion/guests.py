"""Face finders and recognisers a user already has, behind the suite's own Face; downloads nothing, ever.

A guest is registered once (copied, hashed, its licence written down) and hashed again each time it is opened. This file
alone wraps insightface and OpenCV's YuNet, and so turns RGB into the BGR that both expect.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import cv2
import numpy as np
import onnx

from fusion.align import arcface_crop_from_image, warp_crop
from fusion.face import Face, FloatArray, UInt8Array
from fusion.weights import file_sha256
from provenance.errors import InputError, UsageError, WeightsError

Kind = Literal["yunet", "recogniser", "pack", "swapper", "rivagan"]

MAX_PACK_BYTES: Final = 2 * 2**30
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
CPU_PROVIDERS: Final = ("CPUExecutionProvider",)
AGAIN: Final = "Register the file again with `facsimile models add`."


@dataclass(frozen=True)
class GuestModel:
    """One registered guest: what it is, its files below the folder of models with their sha256, and its licence."""

    name: str
    kind: Kind
    licence: str
    files: Mapping[str, str]


class Finder(Protocol):
    """Finds the faces of one picture uint8 [H, W, 3] RGB, largest first."""

    def find_faces(self, rgb: UInt8Array) -> list[Face]: ...


class Recogniser(Protocol):
    """Embeds one face of a picture uint8 [H, W, 3] RGB as a unit vector float32 [D]."""

    def embed_face(self, rgb: UInt8Array, face: Face) -> FloatArray: ...


# --- registering


def add_guest(folder: Path, file: Path, name: str, licence: str) -> GuestModel:
    """Copy an ONNX file, or a zip of them (an insightface pack), into the folder of models and register it.

    Raises UsageError `guest.name` or `guest.licence`, InputError `guest.exists`, `guest.missing` or `guest.kind`.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            "guest.name", f"{name!r} is no name for a guest", "Use small letters, digits, _ . and -."
        )
    if not licence.strip():
        raise UsageError(
            "guest.licence", "no licence was given", "Say with --licence under which terms you hold it."
        )
    if (folder / f"{name}.json").exists():
        raise InputError(
            "guest.exists", f"a guest is called {name!r} already", "Choose another name with --as."
        )
    if not file.is_file():
        raise InputError("guest.missing", f"{file} is no file", "Give an .onnx file or a .zip of them.")
    folder.mkdir(parents=True, exist_ok=True)
    kind: Kind = "pack" if zipfile.is_zipfile(file) else kind_of_onnx(file)
    paths = (
        unpack(file, folder / name)
        if kind == "pack"
        else [Path(shutil.copyfile(file, folder / f"{name}.onnx"))]
    )
    files = {str(path.relative_to(folder)): file_sha256(path) for path in paths}
    guest = GuestModel(name, kind, licence.strip(), files)
    (folder / f"{name}.json").write_text(json.dumps(asdict(guest), indent=2) + "\n", encoding="utf-8")
    return guest


def kind_of_onnx(file: Path) -> Kind:
    """What an ONNX file is, by the shape of its inputs and the names of its outputs; InputError `guest.kind`."""
    try:
        graph = onnx.load_model(str(file), load_external_data=False).graph
    except Exception as error:  # onnx raises what protobuf raises
        raise InputError("guest.kind", f"{file.name} is no ONNX model", "Give an .onnx file.") from error
    sides = [[d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input]
    if {"cls_8", "obj_8", "bbox_8", "kps_8"} <= {output.name for output in graph.output}:
        return "yunet"
    if len(sides) == 2 and len(graph.output) == 1:
        return "swapper"
    if [each.name for each in graph.input] == ["frame"] and len(sides[0]) == 5:
        return "rivagan"
    if len(sides) == 1 and len(graph.output) == 1 and len(sides[0]) == 4 and sides[0][2:] == [112, 112]:
        return "recogniser"
    known = "Known: YuNet, recognisers of 112 x 112 crops, swappers of two inputs, rivaGan's decoder, insightface packs"
    raise InputError("guest.kind", f"{file.name} is of no kind the suite can use", known)


def unpack(file: Path, folder: Path) -> list[Path]:
    """The ONNX files of a zip, its folders flattened; InputError `guest.kind` when there is none or too much."""
    with zipfile.ZipFile(file) as archive:
        members = [
            info for info in archive.infolist() if info.filename.endswith(".onnx") and not info.is_dir()
        ]
        names = [Path(info.filename.replace("\\", "/")).name for info in members]
        if not members or len(set(names)) < len(names) or sum(i.file_size for i in members) > MAX_PACK_BYTES:
            cause = f"{file.name} holds no ONNX model, two of one name, or more than 2 GiB"
            raise InputError("guest.kind", cause, "Give the zip of an insightface pack.")
        folder.mkdir()
        for info, name in zip(members, names, strict=True):
            with archive.open(info) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
    return [folder / name for name in sorted(names)]


def list_guests(folder: Path) -> tuple[GuestModel, ...]:
    """Every registered guest, by name; nothing is opened."""
    names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
    return tuple(read_guest(folder, name) for name in names)


def read_guest(folder: Path, name: str) -> GuestModel:
    """The row of one guest; InputError `guest.unknown` when there is none that can be read."""
    try:
        guest = GuestModel(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "guest.unknown", f"no guest is called {name!r}", "See `facsimile models list`."
        ) from error
    return guest


def verify_guest(folder: Path, name: str, *kinds: Kind) -> GuestModel:
    """The row of a guest of one of `kinds`, each file's sha256 as registered.

    Raises InputError `guest.unknown` or `guest.kind`, WeightsError `weights.missing` or `weights.altered`.
    """
    guest = read_guest(folder, name)
    if guest.kind not in kinds:
        cause = f"{name!r} is a {guest.kind}, needed is a {' or '.join(kinds)}"
        raise InputError("guest.kind", cause, "See `facsimile models list`.")
    for file, sha256 in guest.files.items():
        if file_sha256(folder / file) != sha256:
            raise WeightsError("weights.altered", f"{file} is not the file that was registered", AGAIN)
    return guest


# --- using


def to_bgr(rgb: UInt8Array) -> UInt8Array:
    """The same picture in the channel order of OpenCV."""
    return np.ascontiguousarray(rgb[..., ::-1])


def largest_first(faces: list[Face]) -> list[Face]:
    """Faces by the area of their box."""
    return sorted(faces, key=lambda face: face.area_px, reverse=True)


class YuNetFinder:
    """OpenCV's FaceDetectorYN (YuNet, Machine Intelligence Research 2023) with a file of the user's."""

    def __init__(self, file: Path, min_score: float = 0.7) -> None:
        self.detector = cv2.FaceDetectorYN.create(str(file), "", (320, 320), score_threshold=min_score)

    def find_faces(self, rgb: UInt8Array) -> list[Face]:
        self.detector.setInputSize((rgb.shape[1], rgb.shape[0]))
        _, rows = self.detector.detect(to_bgr(rgb))
        return largest_first(
            [self._face(np.asarray(row, np.float32)) for row in (() if rows is None else rows)]
        )

    @staticmethod
    def _face(row: FloatArray) -> Face:
        """Row of 15: x, y, w, h, five points (the eye on the picture's left first), score."""
        box = np.concatenate([row[:2], row[:2] + row[2:4]])
        return Face(box_xyxy=box, points_px=row[4:14].reshape(5, 2).copy(), score=float(row[14]))


class InsightRecogniser:
    """An ArcFace-style ONNX recogniser as insightface's model zoo opens it, fed with the suite's own crops."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def embed_face(self, rgb: UInt8Array, face: Face) -> FloatArray:
        size = int(self.model.input_size[0])
        crop = warp_crop(rgb, arcface_crop_from_image(face.points_px, size), size)
        raw = np.asarray(self.model.get_feat(to_bgr(crop)), np.float32).ravel()
        return np.asarray(raw / max(float(np.linalg.norm(raw)), 1e-12), np.float32)


class InsightPack:
    """Finder and recogniser of an insightface pack (FaceAnalysis); every face comes with its embedding.

    FaceAnalysis opens the models; faces are aligned by fusion.align, since insightface's own way warns with
    current scikit-image.
    """

    def __init__(self, folder: Path, min_score: float = 0.5) -> None:
        from insightface.app import FaceAnalysis

        modules = ["detection", "recognition"]
        app = FaceAnalysis(str(folder), allowed_modules=modules, providers=list(CPU_PROVIDERS))
        app.prepare(ctx_id=-1, det_thresh=min_score, det_size=(640, 640))
        self.detector: Any = app.det_model
        self.recogniser = InsightRecogniser(app.models["recognition"])

    def find_faces(self, rgb: UInt8Array) -> list[Face]:
        rows, points = self.detector.detect(to_bgr(rgb))
        if points is None:
            raise InputError(
                "guest.kind", "the pack's finder gives no points", "Use a pack whose finder gives five."
            )
        found = zip(np.asarray(rows, np.float32), np.asarray(points, np.float32), strict=True)
        faces = [Face(box_xyxy=row[:4], points_px=five, score=float(row[4])) for row, five in found]
        return largest_first([replace(face, embedding=self.embed_face(rgb, face)) for face in faces])

    def embed_face(self, rgb: UInt8Array, face: Face) -> FloatArray:
        return self.recogniser.embed_face(rgb, face)


def open_finder(folder: Path, name: str) -> Finder:
    """A registered YuNet or insightface pack; errors of `verify_guest`, InputError `guest.broken`."""
    guest = verify_guest(folder, name, "yunet", "pack")
    with said_of(name):
        return InsightPack(folder / name) if guest.kind == "pack" else YuNetFinder(only_file(folder, guest))


def open_recogniser(folder: Path, name: str) -> Recogniser:
    """A registered recogniser or insightface pack; errors of `verify_guest`, InputError `guest.broken`."""
    guest = verify_guest(folder, name, "recogniser", "pack")
    with said_of(name):
        if guest.kind == "pack":
            return InsightPack(folder / name)
        from insightface import model_zoo

        file = str(only_file(folder, guest))
        return InsightRecogniser(model_zoo.get_model(file, providers=list(CPU_PROVIDERS)))


def open_riva(folder: Path, name: str) -> Callable[[FloatArray], FloatArray]:
    """invisible-watermark's rivaGan decoder: float32 [1, 3, 1, H, W] BGR in [-1, 1] to float32 [1, 32] logits."""
    guest = verify_guest(folder, name, "rivagan")
    with said_of(name):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(only_file(folder, guest)), providers=list(CPU_PROVIDERS))

    def decode(frame: FloatArray) -> FloatArray:
        return np.asarray(session.run(None, {"frame": frame})[0], np.float32)

    return decode


def only_file(folder: Path, guest: GuestModel) -> Path:
    """The file of a guest that is no pack."""
    return folder / next(iter(guest.files))


@contextmanager
def said_of(name: str) -> Iterator[None]:
    """Whatever a guest's runtime raises becomes InputError `guest.broken`."""
    try:
        yield
    except Exception as error:  # insightface asserts, onnxruntime and OpenCV raise their own
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("guest.broken", f"the guest {name!r} cannot be opened: {said}", AGAIN) from error
