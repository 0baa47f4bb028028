"""Recipe of `facsimile train sample`: fits the portrait statistics, then starts the refiner; knows no drawing.

The data folder holds `portraits/*.jpg` (512 px, one centred face each), `portraits.csv` (file, split, labels) and
`portraits_landmarks478.npz` (name, points [N, 478, 3] in pixels). Only rows of the split `train` are learned from.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from facesets.appearance import (
    coverage,
    fit_mixture,
    light_side,
    pack_texture,
    principal_components,
    regress,
    shape_attributes,
)
from facesets.errors import FacesetError
from facesets.matting import WORK_PX, covers_head, extend_person, fit_ground, person_mask, signed_distance
from facesets.portraits import STATISTICS_FILE
from facesets.template import CANVAS_PX, Template, sample, triangulate
from facesets.train_refiner import Material, RefinerTraining, as_int, train_refiner

FloatArray = npt.NDArray[np.float32]
NUM_SIGNATURE = 64


@dataclass(frozen=True)
class SampleTraining:
    """Settings of the recipe; the defaults made the shipped weights. `portraits`: how many are learned from, 0: all."""

    portraits: int = 0
    num_texture: int = 150
    num_shape: int = 40
    drawn_texture: int = 120
    drawn_shape: int = 30
    mixture_parts: int = 8
    seed: int = 7


# Every step of the recipe on next to nothing: shows that it runs, makes no usable people.
QUICK: Final = SampleTraining(40, 16, 10, 12, 8, 2)
QUICK_REFINER: Final = RefinerTraining(batch=2, pool=2, fewest_components=6, critic_after=0.1)


@dataclass(frozen=True, eq=False)
class Rows:
    """Portraits of one split: file paths, points [N, 478, 3] on the 256 px canvas, label names per row."""

    files: list[Path]
    points: FloatArray
    labels: list[tuple[str, str]]


def read_rows(data: Path, split: str, limit: int = 0) -> Rows:
    """Rows of one split, the first `limit` of them where that is not 0."""
    if not (data / "portraits.csv").exists():
        raise FacesetError(
            "faceset.data",
            f"{data} holds no portraits.csv",
            "give a folder laid out as the recipe's docstring says",
        )
    store = np.load(data / "portraits_landmarks478.npz")
    points = dict(zip(store["name"].tolist(), store["points"].astype(np.float32), strict=True))
    with (data / "portraits.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == split][: limit or None]
    stacked = np.stack([points[row["file"]] for row in rows])
    stacked[..., :2] = (stacked[..., :2] + 0.5) / 2 - 0.5
    stacked[..., 2] /= 2
    files = [data / "portraits" / row["file"] for row in rows]
    return Rows(files, stacked, [(row["gender_label"], row["group_label"]) for row in rows])


def as_floats(values: Any) -> FloatArray:
    return np.asarray(values, np.float32)


def read_portrait(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """Picture uint8 [size, size, 3] RGB."""
    rgb = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if rgb is None:
        raise FacesetError(
            "faceset.data", f"{path.name} is no readable picture", "restore or unlist the file"
        )
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True, eq=False)
class Cut:
    """One portrait cut from its ground: signed distance [256, 256], ground [6, 3], whether the cut is good."""

    outline: FloatArray
    ground: FloatArray
    good: bool


def cut_portrait(path: Path, shape: FloatArray) -> Cut:
    """Person and ground of one portrait file; shape [478, 2] on the canvas."""
    rgb, points = read_portrait(path, WORK_PX), as_floats((shape + 0.5) / 2 - 0.5)
    mask = person_mask(rgb, points)
    outline = cv2.resize(signed_distance(mask), (CANVAS_PX, CANVAS_PX), interpolation=cv2.INTER_CUBIC)
    return Cut(as_floats(outline), fit_ground(as_floats(rgb / 255), mask), covers_head(mask, points))


def texture_of(path: Path, shape: FloatArray, cut: Cut, template: Template) -> FloatArray:
    """Packed texture on the mean shape, sampled at twice the canvas and averaged, so that it does not alias."""
    size = 2 * CANVAS_PX
    inner = coverage(as_floats(cv2.resize(cut.outline, (size, size))) - np.float32(0.1))
    rgb = extend_person(as_floats(read_portrait(path, size) / 255), inner)
    place = template.map_between(template.mean_shape, shape)
    doubled = sample(rgb, as_floats((cv2.resize(place, (size, size)) + 0.5) * 2 - 0.5))
    small = cv2.resize(doubled, (CANVAS_PX, CANVAS_PX), interpolation=cv2.INTER_AREA)
    return pack_texture(as_floats(small), sample(cut.outline, place))


def centred(values: FloatArray) -> FloatArray:
    return np.asarray((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6), np.float32)


def controls(labels: list[tuple[str, str]]) -> FloatArray:
    """Centred indicators float32 [N, L] of the labels, so that directions do not carry them."""
    names = sorted({name for row in labels for name in row})
    return centred(np.array([[float(name in row) for name in names[:-1]] for row in labels], np.float32))


def quantise(rows: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """int8 rows and the factor of each row."""
    scale = np.abs(rows).max(axis=1) / 127
    return np.round(rows / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def balanced(labels: list[tuple[str, str]], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Row numbers drawn so that rare label pairs count more (inverse square root of their frequency)."""
    weights = np.array([labels.count(row) ** -0.5 for row in labels])
    return rng.choice(len(labels), 2 * len(labels), p=weights / weights.sum())


def fit_statistics(
    rows: Rows, cuts: list[Cut], settings: SampleTraining
) -> tuple[dict[str, npt.NDArray[Any]], FloatArray]:
    """Tensors of a PortraitModel without its refiner, and the standardised coefficients of the rows."""
    rng = np.random.default_rng(settings.seed)
    shapes = np.ascontiguousarray(rows.points[..., :2])
    mean_shape, shape_parts, shape_sd = principal_components(
        shapes.reshape(len(shapes), -1), settings.num_shape
    )
    template = Template(mean_shape.reshape(-1, 2), triangulate(mean_shape.reshape(-1, 2)))
    packed = np.stack(
        [texture_of(f, s, c, template) for f, s, c in zip(rows.files, shapes, cuts, strict=True)]
    )
    sides = light_side(packed[:, : CANVAS_PX**2].reshape(-1, CANVAS_PX, CANVAS_PX))
    mean, parts, sd = principal_components(packed, settings.num_texture)
    texture = (packed - mean) @ parts.T / sd
    shape = (shapes.reshape(len(shapes), -1) - mean_shape) @ shape_parts.T / shape_sd
    both = np.concatenate([texture, shape[:, : settings.drawn_shape]], axis=1).astype(np.float32)
    raw = np.concatenate([shape_attributes(rows.points), sides[:, None]], axis=1)
    attributes = centred(raw)
    directions = regress(np.concatenate([attributes, controls(rows.labels)], axis=1), both)[
        : attributes.shape[1]
    ]
    readout = regress(both, attributes, ridge=0.02 * len(both))
    drawn = np.concatenate([texture[:, : settings.drawn_texture], shape[:, : settings.drawn_shape]], axis=1)
    mixture = fit_mixture(drawn[balanced(rows.labels, rng)], settings.mixture_parts, settings.seed)
    int8, scale = quantise(parts * sd[:, None])
    tensors: dict[str, npt.NDArray[Any]] = {
        "mean_shape": template.mean_shape,
        "triangles": template.triangles.astype(np.int16),
        "texture.mean": mean.astype(np.float16),
        "texture.components": int8,
        "texture.scale": scale,
        "shape.components": shape_parts[: settings.drawn_shape],
        "shape.sd": shape_sd[: settings.drawn_shape],
        "ground": np.stack([cut.ground for cut in cuts]).reshape(len(cuts), -1).astype(np.float32),
        "mixture.weights": mixture.weights,
        "mixture.means": mixture.means,
        "mixture.factors": mixture.factors.astype(np.float16),
        "directions": directions,
        "readout": readout,
        "attributes.mean": raw.mean(axis=0),
        "attributes.sd": raw.std(axis=0),
    }
    tensors |= copy_test(both, directions, readout, rng)
    return tensors, both


def copy_test(
    both: FloatArray, directions: FloatArray, readout: FloatArray, rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Signatures of the training people and the cosine over which a nobody counts as one of them.

    A signature is a random projection to 64 numbers: enough to measure angles, too few to rebuild a picture. The
    threshold is the median cosine of a training person to its own nearest neighbour.
    """
    basis = np.linalg.qr(rng.standard_normal((both.shape[1], NUM_SIGNATURE)))[0].T.astype(np.float32)
    signatures = (both - (both @ readout) @ directions) @ basis.T
    signatures /= np.linalg.norm(signatures, axis=1, keepdims=True)
    cosines = signatures @ signatures.T
    np.fill_diagonal(cosines, -1)
    return {
        "copy.projection": basis,
        "copy.signatures": np.round(signatures * 127).astype(np.int8),
        "copy.threshold": np.array([np.median(cosines.max(axis=1))], np.float32),
    }


def good_rows(rows: Rows) -> tuple[Rows, list[Cut]]:
    """Rows whose person could be cut from the ground, with their cuts."""
    cuts = [cut_portrait(f, p[:, :2]) for f, p in zip(rows.files, rows.points, strict=True)]
    keep = [i for i, cut in enumerate(cuts) if cut.good]
    kept = Rows([rows.files[i] for i in keep], rows.points[keep], [rows.labels[i] for i in keep])
    return kept, [cuts[i] for i in keep]


def fit_material(data: Path, run: Path, settings: SampleTraining) -> None:
    """Fit the statistics of the train split and keep them, with all that the refiner learns from, in `run`."""
    rows, cuts = good_rows(read_rows(data, "train", settings.portraits))
    tensors, coefficients = fit_statistics(rows, cuts, settings)
    template = Template(tensors["mean_shape"], tensors["triangles"].astype(np.int32))
    np.save(run / "coefficients.npy", coefficients)
    np.save(run / "pictures.npy", np.stack([read_portrait(file, CANVAS_PX) for file in rows.files]))
    maps = [as_int(template.map_between(p[:, :2], template.mean_shape)) for p in rows.points]
    np.save(run / "places.npy", np.stack(maps))
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, run / "part.safetensors")
    os.replace(run / "part.safetensors", run / STATISTICS_FILE)


def train(
    data: Path,
    run: Path,
    *,
    minutes: float,
    threads: int,
    resume: bool,
    report: Callable[[str], None],
    quick: bool = False,
) -> None:
    """Fit the statistics (about five minutes of one core), then train the refiner for `minutes` of wall clock.

    With `resume` the run goes on from what `run` holds. The folder ends with the two weights files that
    `PortraitModel.load(run)` reads. `quick`: on 40 portraits and few components, to see that every step runs.
    """
    run.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(threads)
    if not (resume and (run / STATISTICS_FILE).exists()):
        fit_material(data, run, QUICK if quick else SampleTraining())
        report(f"statistics fitted: {run / STATISTICS_FILE}")
    grounds = load_file(run / STATISTICS_FILE)["ground"].reshape(-1, 6, 3)
    pictures, places, coefficients = (
        np.load(run / f"{n}.npy") for n in ("pictures", "places", "coefficients")
    )
    material = Material(pictures, places, coefficients, grounds)
    settings = QUICK_REFINER if quick else RefinerTraining()
    train_refiner(
        material, run, minutes=minutes, threads=threads, resume=resume, report=report, settings=settings
    )
