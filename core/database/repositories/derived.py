"""Artifacts derived from versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from core.database.repositories.base import Repository
from core.database.repositories.models import REVISION
from core.database.repositories.revisions import Revisions
from core.database.tables import DerivedArtifact, Version, utc_now


class DerivedArtifacts(Repository):
    """Queries about derived artifacts. Every change raises the revision `models`."""

    async def get(self, artifact_id: int) -> DerivedArtifact | None:
        """The one with that id."""
        return await self._session.get(DerivedArtifact, artifact_id)

    async def find(self, version_id: int, key: str) -> DerivedArtifact | None:
        """The one that was made in just this way."""
        query = select(DerivedArtifact).where(DerivedArtifact.version_id == version_id, DerivedArtifact.key == key)
        return await self._session.scalar(query)

    async def list(self, version_ids: Sequence[int]) -> Sequence[DerivedArtifact]:
        """All of these versions, in the order they were made."""
        query = select(DerivedArtifact).where(DerivedArtifact.version_id.in_(version_ids))
        return (await self._session.scalars(query.order_by(DerivedArtifact.id))).all()

    async def of_model(self, model_id: int) -> Sequence[DerivedArtifact]:
        """All of all versions of a model."""
        query = select(DerivedArtifact).join(Version, Version.id == DerivedArtifact.version_id)
        return (await self._session.scalars(query.where(Version.model_id == model_id))).all()

    async def put(self, version_id: int, key: str, **values: Any) -> tuple[DerivedArtifact, str | None]:
        """Write what was made, over what was made so before, which keeps its id; also the address replaced."""
        row = await self.find(version_id, key)
        replaced = row.sha256 if row is not None and row.sha256 != values["sha256"] else None
        if row is None:
            row = DerivedArtifact(version_id=version_id, key=key, **values)
            await self._add(row, "The same conversion has just been made by another.")
        else:
            for name, value in {**values, "made_at": utc_now()}.items():
                setattr(row, name, value)
            await self._session.flush()
        await Revisions(self._session).bump(REVISION)
        return row, replaced

    async def remove(self, artifact: DerivedArtifact) -> None:
        """Forget one."""
        await self._session.delete(artifact)
        await self._session.flush()
        await Revisions(self._session).bump(REVISION)
