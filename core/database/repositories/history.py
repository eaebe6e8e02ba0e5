"""What the charts are drawn from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, delete, func, select

from core.database.repositories.base import Repository
from core.database.tables import HistoryRow

MINUTE_S: Final = 60
HOUR_S: Final = 3600
KEPT: Final = {MINUTE_S: timedelta(days=1), HOUR_S: timedelta(days=31)}
"""How long the rows of each step are kept."""


class Counted(NamedTuple):
    """What was asked of one model in one step."""

    at: datetime
    model: str
    requests: int
    errors: int


class History(Repository):
    """Queries about how serving went."""

    async def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows; one that is there already stays: several processes may tell of the same minute."""
        if rows:
            await self._session.execute(self._insert(HistoryRow).on_conflict_do_nothing(), rows)

    async def between(
        self,
        step_s: int,
        since: datetime,
        until: datetime | None = None,
        *,
        models: Collection[str] | None = None,
    ) -> Sequence[HistoryRow]:
        """The rows of one step in the order of time, of some models or of all and the machine."""
        query = select(HistoryRow).where(*_during(step_s, since, until))
        if models is not None:
            query = query.where(HistoryRow.model.in_(models))
        return (await self._session.scalars(query.order_by(HistoryRow.at, HistoryRow.model))).all()

    async def has_answers(self) -> bool:
        """Whether any model was asked anything in the time that is kept."""
        asked = select(HistoryRow.model).where(HistoryRow.requests > 0).limit(1)
        return await self._session.scalar(asked) is not None

    async def counts(self, step_s: int, since: datetime, models: Collection[str]) -> Sequence[Counted]:
        """As `between`, without what most charts do not need: of many rows that is most of the work."""
        columns = (HistoryRow.at, HistoryRow.model, HistoryRow.requests, HistoryRow.errors)
        query = select(*columns).where(*_during(step_s, since, None), HistoryRow.model.in_(models))
        rows = (await self._session.execute(query.order_by(HistoryRow.at))).all()
        return [Counted(*row) for row in rows]

    async def asked(self, step_s: int, since: datetime, *, errors: bool = False) -> list[str]:
        """The models that were asked something, those asked most first; or by their errors."""
        most = func.sum(HistoryRow.errors if errors else HistoryRow.requests).desc()
        query = select(HistoryRow.model).where(*_during(step_s, since, None), HistoryRow.model != "")
        return list(await self._session.scalars(query.group_by(HistoryRow.model).order_by(most, HistoryRow.model)))

    async def models(self, step_s: int, since: datetime, until: datetime) -> Sequence[str]:
        """All that have rows then, the machine among them."""
        query = select(HistoryRow.model).where(*_during(step_s, since, until)).distinct()
        return (await self._session.scalars(query.order_by(HistoryRow.model))).all()

    async def newest(self, step_s: int) -> datetime | None:
        """The beginning of the last step that was written."""
        found: datetime | None = await self._session.scalar(
            select(func.max(HistoryRow.at)).where(HistoryRow.step_s == step_s)
        )
        return found

    async def forget(self, now: datetime) -> None:
        """Remove what is older than it is kept."""
        for step_s, kept in KEPT.items():
            old = delete(HistoryRow).where(HistoryRow.step_s == step_s, HistoryRow.at < now - kept)
            await self._session.execute(old)


def _during(step_s: int, since: datetime, until: datetime | None) -> list[ColumnElement[bool]]:
    wanted = [HistoryRow.step_s == step_s, HistoryRow.at >= since]
    return wanted if until is None else [*wanted, HistoryRow.at < until]
