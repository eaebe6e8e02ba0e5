"""Answers that were given before, by version and content: least recently used, bounded, in front of the queue.

Who asks for what is being computed waits for it: one computation, however many ask. It belongs to none of them: a
caller that leaves fails no other, and only when all have left is it cancelled.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson

from core.errors import DeadlineExceeded, ShuttingDown
from core.serving.request import CacheOutcome, InferenceRequest, InferenceResult, Timing

HASHED_AT_ONCE: Final = 256 * 1024
"""Bytes of content that are hashed on the event loop, in 0.15 ms; more goes to a thread."""
ENTRY_BYTES: Final = 600
"""What an entry takes beside its answer."""
_OBJECT_BYTES: Final = 56

Compute = Callable[[InferenceRequest], Awaitable[InferenceResult]]
Key = tuple[int, bytes]


@dataclass(slots=True)
class _Entry:
    result: InferenceResult
    size_bytes: int


def keeps_results(wanted: bool | None, task: str) -> bool:
    """Whether answers are kept: as wanted, and otherwise for embeddings, which are asked for again and again."""
    return task.endswith("-embedding") if wanted is None else wanted


class ResultStore:
    """The answers of all versions in one process, at most `max_bytes` of them. Belongs to one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._spaces = 0

    def __len__(self) -> int:
        return len(self._entries)

    def space(self) -> int:
        """A number for the keys of one loaded version; none is given twice."""
        self._spaces += 1
        return self._spaces

    def get(self, key: Key) -> InferenceResult | None:
        """The answer, which is now the one used last."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.result

    def put(self, key: Key, result: InferenceResult) -> None:
        """Keep an answer, and let go of those used longest ago; one over an eighth of all room is not kept."""
        size_bytes = ENTRY_BYTES + size_of(result.answers) + size_of(result.outputs)
        if size_bytes * 8 > self.max_bytes or key in self._entries:
            return
        self._entries[key] = _Entry(result, size_bytes)
        self.size_bytes += size_bytes
        while self.size_bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size_bytes -= oldest.size_bytes

    def drop(self, space: int) -> None:
        """Let go of all answers of a version that is closed."""
        for key in [key for key in self._entries if key[0] == space]:
            self.size_bytes -= self._entries.pop(key).size_bytes


@dataclass(slots=True, eq=False)
class _Flight:
    """A computation under way, and how many wait for it."""

    task: asyncio.Task[InferenceResult]
    waiting: int = 0


class ResultCache:
    """The cache of one loaded version. `infer` answers from it, or by `compute`."""

    def __init__(self, store: ResultStore, compute: Compute, timeout_ms: int) -> None:
        self._store = store
        self._compute = compute
        self._timeout_s = timeout_ms / 1000
        self._space = store.space()
        self._flights: dict[bytes, _Flight] = {}

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """Answer a request. Raises what `compute` raises, and DeadlineExceeded by the request's own deadline."""
        began = time.monotonic()
        key = await _key_of(request)
        if key is None:
            return await self._compute(request)
        known = self._store.get((self._space, key))
        if known is not None:
            return _again(known, began, "hit")
        deadline = request.deadline or began + self._timeout_s
        while True:
            flight = self._flights.get(key)
            outcome: CacheOutcome = "shared" if flight is not None else "miss"
            if flight is None:
                flight = self._take_off(key, request)
            try:
                result = await self._wait(key, flight, deadline)
            except DeadlineExceeded:
                # That of whoever asked first may have been shorter than ours.
                if outcome == "miss" or time.monotonic() >= deadline:
                    raise
                continue
            return _again(result, began, outcome) if outcome == "shared" else replace(result, cache=outcome)

    def close(self) -> None:
        """Let go of all answers; what is under way ends with the version."""
        self._store.drop(self._space)
        self._space = self._store.space()  # what is still computed finds its way to no caller

    def _take_off(self, key: bytes, request: InferenceRequest) -> _Flight:
        task = asyncio.create_task(self._fly(key, self._space, request), name="cached computation")
        flight = self._flights[key] = _Flight(task)
        task.add_done_callback(lambda _: self._landed(key, flight))
        return flight

    async def _fly(self, key: bytes, space: int, request: InferenceRequest) -> InferenceResult:
        result = await self._compute(request)
        result.outputs = _owned(result.outputs)
        self._store.put((space, key), result)
        return result

    def _forget(self, key: bytes, flight: _Flight) -> None:
        """It is cancelled: who comes from now on begins anew."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _landed(self, key: bytes, flight: _Flight) -> None:
        self._forget(key, flight)
        if not flight.task.cancelled():
            flight.task.exception()  # who waited gets it; where nobody did any more, nobody misses it

    async def _wait(self, key: bytes, flight: _Flight, deadline: float) -> InferenceResult:
        flight.waiting += 1
        try:
            left_s = max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait({flight.task}, timeout=left_s + _GRACE_S)
            if not done:
                raise DeadlineExceeded("The deadline passed before the answer was ready.")
            if flight.task.cancelled():
                raise ShuttingDown("This version of the model is being taken down; try again.", retry_after_s=1)
            return flight.task.result()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                self._forget(key, flight)


_GRACE_S: Final = 0.05
"""The computation tells by itself that its deadline has passed, and says where."""


async def _key_of(request: InferenceRequest) -> bytes | None:
    """The hash of all that an answer depends on; None for what cannot be kept."""
    if request.sequence is not None:
        return None
    size_bytes = 0
    for payload in request.payloads or ():
        if payload.image is not None:  # decoded already: hashing its pixels would cost more than it may save
            return None
        size_bytes += len(payload.data)
    for array in (request.inputs or {}).values():
        if array.dtype.hasobject:
            return None
        size_bytes += array.nbytes
    if size_bytes <= HASHED_AT_ONCE:
        return content_key(request)
    return await asyncio.to_thread(content_key, request)


def content_key(request: InferenceRequest) -> bytes:
    """SHA-256 over media or tensors, parameters, and the kind of answer asked for.

    Every part goes in with its length before it, so that no two different requests are the same bytes. SHA-256 is
    the quickest of the library's hashes where the processor has instructions for it: 62 KiB take 0.04 ms.
    """
    told: list[Any] = [request.raw, _plain(request.parameters)]
    parts: list[Any] = []
    for payload in request.payloads or ():
        told.append([payload.media_type, len(payload.data)])
        parts.append(payload.data)
    for name, array in (request.inputs or {}).items():
        told.append([name, array.dtype.str, array.shape])
        parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b"")
    hashed = hashlib.sha256(orjson.dumps(told))
    for part in parts:
        hashed.update(part)
    return hashed.digest()


def _plain(parameters: Mapping[str, Any]) -> Any:
    return sorted(parameters.items()) if len(parameters) > 1 else list(parameters.items())


def _again(result: InferenceResult, began: float, outcome: CacheOutcome) -> InferenceResult:
    """The same answer for another request, with that one's time."""
    timing = Timing(total=(time.monotonic() - began) * 1000)
    return replace(result, timing=timing, cache=outcome)


def _owned(outputs: dict[str, np.ndarray[Any, Any]] | None) -> dict[str, np.ndarray[Any, Any]] | None:
    """Outputs that hold nobody else's memory, such as a batch's or an engine process's, and stay as they are."""
    if outputs is None:
        return None
    owned = {}
    for name, array in outputs.items():
        owned[name] = array if array.flags.owndata else array.copy()
        owned[name].flags.writeable = False
    return owned


def size_of(value: Any) -> int:
    """About what an answer takes in memory, in bytes."""
    if isinstance(value, np.ndarray):
        return _OBJECT_BYTES * 2 + int(value.nbytes)
    if isinstance(value, str | bytes):
        return _OBJECT_BYTES + len(value)
    if isinstance(value, Mapping):
        return _OBJECT_BYTES * 2 + sum(_OBJECT_BYTES + len(str(key)) + size_of(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], float):
            return _OBJECT_BYTES + 32 * len(value)
        return _OBJECT_BYTES + sum(8 + size_of(one) for one in value)
    return 32
