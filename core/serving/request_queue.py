"""The one bounded queue of a deployment, counted in items and owned by its batcher."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import QueueFull
from core.serving.batch_policy import Lane

Tensors = Mapping[str, np.ndarray[Any, Any]]


class QueuedRequest:
    """One admitted request on its way to a slot. `future` gets the output tensors of this request alone."""

    __slots__ = (
        "batch_items",
        "batch_wait_s",
        "deadline",
        "enqueued_at",
        "future",
        "infer_s",
        "inputs",
        "items",
        "lane",
        "started_at",
        "tag",
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
    ) -> None:
        self.inputs = inputs
        self.items = items
        self.future = future
        self.enqueued_at = now
        self.deadline = deadline
        shape = tuple([(name, array.dtype.num, array.shape[1:]) for name, array in inputs.items()])
        self.lane: tuple[object, int] = ((shape, id(self)) if solo else shape, priority)
        self.tag = tag
        self.started_at = 0.0
        self.infer_s = 0.0
        self.batch_wait_s = 0.0
        self.batch_items = 0


class _Waiting:
    """The requests of one lane, oldest first, and how many items they hold."""

    __slots__ = ("items", "requests")

    def __init__(self) -> None:
        self.requests: OrderedDict[QueuedRequest, None] = OrderedDict()
        self.items = 0


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
        self.waiting += request.items
        self.requests += 1

    def forget(self, request: QueuedRequest) -> None:
        """Free the place of a request whose caller has gone; nothing happens when it no longer waits."""
        lane = self._lanes.get(request.lane)
        if lane is None or request not in lane.requests:
            return
        del lane.requests[request]
        self._left(request.lane, lane, request.items, 1)

    def lanes(self) -> list[Lane]:
        """What the policy looks at, in the order that `take` understands."""
        return [
            Lane(shape, priority, next(iter(lane.requests)).enqueued_at, lane.items)
            for (shape, priority), lane in self._lanes.items()
        ]

    def take(self, order: Sequence[int], max_items: int) -> list[QueuedRequest]:
        """Remove requests up to `max_items`, lane by lane. The first may be larger than that, alone."""
        keys = list(self._lanes)
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
        self._left(key, lane, items, len(taken) - before)
        return room - items

    def clear(self) -> list[QueuedRequest]:
        """Remove and return everything that waits."""
        everything = [request for lane in self._lanes.values() for request in lane.requests]
        self._lanes.clear()
        self.depth -= self.waiting
        self.waiting = self.requests = 0
        return everything

    def _left(self, key: tuple[object, int], lane: _Waiting, items: int, requests: int) -> None:
        lane.items -= items
        self.requests -= requests
        self.waiting -= items
        self.depth -= items
        if not lane.requests:
            self._lanes.pop(key, None)
