"""Whether a version that is new does well enough to stay. Functions of values; the reconciler acts on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.control.desired import DesiredDeployment, WatchLimits

LATENCY_NOISE_MS = 2.0
"""A difference of no more than this is never held against a version: tiny models differ by chance."""

Snapshot = Mapping[str, Mapping[str, Any]]
"""By version, as text: `requests`, `errors`, `total_ms` and `recent_ms` (see `core.serving.version_health`)."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests answered, those of them that failed, and the latency of the others, summed, in milliseconds."""

    requests: int = 0
    errors: int = 0
    total_ms: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(self.requests + other.requests, self.errors + other.errors, self.total_ms + other.total_ms)

    def since(self, earlier: Counts) -> Counts:
        """What came after `earlier`; all of it, where the counting has begun anew since."""
        if self.requests < earlier.requests or self.errors < earlier.errors or self.total_ms < earlier.total_ms:
            return self
        return Counts(
            self.requests - earlier.requests, self.errors - earlier.errors, self.total_ms - earlier.total_ms
        )

    @property
    def succeeded(self) -> int:
        """Requests that did not fail."""
        return self.requests - self.errors

    @property
    def mean_ms(self) -> float:
        """Of those that succeeded; 0 where none did."""
        return self.total_ms / self.succeeded if self.succeeded else 0.0


@dataclass(frozen=True, slots=True)
class Watch:
    """A rollout under observation, and what there is to compare it with."""

    desired: DesiredDeployment
    before: DesiredDeployment
    """Where to go back to."""
    limits: WatchLimits
    until: float
    """The end of the window, in seconds of the caller's clock."""
    fresh: Mapping[int, Counts]
    """The versions that are new, as they stood at the swap."""
    staying: Mapping[int, Counts]
    """Those that answered before and still do, as they stood at the swap."""
    reference: Counts
    """Those that answered before, just before the swap."""


def begin(
    desired: DesiredDeployment,
    before: DesiredDeployment | None,
    running: Watch | None,
    was: Snapshot,
    snapshot: Snapshot,
    now: float,
) -> Watch | None:
    """What to watch after `desired` took the place of `before`; None when there is nothing to.

    `was` and `snapshot` are the counters right before and right after the swap. A watch that is still `running`
    goes on where its versions stay: more traffic for a canary is no reason to trust it.
    """
    if before is None or before.origin != desired.origin or desired.watch is None or desired.rolled_back:
        return None
    live = set(desired.live_versions)
    carried = {version: counts for version, counts in running.fresh.items() if version in live} if running else {}
    trusted = {*before.live_versions, *(running.before.live_versions if running else ())}
    added = live - trusted - carried.keys()
    if not carried and not added:
        return None
    origin = running.before if running and carried else before
    kept = running.staying if running and carried else {}
    fresh = {**carried, **{version: counts_of(snapshot, version) for version in added}}
    stay = (set(origin.live_versions) & live) - fresh.keys()
    staying = {version: kept.get(version, counts_of(snapshot, version)) for version in stay}
    return Watch(
        desired,
        origin,
        desired.watch,
        running.until if running and not added else now + desired.watch.window_s,
        fresh,
        staying,
        running.reference if running and carried else _recent(was, before),
    )


def reason_to_roll_back(watch: Watch, snapshot: Snapshot) -> str | None:
    """A sentence that says which version does badly and how; None while all do well or too little is known."""
    reference = sum(
        (counts_of(snapshot, version).since(start) for version, start in watch.staying.items()), Counts()
    )
    if reference.succeeded < watch.limits.min_requests:
        reference = watch.reference
    for version, start in sorted(watch.fresh.items()):
        fault = judge(counts_of(snapshot, version).since(start), reference, watch.limits)
        if fault is not None:
            return f"Version {version} was rolled back: {fault}."
    return None


def judge(seen: Counts, reference: Counts, limits: WatchLimits) -> str | None:
    """What is wrong with a version of which this was seen; None when nothing is, or too little was seen."""
    if seen.requests < limits.min_requests:
        return None
    rate = seen.errors / seen.requests
    if rate > limits.max_error_rate:
        return f"{_percent(rate)} of {seen.requests} requests failed (limit {_percent(limits.max_error_rate)})"
    if min(seen.succeeded, reference.succeeded) < limits.min_requests:
        return None
    limit_ms = reference.mean_ms * limits.max_latency_ratio
    if seen.mean_ms <= max(limit_ms, reference.mean_ms + LATENCY_NOISE_MS):
        return None
    return (
        f"{seen.succeeded} requests took {seen.mean_ms:.1f} ms on average, against "
        f"{reference.mean_ms:.1f} ms before (limit {limits.max_latency_ratio:g} times as long)"
    )


def _percent(part: float) -> str:
    return f"{part * 100:.3g} %"


def counts_of(snapshot: Snapshot, version: int) -> Counts:
    """A version's counts; zero where it is not there."""
    counters = snapshot.get(str(version))
    if not counters:
        return Counts()
    return Counts(counters["requests"], counters["errors"], counters["total_ms"])


def _recent(snapshot: Snapshot, before: DesiredDeployment) -> Counts:
    """The versions that answered, with the latency of their last requests as that of all."""
    total = Counts()
    for version in before.live_versions:
        counts = counts_of(snapshot, version)
        if counts.succeeded:
            recent_ms = snapshot[str(version)]["recent_ms"]
            total += Counts(counts.requests, counts.errors, recent_ms * counts.succeeded)
    return total
