"""What tenants, tokens and models used, by minute, hour and day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Select, delete, func, select, tuple_

from core.database.repositories.base import Repository
from core.database.tables import AccessToken, UsageRow

FIELDS: Final = ("requests", "errors", "items", "tokens", "engine_us", "bytes_in", "bytes_out")
STEPS: Final[Mapping[str, int]] = {"minute": 60, "hour": 3600, "day": 86_400}
By = Literal["tenant", "token", "model"]
Key = tuple[str, int, str]
"""Tenant, token, model."""
Sums = tuple[int, ...]
"""In the order of FIELDS."""

_COLUMNS: Final = [getattr(UsageRow, name) for name in FIELDS]
_KEY: Final = (UsageRow.at, UsageRow.tenant, UsageRow.token_id, UsageRow.model)
_GROUP: Final[Mapping[By, Any]] = {
    "tenant": UsageRow.tenant,
    "token": UsageRow.token_id,
    "model": UsageRow.model,
}
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows: those of one length whose step begins in [since, until), in seconds since the epoch."""

    step_s: int
    since: int
    until: int
    tenant: str | None = None
    token_id: int | None = None
    model: str | None = None


class Usage(Repository):
    """Queries about usage. Counts are added to what is there, in all three lengths at once."""

    async def add(self, counted: Iterable[tuple[int, Key, Sequence[int]]]) -> int:
        """Add counts, each with when its minute began; returns how many rows were written."""
        rows: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(FIELDS))
        for at, key, sums in counted:
            for step_s in STEPS.values():
                row = rows[step_s, at // step_s * step_s, *key]
                for place, value in enumerate(sums):
                    row[place] += value
        if rows:
            insert = self._insert(UsageRow)
            table = UsageRow.__table__
            added = {name: table.c[name] + insert.excluded[name] for name in FIELDS}
            names = ("step_s", "at", "tenant", "token_id", "model", *FIELDS)
            # In one order everywhere, so that two processes cannot wait for each other in a circle.
            values = [dict(zip(names, (*key, *rows[key]), strict=True)) for key in sorted(rows)]
            connection = await self._session.connection()
            await connection.execute(insert.on_conflict_do_update(index_elements=names[:5], set_=added), values)
        return len(rows)

    async def total(self, wanted: Range) -> Sums:
        """The sums over a range."""
        query = select(*[func.coalesce(func.sum(column), 0) for column in _COLUMNS])
        return tuple(map(int, (await self._session.execute(_within(query, wanted))).one()))

    async def groups(self, wanted: Range, by: By, limit: int) -> dict[Any, Sums]:
        """The sums of those who used most, by what they are called, most requests first."""
        group = _GROUP[by]
        sums = [func.sum(column) for column in _COLUMNS]
        query = _within(select(group, *sums), wanted).group_by(group).order_by(sums[0].desc(), group).limit(limit)
        return {name: tuple(map(int, some)) for name, *some in await self._session.execute(query)}

    async def since(self, by: By, names: Sequence[Any], since: int) -> dict[Any, Sums]:
        """The sums of each of `names` over the days that began from then on."""
        group = _GROUP[by]
        query = select(group, *[func.sum(column) for column in _COLUMNS]).group_by(group)
        query = query.where(UsageRow.step_s == STEPS["day"], UsageRow.at >= since, group.in_(names))
        return {name: tuple(map(int, some)) for name, *some in await self._session.execute(query)}

    async def count_groups(self, wanted: Range, by: By) -> int:
        """How many used anything."""
        query = _within(select(func.count(func.distinct(_GROUP[by]))), wanted)
        return int(await self._session.scalar(query) or 0)

    async def points(self, wanted: Range, by: By | None, names: Sequence[Any]) -> list[tuple[Any, int, Sums]]:
        """The sums of each step that has any, of each of `names`, or of all where `by` is None, oldest first."""
        group = [] if by is None else [_GROUP[by]]
        query = _within(select(*group, UsageRow.at, *[func.sum(column) for column in _COLUMNS]), wanted)
        if by is not None:
            query = query.where(_GROUP[by].in_(names))
        query = query.group_by(*group, UsageRow.at).order_by(UsageRow.at)
        found = [tuple(row) for row in await self._session.execute(query)]
        return [(row[0] if group else None, *_split(row[len(group) :])) for row in found]

    async def rows(self, wanted: Range) -> AsyncIterator[tuple[int, str, int, str, Sums]]:
        """Every row of a range, in the order of time: when, tenant, token, model, sums. Fetched in pages."""
        after: tuple[Any, ...] | None = None
        while True:
            query = _within(select(*_KEY, *_COLUMNS), wanted).order_by(*_KEY).limit(_PAGE)
            if after is not None:
                query = query.where(tuple_(*_KEY) > after)
            page = (await self._session.execute(query)).all()
            for at, tenant, token_id, model, *sums in page:
                yield at, tenant, token_id, model, tuple(sums)
            if len(page) < _PAGE:
                return
            after = tuple(page[-1][:4])

    async def token_names(self, token_ids: Iterable[int]) -> dict[int, str]:
        """What these tokens are called."""
        query = select(AccessToken.id, AccessToken.name).where(AccessToken.id.in_(list(token_ids)))
        return {row.id: row.name for row in await self._session.execute(query)}

    async def oldest(self, step_s: int) -> int | None:
        """When the first step of that length began."""
        return await self._session.scalar(select(func.min(UsageRow.at)).where(UsageRow.step_s == step_s))

    async def forget(self, step_s: int, before: int) -> None:
        """Remove the rows of one length whose step began before then."""
        await self._session.execute(delete(UsageRow).where(UsageRow.step_s == step_s, UsageRow.at < before))


def _within(query: Select[Any], wanted: Range) -> Select[Any]:
    query = query.where(UsageRow.step_s == wanted.step_s, UsageRow.at >= wanted.since, UsageRow.at < wanted.until)
    if wanted.tenant is not None:
        query = query.where(UsageRow.tenant == wanted.tenant)
    if wanted.token_id is not None:
        query = query.where(UsageRow.token_id == wanted.token_id)
    if wanted.model is not None:
        query = query.where(UsageRow.model == wanted.model)
    return query


def _split(row: tuple[Any, ...]) -> tuple[int, Sums]:
    return int(row[0]), tuple(map(int, row[1:]))
