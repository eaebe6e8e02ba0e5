"""Budgets as administrators write them: so much of something in a calendar day or month of UTC."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

from core.errors import Unprocessable

Metric = Literal["requests", "items", "tokens", "engine_seconds"]
Period = Literal["day", "month"]

SCALE: Final[Mapping[str, int]] = {"requests": 1, "items": 1, "tokens": 1, "engine_seconds": 1_000_000}
"""Engine time is counted in microseconds."""
MOST: Final = 10**12
_BUDGET: Final = re.compile(
    r"(\d{1,13})\s+(requests|items|tokens|engine_seconds)\s*(?:/|\s+per\s+)\s*(day|month)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class BudgetItem:
    """At most `amount` of `metric` in a period."""

    amount: int
    metric: Metric
    period: Period

    @property
    def words(self) -> str:
        """As a caller reads it."""
        return f"{self.amount} {self.metric.replace('_', ' ')} per {self.period}"


def parse_budgets(texts: Sequence[str]) -> tuple[BudgetItem, ...]:
    """Parse budgets such as `10000 requests/day`; of two for the same the smaller holds.

    Raises Unprocessable, naming the bad one.
    """
    tightest: dict[tuple[str, str], BudgetItem] = {}
    for item in sorted(map(_parse, texts), key=lambda item: -item.amount):
        tightest[item.metric, item.period] = item
    return tuple(tightest.values())


@lru_cache(maxsize=1024)
def _parse(text: str) -> BudgetItem:
    found = _BUDGET.fullmatch(text.strip()) if len(text) <= 100 else None
    if found is None or not 0 < int(found[1]) <= MOST:
        raise Unprocessable(
            f"The budget {text[:60]!r} is not understood; write it as `10000 requests/day`: so many requests, "
            "items, tokens or engine_seconds in a day or month."
        )
    return BudgetItem(int(found[1]), found[2], found[3])  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _bounds(period: Period, day: int) -> tuple[int, float, float]:
    now = datetime.fromtimestamp(day * 86_400, UTC)
    if period == "day":
        return day, day * 86_400.0, (day + 1) * 86_400.0
    month = now.year * 12 + now.month - 1
    begin = datetime(now.year, now.month, 1, tzinfo=UTC)
    end = datetime(*divmod_month(month + 1), 1, tzinfo=UTC)
    return month, begin.timestamp(), end.timestamp()


def bounds(period: Period, now_s: float) -> tuple[int, float, float]:
    """Which day or month it is, counted without gaps, and when it begins and ends, in seconds since the epoch."""
    return _bounds(period, int(now_s // 86_400))


def divmod_month(month: int) -> tuple[int, int]:
    """Year and month, from 1, of a month counted since the year 0."""
    return month // 12, month % 12 + 1
