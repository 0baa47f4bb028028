"""`key`: API keys made, listed and withdrawn; a key is shown once and never stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from server.console import Json, emit, report_errors, say, table
from server.deps import open_home


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="API keys of the server.", rich_markup_mode=None)
    group.command("new")(new)
    group.command("list")(list_keys)
    group.command("revoke")(revoke)
    app.add_typer(group, name="key")


@report_errors
def new(
    role: Annotated[list[str], typer.Option(help="generator, verifier, auditor, consent_officer, admin.")],
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Good for so many days.")] = None,
    json_output: Json = False,
) -> None:
    """Make a key; it is shown this once."""
    from server import auth
    from server.tables import ensure_tables

    with open_home() as home:
        ensure_tables(home.database)
        lifetime_s = None if days is None else days * 86_400.0
        key, stored = auth.make_key(home.database, role, label, lifetime_s)
    if json_output:
        emit({"key": key, "id": stored.id, "roles": list(stored.roles)})
        return
    say(key)
    say(f"{stored.id}, roles {' '.join(stored.roles)}. It is shown this once; only its hash is kept.")


@report_errors
def list_keys(json_output: Json = False) -> None:
    """List every key: id, roles, until when; never the key."""
    from server import auth
    from server.tables import ensure_tables

    with open_home() as home:
        ensure_tables(home.database)
        found = auth.list_keys(home.database)
    columns = ("id", "roles", "label", "created", "expires", "revoked")
    rows = [
        (
            each.id,
            " ".join(each.roles),
            each.label,
            _day(each.created_at),
            _day(each.expires_at),
            _day(each.revoked_at),
        )
        for each in found
    ]
    if json_output:
        emit({"keys": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        table(columns, rows)


@report_errors
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, from `key list`.")],
    json_output: Json = False,
) -> None:
    """Withdraw a key and end its sessions, effective at once."""
    from server import auth
    from server.tables import ensure_tables

    with open_home() as home:
        ensure_tables(home.database)
        auth.revoke_key(home.database, key_id)
    if json_output:
        emit({"id": key_id, "revoked": True})
    else:
        say(f"Revoked {key_id}.")


def _day(time: float | None) -> str:
    return "" if time is None else datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
