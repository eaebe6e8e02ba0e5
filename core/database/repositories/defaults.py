"""Default targets."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.sql.dml import ReturningDelete

from core.database.repositories.base import Repository
from core.database.repositories.revisions import Revisions
from core.database.tables import DefaultTarget, utc_now

REVISION = "defaults"


class DefaultTargets(Repository):
    """Queries about default targets. Every change raises the revision `defaults`."""

    async def all(self) -> dict[str, str]:
        """The target's name of each modality that has one."""
        query = select(DefaultTarget).order_by(DefaultTarget.modality)
        return {row.modality: row.target for row in await self._session.scalars(query)}

    async def put(self, modality: str, target: str, by: str) -> None:
        """Let this target be the modality's default."""
        values = {"target": target, "updated_by": by, "updated_at": utc_now()}
        insert = self._insert(DefaultTarget).values(modality=modality, **values)
        await self._session.execute(insert.on_conflict_do_update(index_elements=["modality"], set_=values))
        await Revisions(self._session).bump(REVISION)

    async def remove(self, modality: str) -> bool:
        """Let the modality have no default; False where it has none."""
        change = delete(DefaultTarget).where(DefaultTarget.modality == modality)
        return await self._remove(change.returning(DefaultTarget.modality))

    async def forget(self, target: str) -> bool:
        """Let a target that goes away be nobody's default; False where it is none."""
        change = delete(DefaultTarget).where(DefaultTarget.target == target)
        return await self._remove(change.returning(DefaultTarget.modality))

    async def _remove(self, change: ReturningDelete[tuple[str]]) -> bool:
        removed = (await self._session.scalars(change)).all()
        if removed:
            await Revisions(self._session).bump(REVISION)
        return bool(removed)
