"""What `facsimile serve --production` insists on; changes nothing.

Refused: the development certificates that `init` makes, the name that `init` gives by default, a root or issuing key
that still lies beside the server, keys that others may read, plain http without a proxy that speaks TLS.
"""

from __future__ import annotations

from provenance.errors import RefusedError
from provenance.home import Home
from server.settings import ServeSettings

DEFAULT_ORGANISATION = "Development"


def require_production_grade(
    home: Home, settings: ServeSettings, *, proxy: str | None, has_tls: bool
) -> None:
    """RefusedError `production.*` at the first thing that is only good for development."""
    _require_own_certificates(home)
    _require_transport(settings, proxy=proxy, has_tls=has_tls)


def _require_own_certificates(home: Home) -> None:
    keys = home.path / "keys"
    if home.organisation == DEFAULT_ORGANISATION:
        raise RefusedError(
            "production.organisation",
            "The home bears the name that `init` gives by default.",
            "Make a home with `facsimile init --organisation NAME`.",
        )
    if (keys / "root.key.pem").exists():
        raise RefusedError(
            "production.root_key",
            "The key of the root certificate lies beside the server: the chain is the one that `init` made.",
            "Move root.key.pem off this machine, into safe keeping; the server never needs it.",
        )
    if (keys / "issuing.key.pem").exists():
        raise RefusedError(
            "production.issuing_key",
            "The key of the issuing certificate lies beside the server.",
            "Move issuing.key.pem off this machine; it is needed only to rotate the signing certificate.",
        )


def _require_transport(settings: ServeSettings, *, proxy: str | None, has_tls: bool) -> None:
    if not settings.is_https:
        raise RefusedError(
            "production.plain_http",
            f"Users would reach {settings.base_url} without TLS.",
            "Give --base-url https://… and either --tls-cert and --tls-key, or --proxy ADDRESS.",
        )
    if not has_tls and proxy is None:
        raise RefusedError(
            "production.no_proxy",
            "The server speaks plain http, and no TLS proxy in front of it is named.",
            "Give --tls-cert and --tls-key, or --proxy with the proxy's address.",
        )
    if proxy == "*":
        raise RefusedError(
            "production.any_proxy",
            "Every client would be believed about its address.",
            "Name the proxy's address.",
        )
