"""Cumulative counts of each loaded version, as the protocol's statistics extension words them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from core.errors import PlatformError
from core.serving.request import InferenceRequest, InferenceResult
from core.serving.runner import RunnerStats
from core.serving.target import Target

_DURATIONS = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)


@dataclass(slots=True)
class Durations:
    """How often something happened, and how long it took in all, in milliseconds."""

    count: int = 0
    total_ms: float = 0.0

    def add(self, ms: float) -> None:
        """One more."""
        self.add_all(1, ms)

    def add_all(self, count: int, total_ms: float) -> None:
        """So many more, which took so long together."""
        self.count += count
        self.total_ms += total_ms

    def to_json(self) -> dict[str, int]:
        """`{count, ns}`."""
        return {"count": self.count, "ns": round(self.total_ms * 1e6)}


@dataclass(slots=True)
class VersionStatistics:
    """What one loaded version has done since it was loaded, over every API."""

    inferences: int = 0
    """Items of the requests that succeeded."""
    last_ms: int = 0
    """When the last request ended, in milliseconds since the epoch."""
    success: Durations = field(default_factory=Durations)
    fail: Durations = field(default_factory=Durations)
    queue: Durations = field(default_factory=Durations)
    compute_input: Durations = field(default_factory=Durations)
    compute_infer: Durations = field(default_factory=Durations)
    compute_output: Durations = field(default_factory=Durations)
    cache_hit: Durations = field(default_factory=Durations)
    cache_miss: Durations = field(default_factory=Durations)

    def succeeded(self, result: InferenceResult) -> None:
        """Count an answer."""
        timing = result.timing
        self.inferences += result.items
        self.last_ms = int(time.time() * 1000)
        self.success.add(timing.total)
        if result.cache == "miss":
            self.cache_miss.add(timing.total)
        elif result.cache is not None:
            self.cache_hit.add(timing.total)
            return
        self.queue.add(timing.queue)
        self.compute_input.add(timing.preprocess)
        self.compute_infer.add(timing.infer)
        self.compute_output.add(timing.postprocess)

    def succeeded_all(self, items: int, times_ms: NDArray[np.float64], last_s: float) -> None:
        """Count many answers that came from no cache; their times as in `core.metrics.VersionCounts.answered`."""
        self.inferences += items
        self.last_ms = int(last_s * 1000)
        queue, _, preprocess, infer, postprocess, total = times_ms.sum(axis=0).tolist()
        self.success.add_all(len(times_ms), total)
        self.queue.add_all(len(times_ms), queue)
        self.compute_input.add_all(len(times_ms), preprocess)
        self.compute_infer.add_all(len(times_ms), infer)
        self.compute_output.add_all(len(times_ms), postprocess)

    def failed(self, ms: float) -> None:
        """Count an error."""
        self.last_ms = int(time.time() * 1000)
        self.fail.add(ms)

    def to_numbers(self) -> dict[str, Any]:
        """Numbers that add up with those of others; see core.control.totals."""
        durations = {name: [getattr(self, name).count, getattr(self, name).total_ms] for name in _DURATIONS}
        return {"inferences": self.inferences, "max_last_ms": self.last_ms, **durations}

    @classmethod
    def from_numbers(cls, said: Mapping[str, Any]) -> VersionStatistics:
        """The inverse of `to_numbers`."""
        durations = {name: Durations(*said[name]) for name in _DURATIONS}
        return cls(said["inferences"], said["max_last_ms"], **durations)

    def to_json(self, target: Target, runs: RunnerStats) -> dict[str, Any]:
        """One entry of `model_stats`; `runs` knows the batches."""
        return {
            "name": target.model,
            "version": str(target.version),
            "last_inference": self.last_ms,
            "inference_count": self.inferences,
            "execution_count": sum(runs.batch_sizes.values()),
            "inference_stats": {
                "success": self.success.to_json(),
                "fail": self.fail.to_json(),
                "queue": self.queue.to_json(),
                "compute_input": self.compute_input.to_json(),
                "compute_infer": self.compute_infer.to_json(),
                "compute_output": self.compute_output.to_json(),
                "cache_hit": self.cache_hit.to_json(),
                "cache_miss": self.cache_miss.to_json(),
            },
            "batch_stats": [
                _batch(size, count, runs.batch_seconds.get(size, 0.0))
                for size, count in sorted(runs.batch_sizes.items())
            ],
        }


def _batch(size: int, count: int, seconds: float) -> dict[str, Any]:
    """Input and output are handed over inside the run, so there is no time of theirs to tell."""
    no_time = Durations(count).to_json()
    infer = Durations(count, seconds * 1000).to_json()
    return {"batch_size": size, "compute_input": no_time, "compute_infer": infer, "compute_output": no_time}


class Statistics:
    """The statistics of every version in memory; they go with it."""

    def __init__(self) -> None:
        self._by_target: WeakKeyDictionary[Target, VersionStatistics] = WeakKeyDictionary()

    def of(self, target: Target) -> VersionStatistics:
        """Those of one loaded version."""
        found = self._by_target.get(target)
        if found is None:
            found = self._by_target[target] = VersionStatistics()
        return found

    def take(self) -> list[tuple[Target, VersionStatistics]]:
        """What was counted since the last call, and begin anew."""
        taken, self._by_target = list(self._by_target.items()), WeakKeyDictionary()
        return taken

    async def infer(self, target: Target, request: InferenceRequest) -> InferenceResult:
        """`target.infer`, with its errors counted; its answers are by `app.tallies.note_answer`."""
        started = time.monotonic()
        try:
            return await target.infer(request)
        except PlatformError:
            self.of(target).failed((time.monotonic() - started) * 1000)
            raise
