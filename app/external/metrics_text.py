"""Counts in Prometheus' text exposition format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Any, Final

from core.metrics import (
    BATCH_BOUNDS,
    BATCH_ITEMS,
    CACHE_BYTES,
    CACHE_REQUESTS,
    DEPLOYMENTS,
    HOST_RESTARTS,
    LIMIT_FAILURES,
    MEMORY_BUDGET_BYTES,
    MEMORY_BYTES,
    QUEUE_DEPTH,
    REQUESTS,
    SHADOW_REQUESTS,
    SHADOW_SECONDS,
    SLOTS,
    SLOTS_BUSY,
    STAGE_BOUNDS_MS,
    STAGE_SECONDS,
    STAGES,
    STREAM_FRAMES,
    STREAMS_CLOSED,
    STREAMS_OPENED,
    SWAPS,
    TOKENS_EXPIRING,
    TRACE_SPANS,
    Counts,
    Metric,
    bucket_batches,
)
from core.serving.runner import RunnerStats

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Version = tuple[str, int]
_STAGE_LE: Final = tuple(f"{bound_ms / 1000:g}" for bound_ms in STAGE_BOUNDS_MS)
_BATCH_LE: Final = tuple(f"{bound:g}" for bound in BATCH_BOUNDS)


@dataclass(slots=True)
class Observed:
    """What is asked of the serving side when somebody scrapes."""

    versions: Mapping[Version, RunnerStats] = field(default_factory=dict)
    shadows: Mapping[Version, Mapping[str, float]] = field(default_factory=dict)
    """The comparisons of each shadow, as core.serving.shadow counts them."""
    swaps: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By model and version."""
    memory_budget_bytes: int = 0
    cache_bytes: int = 0
    tokens_expiring: int = 0
    spans: Mapping[str, int] = field(default_factory=dict)
    """Spans by outcome."""
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By model, as core.metrics.StreamCounts counts them."""
    machine: Mapping[Metric, Mapping[tuple[str, ...], float]] = field(default_factory=dict)
    """By the values of the metrics' labels."""


def render(counts: Counts, observed: Observed) -> bytes:
    """All metrics. Touches the counts only to read, and may run beside their owner."""
    lines: list[str] = []
    _head(lines, REQUESTS)
    for (model, version), one in list(counts.versions.items()):
        place = f'model="{_escaped(model)}",version="{version or ""}"'
        for (status, reason), count in list(one.requests.items()):
            lines.append(f'{REQUESTS.name}{{{place},status="{status}",reason="{reason}"}} {count}')
    _head(lines, STAGE_SECONDS)
    for key, one in list(counts.versions.items()):
        for stage, buckets, sum_ms in zip(STAGES, one.buckets, one.sums_ms, strict=True):
            labels = f'{_labels(key)},stage="{stage}"'
            _histogram(lines, STAGE_SECONDS.name, labels, _STAGE_LE, buckets, sum_ms / 1000)
    _head(lines, BATCH_ITEMS)
    for key, stats in observed.versions.items():
        buckets, items = bucket_batches(stats.batch_sizes)
        _histogram(lines, BATCH_ITEMS.name, _labels(key), _BATCH_LE, buckets, items)
    versions = observed.versions.items()
    _values(lines, QUEUE_DEPTH, ((_labels(key), stats.depth) for key, stats in versions))
    _values(lines, SLOTS, ((_labels(key), stats.slots) for key, stats in versions))
    _values(lines, SLOTS_BUSY, ((_labels(key), stats.busy) for key, stats in versions))
    _values(lines, HOST_RESTARTS, ((_labels(key), stats.restarts) for key, stats in versions))
    _shadows(lines, observed.shadows)
    cached = [
        (f'{_labels(key)},outcome="{outcome}"', count)
        for key, one in list(counts.versions.items())
        for outcome, count in list(one.cache.items())
    ]
    _values(lines, CACHE_REQUESTS, cached)
    _head(lines, CACHE_BYTES)
    lines.append(f"{CACHE_BYTES.name} {observed.cache_bytes}")
    _streams(lines, observed.streams)
    _values(lines, SWAPS, ((f'model="{_escaped(name)}"', count) for name, count in observed.swaps.items()))
    _values(lines, DEPLOYMENTS, ((f'state="{state}"', count) for state, count in observed.states.items()))
    memory = [
        (f'model="{_escaped(model)}",version="{version}"', size_bytes)
        for model, versions in observed.memory_bytes.items()
        for version, size_bytes in versions.items()
    ]
    _values(lines, MEMORY_BYTES, memory)
    _head(lines, MEMORY_BUDGET_BYTES)
    lines.append(f"{MEMORY_BUDGET_BYTES.name} {observed.memory_budget_bytes}")
    _head(lines, LIMIT_FAILURES)
    lines.append(f"{LIMIT_FAILURES.name} {counts.limit_failures}")
    _head(lines, TOKENS_EXPIRING)
    lines.append(f"{TOKENS_EXPIRING.name} {observed.tokens_expiring}")
    _values(lines, TRACE_SPANS, ((f'outcome="{outcome}"', count) for outcome, count in observed.spans.items()))
    for metric, readings in observed.machine.items():
        labelled = ((_named(metric, values), reading) for values, reading in readings.items())
        _values(lines, metric, labelled)
    lines.append("")
    return "\n".join(lines).encode()


def _shadows(lines: list[str], shadows: Mapping[Version, Mapping[str, float]]) -> None:
    outcomes = [
        (f'{_labels(key)},outcome="{outcome}"', count)
        for key, one in shadows.items()
        for outcome, count in (
            ("agreed", one["agreed"]),
            ("differed", one["compared"] - one["agreed"]),
            ("error", one["errors"]),
            ("dropped", one["dropped"]),
        )
    ]
    _values(lines, SHADOW_REQUESTS, outcomes)
    sides = [
        (f'{_labels(key)},side="{side}"', round(one[f"{side}_ms"] / 1000, 6))
        for key, one in shadows.items()
        for side in ("live", "shadow")
    ]
    _values(lines, SHADOW_SECONDS, sides)


def _streams(lines: list[str], streams: Mapping[str, Mapping[str, Any]]) -> None:
    labels = {name: f'model="{_escaped(name)}"' for name in streams}
    _values(lines, STREAMS_OPENED, ((labels[name], one["opened"]) for name, one in streams.items()))
    for metric, key, label in ((STREAMS_CLOSED, "closed", "code"), (STREAM_FRAMES, "frames", "outcome")):
        counted = [
            (f'{labels[name]},{label}="{value}"', count)
            for name, one in streams.items()
            for value, count in list(one[key].items())
        ]
        _values(lines, metric, counted)


def _head(lines: list[str], metric: Metric) -> None:
    lines.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}")


def _values(lines: list[str], metric: Metric, values: Iterable[tuple[str, float]]) -> None:
    _head(lines, metric)
    lines.extend([f"{metric.name}{{{labels}}} {value}" for labels, value in values])


@cache
def _template(name: str, bounds: tuple[str, ...]) -> str:
    """All lines of a histogram in one string to be filled: a thousand models have a hundred thousand lines."""
    lines = [f'{name}_bucket{{@,le="{bound}"}} %d' for bound in (*bounds, "+Inf")]
    return "\n".join([*lines, f"{name}_sum{{@}} %.9g", f"{name}_count{{@}} %d"])


def _histogram(
    lines: list[str], name: str, labels: str, bounds: tuple[str, ...], buckets: Sequence[int], total: float
) -> None:
    """Cumulative buckets, sum and count; nothing at all where nothing was counted."""
    seen = tuple(accumulate(buckets))
    if seen[-1]:
        template = _template(name, bounds).replace("@", labels.replace("%", "%%"))
        lines.append(template % (*seen, total, seen[-1]))


def _labels(key: Version) -> str:
    return f'model="{_escaped(key[0])}",version="{key[1]}"'


def _named(metric: Metric, values: tuple[str, ...]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(metric.labels, values, strict=True)])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
