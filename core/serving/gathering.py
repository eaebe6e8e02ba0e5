"""Calls that several requests make at once, done in threads and answered together.

What a map begins for its items would otherwise take a hop to a thread and back for each, in which the threads and
the event loop fight for the interpreter's lock, and come to the model's queue one after the other: the first would
be run alone while the others are still being prepared.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOST: Final = 32
"""So many calls are answered together; of more, these go on while the others are done."""
WORTH_S: Final = 0.002
"""A thread more for each so much work: what is done sooner is done before another thread has begun, and two that
run nothing but Python only take the interpreter's lock from each other."""


class Gathering:
    """Runs what is called in one turn of the event loop in as many threads as are worth it, at most one a core."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._cores = len(os.sched_getaffinity(0))
        self._called: list[_Call] = []
        self._seconds: dict[str, float] = {}
        """What a call of each function has cost on average, the last time that some were called."""

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """The answer of `function`, or its error, which is nobody else's; it is not begun once the caller left."""
        loop = asyncio.get_running_loop()
        if not self._called:
            loop.call_soon(self._begin, loop)
        call = _Call(loop.create_future(), getattr(function, "__qualname__", ""), partial(function, *args))
        self._called.append(call)
        return await call.answer  # type: ignore[no-any-return]

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        called, self._called = self._called, []
        for start in range(0, len(called), MOST):
            _Round(called[start : start + MOST], self._learn).begin(loop, self._threads, self._worth(called))

    def _worth(self, calls: Sequence[_Call]) -> int:
        """How many threads these calls are worth; as many as there are cores where one of them is not known."""
        seconds = sum([self._seconds.get(call.kind, math.inf) for call in calls])
        return self._cores if seconds >= self._cores * WORTH_S else 1 + int(seconds / WORTH_S)

    def _learn(self, calls: Sequence[_Call]) -> None:
        costs: dict[str, list[float]] = {}
        for call in calls:
            if call.error is None and call.seconds is not None:
                costs.setdefault(call.kind, []).append(call.seconds)
        self._seconds |= {kind: sum(each) / len(each) for kind, each in costs.items()}


class _Call:
    __slots__ = ("answer", "error", "function", "kind", "result", "seconds")

    def __init__(self, answer: asyncio.Future[Any], kind: str, function: Callable[[], Any]) -> None:
        self.answer = answer
        self.kind = kind
        """By what its cost is remembered: the name of the function."""
        self.function = function
        self.seconds: float | None = None
        """What it cost of its thread's time, once it has run."""
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """In a thread."""
        began = time.thread_time()
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error
        self.seconds = time.thread_time() - began

    def deliver(self) -> None:
        """On the event loop."""
        if self.answer.done():
            return
        if self.error is None:
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(self.error)


class _Round:
    def __init__(self, calls: list[_Call], learn: Callable[[Sequence[_Call]], None]) -> None:
        self._calls = calls
        self._learn = learn
        self._left = deque(calls)
        self._jobs = 0

    def begin(self, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor, most: int) -> None:
        self._jobs = min(len(self._calls), most)
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
            self._learn(self._calls)
            for call in self._calls:
                call.deliver()
