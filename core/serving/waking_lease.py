"""Taking hold of a model that is not in memory."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from core.serving.target import Target
from core.serving.trace import noting

if TYPE_CHECKING:
    from core.serving.catalogue import Catalogue, Lease


class WakingLease:
    """The lease of a model that is not in memory: entering it asks for its load, and waits.

    `deadline`, in seconds of `time.monotonic()`, is that of the request: what its load took is not given again.
    `waited_ms` is how long that was.
    """

    __slots__ = ("_began", "_catalogue", "_key", "_lease", "_name", "_version", "deadline", "waited_ms")

    def __init__(
        self, catalogue: Catalogue, name: str, version: int | None, key: bytes | None, timeout_s: float
    ) -> None:
        self._catalogue, self._name, self._version, self._key = catalogue, name, version, key
        self._lease: Lease | None = None
        self._began = time.monotonic()
        self.deadline = self._began + timeout_s
        self.waited_ms = 0.0

    def shorten(self, timeout_s: float | None) -> None:
        """Wait no longer than that since the call came; None changes nothing."""
        if timeout_s is not None:
            self.deadline = min(self.deadline, self._began + timeout_s)

    async def __aenter__(self) -> Target:
        began = time.monotonic()
        try:
            self._lease = await self._catalogue.wake(self._name, self._version, self._key, self.deadline)
        except BaseException as error:
            notes = noting(self._name, self._version or 0)
            if notes is not None:
                notes.failed("load", began, error)
            raise
        now = time.monotonic()
        self.waited_ms = (now - began) * 1000
        notes = noting(self._name, self._version or self._lease.target.version)
        if notes is not None:
            notes.add("load", began, now)
        return self._lease.target

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.release()
