"""The one bounded queue of a deployment, counted in items and owned by its batcher."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from core.errors import QueueFull
from core.serving.batch_policy import Lane
from core.serving.ragged import WINDOW, Load, Room, compose, shape_of
from core.serving.trace import BatchRun, SpanId
from core.tasks.base import Padding

Tensors = Mapping[str, np.ndarray[Any, Any]]


class QueuedRequest:
    """One admitted request on its way to a slot. `future` gets the output tensors of this request alone."""

    __slots__ = (
        "batch",
        "batch_items",
        "batch_wait_s",
        "deadline",
        "enqueued_at",
        "future",
        "infer_s",
        "inputs",
        "items",
        "lane",
        "length",
        "padding",
        "sibling",
        "started_at",
        "tag",
        "trace_id",
    )

    def __init__(
        self,
        inputs: Tensors,
        items: int,
        future: asyncio.Future[dict[str, np.ndarray[Any, Any]]],
        *,
        now: float,
        deadline: float,
        priority: int = 5,
        solo: bool = False,
        tag: int = 0,
        length: int = 0,
        padding: Mapping[str, Padding] | None = None,
        trace_id: SpanId | None = None,
        sibling: bool = False,
    ) -> None:
        self.inputs = inputs
        self.items = items
        self.future = future
        self.enqueued_at = now
        self.deadline = deadline
        self.length = length
        """Of a single item that may share a batch with longer and shorter ones; 0 for inputs of fixed shape."""
        self.padding = padding
        shape = (
            tuple([(name, array.dtype.num, array.shape[1:]) for name, array in inputs.items()])
            if padding is None
            else shape_of(inputs, padding)
        )
        self.lane: tuple[object, int] = ((shape, id(self)) if solo else shape, priority)
        self.tag = tag
        self.sibling = sibling
        """Whether its caller waits for others that came with it, and for the last of them."""
        self.started_at = 0.0
        self.infer_s = 0.0
        self.batch_wait_s = 0.0
        self.batch_items = 0
        self.trace_id = trace_id
        """The span of the call that this is for, where that is traced."""
        self.batch: BatchRun | None = None
        """The batch that it ran in, where it is traced."""

    @property
    def queue_s(self) -> float:
        """How long it waited for a slot, once it has one."""
        return self.started_at - self.enqueued_at

    @property
    def engine_s(self) -> float:
        """This request's share of the run of its batch, by items."""
        return self.infer_s * self.items / max(self.batch_items, self.items)


class _Waiting:
    """The requests of one lane, oldest first, and how many items they hold."""

    __slots__ = ("items", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: OrderedDict[QueuedRequest, None] = OrderedDict()
        self.items = 0
        self.tokens = 0
        """The sum of their lengths; 0 for a lane of fixed shapes."""


class RequestQueue:
    """First in, first out within a lane; a lane is one inner shape at one priority.

    Room is taken by `admit`, before a request is even decoded, and given back when a slot takes the request or
    its caller leaves. So what is refused costs nothing, and what is admitted always fits.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.depth = 0
        """Items admitted that no slot has taken yet, those in pre-processing among them."""
        self.waiting = 0
        """Items that a slot could take now."""
        self.requests = 0
        """Requests that hold them."""
        self.siblings = 0
        """Items of those that wait for each other."""
        self._lanes: dict[tuple[object, int], _Waiting] = {}

    def admit(self, items: int) -> None:
        """Take room for `items`, or raise QueueFull at once. One request larger than all may enter alone."""
        if self.depth + items > self.capacity and self.depth > 0:
            raise QueueFull("The model's queue is full; try again shortly.", retry_after_s=1)
        self.depth += items

    def release(self, items: int) -> None:
        """Give back room of a request that never came to wait."""
        self.depth -= items

    def push(self, request: QueuedRequest) -> None:
        """Let an admitted request wait for a slot."""
        lane = self._lanes.get(request.lane)
        if lane is None:
            lane = self._lanes[request.lane] = _Waiting()
        lane.requests[request] = None
        lane.items += request.items
        lane.tokens += request.length
        self.waiting += request.items
        self.requests += 1
        if request.sibling:
            self.siblings += request.items

    def forget(self, request: QueuedRequest) -> None:
        """Free the place of a request whose caller has gone; nothing happens when it no longer waits."""
        lane = self._lanes.get(request.lane)
        if lane is None or request not in lane.requests:
            return
        del lane.requests[request]
        lane.tokens -= request.length
        self._forget_sibling(request)
        self._left(request.lane, lane, request.items, 1)

    def lanes(self) -> list[Lane]:
        """What the policy looks at, in the order that `take` understands."""
        return [
            Lane(shape, priority, next(iter(lane.requests)).enqueued_at, lane.items, lane.tokens)
            for (shape, priority), lane in self._lanes.items()
        ]

    def take(self, order: Sequence[int], max_items: int, ragged: Room | None = None) -> list[QueuedRequest]:
        """Remove requests up to `max_items`, lane by lane. The first may be larger than that, alone.

        Of lanes whose items differ in length, those of like length are taken, within the room `ragged`.
        """
        keys = list(self._lanes)
        if ragged is not None and self._lanes[keys[order[0]]].tokens:
            return self._take_alike([keys[i] for i in order], ragged)
        taken: list[QueuedRequest] = []
        room = max_items
        for key in (keys[i] for i in order):
            room = self._take_from(key, room, taken)
            if room <= 0:
                break
        return taken

    def _take_from(self, key: tuple[object, int], room: int, taken: list[QueuedRequest]) -> int:
        """Move what fits from one lane to `taken`; returns the room that is left."""
        lane = self._lanes[key]
        items, before = 0, len(taken)
        while lane.requests:
            request = next(iter(lane.requests))
            if request.items > room - items and taken:
                break
            del lane.requests[request]
            items += request.items
            taken.append(request)
            self._forget_sibling(request)
        self._left(key, lane, items, len(taken) - before)
        return room - items

    def _take_alike(self, keys: Sequence[tuple[object, int]], room: Room) -> list[QueuedRequest]:
        taken: list[QueuedRequest] = []
        load = Load()
        for key in keys:
            lane = self._lanes[key]
            waiting = list(islice(lane.requests, WINDOW))
            places, load = compose([request.length for request in waiting], load, room)
            for place in places:
                del lane.requests[waiting[place]]
                lane.tokens -= waiting[place].length
                taken.append(waiting[place])
            self._left(key, lane, len(places), len(places))
        return taken

    def clear(self) -> list[QueuedRequest]:
        """Remove and return everything that waits."""
        everything = [request for lane in self._lanes.values() for request in lane.requests]
        self._lanes.clear()
        self.depth -= self.waiting
        self.waiting = self.requests = self.siblings = 0
        return everything

    def _forget_sibling(self, request: QueuedRequest) -> None:
        if request.sibling:
            self.siblings -= request.items

    def _left(self, key: tuple[object, int], lane: _Waiting, items: int, requests: int) -> None:
        lane.items -= items
        self.requests -= requests
        self.waiting -= items
        self.depth -= items
        if not lane.requests:
            self._lanes.pop(key, None)
