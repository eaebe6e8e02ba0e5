"""What callers used: counted in memory, by minute, until it is written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Final, NamedTuple

from core.access.records import TokenRecord
from core.database.repositories.usage import Key, Usage
from core.database.session import Database

PUT_DOWN: Final = 256
"""Requests that wait to be counted, at most; to count so many takes a fifth of a millisecond."""
MINUTES_HELD: Final = 180
"""While nothing can be written, older minutes are counted together with the one after them."""
_new = tuple.__new__  # in half the time of a NamedTuple's own


class Taken(NamedTuple):
    """What one request took. Times in milliseconds of engines, sizes in bytes."""

    items: int = 0
    tokens: int = 0
    engine_ms: float = 0.0


NOTHING: Final = Taken()


@dataclass(slots=True)
class Counts:
    """Sums over requests, in the order of `core.database.repositories.usage.FIELDS`."""

    requests: int = 0
    errors: int = 0
    items: int = 0
    tokens: int = 0
    engine_us: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, other: Iterable[int]) -> None:
        """Add the sums of another."""
        (
            self.requests,
            self.errors,
            self.items,
            self.tokens,
            self.engine_us,
            self.bytes_in,
            self.bytes_out,
        ) = map(sum, zip(astuple(self), other, strict=True))


class Ended(NamedTuple):
    """A request that was let in; `at` is in seconds of the epoch."""

    at: float
    record: TokenRecord
    model: str
    taken: Taken
    bytes_in: int
    bytes_out: int
    failed: bool


class UsageBook:
    """The counts of one process. Belongs to one event loop; counting is some additions and no waiting.

    Requests are put down as they end, and counted many at once, which is a fraction of the work.
    """

    def __init__(self) -> None:
        self._put_down: list[Ended] = []
        self._minutes: dict[int, dict[Key, Counts]] = {}
        self._minute = -1.0
        self._now: dict[Key, Counts] = {}
        self._turn = asyncio.Lock()
        self._writing: set[asyncio.Task[int]] = set()

    def add(
        self, record: TokenRecord, model: str, taken: Taken, bytes_in: int, bytes_out: int, *, failed: bool
    ) -> None:
        """Count one request that was let in. `model` must be a name in service, or empty: each one is kept."""
        put_down = self._put_down
        put_down.append(_new(Ended, (time.time(), record, model, taken, bytes_in, bytes_out, failed)))
        if len(put_down) >= PUT_DOWN:
            self._count()

    def _count(self) -> None:
        whose: TokenRecord | None = None
        which, counts = "", Counts()
        for at, record, model, (items, tokens, engine_ms), bytes_in, bytes_out, failed in self._put_down:
            minute = at // 60
            # Most come from whom the one before came from.
            if minute != self._minute or record is not whose or model != which:
                if minute != self._minute:
                    self._begin(int(minute))
                whose, which = record, model
                counts = self._counts_of((record.owner.name, record.id, model))
            counts.requests += 1
            counts.errors += failed
            counts.items += items
            counts.tokens += tokens
            counts.engine_us += round(engine_ms * 1000)
            counts.bytes_in += bytes_in
            counts.bytes_out += bytes_out
        self._put_down.clear()

    def _counts_of(self, key: Key) -> Counts:
        counts = self._now.get(key)
        if counts is None:
            counts = self._now[key] = Counts()
        return counts

    async def write(self, database: Database) -> int:
        """Write what was counted since the last call; returns how many rows. Raises Unavailable, forgetting
        nothing.

        It goes on when its caller is cancelled, and the next call waits for it: of what is cut off as it commits,
        nobody could tell whether it is to be written again.
        """
        writing = asyncio.create_task(self._write(database), name="usage")
        self._writing.add(writing)
        writing.add_done_callback(self._written)
        return await asyncio.shield(writing)

    def _written(self, writing: asyncio.Task[int]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            writing.exception()  # whoever called has it, if they are still there

    async def _write(self, database: Database) -> int:
        async with self._turn:
            self._count()
            taken, self._minutes = self._minutes, {}
            self._minute = -1.0
            if not taken:
                return 0
            try:
                async with database.transaction() as session:
                    return await Usage(session).add(
                        (minute * 60, key, astuple(counts))
                        for minute, by_key in taken.items()
                        for key, counts in by_key.items()
                    )
            except BaseException:
                self._put_back(taken)
                raise

    def _begin(self, minute: int) -> None:
        self._minute = minute
        self._now = self._minutes.setdefault(minute, {})
        if len(self._minutes) > MINUTES_HELD:
            oldest, after = sorted(self._minutes)[:2]
            _merge(self._minutes.pop(oldest), self._minutes[after])

    def _put_back(self, taken: dict[int, dict[Key, Counts]]) -> None:
        newer, self._minutes = self._minutes, taken
        for minute, by_key in newer.items():
            _merge(by_key, taken.setdefault(minute, {}))
        self._minute = -1.0  # what comes next finds its place among them


def _merge(some: dict[Key, Counts], into: dict[Key, Counts]) -> None:
    for key, counts in some.items():
        into.setdefault(key, Counts()).add(astuple(counts))
