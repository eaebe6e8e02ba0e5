"""Hears of changes in PostgreSQL at the moment they are committed: LISTEN, on a connection of its own.

A notice says no more than "look now": what is lost while there is no connection is healed by the next look.
https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from core.database.repositories.revisions import CHANNEL
from core.database.urls import driver_url

log = structlog.get_logger(__name__)

PING_EVERY_S: Final = 2.0
"""So often it is asked whether the other end is there yet: a connection that was cut says nothing by itself."""
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 5.0


class Listener:
    """`run` until cancelled. `on_notice` is called after each change, and after each new connection."""

    def __init__(self, url: str, on_notice: Callable[[], None], *, timeout_s: float = 10) -> None:
        dialect: Any = PGDialect_asyncpg
        _, self._options = dialect().create_connect_args(driver_url(url))
        self._on_notice = on_notice
        self._timeout_s = timeout_s
        self.listening = asyncio.Event()
        """Set while there is a connection."""

    async def run(self) -> None:
        """Listen; where that fails, again after a while that grows up to 5 s."""
        failures = 0
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                failures = 1 if self.listening.is_set() else failures + 1
                if failures == 1:
                    log.warning("changes.not_heard", reason=type(error).__name__)
            finally:
                self.listening.clear()
            await asyncio.sleep(backoff_s(failures) * random.uniform(0.5, 1))  # noqa: S311  # nosec B311: spreads tries

    async def _listen(self) -> None:
        """Raises what ends the connection."""
        connection: Any = await asyncpg.connect(**self._options, timeout=self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.add_listener(CHANNEL, lambda *_: self._on_notice())
            self.listening.set()
            self._on_notice()  # whatever was missed until now
            while True:
                await asyncio.sleep(PING_EVERY_S)
                await connection.execute("SELECT 1", timeout=self._timeout_s)
        finally:
            connection.terminate()


def backoff_s(failures: int) -> float:
    """How long to wait after so many failures in a row, at most."""
    return min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(max(failures - 1, 0), 10))
