"""One process's way to the database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from core.database.audit_chain import seal
from core.database.data_version import DataVersion
from core.database.failures import platform_error
from core.database.urls import driver_url, sqlite_path
from core.errors import Unavailable

_WRITES = "pulvinar_writes"
_HURRIED = "hurried"
_COMMITTING = "pulvinar_committing"
HURRY_S = 2.5


class Database:
    """Sessions on SQLite or PostgreSQL. Belongs to the event loop that first uses it.

    Whatever the database itself cannot do (gone, locked past `timeout_s`, full) is raised as Unavailable.
    """

    def __init__(self, url: str, *, pool_size: int = 5, timeout_s: float = 10) -> None:
        self._timeout_s = timeout_s
        self._engine = make_engine(driver_url(url), pool_size=pool_size, timeout_s=timeout_s)
        self._writing_engine = writing(self._engine)
        # SQLite has one writer; waiting here is fair, where its own busy handler is a lottery.
        self._turn = asyncio.Lock() if self.dialect == "sqlite" else None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def dialect(self) -> str:
        """Either `sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """For reading: what is seen is rolled back at the end."""
        async with self._on(self._engine) as session:
            yield session

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """For writing: commits at the end, rolls back on any error. Must not be nested."""
        async with self._writer(), self._on(self._writing_engine) as session:
            yield session
            await seal(session)
            committing = session.info[_COMMITTING] = asyncio.create_task(session.commit())
            await asyncio.shield(committing)

    def hurry(self) -> None:
        """The process is ending: from now on nobody waits long for a database that somebody else holds.

        A task that waits for SQLite's lock cannot be hurried: its cancellation has to wait as well.
        """
        self._timeout_s = min(self._timeout_s, HURRY_S)
        self._writing_engine = self._engine.execution_options(**{_WRITES: _HURRIED})

    def data_version(self, timeout_s: float) -> DataVersion | None:
        """What tells cheaply that nothing was committed; None for a database that has no such thing."""
        path = sqlite_path(self._engine.url)
        return None if path is None else DataVersion(partial(_open_sqlite, path, self._timeout_s), timeout_s)

    async def ping(self) -> None:
        """Raise Unavailable unless the database answers a query within the timeout."""
        try:
            async with asyncio.timeout(self._timeout_s), self.session() as session:
                await session.execute(text("SELECT 1"))
        except TimeoutError as error:
            raise Unavailable("The database does not answer.", retry_after_s=2) from error

    async def close(self) -> None:
        """Close every connection; the database may not be used afterwards."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=self._timeout_s)
        await self._engine.dispose()

    @asynccontextmanager
    async def _on(self, engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
        session = AsyncSession(engine, expire_on_commit=False)
        try:
            await _connect(session)
            yield session
        finally:
            # Whoever is cancelled leaves a connection that is still to be committed or rolled back. That goes on
            # without them, and `close` waits for it: cut off, it would be an error in the log of an orderly end.
            ending = asyncio.create_task(_end(session))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.shield(ending)

    def _writer(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._turn is None else _held(self._turn, self._timeout_s)


def make_engine(
    url: URL, *, pool_size: int = 5, timeout_s: float = 10, pooled: bool = True, foreign_keys: bool = True
) -> AsyncEngine:
    """An engine whose failures are the platform's errors, with SQLite set up for several processes."""
    options: dict[str, Any] = {"poolclass": NullPool}
    if pooled:
        options = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": timeout_s, "pool_pre_ping": True}
    path = sqlite_path(url)
    if path is not None:
        options["async_creator"] = lambda: _open_sqlite(path, timeout_s)
    else:
        options["connect_args"] = {"timeout": timeout_s, "command_timeout": timeout_s}
    engine = create_async_engine(url, hide_parameters=True, **options)
    event.listen(engine.sync_engine, "handle_error", _translate)
    if path is not None:
        _set_up_sqlite(engine, timeout_s, foreign_keys)
    return engine


def writing(engine: AsyncEngine) -> AsyncEngine:
    """The same engine, whose transactions begin as writers."""
    return engine.execution_options(**{_WRITES: True})


class _Connection(sqlite3.Connection):
    """One that lets go of the database when it is closed.

    A statement that was cut off, by a cancelled task, is there until the task's traceback is. SQLite keeps a
    connection for as long as its statements, and with it the lock of its transaction: nobody could write.
    """

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


class _SqliteConnection(aiosqlite.Connection):
    """One that may be stopped more than once.

    A query that is cancelled twice has its connection closed and, while that goes on, stopped. Its thread ends
    with the first of the two and would leave whoever waits for the second waiting for ever, the end of the process
    too.
    """

    _stopped: asyncio.Future[Any] | None = None

    def stop(self) -> asyncio.Future[Any] | None:
        if self._stopped is None:
            self._stopped = super().stop()
        return self._stopped


async def _open_sqlite(path: Path, timeout_s: float) -> aiosqlite.Connection:
    connection = _SqliteConnection(
        lambda: sqlite3.connect(path, timeout=timeout_s, factory=_Connection), iter_chunk_size=64
    )
    thread = connection._thread
    thread.daemon = True  # one that was forgotten must not keep the process from ending
    # A connection that is cancelled is closed by its thread, a moment after everybody has let go of it; until then
    # the thread holds it, or it would complain of never having been closed.
    thread._connection = connection  # type: ignore[attr-defined]
    try:
        return await connection
    except BaseException:
        # Its thread still has something to say to the event loop, which must not be closed before.
        await asyncio.to_thread(thread.join, timeout_s)
        raise


def _set_up_sqlite(engine: AsyncEngine, timeout_s: float, foreign_keys: bool) -> None:
    pragmas = (
        f"PRAGMA busy_timeout = {int(timeout_s * 1000)}",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}",
    )

    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by its own rules
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads and then writes fails at once if another wrote in between, whatever the busy
    # timeout; one that takes the write lock when it begins waits for its turn.
    writes = connection.get_execution_options().get(_WRITES)
    if writes == _HURRIED:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(HURRY_S * 1000)}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _translate(context: ExceptionContext) -> BaseException | None:
    return platform_error(context.sqlalchemy_exception or context.original_exception)


async def _end(session: AsyncSession) -> None:
    committing: asyncio.Task[None] | None = session.info.get(_COMMITTING)
    if committing is not None:
        await asyncio.wait((committing,))
    await session.close()


async def _connect(session: AsyncSession) -> None:
    """Take the connection now, so that a failure to get one is never mistaken for the caller's own."""
    try:
        await session.connection()
    except Exception as error:
        translated = platform_error(error)
        if translated is None:
            raise
        raise translated from error


@asynccontextmanager
async def _held(lock: asyncio.Lock, timeout_s: float) -> AsyncIterator[None]:
    try:
        # Not `wait_for`: before Python 3.12 it loses a cancellation that comes as the lock is given.
        async with asyncio.timeout(timeout_s):
            await lock.acquire()
    except TimeoutError as error:
        raise Unavailable("The database is too busy to answer now; try again in a moment.") from error
    try:
        yield
    finally:
        lock.release()
