"""Empty, migrated databases for tests: a fresh one for each, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest

from core.database import migration
from core.database.session import Database

DIALECTS = ("sqlite", "postgresql")
SERVER = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432")

Result = TypeVar("Result")


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty database; once for each dialect. Import it into a conftest to use it."""
    with fresh_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=DIALECTS)
def bare_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table; of a SQLite file that is not there yet."""
    with bare_database(request.param, tmp_path) as url:
        yield url


def with_database(url: str, work: Callable[[Database], Awaitable[Result]], *, timeout_s: float = 10) -> Result:
    """Run `work` on the database in an event loop of its own, and close it."""

    async def run() -> Result:
        database = Database(url, timeout_s=timeout_s)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


@contextmanager
def fresh_database(dialect: str, folder: Path) -> Iterator[str]:
    """A migrated, empty database, gone at the end."""
    if dialect == "sqlite":
        path = folder / "pulvinar.db"
        shutil.copyfile(_sqlite_template(), path)
        yield f"sqlite:///{path}"
    else:
        _need_server()
        with _server_database(template=_server_template()) as name:
            yield f"{SERVER}/{name}"


@contextmanager
def bare_database(dialect: str, folder: Path) -> Iterator[str]:
    """A database without any table, gone at the end."""
    if dialect == "sqlite":
        yield f"sqlite:///{folder / 'bare.db'}"
    else:
        _need_server()
        with _server_database(template="template1") as name:
            yield f"{SERVER}/{name}"


@contextmanager
def _server_database(template: str) -> Iterator[str]:
    name = f"pulvinar_test_{uuid.uuid4().hex[:12]}"
    _on_server(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield name
    finally:
        _on_server(f'DROP DATABASE "{name}" WITH (FORCE)')


@cache
def _sqlite_template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pulvinar-test-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "template.db"
    asyncio.run(migration.upgrade(f"sqlite:///{path}"))
    return path


@cache
def _server_template() -> str:
    name = f"pulvinar_test_{uuid.uuid4().hex[:12]}"
    _on_server(f'CREATE DATABASE "{name}"')
    atexit.register(_on_server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    asyncio.run(migration.upgrade(f"{SERVER}/{name}"))
    return name


@cache
def _need_server() -> None:
    try:
        _on_server("SELECT 1")
    except (OSError, asyncpg.PostgresError):
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL does not answer")
        pytest.skip("PostgreSQL does not answer")


def _on_server(statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(f"{SERVER}/postgres", timeout=10)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
