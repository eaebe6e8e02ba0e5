"""Each attack that docs/security.md lists has tests, and they exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {
    *("engine host", "worker", "server", "half-done", "revoked"),
    *("disk full", "database", "Redis", "clock", "swap", "leak", "connections"),
}


@cache
def _table() -> dict[str, list[str]]:
    section = (ROOT / "docs/security.md").read_text().split("## Attacks and their tests")[1]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \| (.+) \|$", section, re.MULTILINE)
    return {line: re.findall(r"`([^`]+)`", tests) for line, tests in rows if line not in ("line", "---")}


@cache
def _functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_no_line_is_left_out() -> None:
    assert set(_table()) == {str(number) for number in range(1, 23)} | FAULTS


@pytest.mark.parametrize("line", _table())
def test_a_line_has_tests_that_exist(line: str) -> None:
    tests = _table()[line]
    assert tests, line
    for test in tests:
        file, name = test.split("::")
        assert name in _functions(file), test


def test_core_renders_no_templates_but_in_a_sandbox() -> None:
    """A template that came with a model must not reach the process; the pages' own are the app's."""
    for room in ("core", "schemas"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert name.split(".")[0] != "jinja2" or name == "jinja2.sandbox", path
