"""Who may import whom: the picture of docs/architecture.md, held by walking the imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEAVES = {
    "core.errors",
    "core.settings",
    "core.setting_section",
    "core.oidc_settings",
    "core.stream_settings",
    "core.tracing_settings",
    "core.setting_sources",
    "core.metrics",
    "core.signature",
    "core.logs",
    "core.kill_points",
}
WEB = {"fastapi", "starlette", "uvicorn", "slowapi", "typer", "jinja2", "python_multipart"}
# What a room of core may import beside itself and the leaves, as beginnings of modules.
CORE: dict[str, set[str]] = {
    "core.engines": set(),
    "core.media": set(),
    "core.database": set(),
    "core.tasks": {"core.media"},
    "core.serving": {"core.engines.base", "core.tasks.base", "core.tasks.stepped", "core.tasks.streams"},
    "core.store": {"core.database"},
    "core.access": {"core.database"},
    "core.validation": {"core.engines", "core.tasks", "core.store"},
    "core.control": {"core"},
    "core.pipelines": {"core.serving", "core.tasks.base", "core.media", "core.store.yaml_reader"},
    "core.routing": {"core.serving"},
    "core.cluster": {"core.serving"},
    "core.optimiser": {
        "core.engines",
        "core.media",
        "core.tasks",
        "core.store",
        "core.database",
        "core.validation",
    },
}
# Leaves import each other where one is made for the other, and in no circle.
BETWEEN_LEAVES = {
    ("core.logs", "core.settings"),
    ("core.setting_sources", "core.settings"),
    ("core.settings", "core.setting_section"),
    ("core.settings", "core.oidc_settings"),
    ("core.settings", "core.stream_settings"),
    ("core.settings", "core.tracing_settings"),
    ("core.tracing_settings", "core.setting_section"),
    ("core.oidc_settings", "core.setting_section"),
    ("core.stream_settings", "core.setting_section"),
}
# The one who runs the migrations has to find them.
BEYOND_CORE = {("core.database.migration", "migrations"), ("core.database.migration", "migrations.HEAD")}
OURS = ("app", "core", "schemas", "migrations", "tests", "run")


def _is(module: str, beginning: str) -> bool:
    return module == beginning or module.startswith(beginning + ".")


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def wrong(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`; None where it may."""
    ours = imported.split(".")[0] in OURS
    if _is(module, "core"):
        return _wrong_in_core(module, imported, ours)
    if _is(module, "schemas") and not _is(imported, "schemas"):
        third_party = imported.split(".")[0] not in sys.stdlib_module_names
        return "schemas import pydantic only" if third_party and not _is(imported, "pydantic") else None
    if _is(module, "migrations") and ours:
        allowed = _is(imported, "core.database") or _is(imported, "migrations")
        return None if allowed else "migrations import the database only"
    if (_is(module, "app") or module == "run") and (_is(imported, "tests") or _is(imported, "migrations")):
        return "app imports core and schemas only"
    return None


def _wrong_in_core(module: str, imported: str, ours: bool) -> str | None:
    if imported.split(".")[0] in WEB:
        return "core knows no web framework"
    if not ours or (module, imported) in BEYOND_CORE:
        return None
    if not _is(imported, "core"):
        return "core imports core only"
    if module in LEAVES:
        return None if (module, imported) in BETWEEN_LEAVES else "a leaf imports nothing else of core"
    room = _room(module)
    allowed = {*LEAVES, room, *CORE.get(room, set())}
    if any(_is(imported, beginning) for beginning in allowed):
        return None
    return f"{room} may import {', '.join(sorted(CORE.get(room, set()))) or 'leaves only'}"


def _modules(*folders: str) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), path
    yield "run", ROOT / "run.py"


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in it, and each name as if it were one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield node.lineno, node.module
            if _is_package(node.module):
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _is_package(module: str) -> bool:
    # `from core import control` imports core.control; `from core.errors import NotFound` no module of that name.
    return (ROOT / module.replace(".", "/") / "__init__.py").is_file()


def test_nobody_imports_what_they_may_not() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}: {reason}"
        for module, path in _modules("core", "app", "schemas", "migrations")
        for line, imported in _imports(path)
        if (reason := wrong(module, imported)) is not None and imported not in ("core", "app")
    ]
    assert not found, "\n".join(found)


def test_every_room_of_core_has_its_rule() -> None:
    rooms = {_room(module) for module, _ in _modules("core") if module.startswith("core.")}
    assert rooms <= set(CORE) | LEAVES


def test_no_module_imports_itself_in_a_circle() -> None:
    """A circle of modules, imports inside of functions left out, would only load in a lucky order."""
    graph = {module: _at_load(path) for module, path in _modules("core", "app", "schemas")}
    seen: dict[str, bool] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, "a circle: " + " -> ".join([*way[way.index(module) :], module])
        if not seen.get(module):
            for other in graph.get(module, ()):
                visit(other, (*way, module))
            seen[module] = True

    for module in graph:
        visit(module, ())
    assert len(seen) > 100


def _at_load(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return {str(node.module) for node in nodes if str(node.module).split(".")[0] in OURS}


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("core.store.artifacts", "fastapi"),
        ("core.serving.batcher", "starlette.requests"),
        ("core.serving.batcher", "core.engines.onnx"),
        ("core.serving.batcher", "core.control.plan"),
        ("core.engines.onnx", "core.tasks.base"),
        ("core.media.images", "core.store.paths"),
        ("core.errors", "core.settings"),
        ("core.settings", "core.errors"),
        ("core.access.tokens", "app.state"),
        ("core.access.tokens", "core.serving.request"),
        ("core.validation.checks", "core.serving.deployment"),
        ("schemas.base", "core.errors"),
        ("schemas.base", "fastapi"),
        ("app.main", "tests.servers"),
        ("migrations.env", "core.control.plan"),
    ],
)
def test_a_planted_import_is_found(module: str, imported: str) -> None:
    assert wrong(module, imported) is not None


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("core.store.artifacts", "core.errors"),
        ("core.serving.batcher", "core.engines.base"),
        ("core.validation.checks", "core.tasks.registry"),
        ("core.control.plan", "core.validation.runner"),
        ("core.logs", "core.settings"),
        ("core.engines.onnx", "numpy"),
        ("schemas.base", "pydantic"),
        ("app.cli.model", "core.control.uploads"),
        ("migrations.env", "core.database.tables"),
    ],
)
def test_a_rightful_import_is_not(module: str, imported: str) -> None:
    assert wrong(module, imported) is None


def _loads(code: str, *modules: str) -> set[str]:
    """Which of `modules` are loaded after `code` in a process of its own."""
    import subprocess

    asked = f"import sys\n{code}\nprint(*(name for name in {modules!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_serving_loads_no_engine_and_no_task() -> None:
    """Held for what is loaded too: a registry that imports on first use must not be reached from the contracts."""
    code = "import core.serving.deployment, core.serving.catalogue"
    ours = [module for module, _ in _modules("core") if module.startswith(("core.engines.o", "core.tasks.i"))]
    assert len(ours) > 5
    assert not _loads(code, *ours, "onnx", "onnxruntime", "fastapi")


def test_a_host_starts_without_what_only_the_server_needs() -> None:
    """Every model with a process of its own pays for each of these at each start, and at each load on demand."""
    server_only = ("core.settings", "pydantic", "pydantic_settings", "sqlalchemy", "fastapi", "typer", "httpx")
    assert not _loads("import core.control.host_main", *server_only, "rich", "attr", "pygments", "psutil", "PIL")


def test_a_start_loads_nothing_that_it_may_not_need() -> None:
    later = ("httpx", "httpcore", "rich", "alembic", "onnxruntime", "onnx", "openvino", "torch", "jinja2", "redis")
    others = ("sqlalchemy.dialects.postgresql", "asyncpg", "core.engines.onnx", "core.engines.torch", "app.bench")
    code = "import run, core.access.bootstrap, core.database.migration, app.server"
    assert not _loads(code, *later, *others)


def test_help_and_wrong_use_load_no_server() -> None:
    assert not _loads(
        "import run", "sqlalchemy", "fastapi", "starlette", "uvicorn", "numpy", "PIL", "jose", "rich"
    )
