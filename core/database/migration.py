"""Bringing a database to the shape that the code expects.

Alembic is imported only where something is to be done: it is slow to import, and a server's start should not be.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from core.database.failures import platform_error
from core.database.session import make_engine, writing
from core.database.urls import driver_url, sqlite_path
from core.errors import Conflict, Unavailable
from migrations import HEAD

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"
_LOCK_KEY = 0x70756C76  # "pulv": any number that other users of the server are unlikely to lock
_LOCK_TIMEOUT_S = 120
_COMMAND_TIMEOUT_S = 3600


async def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up to `revision`, creating a SQLite database where there is none. Safe in several processes at once.

    Raises Unavailable where the database cannot be reached, Conflict where it is newer than this code.
    """
    from alembic import command

    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision`, or to nothing with `base`. Raises as `upgrade`."""
    from alembic import command

    await _run(url, lambda config: command.downgrade(config, revision))


async def check(url: str) -> None:
    """Compare the tables in the code with a migrated database; raises alembic's CommandError where they differ."""
    from alembic import command

    await _run(url, command.check)


async def current(url: str) -> str | None:
    """The revision of the database, or None where there is none yet. Never creates a file."""
    target = driver_url(url)
    path = sqlite_path(target)
    if path is not None and not path.exists():
        return None
    async with _connected(target) as connection:
        if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("alembic_version")):
            return None
        revision: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return revision


async def is_current(url: str) -> bool:
    """Whether the database has the shape that this code expects."""
    return await current(url) == HEAD


async def _run(url: str, command: Callable[[Config], object]) -> None:
    target = driver_url(url)
    path = sqlite_path(target)
    if path is not None:
        await asyncio.to_thread(_create_file, path)
    async with _file_lock(path), _connected(target, begin=True) as connection:
        if path is None:
            await _lock_server(connection)
        await connection.run_sync(_apply, command)
        if path is not None:
            await _check_foreign_keys(connection)


def _apply(connection: Connection, command: Callable[[Config], object]) -> None:
    from alembic.config import Config
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command(config)
    except CommandError as error:
        if isinstance(error.__cause__, ResolutionError):
            raise Conflict("The database belongs to another version of Pulvinar.") from error
        raise


@asynccontextmanager
async def _connected(target: URL, *, begin: bool = False) -> AsyncIterator[AsyncConnection]:
    # SQLite's tables are changed by copying them: with foreign keys on, dropping the old one would empty those
    # that refer to it. They are checked at the end instead.
    timeout_s = _COMMAND_TIMEOUT_S if begin else 10
    engine = make_engine(target, timeout_s=timeout_s, pooled=False, foreign_keys=not begin)
    try:
        async with _opened(writing(engine) if begin else engine, begin) as connection:
            yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def _opened(engine: AsyncEngine, begin: bool) -> AsyncIterator[AsyncConnection]:
    try:
        connection = await engine.connect().start()
    except Exception as error:
        raise platform_error(error) or error from error
    try:
        async with connection.begin() if begin else nullcontext():
            yield connection
    finally:
        await connection.close()


async def _lock_server(connection: AsyncConnection) -> None:
    await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))


async def _check_foreign_keys(connection: AsyncConnection) -> None:
    if (await connection.execute(sa.text("PRAGMA foreign_key_check"))).first() is not None:
        raise Conflict("The migration would leave rows that refer to nothing; the database was not changed.")


def _create_file(path: Path) -> None:
    """Make the file before SQLite does, for the server's user alone; the WAL files take its mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _file_lock(path: Path | None) -> AbstractAsyncContextManager[None]:
    return nullcontext() if path is None else _locked_file(path.with_name(path.name + ".migrate.lock"))


@asynccontextmanager
async def _locked_file(path: Path) -> AsyncIterator[None]:
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        await _flock(file)
        yield
    finally:
        os.close(file)  # which also lets go of the lock


async def _flock(file: int) -> None:
    # Asked again and again rather than awaited in a thread, which could not be given up.
    for _ in range(int(_LOCK_TIMEOUT_S / 0.05)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(0.05)
        else:
            return
    raise Unavailable("Another process has been migrating the database for too long.")
