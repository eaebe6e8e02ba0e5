"""Answers that many ask for at once, made once for all of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class MadeOnce(Generic[T]):
    """Keeps the last `most` answers, each as long as its `state` is the same. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[Hashable, tuple[Hashable, asyncio.Future[T]]] = OrderedDict()

    async def get(self, key: Hashable, state: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The answer for this key and state; who comes while it is made waits for it. Raises as `make`."""
        known = self._made.get(key)
        if known is not None and known[0] == state and not _failed(known[1]):
            self._made.move_to_end(key)
            return await asyncio.shield(known[1])
        # Its own task: whoever asked first may leave, and others wait.
        making = asyncio.ensure_future(make())
        self._made[key] = state, making
        self._made.move_to_end(key)
        while len(self._made) > self._most:
            self._made.popitem(last=False)
        return await asyncio.shield(making)


def _failed(future: asyncio.Future[T]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
