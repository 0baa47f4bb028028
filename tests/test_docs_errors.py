"""Every error code that the source can raise has its row in docs/errors.md, and every row its code."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import provenance.errors
from provenance.errors import FacsimileError

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fusion", "detector", "provenance", "server", "datasets/facesets", "datasets/setmaking")
CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
EXIT_CODES = {
    name: kind.exit_code
    for name, kind in vars(provenance.errors).items()
    if isinstance(kind, type) and issubclass(kind, FacsimileError)
}
EXIT_CODES["Problem"] = 3  # what `fsck` lists and raises as LedgerError
EXIT_CODES["FacesetError"] = 2  # floor 0 knows no other; the command line maps it
EXIT_CODES |= {
    "TooBusyError": 1,
    "LeaseLostError": 1,
    "CancelledError": 1,
}  # the server's own kinds of refusal


@dataclass
class Module:
    """One parsed file; finds out which strings an expression in it can be, as far as its text tells."""

    path: Path
    tree: ast.Module
    owner: dict[ast.AST, ast.FunctionDef | None] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Module:
        module = cls(path, ast.parse(path.read_text(encoding="utf-8")))
        module._own(module.tree, None)
        return module

    def _own(self, node: ast.AST, owner: ast.FunctionDef | None) -> None:
        for child in ast.iter_child_nodes(node):
            self.owner[child] = owner
            self._own(child, child if isinstance(child, ast.FunctionDef) else owner)

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name):
                    yield node.func.id, node
                elif isinstance(node.func, ast.Attribute):
                    yield node.func.attr, node

    def strings(self, node: ast.AST) -> set[str]:
        """What `node` can be; empty for a code that is only passed on (`error.code`, `answer["code"]`)."""
        match node:
            case ast.Constant(value=text):
                found = {text} if isinstance(text, str) else set()
            case ast.IfExp(body=one, orelse=other):
                found = self.strings(one) | self.strings(other)
            case ast.BoolOp(values=choices):
                found = set[str]().union(*map(self.strings, choices))
            case ast.JoinedStr(values=parts):
                choices_of_parts = [self.strings(part) for part in parts]
                found = {"".join(choice) for choice in itertools.product(*choices_of_parts)}
            case ast.FormattedValue(value=value):
                found = self.strings(value)
            case ast.Name(id=name):
                found = self.name(name, self.owner[node])
            case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get")):
                found = self.table(table)
            case ast.Subscript(value=ast.Name(id=table)) if self.table(table):
                found = self.table(table)
            case _:
                assert "code" in ast.unparse(node), f"{self.path}: which code is {ast.unparse(node)}?"
                found = set()
        return found

    def table(self, name: str) -> set[str]:
        """The values of a dict of the module."""
        return {
            text
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and node.targets[0].id == name  # type: ignore[attr-defined]
            for value in node.value.values
            for text in self.strings(value)
        }

    def name(self, name: str, owner: ast.FunctionDef | None) -> set[str]:
        """A parameter is what its callers pass; another name is what is assigned to it in its function."""
        names = [argument.arg for argument in owner.args.args] if owner else []
        if name not in names:
            return self.assigned(name, owner or self.tree)
        assert owner is not None
        position = names.index(name) - (names[0] == "self")
        found = set[str]()
        for called, call in self.calls():
            if called == owner.name:
                by_name = [keyword.value for keyword in call.keywords if keyword.arg == name]
                found |= self.strings((by_name or call.args[position:])[0])
        return found

    def assigned(self, name: str, owner: ast.AST) -> set[str]:
        found = set[str]()
        for node in ast.walk(owner):
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == name for target in node.targets):
                found |= self.strings(node.value)
        return found

    def raised(self) -> Iterator[tuple[str, str]]:
        """(code, class) of each call of an exception that takes a code; problems that `fsck` lists, too."""
        for called, call in self.calls():
            if called in EXIT_CODES:
                by_name = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
                for code in self.strings((by_name or call.args)[0]):
                    yield code, called


@functools.cache
def modules() -> list[Module]:
    return [Module.read(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def raised_codes() -> dict[str, set[int]]:
    """Code → exit codes it ends with."""
    found: dict[str, set[int]] = {}
    for module in modules():
        for code, kind in module.raised():
            assert CODE.fullmatch(code), f"{module.path}: {code!r} is no dotted code"
            found.setdefault(code, set()).add(EXIT_CODES[kind])
    return found


def rule_ids() -> set[str]:
    """The ids of the consent rules."""
    tree = Module.read(ROOT / "provenance" / "rules.py")
    return {text for called, call in tree.calls() if called == "Rule" for text in tree.strings(call.args[0])}


def documented(heading: str) -> dict[str, list[str]]:
    """First cell, without its quotes → the other cells, of the tables under a heading of level 2."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    lines = next(part for part in section if part.startswith(heading)).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    codes = [row[0].strip("`") for row in rows]
    assert [code for code in codes if codes.count(code) > 1] == [], "twice in docs/errors.md"
    return dict(zip(codes, (row[1:] for row in rows), strict=True))


def test_every_code_of_the_source_has_its_row_and_every_row_its_code() -> None:
    raised, rows = raised_codes(), documented("Codes")
    assert set(raised) - set(rows) == set(), "raised, and missing from docs/errors.md"
    assert set(rows) - set(raised) == set(), "in docs/errors.md, and raised nowhere"


def test_every_row_states_exit_code_cause_and_next_step() -> None:
    raised = raised_codes()
    for code, cells in documented("Codes").items():
        ends, cause, step = cells
        wanted = " or ".join(str(number) for number in sorted(raised.get(code, set())))
        assert ends == wanted, f"{code} ends with {wanted}"
        assert len(cause) > 10, code
        assert len(step) > 5, code


def test_every_rule_of_consent_has_its_row() -> None:
    assert set(documented("Rules")) == rule_ids()


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("InputError('a.b', 'x', 'y')", {"a.b"}),
        ("def f(kind): return LedgerError(f'ledger.{kind}_proof', '', '')\nf('one'); f(kind='two')", None),
        ("def f(code): raise StoreError(code, '', '')\ndef g(code): f(code)\ng('a.c')", {"a.c"}),
        ("T = {1: 'a.d', 2: 'a.e'}\ndef f(n):\n c = T[n]\n raise StoreError(c, '', '')", {"a.d", "a.e"}),
        ("raise MediaError(error.code, '', '')", set()),
        ("raise StoreError('a.f' if x else 'a.g', '', '')", {"a.f", "a.g"}),
    ],
)
def test_the_reader_of_codes_follows_names(source: str, codes: set[str] | None) -> None:
    module = Module(Path("x.py"), ast.parse(source))
    module._own(module.tree, None)
    wanted = {"ledger.one_proof", "ledger.two_proof"} if codes is None else codes
    assert {code for code, _ in module.raised()} == wanted
