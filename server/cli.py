"""The command line, `facsimile`: the same calls as the API, one console script; heavy modules load late."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from server.commands import (
    audit,
    bench,
    certificate,
    check,
    detector,
    home,
    keep,
    key,
    make,
    people,
    recover,
    serve,
    sets,
    workshop,
)

MANY_VALUED = frozenset(
    {
        "--image", "--source", "--grant", "--purpose", "--scope", "--media", "--use", "--jurisdiction",
        "--map", "--engine",
        "--against", "--files", "--role", "--oidc-role", "--case", "--without", "--kind", "--views",
    }
)  # fmt: skip
"""Options that take several values, as `--image a.png b.png` or repeated."""


def build_app() -> typer.Typer:
    """Assemble every command; importing this loads neither torch nor OpenCV."""
    app = typer.Typer(
        name="facsimile",
        help="Make synthetic faces that always carry a mark and a signature; check what can be proven of a file.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for module in (
        home,
        make,
        check,
        recover,
        people,
        audit,
        sets,
        workshop,
        detector,
        bench,
        serve,
        key,
        certificate,
        keep,
    ):
        module.add_to(app)
    return app


def spread(arguments: Sequence[str]) -> list[str]:
    """Rewrite `--image a b` to `--image a --image b` for the options that take several values."""
    spread_out: list[str] = []
    option: str | None = None
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            option = argument if argument in MANY_VALUED else None
            spread_out.append(argument)
        elif option is not None and spread_out[-1] != option:
            spread_out += [option, argument]
        else:
            spread_out.append(argument)
    return spread_out


def main() -> None:
    """Entry point of the console script."""
    build_app()(args=spread(sys.argv[1:]))
