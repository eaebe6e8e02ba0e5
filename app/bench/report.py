"""All that a measurement found, as it grows; what table, JSON and page are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.bench.figures import Cost, Point, costs


@dataclass(slots=True)
class Report:
    """`about` says what was measured and how, `machine` on what."""

    about: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    complete: bool = False
    """Whether all that was asked for was measured."""

    def costs(self) -> list[Cost]:
        """What each layer adds to the one below it."""
        return costs(self.points)

    def loads(self, loop: str) -> dict[float, list[Point]]:
        """The points of a loop by their load, each load's in the order of the layers."""
        found: dict[float, list[Point]] = {}
        for point in self.points:
            if point.loop == loop:
                found.setdefault(point.load, []).append(point)
        return found

    def to_json(self) -> Mapping[str, Any]:
        """JSON's types only."""
        return {
            "complete": self.complete,
            "about": self.about,
            "machine": self.machine,
            "points": [point.to_json() for point in self.points],
            "costs": [cost.to_json() for cost in self.costs()],
        }


def subject_line(report: Report) -> str:
    """The model, and by what it was run."""
    about = report.about
    text = f"{about['model']} version {about['version'] or 'in service'}"
    if about.get("engine"):
        text += f" ({about['task']}) by {about['engine']} {about['engine_version'] or ''}".rstrip()
        text += f" {about['form']}, on {about['device']}{_threads(about['widths'])}"
        text += f", batches of up to {about['max_batch']}"
    return text


def _threads(widths: Sequence[int]) -> str:
    if not widths:
        return ""
    return f", {' or '.join(map(str, sorted(widths)))} {'thread' if [*widths] == [1] else 'threads'} a run"


def how_line(report: Report) -> str:
    """What was sent, and for how long."""
    about = report.about
    server = f"; HTTP at {about['server']}" if about.get("server") else ""
    return f"input {about['input']}; {about['seconds']:g} s a line after {about['warm_up_s']:g} s{server}"


def machine_line(report: Report) -> str:
    """On what."""
    machine = report.machine
    memory = f"{machine['memory_bytes'] / (1 << 30):.1f} GiB"
    gpus = "".join(f", {name}" for name in machine["gpus"])
    return (
        f"{machine['cores']} cores of {machine['processor']}, {memory}{gpus}; load {machine['load_before']:g} "
        f"before; Pulvinar {machine['pulvinar']}, Python {machine['python']}"
    )


def is_busy(machine: Mapping[str, Any]) -> bool:
    """Whether others were at work when the measurement began."""
    return bool(machine["load_before"] > machine["cores"] / 4)
