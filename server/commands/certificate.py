"""`certificate`: this home's signing certificates listed, rotated, revoked; each change is a leaf of the ledger."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from server.console import Json, emit, report_errors, say, table
from server.deps import open_home
from server.settings import read_settings


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Signing certificates.", rich_markup_mode=None)
    group.command("list")(list_certificates)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    app.add_typer(group, name="certificate")


@report_errors
def list_certificates(json_output: Json = False) -> None:
    """List every certificate that signed for this home: in use, retired or revoked."""
    from provenance.keys import list_leaves

    with open_home() as home:
        rows = [asdict(each) for each in list_leaves(home.path / "keys")]
    for row in rows:
        row |= {name: row[name].isoformat() for name in ("not_before", "not_after")}
    if json_output:
        emit({"certificates": rows})
    else:
        table(("fingerprint", "from", "until", "state"), [list(row.values()) for row in rows])


@report_errors
def rotate(
    module: Annotated[
        Path | None, typer.Option(help="PKCS#11 library: the new key is made in a token.")
    ] = None,
    token: Annotated[str, typer.Option(help="Label of that token.")] = "",
    label: Annotated[str, typer.Option(help="Label of the new key in it.")] = "facsimile",
    json_output: Json = False,
) -> None:
    """Make a new signing key and certificate; what the old ones signed stays ours."""
    from provenance.hardware import TokenKey
    from provenance.keys import rotate_leaf

    where = None if module is None else TokenKey(str(module), token, label)
    with open_home() as home:
        name = rotate_leaf(home.path / "keys", token=where, pin=read_settings().pin)
        receipt = home.ledger.append(
            {"kind": "key_rotated", "certificate_sha256": name, "in_token": where is not None}
        )
    _tell("rotated", name, receipt.index, json_output)


@report_errors
def revoke(
    fingerprint: Annotated[str, typer.Argument(help="From `certificate list`.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    json_output: Json = False,
) -> None:
    """Withdraw a certificate: whatever it signed reads as untrusted from now on."""
    from provenance.errors import InputError
    from provenance.keys import list_leaves, revoke_leaf

    with open_home() as home:
        if fingerprint not in {each.fingerprint for each in list_leaves(home.path / "keys")}:
            raise InputError(
                "keys.unknown",
                "No certificate of this home has this fingerprint.",
                "See `facsimile certificate list`.",
            )
        revoke_leaf(home.path / "keys", fingerprint)
        body = {"kind": "key_revoked", "certificate_sha256": fingerprint, "reason": reason}
        receipt = home.ledger.append(body)
    _tell("revoked", fingerprint, receipt.index, json_output)


def _tell(what: str, fingerprint: str, index: int, json_output: bool) -> None:
    if json_output:
        emit({what: fingerprint, "ledger": {"index": index}})
    else:
        say(f"{what} {fingerprint}, leaf {index} of the ledger.")
