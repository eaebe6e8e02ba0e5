"""Changes are noticed by looking, and a look costs little where nothing was committed."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import Engine, event

from core.control.changes import IN_FULL_S, Changes
from core.database.data_version import DataVersion
from core.database.repositories.revisions import Revisions
from core.database.session import Database
from tests.databases import fresh_database, with_database

POLL_S = 0.02


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    with fresh_database("sqlite", tmp_path) as url:
        yield url


@contextmanager
def looks() -> Iterator[list[float]]:
    """When revisions were read."""
    seen: list[float] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM revisions" in statement:
            seen.append(time.monotonic())

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def bump(database: Database) -> None:
    async with database.transaction() as session:
        await Revisions(session).bump("tokens")


def watching(url: str, work: Callable[[Database, asyncio.Queue[int]], Awaitable[None]], fails: int = 0) -> None:
    """Run `work` with what `Changes` calls back; the first calls after the start fail."""
    left = [fails]

    async def run(database: Database) -> None:
        seen = asyncio.Queue[int]()

        def called() -> None:
            seen.put_nowait(1)
            if seen.qsize() > 1 and left[0]:
                left[0] -= 1
                raise RuntimeError("not now")

        changes = Changes(database, {"tokens": called}, poll_s=POLL_S)
        task = asyncio.create_task(changes.run())
        try:
            async with asyncio.timeout(30):
                await work(database, seen)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with_database(url, run)


def test_a_change_is_seen_at_the_next_look(database_url: str) -> None:
    async def work(database: Database, seen: asyncio.Queue[int]) -> None:
        await seen.get()  # what there is at the start
        for _ in range(3):
            await bump(database)
            await seen.get()
        assert seen.empty()

    watching(database_url, work)


def test_a_change_by_another_program_is_seen(sqlite_url: str) -> None:
    async def work(database: Database, seen: asyncio.Queue[int]) -> None:
        await bump(database)
        await seen.get()
        path = sqlite_url.removeprefix("sqlite:///")
        statement = "UPDATE revisions SET value = value + 1"
        command = f"sqlite3.connect({path!r}).execute({statement!r}).connection.commit()"
        while not seen.empty():
            seen.get_nowait()
        other = await asyncio.create_subprocess_exec("python3", "-c", f"import sqlite3; {command}")
        assert await other.wait() == 0
        await seen.get()

    watching(sqlite_url, work)


def test_revisions_are_not_read_where_nothing_was_committed(sqlite_url: str) -> None:
    async def work(database: Database, seen: asyncio.Queue[int]) -> None:
        await seen.get()
        began = time.monotonic()
        with looks() as read:
            while len(read) < 2:  # in full now and then all the same
                await asyncio.sleep(POLL_S)
        assert time.monotonic() - began >= IN_FULL_S
        assert read[1] - read[0] >= IN_FULL_S

    watching(sqlite_url, work)


def test_what_failed_to_be_taken_over_is_tried_again(sqlite_url: str) -> None:
    async def work(database: Database, seen: asyncio.Queue[int]) -> None:
        while seen.empty():
            await asyncio.sleep(POLL_S)
        await bump(database)
        began = time.monotonic()
        while seen.qsize() < 4:
            await asyncio.sleep(POLL_S)
        assert time.monotonic() - began < IN_FULL_S, "only a look in full has tried again"

    watching(sqlite_url, work, fails=2)


def test_the_version_moves_with_what_others_commit_alone(sqlite_url: str) -> None:
    async def work(database: Database) -> None:
        version = database.data_version(1.0)
        assert version is not None
        first = await version.read()
        assert first is not None
        assert await version.read() == first
        with suppress(RuntimeError):
            await _take_back(database)
        assert await version.read() == first
        await bump(database)
        second = await version.read()
        assert second is not None
        assert second != first
        await version.close()
        assert await version.read() not in (None, first, second)
        await version.close()

    with_database(sqlite_url, work)


def test_postgresql_is_asked_itself(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        assert database.data_version(1.0) is None

    with fresh_database("postgresql", tmp_path) as url:
        with_database(url, work)


def test_where_it_cannot_be_told_nothing_is_said(tmp_path: Path) -> None:
    async def run() -> None:
        missing, there = tmp_path / "missing" / "file.db", tmp_path / "file.db"
        places = [missing, there]
        version = DataVersion(lambda: _connected(places.pop(0)), 1.0)
        assert await version.read() is None
        assert await version.read() is not None
        await version.close()

    asyncio.run(run())


def test_whatever_keeps_the_version_from_being_read_changes_are_seen(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_thread(*_: object) -> aiosqlite.Connection:
        raise RuntimeError("can't start new thread")

    async def work(database: Database, seen: asyncio.Queue[int]) -> None:
        await seen.get()
        await bump(database)
        await seen.get()

    monkeypatch.setattr(Database, "data_version", lambda self, timeout_s: DataVersion(no_thread, timeout_s))
    watching(sqlite_url, work)


def test_a_disk_that_hangs_holds_one_question(tmp_path: Path) -> None:
    async def run() -> None:
        asked = []

        async def hang() -> aiosqlite.Connection:
            asked.append(1)
            return await asyncio.Future[aiosqlite.Connection]()

        version = DataVersion(hang, 0.01)
        for _ in range(5):
            assert await version.read() is None
        await version.close()
        assert len(asked) == 1

    asyncio.run(run())


async def _take_back(database: Database) -> None:
    async with database.transaction() as session:
        await Revisions(session).bump("tokens")
        raise RuntimeError("rolled back")


async def _connected(path: Path) -> aiosqlite.Connection:
    return await aiosqlite.Connection(lambda: sqlite3.connect(path), iter_chunk_size=64)
