"""What was used: counted in memory, written in steps, read as sums and series."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from sqlalchemy import event

import core.access.usage as usage_module
from app.flushing import prune
from core.access.records import TokenRecord
from core.access.tenants import Tenant
from core.access.usage import NOTHING, Taken, UsageBook
from core.control.usage_reports import MAX_STEPS, export, range_of, report
from core.database.repositories.usage import STEPS, Range, Usage
from core.database.session import Database
from core.errors import Unavailable, Unprocessable
from core.settings import UsageSettings
from tests.databases import with_database

RED, BLUE = TokenRecord(1, "red app", Tenant("red")), TokenRecord(2, "blue app", Tenant("blue"))
NOON = 1_800_000_000 // 86_400 * 86_400 + 43_200


async def rows(database: Database, step: str = "minute") -> list[tuple[Any, ...]]:
    async with database.session() as session:
        return [row async for row in Usage(session).rows(Range(STEPS[step], 0, 2**40))]


async def add(database: Database, *counted: tuple[int, tuple[str, int, str], int]) -> None:
    async with database.transaction() as session:
        await Usage(session).add((at, key, (n, 0, 2 * n, 0, 1000 * n, 0, 0)) for at, key, n in counted)


def test_what_is_counted_is_written_once_in_every_length(database_url: str) -> None:
    async def work(database: Database) -> None:
        book = UsageBook()
        book.add(RED, "cats", Taken(3, 7, 1.5), 100, 20, failed=False)
        book.add(RED, "cats", NOTHING, 100, 5, failed=True)
        book.add(BLUE, "", NOTHING, 0, 9, failed=True)
        assert await book.write(database) == 6
        assert await book.write(database) == 0
        book.add(RED, "cats", Taken(1, 0, 0.25), 1, 1, failed=False)
        await book.write(database)
        for step, step_s in STEPS.items():
            found = [row for row in await rows(database, step) if row[1] == "red"]
            assert {row[0] % step_s for row in found} == {0}
            sums = [sum(column) for column in zip(*(row[4] for row in found), strict=True)]
            assert sums == [3, 1, 4, 7, 1750, 201, 26]
            assert {row[1:4] for row in await rows(database, step)} == {("red", 1, "cats"), ("blue", 2, "")}

    with_database(database_url, work)


def test_requests_of_several_are_told_apart_in_whatever_order_they_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = Random(7)
    now = [float(NOON)]
    monkeypatch.setattr(usage_module.time, "time", lambda: now[0])

    async def work(database: Database) -> None:
        book, expected = UsageBook(), Counter[tuple[int, int, str]]()
        for number in range(250):
            record, model = some.choice((RED, BLUE)), some.choice(("cats", "dogs"))
            minute = some.randrange(2)
            now[0] = NOON + 60.0 * minute
            book.add(record, model, Taken(number, 0, 0.0), 0, 0, failed=False)
            expected[NOON + 60 * minute, record.id, model] += number
        await book.write(database)
        found = {(at, token, model): sums[2] for at, _, token, model, sums in await rows(database)}
        assert found == expected

    with_database(database_url, work)


def test_what_cannot_be_written_is_kept_and_counted_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> int:
        raise Unavailable("away")

    async def work(database: Database) -> None:
        book = UsageBook()
        monkeypatch.setattr(usage_module, "MINUTES_HELD", 3)
        with monkeypatch.context() as away:
            away.setattr(Usage, "add", fail)
            for minute in range(6):
                away.setattr(time, "time", lambda minute=minute: NOON + 60.0 * minute)
                book.add(RED, "cats", NOTHING, 1, 0, failed=False)
                with pytest.raises(Unavailable):
                    await book.write(database)
                book.add(RED, "cats", NOTHING, 1, 0, failed=False)
        await book.write(database)
        found = await rows(database)
        assert [(row[0] - NOON) // 60 for row in found] == [3, 4, 5]  # the older ones with the first of these
        assert [row[4][0] for row in found] == [8, 2, 2]

    with_database(database_url, work)


def test_a_write_that_is_cancelled_as_it_commits_is_counted_once(database_url: str) -> None:
    async def work(database: Database) -> None:
        book = UsageBook()
        book.add(RED, "cats", NOTHING, 1, 0, failed=False)
        writing = asyncio.create_task(book.write(database))
        event.listen(database._engine.sync_engine, "commit", lambda _: writing.cancel(), once=True)
        await asyncio.gather(writing, return_exceptions=True)
        book.add(RED, "cats", NOTHING, 1, 0, failed=False)
        await book.write(database)
        assert sum(row[4][0] for row in await rows(database, "day")) == 2

    with_database(database_url, work)


def test_processes_that_write_at_once_lose_nothing(database_url: str) -> None:
    async def work(database: Database) -> None:
        keys = [("red", number, model) for number in range(5) for model in ("cats", "dogs")]
        other = Database(database_url)
        await asyncio.gather(
            *(
                add(one, *((NOON, key, 1) for key in (keys if n % 2 else reversed(keys))))
                for n, one in enumerate([database, other] * 8)
            )
        )
        await other.close()
        assert [row[4][0] for row in await rows(database, "day")] == [16] * 10

    with_database(database_url, work)


def test_sums_and_series(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.session() as session:
            empty = await report(session, "hour", range_of("hour", None, None), "tenant", limit=10, points=True)
        assert (empty.total.requests, empty.items, empty.groups) == (0, [], 0)
        await add(
            database,
            (NOON, ("red", 1, "cats"), 5),
            (NOON + 60, ("red", 1, "dogs"), 1),
            (NOON + 60, ("blue", 2, "cats"), 10),
            (NOON + 3600, ("blue", 2, "cats"), 100),
        )
        since, until = (datetime.fromtimestamp(NOON + add_s, UTC) for add_s in (0, 3600))
        wanted = range_of("minute", since, until)
        async with database.session() as session:
            by_tenant = await report(session, "minute", wanted, "tenant", limit=1, points=True)
            whole = await report(session, "minute", wanted, None, limit=1, points=True)
            by_model = await report(
                session, "hour", range_of("hour", since, until), "model", limit=9, points=False
            )
            of_red = range_of("day", since, until, tenant="red")
            by_token = await report(session, "day", of_red, "token", limit=9, points=True)
            long = range_of("minute", datetime.fromtimestamp(NOON - 60 * MAX_STEPS, UTC), until)
            with pytest.raises(Unprocessable, match="longer step"):
                await report(session, "minute", long, None, limit=1, points=True)
        assert (by_tenant.total.requests, by_tenant.groups) == (16, 2)
        (blue,) = by_tenant.items
        assert (blue.key, blue.requests, blue.items, blue.engine_seconds) == ("blue", 10, 20, 0.01)
        assert [(point.at.timestamp() - NOON, point.requests) for point in blue.points] == [(60, 10)]
        assert [(point.at.timestamp() - NOON, point.requests) for point in whole.points] == [(0, 5), (60, 11)]
        assert [(group.key, group.requests) for group in by_model.items] == [("cats", 15), ("dogs", 1)]
        assert [(group.key, group.requests) for group in by_token.items] == [("1", 6)]
        with pytest.raises(Unprocessable, match="before"):
            range_of("hour", until, since)

    with_database(database_url, work)


def test_every_row_is_exported(database_url: str) -> None:
    async def work(database: Database) -> None:
        await add(database, *((NOON, ("=SUM(A1)", number, "cats"), 1) for number in range(1200)))
        async with database.session() as session:
            text = b"".join([line async for line in export(session, Range(60, NOON, NOON + 60))]).decode()
        head, *lines = csv.reader(io.StringIO(text))
        assert head[:5] == ["at", "tenant", "token_id", "model", "requests"]
        assert [int(line[2]) for line in lines] == list(range(1200))
        assert {line[1] for line in lines} == {"'=SUM(A1)"}
        assert lines[0][0] == datetime.fromtimestamp(NOON, UTC).isoformat()

    with_database(database_url, work)


def test_what_is_too_old_is_removed(database_url: str) -> None:
    async def work(database: Database) -> None:
        now = NOON + 400 * 86_400
        await add(database, *((now - age_s, ("red", 1, "cats"), 1) for age_s in (0, 3600, 86_400, 300 * 86_400)))
        await prune(database, UsageSettings(minute_hours=2, hour_days=10, day_days=200), now)
        counts = {step: sum(row[4][0] for row in await rows(database, step)) for step in STEPS}
        assert counts == {"minute": 2, "hour": 3, "day": 3}

    with_database(database_url, work)
