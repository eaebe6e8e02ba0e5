"""The report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from app.bench.figures import Cost, Point
from app.bench.report import Report, how_line, is_busy, machine_line, subject_line

_LOOPS = {
    "closed": ("callers", "Closed loop: so many callers, each asks again once it is answered"),
    "open": ("due/s", "Open loop: calls are due at random, and timed from when they are due"),
}


def table(report: Report) -> str:
    """Head, a table a loop, and what went wrong."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield subject_line(report)
    yield how_line(report)
    yield machine_line(report)
    if is_busy(report.machine):
        yield "Others were at work on this machine: the figures are lower than they would be on a quiet one."
    if not report.complete:
        yield "Not complete: this is what was measured before the end."
    added = {(cost.loop, cost.load, cost.layer): cost for cost in report.costs()}
    for loop in _LOOPS:
        yield from _loop_lines(report, loop, added)
    if any(point.unsent or point.errors for point in report.points):
        yield ""
    for point in report.points:
        where = f"{point.layer}, {_LOOPS[point.loop][0]} {point.load:g}"
        if point.unsent:
            yield f"{where}: {point.unsent} could not be sent in time; they count as late as they then were."
        for message, count in point.errors.items():
            yield f"{where}: {count} failed: {message}"


def _loop_lines(report: Report, loop: str, added: dict[tuple[str, float, str], Cost]) -> Iterator[str]:
    loads = report.loads(loop)
    if not loads:
        return
    unit, title = _LOOPS[loop]
    yield f"\n{title}"
    yield (
        f"{unit:>8}  {'layer':<6} {'calls/s':>10} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'failed':>7} "
        f"{'batch':>6}  adds at p50"
    )
    for load, points in loads.items():
        for number, point in enumerate(points):
            first = f"{load:g}" if number == 0 else ""
            yield f"{first:>8}  {_point(point)}{_added(added.get((loop, load, point.layer)))}".rstrip()


def _point(point: Point) -> str:
    batch = f"{point.mean_batch:.1f}" if point.mean_batch is not None else ""
    return (
        f"{point.layer:<6} {point.calls_per_s:>10.1f} {ms(point.p50_ms):>9} {ms(point.p90_ms):>9} "
        f"{ms(point.p99_ms):>9} {point.failed + point.unsent:>7} {batch:>6}  "
    )


def _added(cost: Cost | None) -> str:
    return f"{signed_ms(cost.added_p50_ms)} to {cost.below}" if cost is not None else ""


def ms(value: float | None) -> str:
    """Milliseconds with three digits that mean something; a dash for none."""
    if value is None:
        return "–"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def signed_ms(value: float) -> str:
    """What is added, with its sign and unit."""
    return f"{'+' if value >= 0 else '−'}{ms(abs(value))} ms"
