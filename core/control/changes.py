"""Notices that something changed in the database, wherever it was changed, by looking at its revisions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from core.database.data_version import Version
from core.database.repositories.revisions import Revisions
from core.database.session import Database
from core.errors import PlatformError, Unavailable

log = structlog.get_logger(__name__)

OnChange = Callable[[], Awaitable[object] | None]
AGAIN_S = 1.0
LOOK_TIMEOUT_S = 2.0
"""A look that takes longer is given up: its connection may have been cut, and another look finds a new one."""
IN_FULL_S = 2.0
"""So often revisions are read although nothing seems to have been committed: a file may be another by now."""


class Changes:
    """Calls back for each revision that has moved. `run` until cancelled."""

    def __init__(self, database: Database, callbacks: Mapping[str, OnChange], *, poll_s: float) -> None:
        self._database = database
        self._callbacks = callbacks
        self._poll_s = poll_s
        self._seen: dict[str, int] = {}
        self._version = database.data_version(LOOK_TIMEOUT_S)
        self._looked_at: Version | None = None
        """How the data was when it was looked at last; None where that is not known, or the look failed."""
        self._in_full_at = 0.0
        self._wake = asyncio.Event()
        self._asked = self._looked = 0
        """How often `look` was called, and how many of those calls have been served."""
        self._served = asyncio.Condition()

    def wake(self) -> None:
        """Look now: somebody says that there is something to see."""
        self._wake.set()

    async def look(self) -> None:
        """Look now; returns once what had changed before is taken over. Waits for ever unless `run` runs."""
        self._asked += 1
        number = self._asked
        self._wake.set()
        async with self._served:
            await self._served.wait_for(lambda: self._looked >= number)

    async def run(self) -> None:
        """Look every `poll_s`, and when woken. What fails is tried again at the next look."""
        try:
            await self._run()
        finally:
            if self._version is not None:
                await self._version.close()

    async def _run(self) -> None:
        while True:
            woken = self._wake.is_set()
            self._wake.clear()
            asked = self._asked
            pause_s = self._poll_s
            try:
                await self._look_if_moved(woken)
                await self._tell_served(asked)
            except PlatformError as error:
                log.warning("changes.postponed", reason=error.message)
                pause_s = min(pause_s, AGAIN_S)
            except Exception:  # whoever stopped looking would serve what was revoked for ever
                log.exception("changes.crashed")
                pause_s = min(pause_s, AGAIN_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _look_if_moved(self, woken: bool) -> None:
        before, self._looked_at = self._looked_at, None  # whatever fails from here on is looked at anew
        version = await self._version.read() if self._version is not None else None
        same = version is not None and version == before
        if woken or not same or time.monotonic() >= self._in_full_at:
            await self._look()
            self._in_full_at = time.monotonic() + IN_FULL_S
        self._looked_at = version

    async def _look(self) -> None:
        revisions = await self._read()
        for name, callback in self._callbacks.items():
            revision = revisions.get(name, 0)
            if self._seen.get(name) != revision:
                result = callback()
                if result is not None:
                    await result
                self._seen[name] = revision

    async def _tell_served(self, asked: int) -> None:
        if asked > self._looked:
            async with self._served:
                self._looked = asked
                self._served.notify_all()

    async def _read(self) -> Mapping[str, int]:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S), self._database.session() as session:
                return await Revisions(session).read_all()
        except TimeoutError as error:
            raise Unavailable("The database does not answer.", retry_after_s=1) from error
