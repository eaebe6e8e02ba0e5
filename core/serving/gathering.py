"""Calls that several requests make at once, done in threads and answered together.

What a map begins for its items would otherwise take a hop to a thread and back for each, in which the threads and
the event loop fight for the interpreter's lock, and come to the model's queue one after the other: the first would
be run alone while the others are still being prepared.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOST: Final = 32
"""So many calls are answered together; of more, these go on while the others are done."""


class Gathering:
    """Runs what is called in one turn of the event loop in as many threads as there are cores."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._cores = len(os.sched_getaffinity(0))
        self._called: list[_Call] = []

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """The answer of `function`, or its error, which is nobody else's; it is not begun once the caller left."""
        loop = asyncio.get_running_loop()
        if not self._called:
            loop.call_soon(self._begin, loop)
        call = _Call(loop.create_future(), partial(function, *args))
        self._called.append(call)
        return await call.answer  # type: ignore[no-any-return]

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        called, self._called = self._called, []
        for start in range(0, len(called), MOST):
            _Round(called[start : start + MOST]).begin(loop, self._threads, self._cores)


class _Call:
    __slots__ = ("answer", "error", "function", "result")

    def __init__(self, answer: asyncio.Future[Any], function: Callable[[], Any]) -> None:
        self.answer = answer
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """In a thread."""
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error

    def deliver(self) -> None:
        """On the event loop."""
        if self.answer.done():
            return
        if self.error is None:
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(self.error)


class _Round:
    def __init__(self, calls: list[_Call]) -> None:
        self._calls = calls
        self._left = deque(calls)
        self._jobs = 0

    def begin(self, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor, cores: int) -> None:
        self._jobs = min(len(self._calls), cores)
        for _ in range(self._jobs):
            loop.run_in_executor(threads, self._work).add_done_callback(self._ended)

    def _work(self) -> None:
        """Whichever thread is free takes the next call, so that a long one holds up no other."""
        while True:
            try:
                call = self._left.popleft()
            except IndexError:
                return
            if not call.answer.done():
                call.run()

    def _ended(self, job: asyncio.Future[None]) -> None:
        self._jobs -= 1
        if job.cancelled():  # the pool was shut down before it began
            self._left.clear()
            for call in self._calls:
                call.answer.cancel()
        elif not self._jobs:
            for call in self._calls:
                call.deliver()
