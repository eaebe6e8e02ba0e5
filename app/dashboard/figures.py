"""The figures of the overview, as text that is ready to be shown, and what is wrong with them in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.dashboard import words
from app.dashboard.rendering import health_of
from app.readings import Reading, Step, Tally
from app.state import Platform

ERRORS_WARN: Final = 0.01
ERRORS_BAD: Final = 0.05
CPU_WARN: Final = 90.0
MEMORY_WARN: Final = 0.9
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure: its text, and where it is not well, how badly (`warn`, `bad`) and why."""

    text: str
    value: float
    tone: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One row of the table of deployments."""

    state: str
    rate: str
    p95: str
    queue: str
    memory: str


@dataclass(frozen=True, slots=True)
class Point:
    """What the charts of the last quarter of an hour go on with; see `app.dashboard.pages.history`."""

    at: int
    requests: Mapping[str, float]
    """A second, by model; of those that were asked something."""
    latency: Mapping[str, float | None]
    """Percentiles in milliseconds."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All that moves on the overview."""

    at: float
    tiles: Mapping[str, Tile]
    models: Mapping[str, ModelFigures]
    cores: tuple[float, ...]
    health: str
    health_sentence: str
    batches: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    parts: str = ""
    """Another one as soon as there is something new in the parts of the page that do not move."""
    point: Point | None = None
    """Where a step has ended since the figures before."""


def figures_of(platform: Platform, step: Step, reading: Reading, names: Iterable[str] | None = None) -> Figures:
    """The figures of the time between two readings; of the models `names`, or of all."""
    health, states = health_of(platform), platform.reconciler.states()
    wanted = sorted(set(states) | set(reading.queues)) if names is None else names
    models = {name: _model(states.get(name, "stopped"), step, reading, name) for name in wanted}
    tiles = tiles_of(step, reading.memory_total_bytes)
    cores = tuple(round(core, 1) for core in reading.per_core)
    return Figures(reading.at, tiles, models, cores, health.state, health.sentence)


def point_of(step: Step) -> Point:
    """The point of one step, rounded as the charts' own are."""
    requests = {name: round(tally.requests / step.seconds, 3) for name, tally in step.models.items()}
    percentiles = {name: step.all.percentile_ms(share) for name, share in PERCENTILES.items()}
    latency = {name: None if ms is None else round(ms, 3) for name, ms in percentiles.items()}
    return Point(round(step.at), requests, latency)


def tiles_of(step: Step, memory_total_bytes: int) -> dict[str, Tile]:
    """The tiles of one step."""
    tally = step.all
    p50, p95 = tally.percentile_ms(0.5), tally.percentile_ms(0.95)
    share = step.memory_used_bytes / max(1, memory_total_bytes)
    return {
        "rate": Tile(words.rate(tally.requests / step.seconds), tally.requests / step.seconds),
        "p50": Tile(words.ms(p50), p50 or 0.0, note=f"p95 {words.ms(p95)}" if p95 is not None else ""),
        "errors": _errors(tally),
        "queue": Tile(words.count(step.queue_depth), step.queue_depth),
        "cpu": _over(f"{step.cpu_percent:.0f}", step.cpu_percent, CPU_WARN, f"above {CPU_WARN:.0f} %"),
        "memory": _over(
            words.size(step.memory_used_bytes), share, MEMORY_WARN, f"{words.percent(share)} of what there is"
        ),
    }


def _errors(tally: Tally) -> Tile:
    share = tally.errors / tally.requests if tally.requests else 0.0
    text = words.percent(share) if tally.requests else words.NOTHING
    if share >= ERRORS_BAD:
        return Tile(text, share, "bad", f"above {words.percent(ERRORS_BAD)}")
    if share >= ERRORS_WARN:
        return Tile(text, share, "warn", f"above {words.percent(ERRORS_WARN)}")
    return Tile(text, share)


def _over(text: str, value: float, bound: float, note: str) -> Tile:
    return Tile(text, value, "warn", note) if value > bound else Tile(text, value)


def _model(state: str, step: Step, reading: Reading, name: str) -> ModelFigures:
    tally = step.models.get(name, Tally())
    return ModelFigures(
        state=state,
        rate=words.rate(tally.requests / step.seconds),
        p95=words.ms(tally.percentile_ms(0.95)),
        queue=words.count(reading.queues.get(name, 0)),
        memory=words.size(reading.memory.get(name)),
    )
