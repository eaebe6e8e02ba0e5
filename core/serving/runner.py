"""Runs tensors on a loaded model: in this process, or in a host process behind the same face."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from core.engines.base import Engine
from core.errors import NotReady, ShuttingDown
from core.serving.batch_policy import BatchPolicy
from core.serving.batch_size_policy import BatchCosts
from core.serving.batcher import Batcher
from core.serving.engine_worker import Batch, EngineWorker
from core.serving.inline_policy import inline_items
from core.serving.low_priority import in_own_thread, run_at_low_priority
from core.serving.ragged import CPU_TOKENS
from core.serving.request import SequencePart
from core.serving.request_queue import QueuedRequest, RequestQueue
from core.serving.run_result import EachResult, Outputs, RunResult, times_of
from core.serving.sequences import DEFAULT_SEQUENCES, Hold, SequenceLimits, Sequences
from core.serving.slot_policy import SlotBounds, widths
from core.serving.trace import Noting, SpanId, current_id
from core.serving.warm_up import Example, warm_up
from core.signature import Signature
from core.tasks.base import Prepared

T = TypeVar("T")
Tensors = Mapping[str, np.ndarray[Any, Any]]
OnState = Callable[[str], None]

MAX_HUNG = 8
"""Threads that a runner leaves behind before its slots stay lost; `isolation: process` has no such end."""
FINISH_S = 10.0
"""So long a batch that runs when its model is closed may take to end."""


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How a model is run; times in milliseconds, sizes in items."""

    name: str
    instances: int = 1
    max_instances: int | None = None
    """Up to how many slots follow the load; None for `instances` and no more."""
    cores: int = 0
    """What slots that run side by side share; 0 leaves the threads of a run to the engine."""
    max_batch: int = 32
    max_tokens: int = CPU_TOKENS
    """What a batch of items that differ in length may hold, its padding counted."""
    max_delay_ms: float = 0.0
    queue_size: int = 256

    @property
    def most(self) -> int:
        """How many slots there may be."""
        return max(self.instances, self.max_instances or 0)

    @property
    def bounds(self) -> SlotBounds | None:
        """Between which the slots follow the load; None where nobody divides cores between them."""
        return SlotBounds(self.instances, self.most, self.cores) if self.cores else None


@dataclass(slots=True)
class RunnerStats:
    """What a runner has done and holds now."""

    depth: int = 0
    busy: int = 0
    slots: int = 0
    """Batches that may run side by side now."""
    max_slots: int = 0
    """As many as they may become."""
    memory_bytes: int = 0
    restarts: int = 0
    batch_sizes: dict[int, int] = field(default_factory=dict)
    batch_seconds: dict[int, float] = field(default_factory=dict)
    """How long the batches of each size ran, in all."""
    batch_threads: dict[int, int] = field(default_factory=dict)
    """How many batches ran with so many threads; 0 where that was left to the engine."""
    why_not_larger: str | None = None
    """Why batches stay smaller than `max_batch`, where they do."""


class Runner(Protocol):
    """`start`, then `admit` and `run` for each request, then `close`."""

    @property
    def signature(self) -> Signature:
        """Known once started."""

    async def start(self, on_state: OnState) -> None:
        """Load and warm. Raises EngineError, having closed what it opened."""

    def admit(self, items: int) -> None:
        """Take room in the queue, or raise QueueFull at once."""

    def release(self, items: int) -> None:
        """Give back room that `run` will not use."""

    async def run(
        self,
        inputs: Tensors,
        items: int,
        *,
        priority: int,
        deadline: float,
        sibling: bool = False,
        noting: Noting | None = None,
    ) -> RunResult:
        """Run one admitted request. Raises PlatformError; may be cancelled at any moment.

        The caller of siblings waits for the last of those that it sends at once. `noting` is told how far a
        request came that is not answered.
        """

    async def run_each(
        self, prepared: Prepared, *, priority: int, deadline: float, noting: Noting | None = None
    ) -> EachResult:
        """Run admitted items that differ in length, each with its like; one that fails fails all. As `run`."""

    async def hold(self, part: SequencePart, deadline: float) -> Hold:
        """Take hold of a sequence for its next part; see Sequences."""

    async def stats(self) -> RunnerStats:
        """What it has done and holds now."""

    async def close(self) -> None:
        """Refuse what waits and give everything back. May be called twice."""


class LocalRunner:
    """A queue, a batcher and slots in this process. `make_engine` loads a fresh engine (blocking).

    `example` answers inputs of one item where the signature leaves their sizes open (blocking); for the warm-up.
    """

    def __init__(
        self,
        options: RunnerOptions,
        make_engine: Callable[[], tuple[Engine, Signature]],
        sequences: SequenceLimits = DEFAULT_SEQUENCES,
        example: Example = lambda signature: None,
    ) -> None:
        self.options = options
        self._make_engine = make_engine
        self._example = example
        self._engines: list[Engine] = []
        self._workers: list[EngineWorker] = []
        self._queue = RequestQueue(options.queue_size)
        self._batcher: Batcher | None = None
        self._closing = False
        self.sequences = Sequences(sequences)
        self.on_batch_start: Callable[[int, Batch], None] | None = None
        self.on_batch_end: Callable[[int, Batch], None] | None = None
        self.on_hung: Callable[[], None] | None = None
        """Called when a slot does not come back; without it, the slot gets a new thread, a few times."""
        self._hung = 0

    @property
    def signature(self) -> Signature:
        """Its tensors."""
        return self._signature

    async def start(self, on_state: OnState) -> None:
        """Load and warm; see Runner."""
        try:
            on_state("loading")
            await self._load()
            on_state("warming")
            await run_at_low_priority(self._warm, f"{self.options.name}-warm")
        except BaseException:
            await self.close()
            raise
        self._open_slots()

    def admit(self, items: int) -> None:
        """See Runner."""
        if self._closing:
            raise ShuttingDown("This version of the model is being taken down; try again.", retry_after_s=1)
        if self._batcher is None:
            raise NotReady("The model is not loaded yet.", retry_after_s=1)
        self._queue.admit(items)

    def release(self, items: int) -> None:
        """See Runner."""
        self._queue.release(items)

    async def run(
        self,
        inputs: Tensors,
        items: int,
        *,
        priority: int,
        deadline: float,
        sibling: bool = False,
        noting: Noting | None = None,
    ) -> RunResult:
        """See Runner."""
        queued = self.submit(
            inputs, items, priority=priority, deadline=deadline, trace_id=current_id(), sibling=sibling
        )
        try:
            outputs = await queued.future
        except BaseException as error:
            self.leave(queued)
            if noting is not None:
                noting.cut_short(queued, error)
            raise
        return RunResult(outputs, *times_of(queued, queued.engine_s), queued.batch)

    async def run_each(
        self, prepared: Prepared, *, priority: int, deadline: float, noting: Noting | None = None
    ) -> EachResult:
        """See Runner."""
        parts = self.submit_each(prepared, priority=priority, deadline=deadline, trace_id=current_id())
        outputs: list[Outputs] = []
        try:
            for part in parts:
                outputs += [await part.future]
        except BaseException as error:
            if noting is not None:
                noting.cut_short(parts[len(outputs)], error)
            for part in parts:
                self.leave(part)
                forget_answer(part)
            raise
        last = max(parts, key=lambda part: part.started_at + part.infer_s)
        return EachResult(outputs, *times_of(last, sum(part.engine_s for part in parts)), last.batch)

    def submit(
        self,
        inputs: Tensors,
        items: int,
        *,
        priority: int,
        deadline: float,
        solo: bool = False,
        tag: int = 0,
        trace_id: SpanId | None = None,
        sibling: bool = False,
    ) -> QueuedRequest:
        """Let an admitted request wait; its `future` is resolved later. A `solo` one shares no batch."""
        batcher = self._open(items)
        future: asyncio.Future[Outputs] = self._loop.create_future()
        queued = QueuedRequest(
            inputs,
            items,
            future,
            now=time.monotonic(),
            deadline=deadline,
            priority=priority,
            solo=solo,
            tag=tag,
            trace_id=trace_id,
            sibling=sibling,
        )
        batcher.submit(queued)
        return queued

    def submit_each(
        self,
        prepared: Prepared,
        *,
        priority: int,
        deadline: float,
        solo: bool = False,
        tag: int = 0,
        trace_id: SpanId | None = None,
    ) -> list[QueuedRequest]:
        """As `submit`, for each of the admitted items that differ in length."""
        batcher = self._open(len(prepared.contexts))
        now = time.monotonic()
        parts = [
            QueuedRequest(
                inputs,
                1,
                self._loop.create_future(),
                now=now,
                deadline=deadline,
                priority=priority,
                solo=solo,
                tag=tag,
                length=max(1, length),
                padding=prepared.padding,
                trace_id=trace_id,
            )
            for inputs, length in zip(prepared.each(), prepared.lengths or (), strict=True)
        ]
        for part in parts:
            batcher.submit(part)
        return parts

    def _open(self, items: int) -> Batcher:
        """The batcher, while there is one that takes requests."""
        if self._closing or self._batcher is None:
            self._queue.release(items)
            raise ShuttingDown("This version of the model is being taken down; try again.", retry_after_s=1)
        return self._batcher

    async def hold(self, part: SequencePart, deadline: float) -> Hold:
        """See Runner."""
        return await self.sequences.hold(part, deadline)

    def leave(self, queued: QueuedRequest) -> None:
        """The caller of a request has gone."""
        if self._batcher is not None:
            self._batcher.leave(queued)

    async def stats(self) -> RunnerStats:
        """See Runner."""
        return RunnerStats(
            depth=self._queue.depth,
            busy=sum(worker.current is not None for worker in self._workers),
            slots=self._slots(),
            max_slots=len(self._workers),
            memory_bytes=sum(engine.memory() for engine in self._engines),
            batch_sizes=dict(self._batcher.batch_sizes) if self._batcher else {},
            batch_seconds=dict(self._batcher.batch_seconds) if self._batcher else {},
            batch_threads=dict(self._batcher.batch_threads) if self._batcher else {},
            why_not_larger=self._batcher.costs.why() if self._batcher else None,
        )

    async def close(self) -> None:
        """See Runner."""
        self._closing = True
        self.sequences.close()
        workers, self._workers = self._workers, []
        if self._batcher is not None:
            self._batcher.refuse_all(ShuttingDown("The model was taken down before this request ran."))
        for worker in workers:
            worker.stop()
        engines, self._engines = self._engines, []
        await asyncio.to_thread(_finish, workers, engines)

    def _slots(self) -> int:
        allowed = self._batcher.slots if self._batcher is not None else None
        return len(self._workers) if allowed is None else min(allowed, len(self._workers))

    def _bounds(self) -> SlotBounds | None:
        """Engines that run one batch at a time are as many as was asked for, with weights of their own."""
        return self.options.bounds if self._engines[0].concurrent else None

    async def _load(self) -> None:
        engine, self._signature = await in_own_thread(self._make_engine, _close_pair, self._may_load_slowly())
        self._engines.append(engine)
        self._max_batch = 1 if self._signature.why_not_batchable() else self.options.max_batch
        self._costs = BatchCosts(self._max_batch)
        while not engine.concurrent and len(self._engines) < self.options.instances:
            self._engines.append((await in_own_thread(self._make_engine, _close_pair))[0])

    def _may_load_slowly(self) -> bool:
        """Whether loading may be done at low priority: not where the engine's own threads would inherit it."""
        bounds = self.options.bounds
        return bounds is not None and bounds.cores == 1

    def _warm(self) -> None:
        bounds = self._bounds()
        wide = widths(bounds) if bounds is not None else (0,)
        warm_up(self._engines, self._signature, self._example, wide, self._costs)

    def _open_slots(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        policy = BatchPolicy(self._max_batch, self.options.max_tokens, self.options.max_delay_ms / 1000)
        bounds = self._bounds()
        self._batcher = Batcher(self._queue, policy, loop, self._costs, bounds)
        self._batcher.on_hung = self._replace
        self._batcher.on_start, self._batcher.on_end = self.on_batch_start, self.on_batch_end
        for number in range(bounds.most if bounds is not None else self.options.instances):
            self._open_slot(number, self._engines[number % len(self._engines)])

    def _open_slot(self, number: int, engine: Engine) -> None:
        assert self._batcher is not None
        worker = EngineWorker(
            f"{self.options.name}-{number}",
            engine,
            number=number,
            batchable=self._signature.why_not_batchable() is None,
            on_done=self._batcher.done,
            loop=asyncio.get_running_loop(),
            inline_items=inline_items(engine.bounded, self._signature, self._costs.seconds_an_item),
        )
        self._workers.append(worker)
        self._batcher.add_slot(worker)

    def _replace(self, worker: EngineWorker) -> None:
        """Give a slot that does not come back a new thread; the old one keeps its stack until the process ends."""
        if self.on_hung is not None:
            self.on_hung()
            return
        self._hung += 1
        if worker in self._workers and self._hung <= MAX_HUNG and worker.engine.concurrent:
            self._workers.remove(worker)
            self._open_slot(worker.number, worker.engine)


def forget_answer(queued: QueuedRequest) -> None:
    """Nobody will ask for its answer: an error that nobody took would be logged as a bug."""
    future = queued.future
    if not future.cancel() and not future.cancelled():
        future.exception()


def _close_pair(loaded: tuple[Engine, Signature]) -> None:
    loaded[0].close()


def _finish(workers: Sequence[EngineWorker], engines: Sequence[Engine]) -> None:
    for worker in workers:
        worker.join(FINISH_S)
    for engine in engines:
        engine.close()
