"""What was measured at one point, and the figures made of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(slots=True)
class Samples:
    """The calls of one point, as they came; times in milliseconds."""

    took_ms: list[float] = field(default_factory=list)
    """Of answered calls: from when each was due (open loop) or sent (closed loop) to its answer."""
    unsent_ms: list[float] = field(default_factory=list)
    """How overdue each call was that could not be sent before the end."""
    late_ms: list[float] = field(default_factory=list)
    """Open loop: how long after it was due each call was sent."""
    errors: Counter[str] = field(default_factory=Counter)
    """Why calls failed, in a sentence, and how many did."""
    elapsed_s: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)
    """The mean time of a call in each stage, where a layer knows it."""
    mean_batch: float | None = None
    """Items a batch, where a layer makes batches."""


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the answer: a layer under one load. `load` is callers (closed) or calls a second (open)."""

    layer: str
    loop: str
    load: float
    calls: int
    failed: int
    unsent: int
    calls_per_s: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    late_p99_ms: float | None
    mean_batch: float | None
    stages_ms: dict[str, float]
    errors: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """JSON's types only, rounded to a tenth of a microsecond."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer adds to the one below it at the same load: median milliseconds, and what part of the calls a
    second is left.
    """

    loop: str
    load: float
    layer: str
    below: str
    added_p50_ms: float
    throughput_share: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON's types only."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that `percent` of the values do not exceed (nearest rank); None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summarise(layer: str, loop: str, load: float, samples: Samples) -> Point:
    """The figures of one point. A call that could not be sent counts as having taken as long as it was overdue."""
    ordered = sorted([*samples.took_ms, *samples.unsent_ms])
    answered = len(samples.took_ms)
    return Point(
        layer,
        loop,
        load,
        calls=answered,
        failed=sum(samples.errors.values()),
        unsent=len(samples.unsent_ms),
        calls_per_s=answered / samples.elapsed_s if samples.elapsed_s else 0.0,
        p50_ms=percentile(ordered, 50),
        p90_ms=percentile(ordered, 90),
        p99_ms=percentile(ordered, 99),
        mean_ms=sum(ordered) / len(ordered) if ordered else None,
        max_ms=ordered[-1] if ordered else None,
        late_p99_ms=percentile(samples.late_ms, 99),
        mean_batch=samples.mean_batch,
        stages_ms=dict(samples.stages_ms),
        errors=dict(samples.errors.most_common(3)),
    )


def costs(points: Sequence[Point]) -> list[Cost]:
    """For each load, each layer against the one measured just below it."""
    found = []
    loads = dict.fromkeys((point.loop, point.load) for point in points)
    for loop, load in loads:
        here = [point for point in points if (point.loop, point.load) == (loop, load)]
        for below, above in pairwise(here):
            overloaded = above.unsent or below.unsent  # then the medians grow with the time, and say nothing
            if above.p50_ms is not None and below.p50_ms is not None and not overloaded:
                share = above.calls_per_s / below.calls_per_s if below.calls_per_s else None
                added_ms = above.p50_ms - below.p50_ms
                found.append(Cost(loop, load, above.layer, below.layer, added_ms, share))
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
