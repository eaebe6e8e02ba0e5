"""What was used, as those read it who pay for it, plan for it or draw it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.csv_lines import cell, csv_line
from core.database.repositories.usage import STEPS, By, Range, Sums, Usage
from core.errors import Unprocessable

Step = Literal["minute", "hour", "day"]
MAX_STEPS: Final = 3000
"""In one series: two days of minutes, four months of hours."""
MAX_POINTS: Final = 50_000
COLUMNS: Final = (
    "at",
    "tenant",
    "token_id",
    "model",
    "requests",
    "errors",
    "items",
    "tokens",
    "engine_seconds",
    "bytes_in",
    "bytes_out",
)
_USUAL_S: Final = {"minute": 3600, "hour": 86_400, "day": 30 * 86_400}


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over requests."""

    requests: int
    errors: int
    items: int
    tokens: int
    engine_seconds: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Point(Spent):
    """The sums of one step, and when it began."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Group(Spent):
    """The sums of one tenant, token or model. `key` is its name, of a token its id."""

    key: str
    name: str
    points: list[Point] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """Sums over a range of time, of all and of those who used most. Points are those of steps that have any."""

    since: datetime
    until: datetime
    step: Step
    by: By | None
    total: Spent
    groups: int
    """How many used anything; `items` may be fewer."""
    items: list[Group]
    points: list[Point]


_LAST_S: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def range_of(
    step: Step,
    since: datetime | None,
    until: datetime | None,
    *,
    tenant: str | None = None,
    token_id: int | None = None,
    model: str | None = None,
) -> Range:
    """The steps that begin from `since` on and before `until`; by default the last hour, day or 30 days.

    Raises Unprocessable.
    """
    step_s = STEPS[step]
    end = time.time() if until is None else _within(until)
    begin = end - _USUAL_S[step] if since is None else _within(since)
    first, last = int(begin // step_s * step_s), int(-(-end // step_s) * step_s)
    if first >= last:
        raise Unprocessable("`from` must lie before `to`.")
    return Range(step_s, first, last, tenant, token_id, model)


def _within(moment: datetime) -> float:
    """The moment, or the first or last that can be told in UTC in every step; nothing was used before or after."""
    return min(max(moment.timestamp(), 0.0), _LAST_S)


async def report(
    session: AsyncSession, step: Step, wanted: Range, by: By | None, *, limit: int, points: bool
) -> Report:
    """Sums and, with `points`, series. Raises Unprocessable for series that are too long."""
    usage = Usage(session)
    if points:
        _check_length(wanted, 1 if by is None else limit)
    total = _spent(await usage.total(wanted))
    groups = {} if by is None else await usage.groups(wanted, by, limit)
    count = 0 if by is None else await usage.count_groups(wanted, by)
    series = await usage.points(wanted, by, list(groups)) if points and (groups or by is None) else []
    names = await usage.token_names(groups) if by == "token" else {}
    items = [
        Group(
            **_fields(sums),
            key=str(key),
            name=names.get(key, str(key)),
            points=[_point(at, some) for name, at, some in series if name == key],
        )
        for key, sums in groups.items()
    ]
    own = [_point(at, sums) for name, at, sums in series] if by is None else []
    return Report(_moment(wanted.since), _moment(wanted.until), step, by, total, count, items, own)


async def export(session: AsyncSession, wanted: Range) -> AsyncIterator[bytes]:
    """Every row of a range as CSV, a line at a time, in the order of time."""
    yield csv_line(COLUMNS)
    async for at, tenant, token_id, model, sums in Usage(session).rows(wanted):
        spent = _fields(sums)
        numbers = [spent[name] for name in COLUMNS[4:]]
        yield csv_line([_moment(at).isoformat(), cell(tenant), token_id, cell(model), *numbers])


def _check_length(wanted: Range, groups: int) -> None:
    steps = (wanted.until - wanted.since) // wanted.step_s
    if steps > MAX_STEPS or steps * groups > MAX_POINTS:
        raise Unprocessable(
            f"This would be {steps} points for each of up to {groups}; at most {MAX_STEPS} for one, and in all "
            f"{MAX_POINTS}, are answered: take a longer step, a shorter time, or fewer."
        )


def _fields(sums: Sums) -> dict[str, Any]:
    requests, errors, items, tokens, engine_us, bytes_in, bytes_out = sums
    return {
        "requests": requests,
        "errors": errors,
        "items": items,
        "tokens": tokens,
        "engine_seconds": engine_us / 1e6,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
    }


def _spent(sums: Sums) -> Spent:
    return Spent(**_fields(sums))


def _point(at: int, sums: Sums) -> Point:
    return Point(**_fields(sums), at=_moment(at))


def _moment(epoch_s: int) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)
