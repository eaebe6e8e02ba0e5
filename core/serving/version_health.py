"""How a version does: requests, failures of its own, latency. Counted where it answers, merged elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import DeadlineExceeded, EngineError, PlatformError, Unavailable

RECENT = 64
"""`recent_ms` remembers about this many requests."""

Counters = dict[str, float]
Snapshot = dict[str, dict[str, Any]]
"""By version, as text: its counters, and under `shadow` those of its comparison where it is one."""


class VersionHealth:
    """Counters of one loaded version since it was loaded. All calls are made on the event loop."""

    __slots__ = ("broken", "errors", "recent_ms", "requests", "total_ms")

    def __init__(self) -> None:
        self.requests = 0
        """Requests answered, those that failed among them."""
        self.errors = 0
        self.broken = 0
        """Those of the errors that the engine made: neither deadlines nor trouble of the server."""
        self.total_ms = 0.0
        """Latency of those that succeeded, summed."""
        self.recent_ms = 0.0
        """Mean latency of the last ones that succeeded, older ones fading."""

    def answered(self, ms: float) -> None:
        """Count an answer."""
        self.requests += 1
        self.total_ms += ms
        n = self.requests - self.errors
        self.recent_ms += (ms - self.recent_ms) / (n if n < RECENT else RECENT)

    def failed(self, error: BaseException, *, own_deadline: bool = True) -> None:
        """Count a failure where it is the version's; a caller's mistake, haste or leave is not counted at all."""
        if is_fault(error, own_deadline=own_deadline):
            self.requests += 1
            self.errors += 1
            self.broken += isinstance(error, EngineError)

    def snapshot(self) -> Counters:
        """The counters as a plain dict."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "broken": self.broken,
            "total_ms": self.total_ms,
            "recent_ms": self.recent_ms,
        }


def is_fault(error: BaseException, *, own_deadline: bool = True) -> bool:
    """Whether the version, and not its caller or the load, is to blame.

    A refusal (queue full, shutting down) came before the version was asked; a deadline counts only where it is the
    deployment's own, not one that the caller has made shorter.
    """
    if not isinstance(error, Exception):  # the caller left
        return False
    if isinstance(error, DeadlineExceeded):
        return own_deadline
    if isinstance(error, PlatformError):
        return error.status >= 500 and (isinstance(error, EngineError) or not isinstance(error, Unavailable))
    return True


def merge(snapshots: Iterable[Mapping[str, Mapping[str, Any]]]) -> Snapshot:
    """One model's snapshots from several processes as one: counts add up, recent latencies by their requests."""
    merged: Snapshot = {}
    for snapshot in snapshots:
        for version, counters in snapshot.items():
            merged[version] = _add(merged[version], counters) if version in merged else dict(counters)
    return merged


def _add(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    weights = [side["requests"] - side["errors"] for side in (one, other)]
    recent = one["recent_ms"] * weights[0] + other["recent_ms"] * weights[1]
    added = {key: one[key] + other[key] for key in ("requests", "errors", "broken", "total_ms")}
    added["recent_ms"] = recent / sum(weights) if sum(weights) else 0.0
    shadows = [side["shadow"] for side in (one, other) if side.get("shadow")]
    if shadows:
        added["shadow"] = _add_shadows(shadows)
    return added


def _add_shadows(shadows: list[Mapping[str, float]]) -> dict[str, float]:
    return {
        key: max(side[key] for side in shadows) if key.startswith("max_") else sum(side[key] for side in shadows)
        for key in shadows[0]
    }
