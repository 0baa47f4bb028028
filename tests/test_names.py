"""Each package imported is the one of this checkout, and the wheel lists all six."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "fusion": "fusion",
    "detector": "detector",
    "provenance": "provenance",
    "server": "server",
    "facesets": "datasets/facesets",
    "setmaking": "datasets/setmaking",
}


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_package_is_this_checkouts(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / FOLDERS[name]


def test_wheel_lists_all_six_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(
        FOLDERS.values()
    )


def test_datasets_is_no_package_of_ours() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists()
