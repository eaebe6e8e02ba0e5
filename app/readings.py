"""What is counted, read at one moment, and what lies between two such moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.metrics import STAGE_BOUNDS_MS

_BUCKETS: Final = len(STAGE_BOUNDS_MS) + 1


@dataclass(slots=True)
class Tally:
    """Of one model, or of all: requests, those of them that failed, and their times in buckets."""

    requests: int = 0
    errors: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        return Tally(self.requests + other.requests, self.errors + other.errors, buckets)

    def since(self, before: Tally | None) -> Tally:
        """What came after `before`; all of it where the counting has begun anew meanwhile."""
        if before is None or self.requests < before.requests:
            return self
        buckets = [max(0, a - b) for a, b in zip(self.buckets, before.buckets, strict=True)]
        return Tally(self.requests - before.requests, max(0, self.errors - before.errors), buckets)

    def percentile_ms(self, share: float) -> float | None:
        """The time under which that share of the answers stayed; None without answers."""
        return percentile_ms(self.buckets, share)


@dataclass(frozen=True, slots=True)
class Reading:
    """One moment. Tallies are since the server's start."""

    at: float
    """Seconds of the epoch."""
    models: Mapping[str, Tally]
    queues: Mapping[str, int]
    """Items that wait, by model."""
    batches: Mapping[str, Mapping[int, int]]
    """How many batches of each size were run, by model."""
    memory: Mapping[str, int]
    cpu_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    per_core: Sequence[float] = ()
    versions: Mapping[tuple[str, int], Tally] = field(default_factory=dict)
    """By model and version."""


@dataclass(frozen=True, slots=True)
class Step:
    """What happened between two readings."""

    at: float
    seconds: float
    models: Mapping[str, Tally]
    queue_depth: int
    cpu_percent: float
    memory_used_bytes: int
    versions: Mapping[tuple[str, int], Tally] = field(default_factory=dict)
    all: Tally = field(init=False)
    """All models together; added up once, for many look at a step."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "all", total(self.models.values()))


def step_between(before: Reading, after: Reading) -> Step:
    """What happened from one reading to a later one; models without requests are left out."""
    models = {model: tally.since(before.models.get(model)) for model, tally in after.models.items()}
    versions = {key: tally.since(before.versions.get(key)) for key, tally in after.versions.items()}
    return Step(
        at=after.at,
        seconds=max(1e-3, after.at - before.at),
        models={model: tally for model, tally in models.items() if tally.requests},
        queue_depth=sum(after.queues.values()),
        cpu_percent=after.cpu_percent,
        memory_used_bytes=after.memory_used_bytes,
        versions={key: tally for key, tally in versions.items() if tally.requests},
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    some = list(tallies)
    if not some:
        return Tally()
    buckets = [sum(counts) for counts in zip(*[tally.buckets for tally in some], strict=True)]
    return Tally(sum([tally.requests for tally in some]), sum([tally.errors for tally in some]), buckets)


def percentile_ms(buckets: Sequence[int], share: float) -> float | None:
    """See Tally.percentile_ms; linear within a bucket. What lies beyond the last bound counts as that bound."""
    wanted = share * sum(buckets)
    if not wanted:
        return None
    below, seen = 0.0, 0
    for bound, number in zip(STAGE_BOUNDS_MS, buckets, strict=False):
        if number and seen + number >= wanted:
            return below + (bound - below) * (wanted - seen) / number
        below, seen = bound, seen + number
    return below
