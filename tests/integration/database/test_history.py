from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from app.readings import Reading, Tally
from app.recorder import Recorder
from core.database.repositories.history import HOUR_S, MINUTE_S, History
from core.database.session import Database
from core.metrics import STAGE_BOUNDS_MS

AT = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


def row(step_s: int, at: datetime, model: str, requests: int = 1) -> dict[str, Any]:
    counted = [requests, *[0] * len(STAGE_BOUNDS_MS)]
    said = {"step_s": step_s, "at": at, "model": model, "requests": requests, "errors": 0, "buckets": counted}
    return {**said, "queue_depth": 0, "cpu_percent": 0.0, "memory_bytes": 0}


def test_who_is_first_writes_a_minute_and_what_is_old_goes(database_url: str) -> None:
    async def run() -> None:
        database = Database(database_url)
        async with database.transaction() as session:
            history = History(session)
            await history.write([row(MINUTE_S, AT - timedelta(days=3), "", 0)])
            assert not await history.has_answers()
            await history.write([row(MINUTE_S, AT, "a", 1), row(MINUTE_S, AT, "", 0)])
            assert await history.has_answers()
            await history.write([row(MINUTE_S, AT, "a", 99), row(HOUR_S, AT, "a", 5)])
            await history.write(
                [row(MINUTE_S, AT - timedelta(days=2), "a"), row(HOUR_S, AT - timedelta(days=32), "a")]
            )
            await history.write([])
        async with database.transaction() as session:
            history = History(session)
            await history.forget(AT + timedelta(hours=1))
            everything = AT - timedelta(days=60)
            minutes = await history.between(MINUTE_S, everything)
            assert [(one.model, one.requests) for one in minutes] == [("", 0), ("a", 1)]
            assert [one.requests for one in await history.between(HOUR_S, everything)] == [5]
            assert [one.model for one in await history.between(MINUTE_S, everything, models=["a"])] == ["a"]
            assert not await history.between(MINUTE_S, everything, AT)
        await database.close()

    asyncio.run(run())


def test_a_recorder_writes_each_minute_once_it_is_over_and_hours_too(database_url: str) -> None:
    """Time and counts come from a list; the database is real."""
    moments = [
        AT.timestamp() + 1,
        AT.timestamp() + 31,
        AT.timestamp() + 61,
        AT.timestamp() + 3601,
        AT.timestamp() + 3700,
    ]

    async def run() -> None:
        database = Database(database_url)
        readings = iter(
            Reading(at, {"cats": Tally(10 * i, i, [10 * i, *[0] * len(STAGE_BOUNDS_MS)])}, {}, {}, {}, 10.0, 1, 2)
            for i, at in enumerate(moments)
        )

        async def read() -> Reading:
            return next(readings)

        recorder = Recorder(database, read)
        for _ in moments:
            await recorder.look()
        assert len(recorder.steps) == len(moments) - 1
        async with database.session() as session:
            history = History(session)
            minutes = await history.between(MINUTE_S, AT, models=["cats"])
            assert [(one.at - AT, one.requests, one.errors) for one in minutes] == [
                (timedelta(0), 10, 1),
                (timedelta(minutes=1), 10, 1),
                (timedelta(hours=1), 10, 1),
            ]
            hours = await history.between(HOUR_S, AT, models=["cats"])
            assert [(one.at, one.requests) for one in hours] == [(AT, 20)]
        await database.close()

    asyncio.run(run())
