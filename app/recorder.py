"""Remembers how serving goes: every five seconds of a quarter of an hour in memory, every minute in the database.

Each process has one. With several workers they all read the same sums, and whoever is first writes a minute; so
none of them is special, and one that dies leaves no gap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from app.readings import Reading, Step, Tally, step_between, total
from core.database.repositories.history import HOUR_S, MINUTE_S, History
from core.database.session import Database
from core.database.tables import HistoryRow
from core.errors import PlatformError

log = structlog.get_logger(__name__)

EVERY_S: Final = 5.0
KEPT_STEPS: Final = 180
MACHINE: Final = ""
"""In the place of a model's name; its row holds the sum of all models too."""
AT_ONCE: Final = 20
"""Models whose hour is added up without letting others have a turn: 1,200 rows."""


class Recorder:
    """`run` until cancelled; `steps` are the last quarter of an hour, the newest last."""

    def __init__(self, database: Database, read: Callable[[], Awaitable[Reading]]) -> None:
        self.steps: deque[Step] = deque(maxlen=KEPT_STEPS)
        self.last: Reading | None = None
        self._database = database
        self._read = read
        self._minute: list[Step] = []
        self._rolled: datetime | None = None

    async def run(self) -> None:
        """Read and write for ever; what fails is left out, and said once a minute."""
        while True:
            try:
                await self.look()
            except PlatformError as error:
                log.warning("history.postponed", reason=error.message)
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Take one reading, and write the minute that ended before it, if one did."""
        reading, before = await self._read(), self.last
        self.last = reading
        if before is None:
            await self._roll_up(_minute_of(reading.at))
            return
        step = step_between(before, reading)
        self.steps.append(step)
        if self._minute and _minute_of(self._minute[0].at) != _minute_of(step.at):
            minute, self._minute = self._minute, [step]
            await self._write(minute, reading)
        else:
            self._minute.append(step)

    async def _write(self, steps: list[Step], reading: Reading) -> None:
        at = _minute_of(steps[0].at)
        async with self._database.transaction() as session:
            await History(session).write(rows_of(steps, reading, at))
            await History(session).forget(at)
        await self._roll_up(at)

    async def _roll_up(self, now: datetime) -> None:
        """Add up the hours that are over, of the last day those that were missed too."""
        over = now.replace(minute=0)
        hour = self._rolled or await self._first_missing(over)
        while hour < over:
            after = hour + timedelta(hours=1)
            async with self._database.transaction() as session:
                history = History(session)
                names = await history.models(MINUTE_S, hour, after)
                for first in range(0, len(names), AT_ONCE):
                    some = names[first : first + AT_ONCE]
                    rows = await history.between(MINUTE_S, hour, after, models=some)
                    await history.write(hours_of(rows))
            hour = self._rolled = after

    async def _first_missing(self, over: datetime) -> datetime:
        """The first hour of the last day that nobody has added up yet."""
        earliest = over - timedelta(hours=23)
        async with self._database.session() as session:
            last = await History(session).newest(HOUR_S)
        return earliest if last is None else max(earliest, last + timedelta(hours=1))


def rows_of(steps: list[Step], reading: Reading, at: datetime) -> list[dict[str, Any]]:
    """One minute's rows: one for each model that was asked something, and the machine's, with their sum."""
    machine = _row(MINUTE_S, at, MACHINE, total([step.all for step in steps]))
    machine["queue_depth"] = max(step.queue_depth for step in steps)
    machine["cpu_percent"] = round(sum(step.cpu_percent for step in steps) / len(steps), 2)
    machine["memory_bytes"] = steps[-1].memory_used_bytes
    rows = [machine]
    for model in sorted({model for step in steps for model in step.models}):
        row = _row(MINUTE_S, at, model, total([step.models[model] for step in steps if model in step.models]))
        row["queue_depth"] = reading.queues.get(model, 0)
        row["memory_bytes"] = reading.memory.get(model, 0)
        rows.append(row)
    return rows


def hours_of(rows: Sequence[HistoryRow]) -> list[dict[str, Any]]:
    """The rows of minutes, added up by hour and model."""
    hours: dict[tuple[datetime, str], list[HistoryRow]] = {}
    for row in rows:
        hours.setdefault((row.at.replace(minute=0), row.model), []).append(row)
    added = []
    for (at, model), minutes in hours.items():
        hour = _row(HOUR_S, at, model, total([Tally(one.requests, one.errors, one.buckets) for one in minutes]))
        hour["queue_depth"] = max(one.queue_depth for one in minutes)
        hour["cpu_percent"] = round(sum(one.cpu_percent for one in minutes) / len(minutes), 2)
        hour["memory_bytes"] = max(one.memory_bytes for one in minutes)
        added.append(hour)
    return added


def _row(step_s: int, at: datetime, model: str, tally: Tally) -> dict[str, Any]:
    return {
        "step_s": step_s,
        "at": at,
        "model": model,
        "requests": tally.requests,
        "errors": tally.errors,
        "buckets": tally.buckets,
        "queue_depth": 0,
        "cpu_percent": 0.0,
        "memory_bytes": 0,
    }


def _minute_of(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(second=0, microsecond=0)
