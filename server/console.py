"""What people and programs see of a command: one JSON object, tables, errors; computes nothing."""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from facesets.errors import FacesetError
from provenance.errors import ConsentError, FacsimileError, InputError

P = ParamSpec("P")
R = TypeVar("R")

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]


def say(line: str = "") -> None:
    """Print one plain line for people on stdout."""
    print(line, flush=True)


def complain(line: str) -> None:
    """Print one plain line for people on stderr, where it spoils no JSON."""
    print(line, file=sys.stderr)


def emit(payload: object) -> None:
    """Print exactly one JSON object on stdout."""
    print(json.dumps(payload, ensure_ascii=False, indent=2, sort_keys=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Draw a table for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    Console().print(drawn)


@contextmanager
def frame_progress() -> Iterator[Callable[[str], None]]:
    """How many frames were looked at and made, on stderr where that is a terminal; call it with each stage begun."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {
            stage: bars.add_task(told, total=None)
            for stage, told in (("perceive", "looked at"), ("encode", "made"))
        }

        def enter(stage: str) -> None:
            if stage in tasks:
                bars.advance(tasks[stage])

        yield enter


def error_payload(error: FacsimileError) -> dict[str, Any]:
    """The JSON form of an error; refusals list every failed rule."""
    rules = list(error.rules) if isinstance(error, ConsentError) else []
    return {
        "error": {"code": error.code, "rules": rules, "message": error.cause, "next": error.next_step},
    }


def report_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn every exception of a command into a message on stderr and the contract's exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except FacsimileError as error:
            _print_error(error, as_json=bool(kwargs.get("json_output")))
            raise typer.Exit(error.exit_code) from None
        except FacesetError as error:
            told = InputError(error.code, error.cause, error.next_step)
            _print_error(told, as_json=bool(kwargs.get("json_output")))
            raise typer.Exit(told.exit_code) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except MemoryError:
            _print_internal("out of memory", "Use a smaller picture, or a machine with more memory.")
            raise typer.Exit(4) from None
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            _print_internal(f"{type(error).__name__}: {error}", "Please report it with the lines above.")
            raise typer.Exit(4) from None

    return run


def _print_error(error: FacsimileError, *, as_json: bool) -> None:
    if as_json:
        emit(error_payload(error))
    lines = [f"error {error.code}", f"  cause  {error.cause}"]
    if isinstance(error, ConsentError):
        lines += [f"  rule   {rule}" for rule in error.rules]
    lines.append(f"  next   {error.next_step}")
    print("\n".join(lines), file=sys.stderr)


def _print_internal(cause: str, next_step: str) -> None:
    print(f"error internal\n  cause  {cause}\n  next   {next_step}", file=sys.stderr)
