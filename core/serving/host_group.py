"""A request whose items wait and run by themselves, answered as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.serving.request_queue import QueuedRequest

Outputs = dict[str, np.ndarray[Any, Any]]


class Group:
    """Calls `on_end` once, when no item waits or runs any more: only then may their memory be used again.

    The first item that fails takes back those that still wait.
    """

    def __init__(
        self,
        parts: Sequence[QueuedRequest],
        leave: Callable[[QueuedRequest], None],
        on_end: Callable[[Group], None],
    ) -> None:
        self.error: BaseException | None = None
        self.cancelled = False
        """Whether its caller has gone."""
        self.parts = parts
        self._leave = leave
        self._on_end = on_end
        self._left = len(parts)
        for part in parts:
            part.future.add_done_callback(self._ended)

    @property
    def outputs(self) -> list[Outputs]:
        """Of each item; only where none failed."""
        return [part.future.result() for part in self.parts]

    @property
    def last(self) -> QueuedRequest:
        """The item that ended last."""
        return max(self.parts, key=lambda part: part.started_at + part.infer_s)

    @property
    def failed(self) -> QueuedRequest:
        """The item that failed; only where one did."""
        return next(
            part for part in self.parts if not part.future.cancelled() and part.future.exception() is self.error
        )

    @property
    def engine_s(self) -> float:
        """The sum of the items' shares of their batches."""
        return sum(part.engine_s for part in self.parts)

    def cancel(self) -> None:
        """Its caller has gone."""
        self.cancelled = True
        self._take_back()

    def _take_back(self) -> None:
        for part in self.parts:
            if not part.started_at and not part.future.done():
                self._leave(part)
                part.future.cancel()
        # One that runs ends with its batch: its memory is in use until then.

    def _ended(self, future: asyncio.Future[Outputs]) -> None:
        self._left -= 1
        if not future.cancelled() and (error := future.exception()) is not None and self.error is None:
            self.error = error
            self._take_back()
        if not self._left:
            self._on_end(self)
