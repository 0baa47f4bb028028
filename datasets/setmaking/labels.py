"""Labels of one face of a finished picture: box, points, pose, masks, catch-lights; knows no set and no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from facesets.record import CatchLight, Point, Pose
from facesets.rle import encode_runs
from fusion import mesh
from fusion.align import five_points, landmarks_box
from fusion.cornea import find_corneas
from fusion.face import FloatArray, UInt8Array
from fusion.highlights import agree, find_highlights
from fusion.mask import fill_contour
from fusion.pose import fit_head, head_angles_degrees, load_shape_model

BoolArray = npt.NDArray[np.bool_]
MIN_OPENNESS = 0.3  # of an eye whose highlights are looked for, as the eye branch has it


@dataclass(frozen=True)
class Labels:
    """Fields of a SampleRecord that are read off the picture and its landmarks."""

    box_xyxy: tuple[float, float, float, float]
    points_px: tuple[Point, ...]
    landmarks_px: tuple[Point, ...]
    pose: Pose
    masks: dict[str, tuple[int, ...]]
    catchlights: tuple[CatchLight, ...]


def label_face(rgb: UInt8Array, landmarks_px: FloatArray, altered: BoolArray | None) -> Labels:
    """Labels of the face at landmarks [478, 2] of a picture uint8 [H, W, 3]; `altered` bool [H, W]: its blend mask."""
    head = fit_head(landmarks_px, load_shape_model())
    yaw, pitch, roll = (round(angle, 2) for angle in head_angles_degrees(head))
    masks = face_masks(landmarks_px, (rgb.shape[0], rgb.shape[1]))
    if altered is not None:
        masks["blend"] = altered
    left, top, right, bottom = (round(float(side), 2) for side in landmarks_box(landmarks_px))
    return Labels(
        (left, top, right, bottom),
        _points(five_points(landmarks_px)),
        _points(landmarks_px),
        Pose(yaw, pitch, roll),
        {name: tuple(encode_runs(mask)) for name, mask in masks.items()},
        catch_lights(rgb, landmarks_px),
    )


def face_masks(landmarks_px: FloatArray, size: tuple[int, int]) -> dict[str, BoolArray]:
    """bool [H, W] by name: the mesh's outline, both eyes between their lids, the mouth within the outer lips."""
    points = landmarks_px[:, :2]
    eyes = np.maximum(*(fill_contour(points, lids, size) for lids in (mesh.LEFT_EYE, mesh.RIGHT_EYE)))
    return {
        "face": fill_contour(points, mesh.OVAL, size) > 0.5,
        "eyes": eyes > 0.5,
        "mouth": fill_contour(points, mesh.OUTER_LIPS, size) > 0.5,
    }


def catch_lights(rgb: UInt8Array, landmarks_px: FloatArray) -> tuple[CatchLight, ...]:
    """The highlights of both corneas that show the same lamps, strongest first; none on closed or tiny eyes."""
    corneas = find_corneas(rgb, landmarks_px)
    found = agree(
        [
            [] if cornea is None or cornea.openness < MIN_OPENNESS else find_highlights(rgb, cornea)
            for cornea in corneas
        ]
    )
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    left, right = (
        [CatchLight(eye, _points(one.place_px[None])[0], round(one.strength, 3)) for one in lights]
        for eye, lights in zip(sides, found, strict=True)
    )
    return (*left, *right)


def mask_picture(mask: BoolArray) -> bytes:
    """A mask as a black and white PNG."""
    done, coded = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    if not done:
        raise ValueError("a mask of uint8 [H, W] can always be coded")
    return coded.tobytes()


def _points(points: FloatArray) -> tuple[Point, ...]:
    return tuple((round(float(x), 2), round(float(y), 2)) for x, y in points[:, :2])
