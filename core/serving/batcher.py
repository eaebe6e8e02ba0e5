"""Hands what waits to slots that are free. Lives on the event loop; decides nothing itself.

`batch_policy` says what runs next, `slot_policy` how many batches run side by side.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from core.errors import DeadlineExceeded, PlatformError
from core.serving.batch_policy import BatchPolicy, Take, decide, part_of_siblings
from core.serving.batch_size_policy import BatchCosts
from core.serving.deadlines import Deadlines
from core.serving.engine_worker import Batch, EngineWorker
from core.serving.ragged import Room
from core.serving.request_queue import QueuedRequest, RequestQueue
from core.serving.sibling_policy import Family, SiblingSlots
from core.serving.slot_policy import Demand, SlotBounds, share, slots_for, threads_for
from core.serving.trace import batch_run

HANG_GRACE_S = 2.0


class Batcher:
    """Owns the queue and knows which slots are free."""

    def __init__(
        self,
        queue: RequestQueue,
        policy: BatchPolicy,
        loop: asyncio.AbstractEventLoop,
        costs: BatchCosts | None = None,
        bounds: SlotBounds | None = None,
    ) -> None:
        self.queue = queue
        self.policy = policy
        self.bounds = bounds
        """Between which its slots follow the load; without, every slot there is may be used."""
        self.costs = costs or BatchCosts(policy.max_batch)
        """What batches cost here, and so how large they should be."""
        self.token_costs = BatchCosts(policy.max_tokens)
        """The same of items that differ in length, by the batch's padded size."""
        self.batch_sizes: Counter[int] = Counter()
        """How many batches of each size, in items, have been run."""
        self.batch_seconds: defaultdict[int, float] = defaultdict(float)
        """How long they ran in all."""
        self.batch_threads: Counter[int] = Counter()
        """How many batches ran with so many threads; 0 where that was left to the engine."""
        self.on_start: Callable[[int, Batch], None] | None = None
        self.on_end: Callable[[int, Batch], None] | None = None
        """Called with the slot's number around each batch."""
        self.on_hung: Callable[[EngineWorker], None] | None = None
        """Called with a slot whose batch has outlived every deadline in it by `HANG_GRACE_S`."""
        self._loop = loop
        self._sibling_slots = SiblingSlots(bounds) if bounds is not None and not bounds.fixed else None
        self._family: Family | None = None
        self._free: list[EngineWorker] = []
        self._busy = 0
        self._running_items = 0
        self._last_s = 0.0
        self._mean_length = 0.0
        """Of the last batch whose items differed in length; 0 while there was none."""
        self._pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: Deadlines[QueuedRequest] = Deadlines(loop, self._expired)
        self._running: Deadlines[Batch] = Deadlines(loop, self._hung)
        self._idle = asyncio.Event()
        self._idle.set()

    def add_slot(self, worker: EngineWorker) -> None:
        """Let a slot take batches."""
        self._free.append(worker)
        self._wake()

    @property
    def slots(self) -> int | None:
        """How many batches may run side by side now; None where nothing but the number of slots limits them."""
        bounds, queue = self.bounds, self.queue
        if bounds is None or bounds.fixed:
            return None if bounds is None else bounds.most
        requests = self._busy + queue.requests + (queue.depth > queue.waiting)
        items = queue.depth + self._running_items
        usual, item_s = self._usual() if self._mean_length else (self.costs.usual, self.costs.item_s)
        return slots_for(Demand(items, requests, usual, item_s, self._last_s), bounds)

    def submit(self, request: QueuedRequest) -> None:
        """Let an admitted request wait; its future is resolved later, or cancelled by its caller."""
        self.queue.push(request)
        self._waiting.add(request)
        self._idle.clear()
        if not self._pump_due and self._free:
            self._wake()

    def leave(self, request: QueuedRequest) -> None:
        """A caller has gone or its deadline has passed: free its place if it still waits."""
        self._waiting.discard(request)
        self.queue.forget(request)
        self._note_idle()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing waits or runs; false when the time is up first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def refuse_all(self, error: PlatformError) -> None:
        """Answer everything that waits with an error."""
        for request in self.queue.clear():
            self._waiting.discard(request)
            if not request.future.done():
                request.future.set_exception(error)
        self._note_idle()

    def done(self, worker: EngineWorker, batch: Batch) -> None:
        """A slot has finished a batch: deliver it, and give the slot something else."""
        self._running.discard(batch)
        self._left(batch)
        self._free.append(worker)
        if self.on_end is not None:
            self.on_end(worker.number, batch)
        self.batch_sizes[batch.items] += 1
        self._last_s = seconds = batch.ended_at - batch.started_at
        self.batch_seconds[batch.items] += seconds
        self.batch_threads[batch.threads] += 1
        if batch.longest:
            self._mean_length = sum([request.length for request in batch.requests]) / batch.items
        self._learn(batch)
        self._learn_of_family(batch)
        self._deliver(batch)
        self._pump()
        self._note_idle()

    def _learn(self, batch: Batch) -> None:
        if batch.run_items:
            costs, size = (self.token_costs, batch.longest) if batch.longest else (self.costs, 1)
            seconds = batch.busy_s * batch.share * batch.run_items / batch.items
            costs.observe(batch.run_items * size, seconds)

    def _learn_of_family(self, batch: Batch) -> None:
        family = self._family
        if family is not None and self._sibling_slots is not None and family.ended(batch.items):
            self._sibling_slots.observe(family.items, family.slots, batch.ended_at - family.since)
            self._family = None

    def _wake(self) -> None:
        # Later in this turn of the loop, so that requests which arrive together run together.
        if not self._pump_due and self._free:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        while self._free and self.queue.waiting:
            now = time.monotonic()
            slots = self._slots_now(now)
            if slots is not None and self._busy >= slots:
                return
            limit = self.costs.limit
            decision = decide(self.queue.lanes(), now, self.policy, limit)
            if not isinstance(decision, Take):
                if decision is not None:
                    self._sleep_until(decision.until, now)
                return
            part = self._part_of_siblings(slots)
            if part:
                limit = self.costs.together(part)
            room = Room(self.policy.max_batch, self.token_costs.limit)
            requests = self._still_wanted(self.queue.take(decision.lanes, part or limit, room), now)
            if requests:
                self._start(requests, now, limit, slots)
        self._note_idle()

    def _slots_now(self, now: float) -> int | None:
        """How many batches may run side by side; for siblings that have the machine to themselves, as is best."""
        siblings = self.queue.siblings
        if self._sibling_slots is None or not siblings or siblings < self.queue.waiting:
            self._family = None
        elif not self._busy:
            self._family = Family(siblings, self._sibling_slots.choose(siblings), now)
        return self.slots if self._family is None else self._family.slots

    def _part_of_siblings(self, slots: int | None) -> int:
        queue, side_by_side = self.queue, len(self._free) + self._busy if slots is None else slots
        return part_of_siblings(queue.siblings, queue.waiting, side_by_side, self.policy.max_batch)

    def _usual(self) -> tuple[int, float | None]:
        """Items in a batch, and seconds an item, where they differ in length and are as long as the last ones."""
        costs, length = self.token_costs, self._mean_length
        usual = max(1, min(self.policy.max_batch, int(costs.usual / length)))
        return usual, None if costs.item_s is None else costs.item_s * length

    def _start(self, requests: Sequence[QueuedRequest], now: float, limit: int, slots: int | None) -> None:
        batch = self._batch(requests, now, limit, slots)
        worker = self._free.pop()
        free_since = worker.free_since
        for request in requests:
            request.started_at = now
            request.batch_items = batch.items
            request.batch_wait_s = now - max(free_since, request.enqueued_at)
        self._busy += 1
        self._running_items += batch.items
        if self.on_start is not None:
            self.on_start(worker.number, batch)
        batch.deadline = max([request.deadline for request in requests]) + HANG_GRACE_S
        batch.worker = worker
        self._running.add(batch)
        worker.start(batch)

    def _batch(self, requests: Sequence[QueuedRequest], now: float, limit: int, slots: int | None) -> Batch:
        if slots is None or self.bounds is None:
            return Batch(requests, now, limit)
        threads = threads_for(slots, self.bounds)
        part = 1.0 if self.bounds.fixed else share(threads, self._busy + 1, self.bounds)
        return Batch(requests, now, limit, threads, part)

    def _left(self, batch: Batch) -> None:
        self._busy -= 1
        self._running_items -= batch.items

    def _expired(self, request: QueuedRequest) -> None:
        self.queue.forget(request)
        if not request.future.done():
            request.future.set_exception(DeadlineExceeded("The deadline passed before the model answered."))
        self._note_idle()

    def _hung(self, batch: Batch) -> None:
        """Nobody waits for this batch any more, and its slot does not come back: give the slot up."""
        worker = batch.worker
        assert worker is not None
        worker.abandon()
        self._left(batch)
        if self.on_hung is not None:
            self.on_hung(worker)
        self._note_idle()

    def _still_wanted(self, requests: Sequence[QueuedRequest], now: float) -> list[QueuedRequest]:
        wanted = []
        for request in requests:
            if request.future.done():
                continue
            if request.deadline <= now:
                self._waiting.discard(request)
                request.future.set_exception(DeadlineExceeded("The deadline passed while the request waited."))
                continue
            wanted.append(request)
        return wanted

    def _sleep_until(self, moment: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, moment - now), self._pump)

    def _deliver(self, batch: Batch) -> None:
        infer_s = batch.ended_at - batch.started_at
        note_run(batch)
        for request, outcome in zip(batch.requests, batch.outcomes, strict=True):
            request.infer_s = infer_s
            self._waiting.discard(request)
            if request.future.done():  # the caller left while its batch ran
                continue
            if isinstance(outcome, PlatformError):
                request.future.set_exception(outcome)
            else:
                request.future.set_result(outcome)

    def _note_idle(self) -> None:
        if not self._busy and not self.queue.depth:
            self._idle.set()


def note_run(batch: Batch) -> None:
    """Tell its traced requests of a batch that has run; one of them, whose caller is there, gets the links."""
    traced = [request for request in batch.requests if request.trace_id is not None]
    if not traced:
        return
    ids = [request.trace_id for request in batch.requests]
    run = batch_run(ids, batch.items, batch.started_at, batch.ended_at)
    without = run._replace(links=())
    for request in traced:
        request.batch = without
    teller = next((request for request in traced if not request.future.done()), traced[0])
    teller.batch = run
