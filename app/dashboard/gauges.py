"""Limits as gauges: how much of each is used, read for all rows of a list at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from app.dashboard.words import count, percent
from core.access.budgets import SCALE, Period, bounds, parse_budgets
from core.access.limits import RateLimiter
from core.access.rates import parse_rates
from core.access.windows import Bucket, Budget, Limit, subject_of
from core.database.repositories.usage import FIELDS, STEPS, By, Range, Sums, Usage
from core.errors import Unprocessable

NEARLY: Final = 0.8
HOURS: Final = 24
_FIELD: Final = {"requests": "requests", "items": "items", "tokens": "tokens", "engine_seconds": "engine_us"}
_PERIODS: Final[tuple[Period, ...]] = ("day", "month")


@dataclass(frozen=True, slots=True)
class Gauge:
    """One limit: `words` says it, `share` from 0 to 1 is used."""

    words: str
    used: str
    share: float

    @property
    def tone(self) -> str:
        """How it looks: nothing, `warn` from four fifths on, `bad` where nothing is left."""
        return "bad" if self.share >= 1 else "warn" if self.share >= NEARLY else ""


class Limited(Protocol):
    """A token or a tenant."""

    rate: list[str] | None
    burst: int | None
    budgets: list[str] | None


@dataclass(frozen=True, slots=True)
class Spending:
    """What some tokens, or some tenants, have used: of this day, of this month, and in each of the last hours."""

    kind: str
    used: Mapping[Period, Mapping[Any, Sums]]
    hours: Mapping[Any, tuple[int, ...]]

    def spark(self, key: Any) -> tuple[int, ...]:
        """Requests in each of the last 24 hours, oldest first; empty where there were none."""
        return self.hours.get(key, ())

    def gauges(self, limiter: RateLimiter, key: Any, row: Limited, usual_rate: str | None = None) -> list[Gauge]:
        """The limits of a row; `usual_rate` holds for one that has none of its own.

        Rates are as this machine counts them, so not known where Redis counts: then they are not among the gauges.
        """
        rates = row.rate if row.rate is not None else [usual_rate] if usual_rate else []
        try:
            subject = subject_of(
                f"{self.kind}:{key}", parse_rates(rates), row.burst, parse_budgets(row.budgets or ())
            )
        except Unprocessable:
            return []  # as good as revoked; its page shows the texts
        left = None if limiter.remote else limiter.left(subject)
        found = []
        for place, limit in enumerate(subject.limits):
            if isinstance(limit, Budget):
                found.append(self._budget(key, limit))
            elif left is not None:
                found.append(_rate(limit, left[place]))
        return found

    def _budget(self, key: Any, limit: Budget) -> Gauge:
        sums = self.used[limit.period].get(key)
        used = sums[FIELDS.index(_FIELD[limit.metric])] if sums else 0
        scale = SCALE[limit.metric]
        words = f"{count(limit.amount // scale)} {limit.metric.replace('_', ' ')} per {limit.period}"
        return Gauge(words, _used(used / scale, used / limit.amount), used / limit.amount)


def _rate(limit: Limit, left: int) -> Gauge:
    most = limit.burst if isinstance(limit, Bucket) else limit.amount
    used = max(0, most - left)
    words = limit.words.replace(str(limit.amount), count(limit.amount), 1)
    if isinstance(limit, Bucket):
        words += f", {count(most)} at once"
    return Gauge(words, _used(used, used / most), used / most)


def _used(used: float, share: float) -> str:
    return f"{count(round(used))} used, {percent(share)}"


async def spending(session: AsyncSession, kind: By, keys: Sequence[Any], now_s: float | None = None) -> Spending:
    """What these tokens (by id) or tenants (by name) have used; three queries, however many they are."""
    now_s = time.time() if now_s is None else now_s
    usage = Usage(session)
    used = {period: await usage.since(kind, keys, int(bounds(period, now_s)[1])) for period in _PERIODS}
    hour = STEPS["hour"]
    last = int(now_s // hour)
    first = last - HOURS + 1
    hours: dict[Any, list[int]] = {}
    wanted = Range(hour, first * hour, (last + 1) * hour)
    for key, at, sums in await usage.points(wanted, kind, keys):
        hours.setdefault(key, [0] * HOURS)[at // hour - first] = sums[0]
    return Spending(kind, used, {key: tuple(values) for key, values in hours.items()})
