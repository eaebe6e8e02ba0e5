from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import event, text

from core.database.repositories import Revisions, Users
from core.database.session import Database
from core.errors import BadRequest, Unavailable
from core.settings import InvalidSettings
from tests.databases import SERVER, fresh_database, with_database

ROOT = Path(__file__).parents[3]


def test_a_transaction_commits_and_a_session_does_not(database_url: str) -> None:
    async def work(database: Database) -> tuple[bool, bool]:
        async with database.session() as session:
            await Users(session).add("ada", "x", "admin")
        async with database.session() as session:
            before = await Users(session).any()
        async with database.transaction() as session:
            await Users(session).add("ada", "x", "admin")
        async with database.session() as session:
            return before, await Users(session).any()

    assert with_database(database_url, work) == (False, True)


def test_a_transaction_rolls_back_on_any_error(database_url: str) -> None:
    async def work(database: Database) -> bool:
        async def fail() -> None:
            async with database.transaction() as session:
                await Users(session).add("ada", "x", "admin")
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        async with database.session() as session:
            return await Users(session).any()

    assert with_database(database_url, work) is False


def test_the_callers_own_errors_stay_what_they_are(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction():
            raise FileNotFoundError("mine")

    with pytest.raises(FileNotFoundError, match="mine"):
        with_database(database_url, work)


def test_it_answers_a_ping_and_names_its_dialect(database_url: str) -> None:
    async def work(database: Database) -> str:
        await database.ping()
        return database.dialect

    assert with_database(database_url, work) == database_url.partition(":")[0]


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    async def work(database: Database) -> list[object]:
        async with database.session() as session:
            names = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
            return [await session.scalar(text(f"PRAGMA {name}")) for name in names]

    with fresh_database("sqlite", tmp_path) as url:
        assert with_database(url, work, timeout_s=3) == ["wal", 1, 1, 3000]


def test_reading_then_writing_from_many_tasks_loses_nothing(database_url: str) -> None:
    async def work(database: Database) -> int:
        async def step() -> None:
            async with database.transaction() as session:
                await Revisions(session).read_all()
                await Revisions(session).bump("tokens")

        await asyncio.gather(*(step() for _ in range(40)))
        async with database.session() as session:
            return (await Revisions(session).read_all())["tokens"]

    assert with_database(database_url, work) == 40


def test_reading_then_writing_from_several_processes_loses_nothing(database_url: str) -> None:
    code = """
import asyncio, sys
from core.database.session import Database
from core.database.repositories import Revisions

async def main():
    database = Database(sys.argv[1])
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(50):
        async with database.transaction() as session:
            await Revisions(session).read_all()
            await Revisions(session).bump("tokens")
    await database.close()

asyncio.run(main())
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, database_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == ["", "", ""]

    async def work(database: Database) -> dict[str, int]:
        async with database.session() as session:
            return await Revisions(session).read_all()

    assert with_database(database_url, work) == {"tokens": 150}


def test_a_locked_sqlite_is_unavailable_and_readable(tmp_path: Path) -> None:
    async def work(database: Database) -> str:
        async with database.session() as session:
            assert await Users(session).any() is False  # readers go on
        with pytest.raises(Unavailable) as caught:
            async with database.transaction():
                pass
        return caught.value.message

    with fresh_database("sqlite", tmp_path) as url:
        holder = sqlite3.connect(tmp_path / "pulvinar.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            message = with_database(url, work, timeout_s=0.2)
        finally:
            holder.close()
    assert message == "The database is too busy to answer now; try again in a moment."


def test_a_writer_that_waits_too_long_in_this_process_is_unavailable(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        async with database.transaction():
            with pytest.raises(Unavailable, match="busy"):
                async with database.transaction():
                    pass
        async with database.transaction() as session:  # and the lock is free again
            await Users(session).add("ada", "x", "admin")

    with fresh_database("sqlite", tmp_path) as url:
        assert with_database(url, work, timeout_s=0.2) is None


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/at/all/x.db",
        f"{SERVER}/there_is_no_such_database",
        "postgresql://postgres:hunter2secret@127.0.0.1:1/test",
        "postgresql://postgres:hunter2secret@unknown.invalid/test",
    ],
)
def test_a_database_that_is_not_there_is_unavailable_and_nothing_leaks(url: str) -> None:
    async def work(database: Database) -> str:
        with pytest.raises(Unavailable) as caught:
            await database.ping()
        return caught.value.message

    message = with_database(url, work, timeout_s=3)
    assert message in (
        "The database cannot be reached now; try again in a moment.",
        "The database is too busy to answer now; try again in a moment.",
    )


def test_a_server_that_drops_us_is_unavailable_and_then_back(tmp_path: Path) -> None:
    async def work(database: Database, name: str) -> None:
        async def be_dropped() -> None:
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
                await _drop_connections(name)
                await session.execute(text("SELECT 1"))

        with pytest.raises(Unavailable):
            await be_dropped()
        await database.ping()

    with fresh_database("postgresql", tmp_path) as url:
        name = url.rpartition("/")[2]
        assert with_database(url, lambda database: work(database, name)) is None


def test_a_sqlite_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"certainly not a database, whatever the name says" * 100)

    async def work(database: Database) -> None:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await database.ping()

    assert with_database(f"sqlite:///{tmp_path / 'x.db'}", work) is None


@pytest.mark.parametrize("name", ["\0", "\ud800"])
def test_text_that_the_database_cannot_keep_is_a_bad_request(tmp_path: Path, name: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            await Users(session).by_name(name)

    with fresh_database("postgresql", tmp_path) as url, pytest.raises(BadRequest, match="cannot keep"):
        with_database(url, work)


@pytest.mark.parametrize("url", ["mysql://host/x", "nonsense", "sqlite://", "sqlite:///:memory:", ""])
def test_a_url_of_another_kind_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidSettings, match=r"database\.url"):
        Database(url)


async def _drop_connections(name: str) -> None:
    connection = await asyncpg.connect(f"{SERVER}/postgres")
    await connection.fetch("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name)
    await connection.close()


@pytest.mark.parametrize("turns", range(6))
def test_a_cancellation_is_not_lost_as_the_turn_to_write_comes(tmp_path: Path, turns: int) -> None:
    async def work(database: Database) -> None:
        async def write_for_ever() -> None:
            while True:
                async with database.transaction():
                    pass
                await asyncio.sleep(60)

        assert database._turn is not None
        async with database._turn:
            writing = asyncio.create_task(write_for_ever())
            for _ in range(20):
                await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,), timeout=5)
        assert writing.cancelled()

    with_database(f"sqlite:///{tmp_path / 'turn.db'}", work)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_end_waits_for_connections_of_those_who_were_cancelled(
    database_url: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A rollback cut off with the event loop would be an error in the log of an orderly end, or hang it."""
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 900000) SELECT count(*) FROM n"

    async def main() -> None:
        database = Database(database_url)
        await database.ping()
        inside = asyncio.Event()

        async def work() -> None:
            async with database.session() as session:
                inside.set()
                await session.execute(text(slow))

        task = asyncio.create_task(work())
        await inside.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await database.close()

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_who_is_cancelled_while_writing_keeps_nobody_from_writing(database_url: str) -> None:
    """Its traceback lives as long as the task, and in it the statement that was cut off."""
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 900000) SELECT i FROM n"
    rows = f"SELECT 'r' || i, i FROM ({slow}) AS n WHERE i > 899990"
    write = f"INSERT INTO revisions (name, value) {rows} RETURNING name"

    async def main() -> None:
        database = Database(database_url, timeout_s=2)
        await database.ping()
        inside = asyncio.Event()

        async def work() -> None:
            async with database.transaction() as session:
                inside.set()
                await session.execute(text(write))

        task = asyncio.create_task(work())
        await inside.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        async with database.transaction() as session:
            await Users(session).add("ada", "x", "admin")
        await database.close()

    asyncio.run(main())


def test_who_is_cancelled_as_a_commit_ends_leaves_it_whole(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is on its way back then: cut off, it would be an error in the log, and a connection less."""

    async def work(database: Database) -> bool:
        async def add() -> None:
            async with database.transaction() as session:
                await Users(session).add("ada", "x", "admin")

        adding = asyncio.create_task(add())
        event.listen(database._engine.sync_engine, "reset", lambda *_: adding.cancel())
        await asyncio.wait((adding,), timeout=30)
        assert adding.cancelled()
        async with database.session() as session:
            return await Users(session).any()

    assert with_database(database_url, work)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
