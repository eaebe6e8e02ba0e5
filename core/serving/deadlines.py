"""Ends what has waited too long: one timer for all of a deployment's requests, not one for each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """Something with a deadline, in seconds of `time.monotonic()`."""

    deadline: float


T = TypeVar("T", bound=Timed)


class Deadlines(Generic[T]):
    """`expire` is called on the event loop with each item that is still here at its deadline."""

    __slots__ = ("_due", "_expire", "_items", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[T], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._items: set[T] = set()
        self._due = math.inf
        """When the timer runs; never later than the earliest deadline, often earlier."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        """Watch an item until it is discarded."""
        self._items.add(item)
        if item.deadline < self._due:
            self._set_timer(item.deadline)

    def discard(self, item: T) -> None:
        """Watch it no longer; nothing happens when it was not watched."""
        self._items.discard(item)

    def clear(self) -> None:
        """Watch nothing."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._sweep)

    def _sweep(self) -> None:
        self._timer, self._due = None, math.inf
        now = time.monotonic()
        expired = [item for item in self._items if item.deadline <= now]
        self._items.difference_update(expired)
        for item in expired:
            self._expire(item)
        if self._items:
            self._set_timer(min(item.deadline for item in self._items))
