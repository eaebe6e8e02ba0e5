"""Imports of models."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select, update

from core.database.repositories.base import Repository
from core.database.repositories.results import affected
from core.database.tables import Import, utc_now

KEPT = 1000
"""The newest so many are remembered."""


class Imports(Repository):
    """Queries about imports. One whose claim has run out has lost its process, and counts as failed."""

    async def get(self, import_id: int) -> Import | None:
        """The import with that id."""
        return await self._session.get(Import, import_id)

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[Import], str | None]:
        """Imports, newest first."""
        return await self._page(select(Import), Import.id, limit, cursor, descending=True)

    async def running(self) -> int:
        """How many are under way, on all servers."""
        query = select(func.count()).where(Import.state == "running", Import.claimed_until >= utc_now())
        return await self._session.scalar(query) or 0

    async def is_running(self, model: str, source: str) -> bool:
        """Whether the same import is under way."""
        query = select(Import.id).where(
            Import.model == model,
            Import.source == source,
            Import.state == "running",
            Import.claimed_until >= utc_now(),
        )
        return await self._session.scalar(query.limit(1)) is not None

    async def add(self, model: str, source: str, claimed_until: datetime, created_by: str) -> Import:
        """Add one that is under way, and forget the oldest."""
        row = Import(model=model, source=source, claimed_until=claimed_until, created_by=created_by)
        self._session.add(row)
        await self._session.flush()
        await self._session.execute(delete(Import).where(Import.id <= row.id - KEPT, Import.state != "running"))
        return row

    async def hold(self, import_id: int, until: datetime, done_bytes: int, total_bytes: int | None) -> bool:
        """Keep one that is under way, with how far it is; False where somebody has ended it."""
        change = update(Import).where(Import.id == import_id, Import.state == "running")
        kept = change.values(claimed_until=until, done_bytes=done_bytes, total_bytes=total_bytes)
        return affected(await self._session.execute(kept)) == 1

    async def finish(
        self,
        import_id: int,
        state: str,
        reason: str = "",
        *,
        version: int | None = None,
        commit: str | None = None,
    ) -> bool:
        """End one that is under way; False where it has ended already."""
        change = update(Import).where(Import.id == import_id, Import.state == "running")
        ended = change.values(state=state, reason=reason, version=version, commit=commit, ended_at=utc_now())
        return affected(await self._session.execute(ended)) == 1

    async def end_lost(self, reason: str) -> int:
        """Write down as failed what has lost its process."""
        change = update(Import).where(Import.state == "running", Import.claimed_until < utc_now())
        lost = change.values(state="failed", reason=reason, ended_at=utc_now())
        return affected(await self._session.execute(lost))
