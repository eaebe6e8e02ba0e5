"""Every metric, defined once, and the counts of one process behind them.

Counting is a few additions on plain lists, or on numpy's for many answers at once; Prometheus' text is only made
when it is asked for. Counts belong to one event loop. `take` hands over what one of several processes has counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Metric:
    """Name, kind, what it tells, and its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]


REQUESTS: Final = Metric(
    "pulvinar_requests_total",
    "counter",
    "Inference requests ended, by HTTP status and reason (ok, or the error's code).",
    ("model", "version", "status", "reason"),
)
STAGE_SECONDS: Final = Metric(
    "pulvinar_stage_seconds",
    "histogram",
    "Seconds of one answered request in each stage: queue, batch_wait, preprocess, infer, postprocess, total; "
    "and load, of those that waited for their model to be loaded.",
    ("model", "version", "stage"),
)
BATCH_ITEMS: Final = Metric(
    "pulvinar_batch_items", "histogram", "Items in each batch that was run.", ("model", "version")
)
QUEUE_DEPTH: Final = Metric(
    "pulvinar_queue_depth", "gauge", "Items admitted that no slot has taken yet.", ("model", "version")
)
SLOTS: Final = Metric("pulvinar_slots", "gauge", "Batches that may run side by side now.", ("model", "version"))
SLOTS_BUSY: Final = Metric("pulvinar_slots_busy", "gauge", "Batches that run now.", ("model", "version"))
SWAPS: Final = Metric(
    "pulvinar_swaps_total", "counter", "Changes of who answers for a model, under way or not.", ("model",)
)
HOST_RESTARTS: Final = Metric(
    "pulvinar_host_restarts_total",
    "counter",
    "Engine hosts that ended and were started again.",
    ("model", "version"),
)
SHADOW_REQUESTS: Final = Metric(
    "pulvinar_shadow_requests_total",
    "counter",
    "Copies of live requests, by outcome: agreed, differed, error, dropped.",
    ("model", "version", "outcome"),
)
SHADOW_SECONDS: Final = Metric(
    "pulvinar_shadow_seconds_total",
    "counter",
    "Seconds that the compared requests took, by who answered: live or shadow.",
    ("model", "version", "side"),
)
CACHE_REQUESTS: Final = Metric(
    "pulvinar_cache_requests_total",
    "counter",
    "Requests to versions that keep answers: hit, miss, shared.",
    ("model", "version", "outcome"),
)
CACHE_BYTES: Final = Metric("pulvinar_cache_bytes", "gauge", "Kept answers of the process that answers.", ())
STREAMS_OPENED: Final = Metric("pulvinar_streams_opened_total", "counter", "Streams accepted.", ("model",))
STREAMS_CLOSED: Final = Metric(
    "pulvinar_streams_closed_total", "counter", "Streams that are over, by close code.", ("model", "code")
)
STREAM_FRAMES: Final = Metric(
    "pulvinar_stream_frames_total", "counter", "Frames: answered, failed, dropped.", ("model", "outcome")
)
DEPLOYMENTS: Final = Metric("pulvinar_deployments", "gauge", "Deployments by state.", ("state",))
MEMORY_BYTES: Final = Metric(
    "pulvinar_model_memory_bytes", "gauge", "Host memory of a version that is loaded.", ("model", "version")
)
MEMORY_BUDGET_BYTES: Final = Metric(
    "pulvinar_memory_budget_bytes", "gauge", "Host memory that models may take together; 0 is no limit.", ()
)

LIMIT_FAILURES: Final = Metric(
    "pulvinar_limit_failures_total",
    "counter",
    "Requests whose limits could not be counted; `access.limits_on_failure` says what became of them.",
    (),
)
CPU_SECONDS: Final = Metric(
    "pulvinar_machine_cpu_seconds_total", "counter", "Seconds of all cores of the machine: busy, idle.", ("mode",)
)
MACHINE_MEMORY_BYTES: Final = Metric(
    "pulvinar_machine_memory_bytes", "gauge", "Memory of the machine: used, available, total.", ("kind",)
)
DISK_BYTES: Final = Metric(
    "pulvinar_disk_bytes", "gauge", "The file system of the data directory: free, used, total.", ("kind",)
)
GPU_MEMORY_BYTES: Final = Metric(
    "pulvinar_gpu_memory_bytes", "gauge", "Memory of each GPU: used, total.", ("gpu", "kind")
)
GPU_BUSY_RATIO: Final = Metric(
    "pulvinar_gpu_busy_ratio", "gauge", "Part of the time in which each GPU was at work, by its driver.", ("gpu",)
)

TOKENS_EXPIRING: Final = Metric(
    "pulvinar_tokens_expiring",
    "gauge",
    "Access tokens that end within `access.expiry_reminder_days` days.",
    (),
)

TRACE_SPANS: Final = Metric(
    "pulvinar_trace_spans_total",
    "counter",
    "Spans of traced requests: exported, failed (the collector did not take them), dropped (no room to wait).",
    ("outcome",),
)

METRICS: Final = (
    REQUESTS,
    STAGE_SECONDS,
    BATCH_ITEMS,
    QUEUE_DEPTH,
    SLOTS,
    SLOTS_BUSY,
    SWAPS,
    HOST_RESTARTS,
    SHADOW_REQUESTS,
    SHADOW_SECONDS,
    CACHE_REQUESTS,
    CACHE_BYTES,
    STREAMS_OPENED,
    STREAMS_CLOSED,
    STREAM_FRAMES,
    DEPLOYMENTS,
    MEMORY_BYTES,
    MEMORY_BUDGET_BYTES,
    LIMIT_FAILURES,
    TOKENS_EXPIRING,
    TRACE_SPANS,
    CPU_SECONDS,
    MACHINE_MEMORY_BYTES,
    DISK_BYTES,
    GPU_MEMORY_BYTES,
    GPU_BUSY_RATIO,
)

STAGES: Final = ("queue", "batch_wait", "preprocess", "infer", "postprocess", "total", "load")
STAGE_BOUNDS_MS: Final = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4)
"""Upper bounds of the buckets; one more bucket takes what lies beyond."""
_BOUNDS_MS: Final = np.array(STAGE_BOUNDS_MS)
ANSWER_STAGES: Final = len(STAGES) - 1
"""Those that each answer has: all but load."""
BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OK: Final = (200, "ok")

Ended = tuple[int, str]
"""How a request ended: HTTP status and reason."""


class VersionCounts:
    """The requests of one version, since the start of the process."""

    __slots__ = ("buckets", "cache", "requests", "sums_ms")

    def __init__(self) -> None:
        self.requests: dict[Ended, int] = {}
        self.buckets = [[0] * (len(STAGE_BOUNDS_MS) + 1) for _ in STAGES]
        """For each stage, how many requests fell into each bucket."""
        self.sums_ms = [0.0] * len(STAGES)
        self.cache: dict[str, int] = {}

    def answered(
        self,
        queue_ms: float,
        batch_wait_ms: float,
        preprocess_ms: float,
        infer_ms: float,
        postprocess_ms: float,
        total_ms: float,
    ) -> None:
        """Count one answer and its times."""
        self.requests[OK] = self.requests.get(OK, 0) + 1
        buckets, sums = self.buckets, self.sums_ms
        times_ms = (queue_ms, batch_wait_ms, preprocess_ms, infer_ms, postprocess_ms, total_ms)
        for stage, ms in enumerate(times_ms):
            if ms:
                sums[stage] += ms
                buckets[stage][bisect_left(STAGE_BOUNDS_MS, ms)] += 1
            else:  # many a request has none of a stage
                buckets[stage][0] += 1

    def answered_all(self, times_ms: NDArray[np.float64]) -> None:
        """Count many answers: their times in the order of `answered`, (answers, stages)."""
        self.requests[OK] = self.requests.get(OK, 0) + len(times_ms)
        for stage, sum_ms in enumerate(times_ms.sum(axis=0).tolist()):
            self.sums_ms[stage] += sum_ms
        width = len(STAGE_BOUNDS_MS) + 1
        places = _BOUNDS_MS.searchsorted(times_ms) + np.arange(ANSWER_STAGES) * width
        found = np.bincount(places.ravel(), minlength=ANSWER_STAGES * width).reshape(ANSWER_STAGES, width)
        for own, more in zip(self.buckets, found.tolist(), strict=False):  # not of load
            own[:] = [count + another for count, another in zip(own, more, strict=True)]

    def waited(self, load_ms: float) -> None:
        """Count that one answer had to wait for its model's load, beside its other times."""
        self.buckets[-1][bisect_left(STAGE_BOUNDS_MS, load_ms)] += 1
        self.sums_ms[-1] += load_ms

    def looked_up(self, outcome: str) -> None:
        """Count what the result cache did for one answer."""
        self.cache[outcome] = self.cache.get(outcome, 0) + 1

    def ended(self, status: int, reason: str) -> None:
        """Count a request that was not answered as asked."""
        self.requests[status, reason] = self.requests.get((status, reason), 0) + 1

    def to_json(self) -> dict[str, Any]:
        """Numbers in JSON's types, which add up with those of others."""
        requests = {f"{status} {reason}": count for (status, reason), count in self.requests.items()}
        return {"requests": requests, "buckets": self.buckets, "sums_ms": self.sums_ms, "cache": self.cache}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> VersionCounts:
        """The inverse of `to_json`."""
        counts = cls()
        for ended, count in said["requests"].items():
            status, reason = ended.split(" ", 1)
            counts.requests[int(status), reason] = count
        counts.buckets, counts.sums_ms, counts.cache = said["buckets"], said["sums_ms"], said["cache"]
        return counts


class Counts:
    """What one process has counted, by model and version; version 0 stands for none."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, int], VersionCounts] = {}
        self.limit_failures = 0

    def of(self, model: str, version: int) -> VersionCounts:
        """The counts of one version. Only names in service may come here: each one is kept."""
        found = self.versions.get((model, version))
        if found is None:
            found = self.versions[model, version] = VersionCounts()
        return found

    def take(self) -> dict[tuple[str, int], VersionCounts]:
        """What was counted since the last call, and begin anew."""
        taken, self.versions = self.versions, {}
        return taken

    def take_limit_failures(self) -> int:
        """How many there were since the last call, and begin anew."""
        taken, self.limit_failures = self.limit_failures, 0
        return taken


class StreamCounts:
    """The streams of one process: how many are open now, and by model what was counted since `take`."""

    def __init__(self) -> None:
        self.open = 0
        self.models: dict[str, dict[str, Any]] = {}

    def opened(self, model: str) -> None:
        """A stream begins. Only names in service may come here: each one is kept."""
        self.open += 1
        self._of(model)["opened"] += 1

    def closed(self, model: str, code: int) -> None:
        """A stream is over, with that close code."""
        self.open -= 1
        self._add(self._of(model)["closed"], str(code))

    def frame(self, model: str, outcome: Literal["answered", "failed", "dropped"]) -> None:
        """What became of one frame."""
        self._add(self._of(model)["frames"], outcome)

    def take(self) -> dict[str, dict[str, Any]]:
        """What was counted since the last call, by model, in numbers that add up; and begin anew."""
        taken, self.models = self.models, {}
        return taken

    def _of(self, model: str) -> dict[str, Any]:
        return self.models.setdefault(model, {"opened": 0, "closed": {}, "frames": {}})

    @staticmethod
    def _add(counts: dict[str, int], key: str) -> None:
        counts[key] = counts.get(key, 0) + 1


def bucket_batches(sizes: Mapping[int, int]) -> tuple[list[int], float]:
    """Counts by batch size as histogram buckets over BATCH_BOUNDS, and their sum in items."""
    buckets = [0] * (len(BATCH_BOUNDS) + 1)
    for size, count in sizes.items():
        buckets[bisect_left(BATCH_BOUNDS, size)] += count
    return buckets, float(sum(size * count for size, count in sizes.items()))


WINDOW_S = 60


@dataclass(slots=True)
class ModelTraffic:
    """Counts of one model for the statistics page: since the start, and by second for the last minute."""

    requests: int = 0
    errors: int = 0
    total_ms: float = 0.0
    _seconds: deque[list[int]] = field(default_factory=lambda: deque(maxlen=WINDOW_S))

    def note(self, status: int, total_ms: float, now: float) -> None:
        """Count one answered request."""
        self.requests += 1
        self.total_ms += total_ms
        if status >= 500:
            self.errors += 1
        self._note_second(int(now), 1)

    def note_all(self, total_ms: float, at: NDArray[np.float64]) -> None:
        """Count many answers, which took so long together and were given at those times, in their order."""
        self.requests += len(at)
        self.total_ms += total_ms
        for second, count in zip(*np.unique(at.astype(np.int64), return_counts=True), strict=True):
            self._note_second(int(second), int(count))

    def _note_second(self, second: int, count: int) -> None:
        for known in reversed(self._seconds):  # nearly always the first: answers are counted some seconds late
            if known[0] == second:
                known[1] += count
                return
        self._seconds.append([second, count])

    def to_json(self) -> dict[str, Any]:
        """Numbers in JSON's types, which add up with those of others."""
        seconds = {str(second): count for second, count in self._seconds}
        return {
            "requests": self.requests,
            "errors": self.errors,
            "total_ms": self.total_ms,
            "seconds": seconds,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> ModelTraffic:
        """The inverse of `to_json`."""
        traffic = cls(said["requests"], said["errors"], said["total_ms"])
        traffic._seconds.extend(sorted([int(second), count] for second, count in said["seconds"].items()))
        return traffic

    def rate(self, now: float) -> float:
        """Requests a second over the last minute."""
        since = int(now) - WINDOW_S
        return sum(count for second, count in self._seconds if second > since) / WINDOW_S
