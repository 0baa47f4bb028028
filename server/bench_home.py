"""A home with nobodies in it for measuring a server: people, a 1080p picture, a key; measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.media import encode_picture, read_picture
from fusion.pipeline import sample
from fusion.request import SampleRequest
from provenance.home import Home
from server import auth
from server.tables import ensure_tables


@dataclass(frozen=True)
class BenchHome:
    """What a bench sends, and where."""

    home: Path
    key: str
    people: tuple[bytes, ...]
    picture_1080p: bytes
    small_picture: bytes


def make_home(folder: Path) -> BenchHome:
    """A new home in `folder`, three sealed portraits, one face in a 1080p JPEG, one in a small one."""
    with Home.create(folder / "home", "Bench") as home:
        ensure_tables(home.database)
        people = [
            each.path.read_bytes() for each in sample(SampleRequest(3, seed=3), home, folder / "people")
        ]
        key, _ = auth.make_key(home.database, ["generator", "verifier"], "bench")
    face = read_picture(people[0]).rgb
    rng = np.random.default_rng(0)
    scene = np.asarray(rng.normal(128, 6, (1080, 1920, 3)).clip(0, 255), np.uint8)
    scene[284:796, 704:1216] = face
    return BenchHome(
        home=folder / "home",
        key=key,
        people=tuple(people),
        picture_1080p=encode_picture(scene, "jpeg", 90),
        small_picture=encode_picture(np.ascontiguousarray(face[::2, ::2]), "jpeg", 90),
    )
