"""Whether a version does worse in the form that a search recommends than as uploaded: functions of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MIN_REQUESTS = 20
MAX_BROKEN = 0.05
"""So much more of the requests may fail in the engine than did in the uploaded form."""
WINDOW_S = 60.0
"""Failures are held against the requests of about so long, and of more where there are few."""
MOST_CRASHES = 3
CRASHES_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class Runs:
    """Requests answered, and those of them that the engine failed: no caller, no deadline, no full queue."""

    requests: int = 0
    broken: int = 0

    def since(self, earlier: Runs) -> Runs:
        """What came after `earlier`; all of it, where the counting has begun anew since."""
        if self.requests < earlier.requests or self.broken < earlier.broken:
            return self
        return Runs(self.requests - earlier.requests, self.broken - earlier.broken)

    @property
    def rate(self) -> float:
        """The part that failed."""
        return self.broken / self.requests if self.requests else 0.0


def runs_of(snapshot: Mapping[str, Mapping[str, Any]], version: int) -> Runs:
    """A version's runs, by its counters (`core.serving.version_health`); zero where it is not there."""
    counters = snapshot.get(str(version)) or {}
    return Runs(int(counters.get("requests", 0)), int(counters.get("broken", 0)))


def why_broken(seen: Runs, uploaded: Runs) -> str | None:
    """What is wrong with a form of which this was seen, as the end of a sentence; None where nothing is.

    `uploaded` is what was seen of the uploaded form before; zero where it never served.
    """
    usual = uploaded.rate if uploaded.requests >= MIN_REQUESTS else 0.0
    if seen.requests < MIN_REQUESTS or seen.rate <= usual + MAX_BROKEN:
        return None
    before = f", against {usual * 100:.3g} % as uploaded" if usual else ""
    return f"{seen.broken} of {seen.requests} requests failed in service{before}"


def why_crashed(crashes: Sequence[float], now: float, *, failed_starts: int, before: bool) -> str | None:
    """The same of its process: when it died, in seconds of `now`'s clock, and how often it did not start again.

    `before` says that the uploaded form's process died as well: then the form is not to blame.
    """
    if failed_starts > 1:
        return "its process does not start again"
    recent = sum(now - moment <= CRASHES_WITHIN_S for moment in crashes)
    if recent < MOST_CRASHES or before:
        return None
    return f"its process ended {recent} times in {CRASHES_WITHIN_S / 60:g} minutes of service"
