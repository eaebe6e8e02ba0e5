"""Answers that take several runs of the engine: drives a SteppedTask's generators over a runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from core.errors import DeadlineExceeded, QueueFull
from core.serving.request import Timing
from core.serving.run_result import RunResult
from core.serving.runner import Runner

RETRY_S: Final = 0.02
"""How long a request that is half done waits for room in a full queue before it asks again."""

Inputs = dict[str, np.ndarray[Any, Any]]
Outputs = Mapping[str, np.ndarray[Any, Any]]
Answer = TypeVar("Answer")
InThread = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Drive:
    """How the runs of one request are made. `in_thread` awaits a function in a worker thread."""

    runner: Runner
    in_thread: InThread
    priority: int
    deadline: float
    timing: Timing
    _room: int = 0
    """Items admitted whose first run is still to come."""

    @contextmanager
    def admitted(self, items: int) -> Iterator[None]:
        """Take room for the first runs of so many items; what of it no run has used is given back at the end.

        Not by `answer`, which is never entered where the caller leaves at once. Raises QueueFull.
        """
        self.runner.admit(items)
        self._room = items
        try:
            yield
        finally:
            self.runner.release(self._room)

    async def answer(self, steps: Generator[Inputs, Outputs, Answer], *, admitted: bool) -> Answer:
        """Every step in turn. Where it is one of those `admitted`, the room of its first run is taken already.

        A generator that is dropped while it waits closes itself; one whose step is in a thread, after that.
        """
        outputs: Outputs | None = None
        while True:
            before = time.monotonic()
            try:
                inputs, answer = await self.in_thread(_advance, steps, outputs)
            except BaseException as error:
                self.timing.failed("preprocess" if outputs is None else "postprocess", before, error)
                raise
            if inputs is None:
                self.timing.postprocessed(before)
                return answer  # type: ignore[no-any-return]
            self.timing.preprocessed(before)
            outputs = await self._run(inputs, admitted)
            admitted = False

    async def _run(self, inputs: Inputs, admitted: bool) -> Outputs:
        """One run. What is half done is not refused for want of room: it waits for it until its deadline."""
        if admitted:
            self._room -= 1
            return self._noted(await self._run_once(inputs))
        while True:
            try:
                self.runner.admit(1)
                return self._noted(await self._run_once(inputs))
            except QueueFull:
                if time.monotonic() + RETRY_S > self.deadline:
                    raise DeadlineExceeded("The deadline passed before the model answered.") from None
                await asyncio.sleep(RETRY_S)

    async def _run_once(self, inputs: Inputs) -> RunResult:
        noting = self.timing.noting
        return await self.runner.run(inputs, 1, priority=self.priority, deadline=self.deadline, noting=noting)

    def _noted(self, result: RunResult) -> Outputs:
        self.timing.ran(result)
        return result.outputs


async def all_or_none(answers: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """All of them, side by side; the first error ends the others and is raised."""
    tasks = [asyncio.create_task(answer, name="stepped item") for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _advance(
    steps: Generator[Inputs, Outputs, Answer], outputs: Outputs | None
) -> tuple[Inputs, None] | tuple[None, Answer]:
    try:
        return (next(steps) if outputs is None else steps.send(outputs)), None
    except StopIteration as stop:  # which no future may carry
        return None, stop.value
