"""Where the suite keeps its things, read from the environment once per command; opens nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """home: folder of keys, ledger and store; database_url: SQLAlchemy URL, None for SQLite in the home."""

    home: Path
    database_url: str | None


def read_settings() -> Settings:
    """Read FACSIMILE_HOME (default ~/.facsimile) and FACSIMILE_DATABASE."""
    home = os.environ.get("FACSIMILE_HOME") or "~/.facsimile"
    return Settings(Path(home).expanduser(), os.environ.get("FACSIMILE_DATABASE") or None)
