"""Versions that have left service: each is drained and closed by a task that nobody cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from core.control.model_state import ModelState
from core.control.rollout import LoadedVersion, drain_and_close


class Drains:
    """What is being closed. `on_gone` is called whenever memory has come back, `on_change` when what shows has."""

    def __init__(self, timeout_s: float, on_gone: Callable[[], None], on_change: Callable[[], None]) -> None:
        self.timeout_s = timeout_s
        """How long the last requests of a version may take, where nothing else is said."""
        self._on_gone = on_gone
        self._on_change = on_change
        self._sizes: dict[asyncio.Task[None], int] = {}

    def begin(
        self, leaving: Sequence[LoadedVersion], name: str = "discard", timeout_s: float | None = None
    ) -> asyncio.Task[None]:
        """Drain and close these."""

        def over(task: asyncio.Task[None]) -> None:
            self._sizes.pop(task, None)
            self._on_gone()

        task = asyncio.create_task(drain_and_close(leaving, timeout_s or self.timeout_s), name=name)
        self._sizes[task] = sum(version.memory_bytes for version in leaving)
        task.add_done_callback(over)
        return task

    def begin_of(
        self, name: str, state: ModelState, leaving: Sequence[LoadedVersion], timeout_s: float | None = None
    ) -> asyncio.Task[None]:
        """Drain and close versions of a model, which shows them meanwhile."""
        numbers = [version.deployment.version for version in leaving]
        state.draining += numbers
        state.dirty = True

        def over(task: asyncio.Task[None]) -> None:
            for number in numbers:
                state.draining.remove(number)
            state.dirty = True
            self._on_change()

        task = self.begin(leaving, f"drain {name}", timeout_s)
        if numbers:
            task.add_done_callback(over)
        return task

    def sizes(self) -> list[int]:
        """Bytes of memory that come back with each of those under way."""
        return list(self._sizes.values())

    async def over(self) -> None:
        """Wait until all have been closed."""
        while self._sizes:
            await asyncio.gather(*self._sizes, return_exceptions=True)
