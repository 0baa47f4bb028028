"""The detector's slot in the check: gates before scores, abstaining, flips under re-delivery, faces together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from test_detector_gates import drawing, face, grain

from detector import consistency, gates
from detector.evidence import BANDS, Band, FaceScore, strongest
from detector.judge import judge_faces
from fusion.face import Face, FloatArray, UInt8Array


@dataclass(frozen=True, eq=False)
class Score:
    box_xyxy: FloatArray
    band: str
    logit: float = 1.5
    score: float = 0.8
    reliability: float = 0.9
    heatmap: FloatArray | None = None
    heatmap_xyxy: tuple[float, ...] = (0.0, 0.0, 8.0, 8.0)
    reason: str = ""


@dataclass
class Rule:
    """A scorer whose bands follow a rule on the picture: what the logic around any detector has to cope with."""

    rule: Callable[[UInt8Array, Face], str]
    models: Mapping[str, str] = field(default_factory=dict)
    thresholds: str = "none"
    asked: list[tuple[int, int]] = field(default_factory=list)

    def score_faces(self, rgb: UInt8Array, faces: Sequence[Face]) -> list[FaceScore]:
        self.asked.append(rgb.shape[:2])
        return [Score(each.box_xyxy, self.rule(rgb, each)) for each in faces]


PLAIN = gates.PictureGates(None, None, 1.0)
BIG, OTHER, SMALL = face(20, 20, 120, 130), face(160, 30, 260, 140), face(5, 5, 40, 40)


def always(band: str) -> Rule:
    return Rule(lambda rgb, each: band)


def test_without_a_detector_every_face_says_so() -> None:
    found, steady = judge_faces(grain(), [BIG, SMALL], PLAIN, None)
    assert (found.band, steady) == ("not_applicable", None)
    assert {each.reason.code for each in found.faces if each.reason} == {"gate.no_detector"}
    assert not found.applicable


def test_without_a_face_the_detector_does_not_apply() -> None:
    found, steady = judge_faces(grain(), [], PLAIN, always("strong"))
    assert found.band == "not_applicable"
    assert found.reason is not None
    assert found.reason.code == "gate.no_face"
    assert steady is None


def test_a_gated_face_is_never_scored() -> None:
    scorer = always("strong")
    found, _ = judge_faces(grain(), [SMALL], PLAIN, scorer)
    assert found.faces[0].band == "not_applicable"
    assert scorer.asked == []
    drawn, _ = judge_faces(drawing(), [face(0, 0, 200, 200)], PLAIN, scorer)
    assert drawn.reason is not None
    assert drawn.reason.code == "gate.drawing"
    assert scorer.asked == []


@pytest.mark.parametrize("band", ["none found", "weak", "moderate", "strong"])
def test_a_band_that_holds_in_every_copy_stands(band: str) -> None:
    scorer = always(band)
    found, steady = judge_faces(grain(), [BIG], PLAIN, scorer)
    assert found.band == {"none found": "none"}.get(band, band)
    assert steady is not None
    assert steady.stable
    assert steady.variants == ("jpeg_q75", "resize_0.75", "crop_4")
    assert scorer.asked == [(240, 320), (240, 320), (180, 240), (229, 307)]
    assert list(found.faces[0].variants.values()) == [found.band] * 3


@pytest.mark.parametrize("height", [180, 229])
def test_a_band_that_flips_in_one_copy_reads_inconclusive(height: int) -> None:
    """Users saw one photograph score 0.00 and 0.99 after a resize: such an answer is none."""
    scorer = Rule(lambda rgb, each: "none found" if rgb.shape[0] == height else "strong")
    found, steady = judge_faces(grain(), [BIG, OTHER], PLAIN, scorer)
    assert found.band == "inconclusive"
    assert found.reason is not None
    assert found.reason.code == "gate.flip"
    assert steady is not None
    assert (steady.stable, steady.flipped) == (False, (0, 1))


def test_where_nothing_was_judged_nothing_was_steady() -> None:
    _, steady = judge_faces(grain(), [BIG], PLAIN, always("not applicable"))
    assert steady is None


def test_a_copy_that_abstains_flips_nothing() -> None:
    scorer = Rule(lambda rgb, each: "inconclusive" if rgb.shape[0] == 180 else "strong")
    found, steady = judge_faces(grain(), [BIG], PLAIN, scorer)
    assert found.band == "strong"
    assert steady is not None
    assert steady.stable


def test_a_face_that_a_copy_makes_too_small_is_not_scored_there() -> None:
    scorer = always("strong")
    found, _ = judge_faces(grain(), [face(20, 20, 95, 95)], PLAIN, scorer)
    assert set(found.faces[0].variants) == {"jpeg_q75", "crop_4"}


def test_abstaining_gives_a_reason_and_hides_weaker_bands() -> None:
    scorer = Rule(lambda rgb, each: "inconclusive" if each.box_xyxy[0] < 100 else "weak")
    found, _ = judge_faces(grain(), [BIG, OTHER], PLAIN, scorer)
    assert found.band == "inconclusive"
    assert found.reason is not None
    assert found.reason.code == "gate.abstain"


def test_faces_that_cannot_be_judged_forbid_saying_that_nothing_was_found() -> None:
    found, _ = judge_faces(grain(), [BIG, SMALL], PLAIN, always("none found"))
    assert found.band == "inconclusive"
    assert found.reason is not None
    assert found.reason == "1 of 2 faces cannot be judged; the others show no evidence"
    strong, _ = judge_faces(grain(), [BIG, SMALL], PLAIN, always("strong"))
    assert strong.band == "strong"


def test_a_scorer_s_own_gate_is_told_with_its_reason() -> None:
    scorer = Rule(lambda rgb, each: "not applicable")
    found, _ = judge_faces(grain(), [BIG], PLAIN, scorer)
    assert found.band == "not_applicable"
    assert found.faces[0].logit is None


def test_an_unknown_band_is_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match="unknown band"):
        judge_faces(grain(), [BIG], PLAIN, always("certain"))


def test_copies_move_faces_with_their_pixels() -> None:
    rgb = np.zeros((200, 300, 3), np.uint8)
    rgb[60:100, 80:120] = 255
    where = face(80, 60, 119, 99)
    for deliver in consistency.VARIANTS.values():
        copy = deliver(rgb)
        left, top, right, bottom = copy.face(where).box_xyxy.round().astype(int)
        lit = np.argwhere(copy.rgb[..., 0] > 128)
        assert (
            np.abs(np.array([top, left, bottom, right]) - np.concatenate([lit.min(0), lit.max(0)])).max() <= 1
        )


@pytest.mark.parametrize(
    ("bands", "together"),
    [
        ((), "not_applicable"),
        (("none", "not_applicable"), "none"),
        (("none", "moderate", "weak"), "moderate"),
        (("none", "inconclusive"), "inconclusive"),
        (("inconclusive", "strong"), "strong"),
    ],
)
def test_the_strongest_evidence_speaks_for_all(bands: tuple[Band, ...], together: Band) -> None:
    assert strongest(bands) == together
    assert together in BANDS


def test_json_of_a_face_holds_no_picture_and_a_readable_heat_map() -> None:
    heat = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    scorer = always("strong")
    scorer.score_faces = lambda rgb, faces: [Score(each.box_xyxy, "strong", heatmap=heat) for each in faces]  # type: ignore[method-assign]
    found, _ = judge_faces(grain(), [BIG], PLAIN, scorer)
    told = found.as_dict()["faces"][0]
    assert "crop" not in told
    assert told["heatmap"].startswith("iVBOR")
    assert told["box_xyxy"] == [20.0, 20.0, 120.0, 130.0]
    assert found.faces[0].crop is not None
    assert found.faces[0].crop.shape == (176, 176, 3)
