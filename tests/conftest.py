"""Shared fixtures: the training material when it is there, and one studio of people who don't exist."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusion.pipeline import Sealed, sample
from fusion.request import SampleRequest
from fusion.swap import Perception, load_perception
from provenance.declarations import declare_synthetic
from provenance.hashes import content_sha256
from provenance.home import Home

ROOT = Path(__file__).resolve().parent.parent
ORGANISATION = "Facsimile tests"


@dataclass(frozen=True)
class Studio:
    """A home, three sealed portraits of nobodies in it, and the networks that look at pictures."""

    home_path: Path
    people: list[Sealed]
    perception: Perception

    @staticmethod
    def declare(home: Home, *files: bytes) -> str:
        """Declare pictures made of nobodies synthetic; returns the declaration's id."""
        return declare_synthetic(home, [content_sha256(data) for data in files], "drawn by the tests").id


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The material beside the checkout (FACSIMILE_SHARED overrides where); skips aloud without it."""
    folder = Path(os.environ.get("FACSIMILE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "portraits.csv").exists():
        pytest.skip(f"training material is not there: {folder}")
    return folder


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Made once for all tests; nobody's pictures, sealed like every output."""
    folder = tmp_path_factory.mktemp("studio")
    with Home.create(folder / "home", ORGANISATION) as home:
        people = sample(SampleRequest(count=3, seed=11, size_px=512), home, folder)
    return Studio(folder / "home", people, load_perception("cpu"))
