"""Goes through loads and layers, and notes each point in the report as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.bench.figures import Point, summarise
from app.bench.layers import Layer
from app.bench.report import Report
from app.bench.schedule import poisson_arrivals

CLOSED, OPEN = "closed", "open"
AUTO_PARTS = (0.5, 0.8)
"""The rates that are taken where none are given: parts of what the slowest layer did in closed loop."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `rates` None takes those of AUTO_PARTS; times in seconds."""

    seconds: float
    warm_up_s: float
    levels: Sequence[int]
    rates: Sequence[float] | None
    seed: int = 7


async def measure(plan: Plan, layers: Sequence[Layer], report: Report, say: Say) -> None:
    """Measure every layer at every load, the layers of one load right after another.

    So that what changes on the machine meanwhile changes all of them alike. Raises PlatformError where the first
    call of a layer is not answered well.
    """
    for layer in layers:
        await layer.check()
    for callers in plan.levels:
        for layer in layers:
            say(f"{layer.name}, {callers} {'caller' if callers == 1 else 'callers'}")
            if plan.warm_up_s:
                await layer.closed(callers, plan.warm_up_s)
            samples = await layer.closed(callers, plan.seconds)
            report.points.append(summarise(layer.name, CLOSED, callers, samples))
    for rate in plan.rates if plan.rates is not None else auto_rates(report.points):
        arrivals = poisson_arrivals(rate, plan.seconds, plan.seed)
        for layer in layers:
            say(f"{layer.name}, {rate:g} calls/s")
            if plan.warm_up_s:
                await layer.closed(1, plan.warm_up_s)
            samples = await layer.open(arrivals, plan.seconds)
            report.points.append(summarise(layer.name, OPEN, rate, samples))
    report.complete = True


def auto_rates(points: Sequence[Point]) -> list[float]:
    """Rates that every layer should bear; none where some layer answered nothing."""
    best: dict[str, float] = {}
    for point in points:
        best[point.layer] = max(best.get(point.layer, 0.0), point.calls_per_s)
    least = min(best.values(), default=0.0)
    return [float(f"{part * least:.2g}") for part in AUTO_PARTS] if least > 0 else []
