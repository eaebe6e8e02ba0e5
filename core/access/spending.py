"""Budgets beyond one process's memory: what was used before a start, and on other machines, is read from usage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from core.access.budgets import bounds
from core.access.limits import RateLimiter
from core.access.records import TokenRecord
from core.access.windows import Budget, Subject
from core.database.repositories.usage import FIELDS, Usage
from core.database.session import Database

_AT_ONCE: Final = 500
_FIELD: Final = {"requests": "requests", "items": "items", "tokens": "tokens", "engine_seconds": "engine_us"}


async def catch_up(database: Database, limiter: RateLimiter, records: Iterable[TokenRecord]) -> None:
    """Let the budgets of these tokens and their tenants be used up at least as far as usage says.

    Raises Unavailable.
    """
    tokens: dict[Any, Subject] = {}
    tenants: dict[Any, Subject] = {}
    for record in records:
        if record.budgets:
            tokens[record.id] = limiter.subject_of_token(record)
        if record.owner.budgets:
            tenants[record.owner.name] = limiter.subject_of_tenant(record)
    for by, subjects in (("token", tokens), ("tenant", tenants)):
        keys = list(subjects)
        for first in range(0, len(keys), _AT_ONCE):
            await _catch_up_some(
                database, limiter, by, {key: subjects[key] for key in keys[first : first + _AT_ONCE]}
            )


async def _catch_up_some(database: Database, limiter: RateLimiter, by: Any, subjects: dict[Any, Subject]) -> None:
    now_s = time.time()
    async with database.session() as session:
        usage = Usage(session)
        used = {
            period: await usage.since(by, list(subjects), int(bounds(period, now_s)[1]))
            for period in ("day", "month")
        }
    for key, subject in subjects.items():
        least = [
            (limit, sums[FIELDS.index(_FIELD[limit.metric])])
            for limit in subject.limits
            if isinstance(limit, Budget) and (sums := used[limit.period].get(key)) is not None
        ]
        if least:
            limiter.raise_to(subject, least)


def budgeted(records: Iterable[TokenRecord]) -> Sequence[TokenRecord]:
    """Those that have a budget, of their own or their tenant's."""
    return [record for record in records if record.budgets or record.owner.budgets]
