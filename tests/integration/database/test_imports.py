from __future__ import annotations

from datetime import timedelta

from core.control.imports import is_lost
from core.database.repositories.imports import Imports
from core.database.session import Database
from core.database.tables import utc_now
from tests.databases import with_database

SOURCE = "hf:acme/cats"


def test_an_import_runs_while_it_is_held_and_ends_once(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            rows = Imports(session)
            row = await rows.add("cats", SOURCE, utc_now() + timedelta(seconds=60), "ada")
            assert (row.state, row.done_bytes, row.total_bytes) == ("running", 0, None)
            assert await rows.is_running("cats", SOURCE)
            assert not await rows.is_running("dogs", SOURCE)
            assert await rows.hold(row.id, utc_now() + timedelta(seconds=60), 10, 5 << 30)
            assert await rows.end_lost("lost") == 0
            assert await rows.finish(row.id, "done", version=3, commit="abc")
            assert not await rows.finish(row.id, "cancelled", "too late")
            assert not await rows.hold(row.id, utc_now(), 11, 11)
            assert await rows.running() == 0
            await session.refresh(row)
            assert (row.state, row.version, row.done_bytes, row.total_bytes) == ("done", 3, 10, 5 << 30)
            assert row.ended_at is not None

    with_database(database_url, work)


def test_an_import_that_nobody_holds_has_failed(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            rows = Imports(session)
            row = await rows.add("cats", SOURCE, utc_now() - timedelta(seconds=1), "ada")
            held = await rows.add("dogs", SOURCE, utc_now() + timedelta(seconds=60), "ada")
            assert is_lost(row)
            assert not is_lost(held)
            assert not await rows.is_running("cats", SOURCE)
            assert await rows.running() == 1
            assert await rows.end_lost("The server ended.") == 1
            page, _ = await rows.page(10)
            for entry in page:
                await session.refresh(entry)
            assert [(entry.state, entry.reason) for entry in page] == [
                ("running", ""),
                ("failed", "The server ended."),
            ]

    with_database(database_url, work)
