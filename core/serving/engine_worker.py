"""A slot: one thread that runs batches on one engine.

The event loop hands a batch over through `start`; the thread joins the inputs, runs the engine, splits the
outputs and calls back onto the loop. When a batch of several requests fails, each is run again alone, so that
one bad item spoils no other. A batch known to be done sooner than a thread wakes up is run where it is.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from core.engines.base import Engine
from core.errors import PlatformError, RunFailed
from core.serving import ragged
from core.serving.request_queue import QueuedRequest

INLINE_MOST_S = 0.02
"""An inline batch that held up the event loop for so long is the last one: more than a pause of the machine
explains, less than a caller notices."""

OWN_PART = 0.03
"""A run in which its thread computes for less than this part of the time waits for something else: a device."""

SHORT_S = 0.001
"""A run of less is hardly divided among threads, and easily disturbed by what else the machine does."""

Tensors = Mapping[str, np.ndarray[Any, Any]]
Outputs = dict[str, np.ndarray[Any, Any]]


def busy_seconds(seconds: float, own_s: float, threads: int) -> float:
    """What a run of `seconds` cost: where its thread computes alone, its own time; others' turns do not count.

    Of several threads, one's own time leaves out that it waits for the others, which runs of few items do most.
    But what is short is weighed by its own thread all the same.
    """
    alone = threads == 1 or own_s < SHORT_S
    return own_s if alone and own_s > OWN_PART * seconds else seconds


class Batch:
    """Requests that run together, and after the run one outcome for each: outputs or an error."""

    __slots__ = (
        "busy_s",
        "deadline",
        "ended_at",
        "items",
        "limit",
        "longest",
        "outcomes",
        "requests",
        "run_items",
        "share",
        "started_at",
        "threads",
        "worker",
    )

    def __init__(
        self, requests: Sequence[QueuedRequest], now: float, limit: int, threads: int = 0, share: float = 1.0
    ) -> None:
        self.requests = requests
        self.threads = threads
        """How many threads the engine may use; 0 leaves it to the engine."""
        self.share = share
        """The part of the machine that it has."""
        self.items = sum(request.items for request in requests)
        self.longest = max([request.length for request in requests])
        """To what its items are padded; 0 where their shape is fixed."""
        self.limit = max(limit, self.items) if self.longest else limit
        """How many items are run at a time; a request with more is run in parts."""
        self.run_items = min(self.items, limit)
        """Items in each run of the engine, so that its time tells what those cost; 0 once one has failed."""
        self.started_at = now
        self.ended_at = now
        self.busy_s = 0.0
        """What it cost: its time, but for the turns that others had on this thread's core."""
        self.outcomes: list[Outputs | PlatformError] = []
        self.deadline = 0.0
        """When nobody waits for it any more, and its slot counts as hung."""
        self.worker: EngineWorker | None = None


class EngineWorker:
    """One slot. `on_done(worker, batch)` is called on the event loop after each batch."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        number: int,
        batchable: bool,
        on_done: Callable[[EngineWorker, Batch], None],
        loop: asyncio.AbstractEventLoop,
        inline_items: int = 0,
    ) -> None:
        self.number = number
        self.inline_items = inline_items
        """Batches up to this size are run by `start` itself, on the event loop (`inline_policy`)."""
        self.engine = engine
        self._batchable = batchable
        self._on_done = on_done
        self._loop = loop
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.current: Batch | None = None
        self.abandoned = False
        self.free_since = time.monotonic()
        self._thread.start()

    def start(self, batch: Batch) -> None:
        """Hand over a batch; the slot is busy until `on_done`."""
        self.current = batch
        if batch.items <= self.inline_items:
            self._run_batch(batch)
            batch.busy_s = batch.ended_at - batch.started_at
            self._loop.call_soon(self._finish_inline, batch)  # later, so that others get their turn
        else:
            self._inbox.put(batch)

    def stop(self) -> None:
        """End the thread after what it is doing; does not wait."""
        self._inbox.put(None)

    def abandon(self) -> None:
        """Give up a thread that does not come back; should it, nobody listens and it ends."""
        self.abandoned = True
        self.stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; false when it did not in time. Blocks: not for the event loop."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (batch := self._inbox.get()) is not None:
            began, own_began = time.monotonic(), time.thread_time()
            self._run_batch(batch)
            batch.busy_s = busy_seconds(batch.ended_at - began, time.thread_time() - own_began, batch.threads)
            try:
                self._loop.call_soon_threadsafe(self._finish, batch)
            except RuntimeError:  # the loop is closed: nobody is waiting any more
                return
            del batch

    def _run_batch(self, batch: Batch) -> None:
        batch.outcomes = self._outcomes(batch, batch.requests)
        batch.ended_at = time.monotonic()

    def _finish_inline(self, batch: Batch) -> None:
        if batch.ended_at - batch.started_at > INLINE_MOST_S:
            self.inline_items = 0  # it does not keep what was measured: never again
        self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        self.current = None
        self.free_since = batch.ended_at
        if not self.abandoned:
            self._on_done(self, batch)

    def _outcomes(self, batch: Batch, requests: Sequence[QueuedRequest]) -> list[Outputs | PlatformError]:
        try:
            return list(self._run_together(requests, batch.limit, batch.threads))
        except Exception as error:  # whatever an engine does or answers must not end the slot
            batch.run_items = 0
            if len(requests) == 1:
                return [_failure(error)]
        return [outcome for request in requests for outcome in self._outcomes(batch, [request])]

    def _run_together(self, requests: Sequence[QueuedRequest], limit: int, threads: int) -> list[Outputs]:
        if len(requests) == 1:
            return [self._run_chunks(requests[0].inputs, requests[0].items, limit, threads)]
        first, padding = requests[0].inputs, requests[0].padding
        if padding is not None:
            joined = ragged.join([request.inputs for request in requests], padding)
        else:
            joined = {name: np.concatenate([request.inputs[name] for request in requests]) for name in first}
        outputs = self._run_chunks(joined, sum([request.items for request in requests]), limit, threads)
        return _split(outputs, requests)

    def _run_chunks(self, inputs: Tensors, items: int, limit: int, threads: int) -> Outputs:
        """Run as many items as fit at a time, and join the outputs again."""
        if not self._batchable or items <= limit:
            return self._run_once(inputs, items, threads)
        parts = []
        for start in range(0, items, limit):
            part = {name: array[start : start + limit] for name, array in inputs.items()}
            parts.append(self._run_once(part, min(limit, items - start), threads))
        for name, first in parts[0].items():
            if any(part[name].shape[1:] != first.shape[1:] for part in parts):
                raise RunFailed(
                    f"The model's output {name!r} depends on what else is in a batch, and these {items} items do "
                    f"not fit one; send at most {limit} items at once."
                )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_once(self, inputs: Tensors, items: int, threads: int) -> Outputs:
        outputs = self.engine.run_wide(inputs, threads) if threads else self.engine.run(inputs)
        if self._batchable:
            for name, array in outputs.items():
                if array.ndim == 0 or array.shape[0] != items:
                    raise RunFailed(
                        f"The model answered output {name!r} of shape {list(array.shape)} to a batch of {items}."
                    )
        return outputs


def _failure(error: Exception) -> PlatformError:
    if isinstance(error, PlatformError):
        return error
    failure = RunFailed("The model failed while running this input.")
    failure.__cause__ = error
    return failure


def _split(outputs: Outputs, requests: Sequence[QueuedRequest]) -> list[Outputs]:
    parts: list[Outputs] = []
    start = 0
    for request in requests:
        end = start + request.items
        parts.append({name: array[start:end] for name, array in outputs.items()})
        start = end
    return parts
