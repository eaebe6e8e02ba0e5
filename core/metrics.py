"""Every metric, defined once, and the counts of one process behind them.

Counting is a few additions on plain lists, for it happens on every request; Prometheus' text is only made when
it is asked for. Counts belong to one event loop. `snapshot` and `merge` add up the counts of several processes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal


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
    "Seconds of one answered request in each stage: queue, batch_wait, preprocess, infer, postprocess, total.",
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
DEPLOYMENTS: Final = Metric("pulvinar_deployments", "gauge", "Deployments by state.", ("state",))

METRICS: Final = (
    REQUESTS,
    STAGE_SECONDS,
    BATCH_ITEMS,
    QUEUE_DEPTH,
    SLOTS,
    SLOTS_BUSY,
    SWAPS,
    HOST_RESTARTS,
    DEPLOYMENTS,
)

STAGES: Final = ("queue", "batch_wait", "preprocess", "infer", "postprocess", "total")
STAGE_BOUNDS_MS: Final = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4)
"""Upper bounds of the buckets; one more bucket takes what lies beyond."""
BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OK: Final = (200, "ok")

Ended = tuple[int, str]
"""How a request ended: HTTP status and reason."""


class VersionCounts:
    """The requests of one version, since the start of the process."""

    __slots__ = ("buckets", "requests", "sums_ms")

    def __init__(self) -> None:
        self.requests: dict[Ended, int] = {}
        self.buckets = [[0] * (len(STAGE_BOUNDS_MS) + 1) for _ in STAGES]
        """For each stage, how many requests fell into each bucket."""
        self.sums_ms = [0.0] * len(STAGES)

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
            buckets[stage][bisect_left(STAGE_BOUNDS_MS, ms)] += 1
            sums[stage] += ms

    def ended(self, status: int, reason: str) -> None:
        """Count a request that was not answered as asked."""
        self.requests[status, reason] = self.requests.get((status, reason), 0) + 1


class Counts:
    """What one process has counted, by model and version; version 0 stands for none."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, int], VersionCounts] = {}

    def of(self, model: str, version: int) -> VersionCounts:
        """The counts of one version. Only names in service may come here: each one is kept."""
        found = self.versions.get((model, version))
        if found is None:
            found = self.versions[model, version] = VersionCounts()
        return found

    def snapshot(self) -> list[list[Any]]:
        """Everything, made of JSON's types."""
        return [
            [
                model,
                version,
                [[status, reason, count] for (status, reason), count in counts.requests.items()],
                [list(buckets) for buckets in counts.buckets],
                list(counts.sums_ms),
            ]
            for (model, version), counts in self.versions.items()
        ]

    def merge(self, snapshot: Sequence[Sequence[Any]]) -> None:
        """Add what another process has counted."""
        for model, version, requests, buckets, sums_ms in snapshot:
            counts = self.of(model, version)
            for status, reason, count in requests:
                counts.requests[status, reason] = counts.requests.get((status, reason), 0) + count
            counts.buckets = [
                [a + b for a, b in zip(ours, theirs, strict=True)]
                for ours, theirs in zip(counts.buckets, buckets, strict=True)
            ]
            counts.sums_ms = [a + b for a, b in zip(counts.sums_ms, sums_ms, strict=True)]


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
        second = int(now)
        seconds = self._seconds
        if seconds and seconds[-1][0] == second:
            seconds[-1][1] += 1
        else:
            seconds.append([second, 1])

    def rate(self, now: float) -> float:
        """Requests a second over the last minute."""
        since = int(now) - WINDOW_S
        return sum(count for second, count in self._seconds if second > since) / WINDOW_S
