"""A shadow: a version that gets copies of live requests, and whose answers are only compared.

A copy is made once the live answer is there, so neither that answer nor its latency can depend on the shadow. It
runs at the lowest priority; what would be too many at once is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import structlog

from core.errors import PlatformError, Unavailable
from core.serving.request import InferenceRequest, InferenceResult
from core.serving.target import Target

log = structlog.get_logger(__name__)

LAST_PRIORITY = 9
MAX_UNDER_WAY = 32
MAX_BYTES = 64 << 20
"""Of requests held for one shadow."""
MAX_RUNNING = 4
"""Copies run at once: the threads that decode are shared with live requests."""
TOLERANCE = 0.01
"""Numbers agree when they differ by no more than this part of the largest of them."""
INLINE_BYTES = 64 * 1024


class Holdable(Protocol):
    """What a copy holds while it runs: a Served."""

    target: Target
    leases: int

    def release(self) -> None:
        """Let go."""


@dataclass(slots=True)
class ShadowStats:
    """Times in milliseconds, summed over the requests that were compared."""

    compared: int = 0
    agreed: int = 0
    dropped: int = 0
    errors: int = 0
    live_ms: float = 0.0
    shadow_ms: float = 0.0
    max_abs_difference: float = 0.0
    """The largest difference of tensors seen."""


class Mirror:
    """Sends copies to one shadow version. `fraction` of the live requests are copied."""

    def __init__(self, served: Holdable) -> None:
        self.fraction = 1.0
        self.stats = ShadowStats()
        self._served = served
        self._due = 0.5
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Semaphore(MAX_RUNNING)

    def copy(self, request: InferenceRequest, result: InferenceResult) -> None:
        """Copy a live request that was answered with `result`, if it is its turn and there is room."""
        self._due += self.fraction
        if self._due < 1:
            return
        self._due -= 1
        size = _size(request)
        if self._tasks and (len(self._tasks) >= MAX_UNDER_WAY or self._bytes + size > MAX_BYTES):
            self.stats.dropped += 1
            return
        task = asyncio.create_task(self._run(request, result), name=f"shadow of {result.model}")
        self._tasks.add(task)
        self._bytes += size
        self._served.leases += 1
        task.add_done_callback(partial(self._ended, size))

    def close(self) -> None:
        """Cancel every copy under way; each lets go of the version."""
        for task in self._tasks:
            task.cancel()

    def snapshot(self) -> dict[str, float]:
        """The counts as a plain dict."""
        return asdict(self.stats)

    def _ended(self, size: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._bytes -= size
        self._served.release()
        if not task.cancelled() and task.exception() is not None:
            self.stats.errors += 1
            log.warning("shadow.failed", task=task.get_name(), error=repr(task.exception()))

    async def _run(self, request: InferenceRequest, live: InferenceResult) -> None:
        copied = replace(request, priority=LAST_PRIORITY, deadline=None)
        async with self._gate:
            try:
                shadow = await self._served.target.infer(copied)
            except Unavailable:  # no room for it, or it is being taken down
                self.stats.dropped += 1
                return
            except PlatformError:
                self.stats.errors += 1
                return
        agrees, difference = await _compare(live, shadow)
        stats = self.stats
        stats.compared += 1
        stats.agreed += agrees
        stats.live_ms += live.timing.total
        stats.shadow_ms += shadow.timing.total
        stats.max_abs_difference = max(stats.max_abs_difference, difference)


async def _compare(live: InferenceResult, shadow: InferenceResult) -> tuple[bool, float]:
    if sum(array.nbytes for array in (live.outputs or {}).values()) <= INLINE_BYTES:
        return compare(live, shadow)
    return await asyncio.to_thread(compare, live, shadow)


def compare(live: InferenceResult, shadow: InferenceResult) -> tuple[bool, float]:
    """Whether two answers say the same, and the largest difference of their tensors.

    Classifications agree on the first label, embeddings where their cosine is within `TOLERANCE` of 1, entities on
    what stands where; all else agrees within `TOLERANCE`.
    """
    if live.outputs is not None:
        return _compare_tensors(live.outputs, shadow.outputs or {})
    ours, theirs = live.answers or [], shadow.answers or []
    return len(ours) == len(theirs) and all(map(_same_answer, ours, theirs)), 0.0


def _same_answer(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if "predictions" in one and "predictions" in other:
        return bool(_first(one["predictions"]) == _first(other["predictions"]))
    if "embedding" in one and "embedding" in other:
        return _point_alike(one["embedding"], other["embedding"])
    if "entities" in one and "entities" in other:
        return [_place(entity) for entity in one["entities"]] == [_place(entity) for entity in other["entities"]]
    return _close(one, other)


def _point_alike(one: Any, other: Any) -> bool:
    """Whether two vectors have a cosine of 0.99 or more: numbers near nought may differ by any part of them."""
    if len(one) != len(other):
        return False
    ours, theirs = np.asarray(one, np.float64), np.asarray(other, np.float64)
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return bool(ours @ theirs >= (1 - TOLERANCE) * lengths)


def _place(entity: Mapping[str, Any]) -> tuple[Any, ...]:
    return entity.get("label"), entity.get("start"), entity.get("end")


def _first(predictions: Any) -> Any:
    if not predictions:
        return None
    return predictions[0].get("label", predictions[0].get("index"))


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return bool(abs(one - other) <= TOLERANCE * max(abs(one), abs(other)))
    return bool(one == other)


def _compare_tensors(
    ours: Mapping[str, np.ndarray[Any, Any]], theirs: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[bool, float]:
    if ours.keys() != theirs.keys():
        return False, 0.0
    compared = [_compare_arrays(ours[name], theirs[name]) for name in ours]
    return all(agrees for agrees, _ in compared), max((difference for _, difference in compared), default=0.0)


def _compare_arrays(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> tuple[bool, float]:
    if ours.shape != theirs.shape:
        return False, 0.0
    if ours.dtype.kind in "OSUb" or theirs.dtype.kind in "OSUb":
        return bool(np.array_equal(ours, theirs)), 0.0
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    apart[(one == other) | (np.isnan(one) & np.isnan(other))] = 0
    finite = np.isfinite(apart)
    difference = float(apart[finite].max(initial=0.0))
    if ours.dtype.kind in "iu":
        return difference == 0, difference
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
    return bool(finite.all()) and difference <= TOLERANCE * largest, difference


def _size(request: InferenceRequest) -> int:
    if request.payloads is not None:
        return sum(payload.size_bytes for payload in request.payloads)
    return sum(array.nbytes for array in (request.inputs or {}).values())
