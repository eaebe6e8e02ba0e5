"""Where the dots of a scatter plot lie: pure arithmetic, drawn by templates as SVG, so that no script is needed.

Both axes are logarithmic: what is twice as good is as far away at every end of the scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720.0
HEIGHT: Final = 360.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 16.0, 44.0
_MARGIN: Final = 1.25
_STEPS: Final = ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""The densest that leaves few enough lines is taken."""
_MOST_TICKS: Final = 8


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid: where it is, in the drawing's units, and the value that it stands for."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic scale from `least` to `most`, drawn from `start` to `end`."""

    least: float
    most: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies; one outside of the scale at its end."""
        share = math.log(min(max(value, self.least), self.most) / self.least) / math.log(self.most / self.least)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[Tick]:
        """Round values of each power of ten; the powers alone over a very wide range."""
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        for steps in _STEPS:
            values = [step * 10.0**power for power in powers for step in steps]
            shown = [value for value in values if self.least <= value <= self.most]
            if len(shown) <= _MOST_TICKS:
                break
        return [Tick(self.at(value), value) for value in shown]


def axes(points: Sequence[tuple[float, float]]) -> tuple[Axis, Axis]:
    """The scales that hold all points (both numbers above 0), with a margin around them."""
    across, up = [point[0] for point in points] or [1.0], [point[1] for point in points] or [1.0]
    return (
        Axis(min(across) / _MARGIN, max(across) * _MARGIN, LEFT, WIDTH - RIGHT),
        Axis(min(up) / _MARGIN, max(up) * _MARGIN, HEIGHT - BOTTOM, TOP),
    )
