"""What commands need opened for them: the home that the settings name; knows no command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.settings import read_settings

if TYPE_CHECKING:
    from provenance.home import Home


def open_home() -> Home:
    """The home that the environment names, open; close it, or use it as a context manager. StoreError without one."""
    from provenance.home import Home

    settings = read_settings()
    return Home.open(
        settings.home, settings.database_url, timestamp_url=settings.timestamp_url, pin=settings.pin
    )
