"""An engine for measuring only: the source's face cut out, moved by one affine map, tinted and feathered in.

Never learnt from (detector.held_out). Seam, colour and geometry differ from those of every engine that is. Knows no
network and no file.
"""

from __future__ import annotations

import cv2
import numpy as np

from fusion import mask, mesh
from fusion.face import FloatArray, UInt8Array
from fusion.warp import WarpOptions, WarpResult

FEATHER = 0.05
"""Width of the seam inside the outline, in widths of the face."""


def collage_face(
    target_rgb: UInt8Array,
    target_landmarks: FloatArray,
    source_rgb: UInt8Array,
    source_landmarks: FloatArray,
    options: WarpOptions | None = None,
    *,
    identity: FloatArray | None = None,
) -> WarpResult:
    """Called like every engine; pictures uint8 [H, W, 3], landmarks float32 [478, 2+] px; options are not used.

    Colours by mean and deviation of each channel of CIELAB inside the outline (Reinhard et al. 2001, eq. 10-11).
    """
    del options, identity
    seen, wanted = (
        points[: mesh.NUM_MESH, :2].astype(np.float32) for points in (source_landmarks, target_landmarks)
    )
    ones = np.ones((mesh.NUM_MESH, 1), np.float32)
    affine = np.linalg.lstsq(np.hstack([seen, ones]), wanted, rcond=None)[0]
    height, width = target_rgb.shape[:2]
    moved = cv2.warpAffine(
        source_rgb, affine.T, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT101
    )
    hull = np.zeros((height, width), np.float32)
    cv2.fillPoly(hull, [np.rint(wanted[list(mesh.OVAL)]).astype(np.int32)], 1)
    share = mask.feather_inside(hull, FEATHER * mesh.face_width(wanted))
    tinted = _tint(np.asarray(moved, np.uint8), target_rgb, hull > 0)
    mixed = target_rgb + share[..., None] * (tinted.astype(np.float32) - target_rgb)
    rgb = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return WarpResult(rgb, np.asarray(share, np.float32), (0, 0, width, height), share > 0)


def _tint(rgb: UInt8Array, like: UInt8Array, inside: np.ndarray) -> UInt8Array:
    lab, wanted = (
        cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for picture in (rgb, like)
    )
    own, other = lab[inside], wanted[inside]
    moved = (lab - own.mean(0)) * (other.std(0) / np.maximum(own.std(0), 1e-3)) + other.mean(0)
    back = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(np.rint(255 * back), 0, 255), np.uint8)
