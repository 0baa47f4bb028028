"""`serve`: one server over the home; `--production` refuses what is only good for development."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.console import report_errors, say
from server.deps import open_home
from server.settings import OidcSettings, ServeSettings, read_settings

if TYPE_CHECKING:
    import uvicorn


def add_to(app: typer.Typer) -> None:
    app.command("serve")(serve)


@report_errors
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8000,
    production: Annotated[
        bool, typer.Option("--production", help="Refuse development keys, default names and plain http.")
    ] = False,
    base_url: Annotated[
        str | None,
        typer.Option(help="How users reach it, such as https://faces.example; default: host and port."),
    ] = None,
    proxy: Annotated[
        str | None, typer.Option(help="Address of the TLS proxy in front, whose X-Forwarded-* is believed.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate chain, PEM, to serve TLS itself.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its private key, PEM.")] = None,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes; 0: run elsewhere.")] = 1,
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds after which the job of a silent worker is taken up.")
    ] = 30.0,
    requests_per_minute: Annotated[int, typer.Option(min=1, help="Of one key.")] = 600,
    url_checks: Annotated[
        bool, typer.Option("--url-checks", help="Let checks fetch files from public https addresses.")
    ] = False,
    oidc_issuer: Annotated[str, typer.Option(help="Accept the tokens of this OpenID provider, too.")] = "",
    oidc_audience: Annotated[str, typer.Option(help="What its tokens must be made out to.")] = "",
    oidc_jwks: Annotated[str, typer.Option(help="Its public keys: a file, or an https address.")] = "",
    oidc_claim: Annotated[str, typer.Option(help="The claim that names roles.")] = "roles",
    oidc_role: Annotated[
        list[str] | None, typer.Option(help="VALUE=ROLE pairs; without any, the claim holds roles' names.")
    ] = None,
    oidc_client: Annotated[
        str, typer.Option(help="This server's id at the provider: people may then sign in there.")
    ] = "",
) -> None:
    """Serve the API and the page over this home."""
    import uvicorn

    from server.app import create_app
    from server.production import require_production_grade

    tls = {"ssl_certfile": tls_cert, "ssl_keyfile": tls_key}
    _require_tls(tls_cert, tls_key)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = base_url or f"{'https' if tls_cert else 'http'}://{shown}:{listening.getsockname()[1]}"
    settings = ServeSettings(
        base_url=url,
        allowed_hosts=allowed_hosts(url),
        production=production,
        num_workers=workers,
        lease_s=lease,
        requests_per_minute=requests_per_minute,
        url_checks=url_checks,
        oidc=_oidc(
            oidc_issuer,
            oidc_audience,
            oidc_jwks,
            oidc_claim,
            oidc_role or [],
            client=(oidc_client, read_settings().oidc_secret),
        ),
    )
    with listening, open_home() as home:
        if production:
            require_production_grade(home, settings, proxy=proxy, has_tls=tls_cert is not None)
        app = create_app(home, settings)
        if not production:
            _greet(app.state.service, url)
        uvicorn.Server(uvicorn_config(app, host, port, settings, proxy=proxy, **tls)).run([listening])


def _require_tls(cert: str | None, key: str | None) -> None:
    """UsageError `serve.tls` for a certificate and a key that cannot be read or do not belong together."""
    from provenance.errors import UsageError

    if cert is None and key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert or "", key or "")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "serve.tls",
            f"Certificate and key cannot be used ({type(error).__name__}).",
            "Give --tls-cert, the chain, and --tls-key, its key, both PEM.",
        ) from None


def _listen(host: str, port: int) -> socket.socket:
    """The socket, taken before anything else is said: UsageError `serve.address` where it cannot be had."""
    from provenance.errors import UsageError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no address"
        raise UsageError(
            "serve.address",
            f"{host} port {port} cannot be listened on: {reason}.",
            "Give another --port (0: any free one) or --host.",
        ) from None


def uvicorn_config(
    app: Any, host: str, port: int, settings: ServeSettings, *, proxy: str | None = None, **tls: str | None
) -> uvicorn.Config:
    """uvicorn with our limits: guarded headers, no own log, no Server header, a bound on connections."""
    import uvicorn

    from server.limits import GuardedProtocol

    return uvicorn.Config(
        app,
        host,
        port,
        http=GuardedProtocol,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy or "",
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=20,
        **tls,  # type: ignore[arg-type]
    )


def _oidc(
    issuer: str,
    audience: str,
    jwks: str,
    claim: str,
    pairs: Sequence[str],
    client: tuple[str, str] = ("", ""),
) -> OidcSettings | None:
    """What the options say of a provider; `client` is this server's id there and its secret."""
    from provenance.errors import UsageError
    from server.auth import ROLES

    if not (issuer or audience or jwks or pairs or client[0]):
        return None
    if not (issuer and audience and jwks):
        raise UsageError(
            "oidc.incomplete",
            "A provider is told by its issuer, an audience and its keys.",
            "Give --oidc-issuer, --oidc-audience and --oidc-jwks.",
        )
    roles = tuple((value, role) for value, _, role in (each.rpartition("=") for each in pairs))
    if any(not value or role not in ROLES for value, role in roles):
        raise UsageError(
            "oidc.role",
            "A mapping names no role of ours.",
            f"Write VALUE=ROLE, ROLE one of {', '.join(ROLES)}.",
        )
    return OidcSettings(issuer, audience, jwks, claim, roles, *client)


def allowed_hosts(url: str) -> tuple[str, ...]:
    name = url.split("://", 1)[-1].split("/", 1)[0]
    name = name if name.endswith("]") else name.rsplit(":", 1)[0]
    return tuple(dict.fromkeys((name, "127.0.0.1", "localhost", "[::1]")))


def _greet(service: Any, url: str) -> None:
    """A link that logs the operator in once, with every role: who can run this command owns the home anyway."""
    import time

    from server import auth

    _, stored = auth.make_key(service.home.database, auth.ROLES, "operator of `facsimile serve`", 12 * 3600.0)
    code = service.entry_codes.make(stored.id, time.time())
    say(f"facsimile serves {url}; this link logs you in once, within ten minutes:")
    say(f"  {url}/enter?code={code}")
