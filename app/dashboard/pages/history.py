"""What charts are drawn from: JSON with times and series, over a quarter of an hour, a day or a month.

Every dashboard that is open asks for the same few answers again and again: each is made once for all of them, and
anew when there may be something new in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import orjson
from fastapi import Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from app.dashboard.compression import Compressed, compressed
from app.dashboard.figures import PERCENTILES
from app.dashboard.guard import FiguresRoute, Viewer, pages
from app.dashboard.made_once import MadeOnce
from app.dashboard.traffic import in_words
from app.dependencies import House
from app.readings import Step, Tally
from app.recorder import MACHINE
from app.state import Platform
from core.database.repositories.deployments import Deployments
from core.database.repositories.history import HOUR_S, KEPT, MINUTE_S, Counted, History
from core.database.tables import DeploymentHistory, HistoryRow, utc_now

router = pages(FiguresRoute)
Span = Literal["15m", "day", "month"]
Kind = Literal["requests", "errors", "latency", "queue", "cpu", "memory"]
VersionKind = Literal["requests", "errors", "p95"]
Series = list[dict[str, object]]
MOST_SERIES: Final = 8
"""The models asked most have a line of their own; the others are one together."""
_LENGTHS: Final = {"15m": timedelta(minutes=15), "day": KEPT[MINUTE_S], "month": KEPT[HOUR_S]}
MOST_CHANGES: Final = 50
CHANGES_S: Final = 5
NOT_KEPT: Final = {"Cache-Control": "no-store"}
LATEST_S: Final = {"day": 60, "month": 600}
"""How old an answer may be that is given again."""
_STEPS: Final = {"day": MINUTE_S, "month": HOUR_S}
_MADE: MadeOnce[Compressed] = MadeOnce(most=64)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which chart; of one model, or of all."""

    kind: Kind
    span: Span
    model: str | None


@router.get("/history/changes")
async def changes(
    request: Request,
    _: Viewer,
    house: House,
    span: Span = "15m",
    model: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """`[{at, model, versions, by}]`: what was put into service or taken out, the newest first."""

    async def make() -> Compressed:
        async with house.database.session() as session:
            rows = await Deployments(session).changes(utc_now() - _LENGTHS[span], MOST_CHANGES, model)
        return await compressed(orjson.dumps([_told(name, row) for name, row in rows]))

    made = await _MADE.get((house.started_at, "changes", span, model), time.time() // CHANGES_S, make)
    return made.response(request, "application/json", NOT_KEPT)


def _told(name: str, row: DeploymentHistory) -> dict[str, object]:
    return {
        "at": round(row.created_at.astimezone(UTC).timestamp()),
        "model": name,
        "versions": in_words(row.spec.get("traffic") or []) if row.running else "out of service",
        "by": row.created_by,
    }


@router.get("/history/{kind}")
async def history(
    request: Request,
    kind: Kind,
    _: Viewer,
    house: House,
    span: Span = "15m",
    model: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """`{times, series: [{name, values}]}`; times in seconds of the epoch, a value that is not known is null."""
    asked = Asked(kind, span, model)
    if span == "15m":
        last = house.recorder.steps[-1].at if house.recorder.steps else 0.0
    else:
        last = time.time() // LATEST_S[span]
    made = await _MADE.get((house.started_at, asked), last, lambda: _make(house, asked))
    return made.response(request, "application/json", NOT_KEPT)


@router.get("/history/versions/{kind}")
async def history_of_versions(
    kind: VersionKind, _: Viewer, house: House, model: Annotated[str, Query(max_length=63)]
) -> Response:
    """As `history`, a line for each version of a model, over the last quarter of an hour: no more is kept."""
    steps = list(house.recorder.steps)
    numbers = sorted({number for step in steps for name, number in step.versions if name == model})
    series = [
        {"name": f"v{number}", "values": [_of_version(kind, step, (model, number)) for step in steps]}
        for number in numbers
        if number
    ]
    body = {"times": [round(step.at) for step in steps], "series": series}
    return Response(orjson.dumps(body), media_type="application/json", headers=NOT_KEPT)


def _of_version(kind: VersionKind, step: Step, key: tuple[str, int]) -> float | None:
    tally = step.versions.get(key, Tally())
    if kind == "p95":
        return _rounded(tally.percentile_ms(0.95))
    return round((tally.errors if kind == "errors" else tally.requests) / step.seconds, 3)


async def _make(house: Platform, asked: Asked) -> Compressed:
    if asked.span == "15m":
        body = of_steps(asked, list(house.recorder.steps))
    else:
        async with house.database.session() as session:
            body = await _of_rows(asked, session)
    return await compressed(orjson.dumps(body))


def of_steps(asked: Asked, steps: Sequence[Step]) -> dict[str, object]:
    """The chart of the last steps."""
    times = [round(step.at) for step in steps]
    if asked.kind in ("requests", "errors"):
        counts: dict[str, int] = {}
        for step in steps:
            for model, tally in step.models.items():
                counts[model] = counts.get(model, 0) + (tally.errors if asked.kind == "errors" else tally.requests)
        names = sorted(counts, key=lambda name: (-counts[name], name)) if asked.model is None else [asked.model]
        points = [_Point(step.seconds, step.models, step.all) for step in steps]
        return {"times": times, "series": by_model(asked.kind == "errors", points, names)}
    if asked.kind == "latency":
        tallies = [step.all if asked.model is None else step.models.get(asked.model, Tally()) for step in steps]
        return {"times": times, "series": percentiles(tallies)}
    values: dict[str, list[float]] = {
        "queue": [step.queue_depth for step in steps],
        "cpu": [round(step.cpu_percent, 1) for step in steps],
        "memory": [step.memory_used_bytes for step in steps],
    }
    return {"times": times, "series": [{"name": asked.kind, "values": values[asked.kind]}]}


async def _of_rows(asked: Asked, session: AsyncSession) -> dict[str, object]:
    """The chart of a day or a month. The machine's row tells the times, and holds the sum of all models."""
    step_s = _STEPS[asked.span]
    since = utc_now() - KEPT[step_s]
    if asked.kind in ("requests", "errors"):
        errors, repository = asked.kind == "errors", History(session)
        if asked.model is None:
            names = await repository.asked(step_s, since, errors=errors)
        else:
            names = [asked.model]
        rows = await repository.counts(step_s, since, [MACHINE, *names[:MOST_SERIES]])
        ats, points = points_of(rows, step_s)
        return {"times": ats, "series": by_model(errors, points, names)}
    whose = asked.model if asked.kind == "latency" and asked.model is not None else MACHINE
    found = await History(session).between(step_s, since, models={MACHINE, whose})
    return {"times": times_of(found, step_s), "series": _series_of_rows(asked.kind, found, whose, step_s)}


@dataclass(frozen=True, slots=True)
class _Point:
    """What was asked in one step of time, of the models that have lines and of all."""

    seconds: float
    models: Mapping[str, Tally]
    all: Tally


def points_of(rows: Sequence[Counted], step_s: int) -> tuple[list[int], list[_Point]]:
    """Times and points, one for each step between the first and the last; one that was not written is empty."""
    steps: dict[datetime, dict[str, Tally]] = {}
    for row in rows:
        steps.setdefault(row.at, {})[row.model] = Tally(row.requests, row.errors, _NO_BUCKETS)
    ats = _every(rows[0].at, rows[-1].at, step_s) if rows else []
    models = [steps.get(at, {}) for at in ats]
    return _epoch(ats), [_Point(step_s, one, one.pop(MACHINE, Tally())) for one in models]


def times_of(rows: Sequence[HistoryRow], step_s: int) -> list[int]:
    """Each step between the first and the last."""
    return _epoch(_every(rows[0].at, rows[-1].at, step_s)) if rows else []


def by_model(errors: bool, points: Sequence[_Point], names: Sequence[str]) -> Series:
    """A line in requests a second for each of the first models, and one for all others together."""
    own, rest = names[:MOST_SERIES], len(names) - MOST_SERIES
    lines: Series = [
        {"name": name, "values": [_rate(point, point.models.get(name), errors) for point in points]}
        for name in own
    ]
    if rest > 0:
        lines.append({"name": f"{rest} others", "values": [_others(point, own, errors) for point in points]})
    return lines


def percentiles(tallies: Sequence[Tally]) -> Series:
    """Latencies in milliseconds."""
    return [
        {"name": name, "values": [_rounded(tally.percentile_ms(share)) for tally in tallies]}
        for name, share in PERCENTILES.items()
    ]


def _series_of_rows(kind: Kind, rows: Sequence[HistoryRow], whose: str, step_s: int) -> Series:
    ats = _every(rows[0].at, rows[-1].at, step_s) if rows else []
    found = {row.at: row for row in rows if row.model == whose}
    if kind == "latency":
        return percentiles([_tally(found.get(at)) for at in ats])
    reads: dict[str, Callable[[HistoryRow], float]] = {
        "queue": lambda row: row.queue_depth,
        "cpu": lambda row: round(row.cpu_percent, 1),
        "memory": lambda row: row.memory_bytes,
    }
    return [{"name": kind, "values": [reads[kind](found[at]) if at in found else 0 for at in ats]}]


def _tally(row: HistoryRow | None) -> Tally:
    return Tally() if row is None else Tally(row.requests, row.errors, row.buckets)


def _every(first: datetime, last: datetime, step_s: int) -> list[datetime]:
    count = round((last - first).total_seconds()) // step_s
    return [first + timedelta(seconds=step_s * number) for number in range(count + 1)]


def _epoch(ats: Sequence[datetime]) -> list[int]:
    return [round(at.astimezone(UTC).timestamp()) for at in ats]


def _rate(point: _Point, tally: Tally | None, errors: bool) -> float:
    return round(_count(tally, errors) / point.seconds, 3)


def _others(point: _Point, own: Sequence[str], errors: bool) -> float:
    mine = sum(_count(point.models.get(name), errors) for name in own)
    return round(max(0, _count(point.all, errors) - mine) / point.seconds, 3)


def _count(tally: Tally | None, errors: bool) -> int:
    if tally is None:
        return 0
    return tally.errors if errors else tally.requests


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


_NO_BUCKETS: Final[list[int]] = []
"""Of what is asked for its counts alone."""
