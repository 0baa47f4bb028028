"""The leak gates of the shipped detector, small: a gate that the card says holds must hold here too."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from detector.bench import draw_people, score_bench
from detector.cases import make_cases
from detector.evaluate import report_card
from detector.pairs import ENGINES, Person
from detector.probes import Gate, Witnesses, run_gates
from detector.score import Scorer, load_scorer
from fusion.face import FloatArray, UInt8Array
from provenance import watermark

PEOPLE = 10


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return draw_people(PEOPLE, seed=21)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    torch.set_num_threads(1)
    return load_scorer("cpu")


def marked(rgb: UInt8Array) -> UInt8Array:
    return watermark.embed(rgb, b"\x01\x02\x03\x04\x05\x06\x07\x08", b"k" * 32)


def drawn_identity(person: Person) -> FloatArray:
    """Who is drawn, as a vector that knows nothing of any swap."""
    seed = int.from_bytes(hashlib.sha256(person.name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=16).astype(np.float32)


@pytest.fixture(scope="module")
def gates(people: list[Person], scorer: Scorer) -> list[Gate]:
    witnesses = Witnesses(mark=marked, find=lambda rgb: [], embed=drawn_identity)
    return run_gates(people, {"warp": ENGINES["warp"]}, scorer, witnesses, seed=3, passes_each=3)


def test_every_leak_has_its_gate(gates: list[Gate], scorer: Scorer) -> None:
    unseen = scorer.held_out
    alone = ["one setting"] * len((*unseen.settings, *unseen.engines))
    assert [gate.leak for gate in gates] == [
        "mark", "file", "file", "resampling", "crop", "identity", *alone,
    ]  # fmt: skip
    assert "collage" in unseen.engines
    assert all(np.isfinite(gate.value) for gate in gates)
    assert all(gate.n >= PEOPLE for gate in gates)
    [passes] = [gate for gate in gates if gate.leak == "resampling"]
    assert passes.n == 3 * PEOPLE


def test_gates_report_what_the_card_reports(gates: list[Gate]) -> None:
    """Ten people are far too few for the limits of the full gates: these only catch a gross leak."""
    by_figure = {gate.figure: gate for gate in gates}
    assert (
        abs(by_figure["AUC marked real : real"].value - 0.5) <= 0.2
    )  # known to fail its full limit: see the card
    assert by_figure["AUC of a file probe"].value <= 0.8
    assert by_figure["AUC of a box probe"].value <= 0.55
    assert by_figure["false alarms on identity passes"].value <= 0.2
    assert abs(by_figure["AUC on the background alone"].value - 0.5) <= 0.05


def test_a_gate_says_that_it_fails(people: list[Person], scorer: Scorer) -> None:
    alarming = Scorer(scorer.net, replace(scorer.calibration, strong=-1e9), "cpu")
    leaking = Witnesses(mark=np.zeros_like, find=lambda rgb: [], embed=drawn_identity)
    gates = run_gates(people, {"warp": ENGINES["warp"]}, alarming, leaking, seed=3, passes_each=1)
    failed = {gate.leak for gate in gates if not gate.held}
    assert {"mark", "resampling"} <= failed


def test_fewer_than_ten_people_are_refused(people: list[Person], scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="ten people"):
        run_gates(
            people[:9], {"warp": ENGINES["warp"]}, scorer, Witnesses(marked, lambda rgb: [], drawn_identity)
        )


def test_the_shipped_detector_reads_the_same_twice_and_never_alarms_on_drawn_people(
    people: list[Person], scorer: Scorer
) -> None:
    cases = list(make_cases(people[:3], {"warp": ENGINES["warp"]}, 0, ("real",)))
    first, second = list(score_bench(cases, scorer)), list(score_bench(cases, scorer))
    assert [sample.raw for sample in first] == [sample.raw for sample in second]
    rows = {(row.case, row.metric): row for row in report_card(first, scorer.calibration)}
    assert rows["reals_all", "fpr_shipped"].value <= 0.05
