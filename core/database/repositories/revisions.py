"""Counters of change."""

from __future__ import annotations

from sqlalchemy import select

from core.database.repositories.base import Repository
from core.database.tables import Revision


class Revisions(Repository):
    """One counter a subject; readers elsewhere compare them with what they last saw."""

    async def bump(self, name: str) -> int:
        """Raise the counter `name` by one and return it.

        The row stays locked until the transaction ends, so that counters are seen in the order they were given.
        """
        insert = self._insert(Revision).values(name=name, value=1)
        upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"value": Revision.value + 1})
        return int((await self._session.execute(upsert.returning(Revision.value))).scalar_one())

    async def read_all(self) -> dict[str, int]:
        """Every counter by its name; one that was never raised is missing."""
        return {row.name: row.value for row in await self._session.scalars(select(Revision))}
