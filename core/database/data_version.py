"""Whether anything was committed to an SQLite database, by whichever process; a tenth of the cost of asking what.

Source: SQLite's documentation of `PRAGMA data_version`: two answers of one connection differ where another
connection has committed in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiosqlite

Version = tuple[int, int]


class DataVersion:
    """A connection of its own, which never writes. Belongs to one event loop and to one who asks."""

    def __init__(self, connect: Callable[[], Awaitable[aiosqlite.Connection]], timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._connection: aiosqlite.Connection | None = None
        self._opened = 0
        self._asking: asyncio.Task[Version | None] | None = None

    async def read(self) -> Version | None:
        """As long as this is the same, nothing was committed; None where that cannot be told."""
        # A disk that hangs holds one question and its thread, however often it is asked.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="version of the data")
        await asyncio.wait((self._asking,), timeout=self._timeout_s)
        return self._asking.result() if self._asking.done() else None

    async def close(self) -> None:
        """Let the connection go; the next question opens another."""
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait((self._asking,), timeout=self._timeout_s)
        connection, self._connection = self._connection, None
        stopped = None if connection is None else connection.stop()
        if stopped is not None:
            await asyncio.wait((stopped,), timeout=self._timeout_s)

    async def _ask(self) -> Version | None:
        try:
            if self._connection is None:
                self._connection = await self._connect()
                self._opened += 1
            ((version,),) = await self._connection.execute_fetchall("PRAGMA data_version")
        except Exception:  # whatever it is, whoever asks can still look for themselves
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.stop()
            return None
        return self._opened, version
