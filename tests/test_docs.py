"""The documents are true: links, commands, settings, promises and the file map are compared with the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from server.cli import build_app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "datasets").rglob("*.md")])
PACKAGES = ("fusion", "detector", "provenance", "server", "datasets/facesets", "datasets/setmaking")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def commands(app: typer.Typer, prefix: str = "facsimile") -> Iterator[str]:
    for command in app.registered_commands:
        yield f"{prefix} {command.name}"
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{prefix} {group.name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in targets if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("command", sorted(commands(build_app())))
def test_every_command_is_documented(command: str) -> None:
    assert command in (ROOT / "docs" / "cli.md").read_text()


def test_every_setting_is_documented() -> None:
    settings = {
        name
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"\bFACSIMILE_[A-Z_]+\b", path.read_text())
    }
    text = (ROOT / "docs" / "cli.md").read_text()
    assert settings
    assert [name for name in sorted(settings) if name not in text] == []


def test_readme_shows_the_help_as_printed() -> None:
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'facsimile'; from server.cli import main; main()",
            "--help",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}", "COLUMNS": "100", "PATH": "", "HOME": str(ROOT)},
    ).stdout
    wanted = [line.rstrip() for line in printed.strip().splitlines()]
    assert "\n".join(wanted) in (ROOT / "README.md").read_text()


def test_readme_maps_every_file_with_a_comment() -> None:
    text = (ROOT / "README.md").read_text()
    missing = []
    for folder in PACKAGES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == "__init__.py":
                continue
            pattern = rf"^\s+(?:\S+/)*{re.escape(path.name)}\s{{2,}}\S+"
            if not re.search(pattern, text, flags=re.MULTILINE):
                missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_promises_name_tests_that_exist() -> None:
    named = re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", (ROOT / "README.md").read_text())
    assert len(named) >= 5
    for file, test in named:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert test in functions, f"{file}::{test}"


def test_every_module_says_what_it_does() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
