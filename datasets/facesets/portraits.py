"""People who do not exist: draws identities from a statistical portrait model and renders them; knows no consent.

A nobody is a vector of coefficients (texture and shape) drawn from a Gaussian mixture. Rendering shifts it along
regressed directions (expression, light, yaw), synthesises texture and shape, warps, and lets the refiner sharpen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from facesets.appearance import ATTRIBUTES, Mixture, coverage, unpack_texture
from facesets.errors import FacesetError
from facesets.matting import REACH_PX, ground_terms
from facesets.template import CANVAS_PX, Template, sample

if TYPE_CHECKING:
    from facesets.refiner import Refiner

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
Choice = TypeVar("Choice")

WEIGHTS = Path(__file__).parent / "weights"
STATISTICS_FILE, REFINER_FILE = "statistics.safetensors", "refiner.safetensors"
RESTORE = "restore the file, or make a new one with `facsimile train sample`"
SHRINK = 1.0  # of the drawn coefficients; 0.85 drew people who resemble each other and training people more
MAX_REDRAWS = 100

# Targets are in standard deviations of the training portraits' attributes; None leaves a nobody's own.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "own": {},
    "neutral": {"smile": -0.9, "mouth_open": -0.8, "eye_open": 0.1},
    "smile": {"smile": 1.1, "mouth_open": 0.6, "eye_open": -0.2},
    "laugh": {"smile": 1.5, "mouth_open": 1.8, "eye_open": -0.6},
    "surprise": {"smile": -0.3, "mouth_open": 1.6, "eye_open": 1.3},
}
LIGHTS: dict[str, tuple[float, float]] = {  # shift of light_side, exposure gain
    "own": (0.0, 1.0),
    "left": (1.8, 1.0),
    "right": (-1.8, 1.0),
    "bright": (0.0, 1.18),
    "dim": (0.0, 0.72),
}
MAX_YAW_DEG = 10.0
DOME_TOP_PX, DOME_RADIUS_PX, DOME_SOFTNESS = 4.0, 130.0, 0.12


@dataclass(frozen=True, eq=False)
class Nobody:
    """One identity that belongs to nobody: standardised coefficients and the seed that they came from."""

    seed: int
    index: int
    texture: FloatArray  # [K]
    shape: FloatArray  # [S]
    redraws: int = 0


@dataclass(frozen=True, eq=False)
class Portrait:
    """One picture of a nobody: rgb uint8 [size, size, 3] and landmarks_px float32 [478, 2], iris last."""

    rgb: UInt8Array
    landmarks_px: FloatArray


@dataclass(frozen=True, eq=False)
class PortraitModel:
    """The statistical model and, where it is trained, its refiner. Make it with `PortraitModel.load`."""

    tensors: dict[str, FloatArray]
    refiner: Refiner | None
    sha256: str = ""

    @classmethod
    def load(cls, folder: Path | None = None) -> PortraitModel:
        """Read `statistics.safetensors` and, where it is there, `refiner.safetensors` of a folder (the shipped one
        without a path). Raises FacesetError `faceset.weights`."""
        folder = folder or WEIGHTS
        data = [_read(folder / STATISTICS_FILE)]
        refiner = None
        if (folder / REFINER_FILE).exists():
            from facesets.refiner import build_refiner

            data.append(_read(folder / REFINER_FILE))
            refiner = build_refiner(_parse(data[1], REFINER_FILE))
        tensors = _parse(data[0], STATISTICS_FILE)
        wide = {k: v if v.dtype == np.int8 else v.astype(np.float32) for k, v in tensors.items()}
        return cls(wide, refiner, hashlib.sha256(b"".join(data)).hexdigest())

    @cached_property
    def template(self) -> Template:
        return Template(self.tensors["mean_shape"], self.tensors["triangles"].astype(np.int32))

    @cached_property
    def mixture(self) -> Mixture:
        return Mixture(*(self.tensors[f"mixture.{name}"] for name in ("weights", "means", "factors")))

    @cached_property
    def components(self) -> FloatArray:
        """Texture components [K, 98304] scaled by their standard deviations."""
        return self.tensors["texture.components"].astype(np.float32) * self.tensors["texture.scale"][:, None]

    def draw(self, seed: int, n: int) -> list[Nobody]:
        """n identities; identity i depends on (seed, i) alone. Copies of training people are redrawn."""
        if n < 0:
            raise FacesetError("faceset.count", f"cannot draw {n} people", "ask for zero or more")
        return [self.draw_one(seed, index) for index in range(n)]

    def draw_one(self, seed: int, index: int) -> Nobody:
        """Identity `index` of a seed, told from training people by coefficients alone: the first candidate."""
        return next(self.candidates(seed, index))

    def candidates(self, seed: int, index: int) -> Iterator[Nobody]:
        """Identities for one place, the same for the same seed: whoever can look at the picture takes the first
        that resembles nobody. Raises FacesetError `faceset.copies` when they run out."""
        rng = np.random.default_rng([seed, index])
        num_texture = len(self.tensors["texture.scale"])
        num_drawn = self.mixture.means.shape[1] - len(self.tensors["shape.sd"])
        for redraws in range(MAX_REDRAWS):
            vector = self.mixture.draw(rng, SHRINK)
            texture = np.zeros(num_texture, np.float32)
            texture[:num_drawn] = vector[:num_drawn]
            nobody = Nobody(seed, index, texture, vector[num_drawn:], redraws)
            if self.copy_cosine(nobody) < self.tensors["copy.threshold"][0]:
                yield nobody
        raise FacesetError(
            "faceset.copies", f"{MAX_REDRAWS} draws were all too close to training people", "change the seed"
        )

    def signature(self, nobody: Nobody) -> FloatArray:
        """What the copy test compares: a unit vector [64] of coefficients free of pose, expression and light."""
        vector = np.concatenate([nobody.texture, nobody.shape])
        vector = vector - self.attributes(nobody) @ self.tensors["directions"]
        vector = self.tensors["copy.projection"] @ vector
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)

    def copy_cosine(self, nobody: Nobody) -> float:
        """Cosine of a nobody's signature to that of the nearest training person."""
        return float((self.tensors["copy.signatures"] @ self.signature(nobody)).max() / 127)

    def attributes(self, nobody: Nobody) -> FloatArray:
        """Attributes float32 [A] in standard deviations, read off the coefficients."""
        return np.asarray(
            np.concatenate([nobody.texture, nobody.shape]) @ self.tensors["readout"], np.float32
        )

    def posed(self, nobody: Nobody, expression: str, light: str, yaw: float | None) -> Nobody:
        """The same identity with its coefficients moved along the attribute directions; yaw in degrees."""
        now = self.attributes(nobody)
        goal = now.copy()
        for name, value in _lookup(EXPRESSIONS, expression, "expression").items():
            goal[ATTRIBUTES.index(name)] = value
        goal[ATTRIBUTES.index("light_side")] += _lookup(LIGHTS, light, "light")[0]
        if yaw is not None:
            if not abs(yaw) <= MAX_YAW_DEG:
                raise FacesetError(
                    "faceset.yaw", f"yaw {yaw} is outside ±{MAX_YAW_DEG}°", "ask for a smaller turn"
                )
            mean, sd = self.tensors["attributes.mean"][0], self.tensors["attributes.sd"][0]
            goal[0] = (yaw - mean) / sd
        step = np.asarray((goal - now) @ self.tensors["directions"], np.float32)
        split = len(nobody.texture)
        return Nobody(nobody.seed, nobody.index, nobody.texture + step[:split], nobody.shape + step[split:])

    def shape_of(self, nobody: Nobody) -> FloatArray:
        """Landmarks float32 [478, 2] on the 256 px canvas."""
        t = self.tensors
        offset = (nobody.shape * t["shape.sd"]) @ t["shape.components"]
        return np.asarray(t["mean_shape"] + offset.reshape(-1, 2), np.float32)

    def texture_of(self, nobody: Nobody) -> FloatArray:
        """Texture and signed distance to the outline float32 [256, 256, 4] on the mean shape."""
        return unpack_texture(self.tensors["texture.mean"] + nobody.texture @ self.components)

    def ground_of(self, nobody: Nobody) -> FloatArray:
        """Smooth ground float32 [256, 256, 3] behind a nobody: a convex blend of three training grounds."""
        rng = np.random.default_rng([nobody.seed, nobody.index, 2])
        grounds = self.tensors["ground"]
        blend = rng.dirichlet(np.ones(3)).astype(np.float32) @ grounds[rng.choice(len(grounds), 3)]
        return np.asarray(np.clip(ground_terms(CANVAS_PX) @ blend.reshape(6, 3), 0, 1), np.float32)

    @cached_property
    def face_mask(self) -> FloatArray:
        """Where poses may change the texture, float32 [256, 256, 1] on the mean face: soft, inside the face oval."""
        mask = np.zeros((CANVAS_PX, CANVAS_PX), np.float32)
        hull = cv2.convexHull(self.tensors["mean_shape"][:468])
        cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 1.0)
        return np.asarray(
            cv2.GaussianBlur(cv2.erode(mask, np.ones((9, 9))), (0, 0), 4.0)[..., None], np.float32
        )

    @cached_property
    def refined_mask(self) -> FloatArray:
        """Where the refiner is believed, float32 [256, 256, 1] on the mean face: soft, well inside the face oval."""
        inner = cv2.erode(self.face_mask, np.ones((25, 25)))
        return np.asarray(cv2.GaussianBlur(inner, (0, 0), 5.0)[..., None], np.float32)

    def _calm(self, place: FloatArray) -> FloatArray:
        """The map [256, 256, 2] smoothed outside the face, where a turned head folds its triangles."""
        smooth = cv2.merge([cv2.GaussianBlur(cv2.medianBlur(p, 5), (0, 0), 2.5) for p in cv2.split(place)])
        inside = sample(self.face_mask, place)[..., None]
        return np.asarray(inside * place + (1 - inside) * smooth, np.float32)

    def statistical(
        self, nobody: Nobody, expression: str = "own", light: str = "own", yaw: float | None = None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Unrefined picture [256, 256, 3] in [0, 1], map to the mean face [256, 256, 2] and landmarks [478, 2].

        A pose changes the texture of the face alone: hair, outline and ground belong to the identity.
        """
        posed = self.posed(nobody, expression, light, yaw)
        shape = self.shape_of(posed)
        place = self._calm(self.template.map_between(shape, self.template.mean_shape))
        texture = self.texture_of(nobody)
        texture[..., :3] += self.face_mask * (self.texture_of(posed) - texture)[..., :3]
        layers = sample(texture, place)
        cover = coverage(under_dome(layers[..., 3:]))
        picture = np.clip(layers[..., :3], 0, 1) * cover + self.ground_of(nobody) * (1 - cover)
        return np.clip(picture * LIGHTS[light][1], 0, 1), place, shape

    def render(
        self,
        nobody: Nobody,
        *,
        expression: str = "own",
        light: str = "own",
        yaw: float | None = None,
        size: int = CANVAS_PX,
    ) -> Portrait:
        """One picture of a nobody; the same arguments give the same pixels on the same machine and library."""
        if size not in (CANVAS_PX, 2 * CANVAS_PX):
            raise FacesetError("faceset.size", f"size {size} is not offered", "ask for 256 or 512")
        picture, place, shape = self.statistical(nobody, expression, light, yaw)
        if self.refiner is not None:
            from facesets.refiner import refine

            sharp = refine(self.refiner, picture, place, seed=(nobody.seed, nobody.index))
            inside = sample(self.refined_mask, place)[..., None]  # beyond it the refiner draws a grid
            picture = np.asarray(inside * sharp + (1 - inside) * picture, np.float32)
        scale = size / CANVAS_PX
        if size != CANVAS_PX:
            picture = np.asarray(
                cv2.resize(picture, (size, size), interpolation=cv2.INTER_LANCZOS4), np.float32
            )
        rgb = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
        return Portrait(rgb, ((shape + 0.5) * scale - 0.5).astype(np.float32))


def under_dome(distance: FloatArray) -> FloatArray:
    """Signed distances [256, 256, 1] cut, softly, by a flat arch near the upper border.

    Portraits whose hair leaves the picture make the statistics raise a small tip there.
    """
    y, x = np.mgrid[0:CANVAS_PX, 0:CANVAS_PX].astype(np.float32)
    arch = (y - DOME_TOP_PX - (x - CANVAS_PX / 2) ** 2 / (2 * DOME_RADIUS_PX)) / (2 * REACH_PX)
    gap = distance - arch[..., None]
    return np.asarray(distance - 0.5 * (gap + np.sqrt(gap**2 + DOME_SOFTNESS**2)), np.float32)


def _lookup(table: dict[str, Choice], name: str, what: str) -> Choice:
    if name not in table:
        raise FacesetError(f"faceset.{what}", f"no {what} named {name!r}", f"use one of {', '.join(table)}")
    return table[name]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FacesetError(
            "faceset.weights", f"cannot read {path.name}: {error.strerror}", RESTORE
        ) from error


def _parse(data: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
    try:
        return dict(load(data))
    except SafetensorError as error:
        raise FacesetError("faceset.weights", f"{name} is no safetensors file", RESTORE) from error
