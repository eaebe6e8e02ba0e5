"""What can be set, called, measured or run is described: a thing without a word in the docs is not finished."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

import run
from app.main import external_api, internal_api
from core.metrics import METRICS
from core.settings import Settings, setting_names
from core.tasks.registry import task_names

ROOT = Path(__file__).resolve().parents[2]


@cache
def _docs() -> str:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())


@cache
def _plain_docs() -> str:
    """The docs, with the names in braces of paths left out: `{name}` and `{model}` are the same place."""
    return re.sub(r"\{[^{}\s]*\}", "{}", _docs())


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_is_described(name: str) -> None:
    assert re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.]*\w)", _docs()), f"the setting {name}"


def _routes() -> Iterator[tuple[str, str]]:
    for app, prefix in ((internal_api(Settings()), "/api/v1/internal"), (external_api(), "")):
        for path, operations in app.openapi()["paths"].items():
            for method in operations:
                yield method.upper(), prefix + path


@pytest.mark.parametrize(("method", "path"), sorted(set(_routes())))
def test_every_route_is_described(method: str, path: str) -> None:
    """With its method in front (`GET/POST users` counts for both), with or without the API's prefix."""
    plain = re.sub(r"\{[^{}]*\}", "{}", path)
    short = plain.removeprefix("/api/v1/internal/").removeprefix("/")
    place = rf"(?:/api/v1/internal)?/?{re.escape(short)}(?![\w/{{-])"
    pattern = rf"\b(?:[A-Z]+[/, ]+)*{method}(?:[/, ]+[A-Z]+)*`?[ |]+`?{place}"
    assert re.search(pattern, _plain_docs()), f"{method} {path}"


@pytest.mark.parametrize("name", sorted(metric.name for metric in METRICS))
def test_every_metric_is_described(name: str) -> None:
    assert name in _docs()


def _commands(command: typer.core.TyperGroup, before: tuple[str, ...] = ()) -> Iterator[str]:
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from _commands(inner, (*before, name))
        else:
            yield " ".join((*before, name))


@pytest.mark.parametrize("command", sorted(_commands(typer.main.get_command(run.cli))))
def test_every_command_is_described(command: str) -> None:
    assert re.search(rf"(?:run\.py|pulvinar|`)[^\n`]*\b{re.escape(command)}\b", _docs()), command


def _is_writing(call: ast.AST) -> bool:
    """Whether a call writes an entry of the audit log: `actor.note(session, action, …)`, `Audit(…).add(…)`."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    made = call.func.value.func if isinstance(call.func.value, ast.Call) else None
    return (call.func.attr == "note" and len(call.args) >= 3) or getattr(made, "id", "") == "Audit"


def _is_elsewhere(call: ast.AST) -> bool:
    """Whether a call's dotted words are no actions: lines of the log, and points where tests end a process."""
    if not isinstance(call, ast.Call):
        return False
    of = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    return getattr(of, "id", "") in ("log", "reach")


def _audited() -> set[str]:
    """Every action, by the dotted words in the modules that write entries."""
    found: set[str] = set()
    for file in (*(ROOT / "core").rglob("*.py"), *(ROOT / "app").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        if not any(map(_is_writing, nodes)):
            continue
        others = {id(word) for call in nodes if _is_elsewhere(call) for word in ast.walk(call)}
        words = (node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in others)
        found.update(word for word in words if isinstance(word, str) and re.fullmatch(r"[a-z_]+\.[a-z_]+", word))
    return found


def test_the_list_of_audited_actions_is_the_code_s() -> None:
    text = (ROOT / "docs" / "internal-api.md").read_text(encoding="utf-8")
    table = text[text.index("\n| of | actions |") :]
    listed = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table[: table.index("\n\n")]))
    assert listed == _audited()


@pytest.mark.parametrize("task", task_names())
def test_every_task_has_a_page_with_a_call_and_its_answer(task: str) -> None:
    page = (ROOT / "docs" / "tasks" / f"{task}.md").read_text(encoding="utf-8")
    assert re.search(r"^curl ", page, re.MULTILINE), "no call"
    answers = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    named = rf'"request_id": ?"\w+".*"task": ?"{task}"'
    assert any(re.search(named, answer, re.DOTALL) for answer in answers), "no answer of a server"


def _planted() -> set[str]:
    """The tasks that an error is planted into, to see that their golden tests notice it."""
    files = (file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    return {task for text in files for task in re.findall(r"^@pytest\.mark\.planted\(\"([a-z-]+)\"\)", text, re.M)}


def test_every_task_has_a_golden_test_that_notices_a_planted_error() -> None:
    assert _planted() == set(task_names())


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "benchmarks" / "results").glob("*.json")))
def test_every_recorded_figure_is_shown(name: str) -> None:
    """As a table between markers, or told of by the benchmark's or the record's own place."""
    assert re.search(rf"<!-- results: {name} -->|benchmarks/(?:results/)?{name}\b", _docs())


def test_every_link_between_the_docs_leads_somewhere() -> None:
    broken = []
    for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", link) and not (file.parent / link).exists():
                broken.append(f"{file.relative_to(ROOT)}: {link}")
    assert not broken, "\n".join(broken)


def test_every_decision_has_a_number_of_its_own() -> None:
    """Others are told of it by its number."""
    numbers = Counter(file.name.partition("-")[0] for file in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert max(numbers.values()) == 1, numbers.most_common(1)
