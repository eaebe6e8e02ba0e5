"""The servers that share this database, and when each was last heard of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select

from core.database.repositories.base import MAX_PAGE, Repository
from core.database.tables import DeploymentStatus, Node, utc_now


class Nodes(Repository):
    """Queries about nodes. All times are by the database's clock, which the nodes have in common."""

    async def now(self) -> datetime:
        """What time it is in the database; of SQLite that is this machine's."""
        if self._session.get_bind().dialect.name == "sqlite":
            return utc_now()
        now = await self._session.scalar(select(func.clock_timestamp()))
        assert isinstance(now, datetime)
        return now.astimezone(UTC)

    async def beat(self, name: str, **values: Any) -> str | None:
        """Note that a node lives; returns the instance that had its name before, None where there was none."""
        before = await self._session.scalar(select(Node.instance).where(Node.name == name))
        insert = self._insert(Node).values(name=name, **values)
        keeps = {
            key: value for key, value in values.items() if key != "started_at" or values["instance"] != before
        }
        await self._session.execute(insert.on_conflict_do_update(index_elements=["name"], set_=keeps))
        return before

    async def all(self) -> Sequence[Node]:
        """The nodes in the order of their names; the first 1,000."""
        return (await self._session.scalars(select(Node).order_by(Node.name).limit(MAX_PAGE))).all()

    async def leave(self, name: str, instance: str) -> None:
        """Note that a node has stopped in order: it is listed no more."""
        await self._session.execute(delete(Node).where(Node.name == name, Node.instance == instance))

    async def forget(self, silent_for: timedelta) -> None:
        """Forget the nodes that were not heard of for so long, and what such nodes had observed."""
        before = await self.now() - silent_for
        await self._session.execute(delete(Node).where(Node.seen_at < before))
        nobody_s = DeploymentStatus.node.not_in(select(Node.name))
        await self._session.execute(delete(DeploymentStatus).where(nobody_s, DeploymentStatus.updated_at < before))
