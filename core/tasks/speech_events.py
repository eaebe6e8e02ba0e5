"""From the probability of speech in each window to where speech begins and ends.

The rule is that of silero-vad's own iterator: speech begins at the threshold and ends once it has stayed 0.15
below for a while; both ends are moved outwards a little.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Final

import numpy as np

HYSTERESIS: Final = 0.15
_NEVER: Final = -1.0


@dataclass(frozen=True, slots=True)
class Rule:
    """All but the threshold in samples."""

    threshold: float
    min_speech: int
    min_silence: int
    pad: int
    window: int


@dataclass(slots=True)
class Progress:
    """What is known between two windows, in samples; -1 is never. All of it fits one array."""

    position: float = 0.0
    began: float = _NEVER
    announced: float = 0.0
    """1 once the beginning was answered: speech shorter than `min_speech` never is."""
    quiet_since: float = _NEVER
    spoken: float = 0.0
    """Samples of all speech that has ended."""

    def to_array(self) -> np.ndarray[Any, Any]:
        """float64 [5]."""
        return np.array(astuple(self), np.float64)

    @classmethod
    def from_array(cls, values: np.ndarray[Any, Any]) -> Progress:
        """The inverse."""
        return cls(*(float(value) for value in values))

    @property
    def speaking(self) -> bool:
        """Whether speech goes on."""
        return self.began != _NEVER and bool(self.announced)


Event = tuple[str, float]
"""`start` or `end`, and the sample at which it lies."""


def advance(progress: Progress, probability: float, rule: Rule) -> list[Event]:
    """Take one more window into account; what it made certain."""
    progress.position += rule.window
    here = progress.position
    if probability >= rule.threshold:
        progress.quiet_since = _NEVER
        if progress.began == _NEVER:
            progress.began = max(0.0, here - rule.window - rule.pad)
    if progress.began == _NEVER:
        return []
    if probability < rule.threshold - HYSTERESIS:
        if progress.quiet_since == _NEVER:
            progress.quiet_since = here
        if here - progress.quiet_since >= rule.min_silence:
            return _end(progress, progress.quiet_since - rule.window + rule.pad, rule)
    return _announce(progress, here, rule)


def conclude(progress: Progress, rule: Rule, length: float) -> list[Event]:
    """The recording ends at sample `length`, and so does what is being said."""
    if progress.began == _NEVER:
        return []
    quiet = progress.quiet_since
    return _end(progress, length if quiet == _NEVER else min(length, quiet - rule.window + rule.pad), rule)


def _announce(progress: Progress, here: float, rule: Rule) -> list[Event]:
    last = here if progress.quiet_since == _NEVER else progress.quiet_since - rule.window
    if progress.announced or last - progress.began < rule.min_speech:
        return []
    progress.announced = 1.0
    return [("start", progress.began)]


def _end(progress: Progress, end: float, rule: Rule) -> list[Event]:
    began, announced = progress.began, progress.announced
    events = [] if announced else [("start", began)]
    progress.began = progress.quiet_since = _NEVER
    progress.announced = 0.0
    if not announced and end - began < rule.min_speech:
        return []
    progress.spoken += end - began
    return [*events, ("end", end)]
