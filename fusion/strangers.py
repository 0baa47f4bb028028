"""Nobodies whose picture resembles none of the people that the portrait model learned from; knows no consent.

The people are known by their embeddings alone. A face nearer to one of them than such people are to each other in the
median is no new identity, and the next candidate is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facesets.portraits import Nobody, Portrait, PortraitModel
from facesets.template import CANVAS_PX
from fusion.align import five_points, landmarks_box
from fusion.face import Face, FloatArray, UInt8Array
from fusion.identity import embed_face, load_identity
from fusion.request import Look
from fusion.weights import IDENTITY, PEOPLE, load_tensors
from provenance.errors import WeightsError


@dataclass(frozen=True, eq=False)
class TrainingPeople:
    """Embeddings float32 [N, 512] of unit length, and the similarity from which on a face is too near to one."""

    embeddings: FloatArray
    limit: float

    def nearest(self, embedding: FloatArray) -> float:
        """Greatest similarity of an embedding float32 [512] to a training person."""
        return float((self.embeddings @ embedding).max())


def load_training_people() -> TrainingPeople:
    """The people of the shipped portrait model as the shipped identity network sees them.

    WeightsError when the file is missing or altered, or `weights.mismatch` when another identity network made it.
    """
    tensors = load_tensors(PEOPLE)
    if bytes(tensors["identity_sha256"].numpy()).hex() != IDENTITY.sha256:
        raise WeightsError(
            "weights.mismatch",
            f"{PEOPLE.file} holds embeddings of another identity network",
            "Make it again with `facsimile train identity`, which writes both.",
        )
    raw = tensors["embeddings"].numpy().astype(np.float32)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return TrainingPeople(np.asarray(unit, np.float32), float(tensors["limit"][0]))


@dataclass(frozen=True, eq=False)
class Stranger:
    """A nobody who resembles no training person, the picture that showed it, and its embedding float32 [512]."""

    nobody: Nobody
    portrait: Portrait
    embedding: FloatArray


class Strangers:
    """Draws pictures of new identities; state: the portrait model, the identity network, the training people."""

    def __init__(self, model: PortraitModel) -> None:
        self.model, self.net, self.people = model, load_identity(), load_training_people()

    @property
    def models(self) -> dict[str, str]:
        """sha256 of everything that decides what is drawn."""
        return {"portraits": self.model.sha256, "identity": IDENTITY.sha256, "people": PEOPLE.sha256}

    def choose(self, seed: int, number: int, size_px: int = CANVAS_PX) -> Stranger:
        """Identity `number` of a seed, looked at `size_px` wide; FacesetError `faceset.copies` or `.size`."""
        for nobody in self.model.candidates(seed, number):
            portrait = self.model.render(nobody, size=size_px)
            embedding = self._embed(portrait.rgb, portrait.landmarks_px)
            if self.people.nearest(embedding) < self.people.limit:
                return Stranger(nobody, portrait, embedding)
        raise AssertionError("candidates end with an error of their own")

    def draw(self, seed: int, number: int, size_px: int) -> UInt8Array:
        """Picture uint8 [size, size, 3] of identity `number` of a seed; errors of `choose`."""
        return self.choose(seed, number, size_px).portrait.rgb

    def picture(self, stranger: Stranger, look: Look) -> Portrait:
        """Somebody in another look; the one they were chosen by is not drawn again. FacesetError."""
        if look.is_own and stranger.portrait.rgb.shape[0] == look.size_px:
            return stranger.portrait
        return self.model.render(
            stranger.nobody,
            expression=look.expression,
            light=look.light,
            yaw=look.yaw_deg,
            size=look.size_px,
        )

    def _embed(self, rgb: UInt8Array, landmarks_px: FloatArray) -> FloatArray:
        return embed_face(rgb, Face(landmarks_box(landmarks_px), five_points(landmarks_px), 1.0), self.net)
