"""The three layers that are measured, behind one face: the engine alone, the serving core, HTTP."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any, Protocol

import numpy as np

from app.bench import loops, thread_loops
from app.bench.figures import Samples
from app.bench.http_client import Connection, HttpCall
from core.engines.base import Engine
from core.serving.deployment import Deployment
from core.serving.request import InferenceRequest
from core.serving.slot_policy import SlotBounds, threads_for

LAYERS = ("engine", "core", "http")
OPEN_CALLERS = 256
"""So many calls of an open loop may be under way; what is due beyond that waits, and its waiting counts."""

Arrays = dict[str, np.ndarray[Any, Any]]
_STAGES = ("preprocess", "queue", "infer", "postprocess")


class Layer(Protocol):
    """One way to call the model. `check` first, then any number of loops."""

    name: str

    async def check(self) -> None:
        """One call of each input. Raises PlatformError where it is not answered well."""

    async def closed(self, callers: int, seconds: float) -> Samples:
        """See `loops.closed_loop`."""

    async def open(self, arrivals: Sequence[float], seconds: float) -> Samples:
        """See `loops.open_loop`."""


class EngineLayer:
    """Runs of one item each, no queue and no task, by as many threads as there are callers.

    Runs that are side by side share the cores as the serving core lets them.
    """

    name = "engine"

    def __init__(self, engine: Engine, items: Sequence[Arrays], bounds: SlotBounds | None) -> None:
        self._engine = engine
        self._items = items
        self._next: Iterator[Arrays] = cycle(items)
        self._bounds = bounds
        self._busy = 0
        self._counting = threading.Lock()
        self._turn = threading.Lock()

    async def check(self) -> None:
        """See Layer."""
        for item in self._items:
            await asyncio.to_thread(self._engine.run, item)

    async def closed(self, callers: int, seconds: float) -> Samples:
        """See Layer."""
        return await thread_loops.closed_loop(self._call, callers, seconds)

    async def open(self, arrivals: Sequence[float], seconds: float) -> Samples:
        """See Layer; no more threads than runs fit side by side, since each would only slow down the others."""
        callers = self._bounds.cores if self._bounds is not None else 1
        return await thread_loops.open_loop(self._call, callers, arrivals, seconds)

    def _call(self) -> None:
        if not self._engine.concurrent:
            with self._turn:
                self._engine.run(next(self._next))
            return
        with self._counting:
            self._busy += 1
        try:
            self._engine.run_wide(next(self._next), self._threads())
        finally:
            with self._counting:
                self._busy -= 1

    def _threads(self) -> int:
        bounds = self._bounds
        return 0 if bounds is None else threads_for(max(1, min(self._busy, bounds.cores)), bounds)


class CoreLayer:
    """`Deployment.infer` in this process: task, queue, batcher and engine, but no HTTP."""

    name = "core"

    def __init__(self, deployment: Deployment, requests: Sequence[InferenceRequest]) -> None:
        self._deployment = deployment
        self._requests = requests
        self._next = cycle(requests)
        self._stages = dict.fromkeys(_STAGES, 0.0)

    async def check(self) -> None:
        """See Layer."""
        for request in self._requests:
            await self._deployment.infer(replace(request))

    async def closed(self, callers: int, seconds: float) -> Samples:
        """See Layer."""
        batches = await self._begin()
        samples = await loops.closed_loop([self._ask] * callers, seconds)
        return await self._explain(samples, batches)

    async def open(self, arrivals: Sequence[float], seconds: float) -> Samples:
        """See Layer."""
        batches = await self._begin()
        samples = await loops.open_loop([self._ask] * OPEN_CALLERS, arrivals, seconds)
        return await self._explain(samples, batches)

    async def _ask(self) -> None:
        timing = (await self._deployment.infer(replace(next(self._next)))).timing
        stages = self._stages
        stages["preprocess"] += timing.preprocess
        stages["queue"] += timing.queue
        stages["infer"] += timing.infer
        stages["postprocess"] += timing.postprocess

    async def _begin(self) -> Counter[int]:
        self._stages = dict.fromkeys(_STAGES, 0.0)
        return Counter((await self._deployment.stats()).batch_sizes)

    async def _explain(self, samples: Samples, before: Counter[int]) -> Samples:
        sizes = Counter((await self._deployment.stats()).batch_sizes) - before
        if sizes:
            samples.mean_batch = sum(size * count for size, count in sizes.items()) / sizes.total()
        answered = max(1, len(samples.took_ms))
        samples.stages_ms = {name: total / answered for name, total in self._stages.items()}
        return samples


class HttpLayer:
    """Calls of a server over connections that stay open, one a caller."""

    name = "http"

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._connections: list[Connection] = []

    async def check(self) -> None:
        """See Layer."""
        connection = (await self._connected(1))[0]
        for wire in self._call.wires:
            await connection.ask(wire)

    async def closed(self, callers: int, seconds: float) -> Samples:
        """See Layer."""
        return await loops.closed_loop(await self._asks(callers), seconds)

    async def open(self, arrivals: Sequence[float], seconds: float) -> Samples:
        """See Layer; up to as many connections as calls are due within a second."""
        callers = min(OPEN_CALLERS, max(8, math.ceil(len(arrivals) / seconds)))
        return await loops.open_loop(await self._asks(callers), arrivals, seconds)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    async def _asks(self, callers: int) -> list[loops.Ask]:
        wires = cycle(self._call.wires)

        def ask_by(connection: Connection) -> loops.Ask:
            return lambda: connection.ask(next(wires))

        return [ask_by(connection) for connection in await self._connected(callers)]

    async def _connected(self, count: int) -> list[Connection]:
        while len(self._connections) < count:
            self._connections.append(Connection(self._call))
        for connection in self._connections[:count]:
            await connection.open()
        return self._connections[:count]
