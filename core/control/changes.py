"""Notices that something changed in the database, wherever it was changed, by looking at its revisions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

import structlog

from core.database.repositories.revisions import Revisions
from core.database.session import Database
from core.errors import PlatformError

log = structlog.get_logger(__name__)

OnChange = Callable[[], Awaitable[object] | None]


class Changes:
    """Calls back for each revision that has moved. `run` until cancelled."""

    def __init__(self, database: Database, callbacks: Mapping[str, OnChange], *, poll_s: float) -> None:
        self._database = database
        self._callbacks = callbacks
        self._poll_s = poll_s
        self._seen: dict[str, int] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now: somebody says that there is something to see."""
        self._wake.set()

    async def run(self) -> None:
        """Look every `poll_s`, and when woken. What fails is tried again at the next look."""
        while True:
            self._wake.clear()
            try:
                await self._look()
            except PlatformError as error:
                log.warning("changes.postponed", reason=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()

    async def _look(self) -> None:
        async with self._database.session() as session:
            revisions = await Revisions(session).read_all()
        for name, callback in self._callbacks.items():
            revision = revisions.get(name, 0)
            if self._seen.get(name) != revision:
                result = callback()
                if result is not None:
                    await result
                self._seen[name] = revision
