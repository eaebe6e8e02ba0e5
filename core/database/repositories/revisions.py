"""Counters of change."""

from __future__ import annotations

from sqlalchemy import func, select

from core.database.repositories.base import Repository
from core.database.tables import Revision

CHANNEL = "pulvinar_changes"
"""Where PostgreSQL tells of changes as they are committed; the payload is the counter's name."""


class Revisions(Repository):
    """One counter a subject; readers elsewhere compare them with what they last saw."""

    async def bump(self, name: str) -> int:
        """Raise the counter `name` by one and return it.

        The row stays locked until the transaction ends, so that counters are seen in the order they were given.
        """
        insert = self._insert(Revision).values(name=name, value=1)
        upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"value": Revision.value + 1})
        value = int((await self._session.execute(upsert.returning(Revision.value))).scalar_one())
        if self._session.get_bind().dialect.name == "postgresql":
            # Told when the transaction is committed, and not at all where it is not; twice the same is told once.
            await self._session.execute(select(func.pg_notify(CHANNEL, name)))
        return value

    async def read_all(self) -> dict[str, int]:
        """Every counter by its name; one that was never raised is missing."""
        return {row.name: row.value for row in await self._session.scalars(select(Revision))}
