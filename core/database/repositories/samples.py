"""Samples of models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, func, select

from core.database.repositories.base import Repository
from core.database.tables import Sample


class Samples(Repository):
    """Queries about samples."""

    async def get(self, model_id: int, sample_id: int) -> Sample | None:
        """One of a model's samples."""
        return await self._session.scalar(
            select(Sample).where(Sample.model_id == model_id, Sample.id == sample_id)
        )

    async def page(
        self, model_id: int, limit: int, cursor: str | None = None, *, kind: str | None = None
    ) -> tuple[list[Sample], str | None]:
        """Samples in the order they came; of one kind, where one is given."""
        query = select(Sample).where(Sample.model_id == model_id)
        if kind is not None:
            query = query.where(Sample.kind == kind)
        return await self._page(query, Sample.id, limit, cursor)

    async def list(self, model_id: int) -> Sequence[Sample]:
        """All of a model; their number is bounded where they are added."""
        query = select(Sample).where(Sample.model_id == model_id).order_by(Sample.id)
        return (await self._session.scalars(query)).all()

    async def totals(self, model_id: int, kind: str | None = None) -> tuple[int, int]:
        """How many there are of a model, and their bytes."""
        query = select(func.count(), func.coalesce(func.sum(Sample.size_bytes), 0)).where(
            Sample.model_id == model_id
        )
        if kind is not None:
            query = query.where(Sample.kind == kind)
        count, size_bytes = (await self._session.execute(query)).one()
        return int(count), int(size_bytes)

    async def put(self, model_id: int, sha256: str, **values: Any) -> bool:
        """Add one; False where the model has these bytes already, whose label is replaced where one is given."""
        insert = self._insert(Sample).values(model_id=model_id, sha256=sha256, **_complete(values))
        keys = [Sample.model_id, Sample.sha256]
        added = await self._session.scalar(insert.on_conflict_do_nothing(index_elements=keys).returning(Sample.id))
        if added is None and values.get("label") is not None:
            known = select(Sample).where(Sample.model_id == model_id, Sample.sha256 == sha256)
            row = await self._session.scalar(known)
            if row is not None:
                row.label = values["label"]
                await self._session.flush()
        return added is not None

    async def remove(self, model_id: int, ids: Collection[int] | None = None, kind: str | None = None) -> set[str]:
        """Remove these samples, those of one kind, or all; returns their addresses."""
        change = delete(Sample).where(Sample.model_id == model_id)
        if ids is not None:
            change = change.where(Sample.id.in_(ids))
        if kind is not None:
            change = change.where(Sample.kind == kind)
        return set((await self._session.scalars(change.returning(Sample.sha256))).all())

    async def ids(self, model_id: int, kind: str) -> Sequence[int]:
        """The ids of one kind."""
        query = select(Sample.id).where(Sample.model_id == model_id, Sample.kind == kind)
        return (await self._session.scalars(query)).all()

    async def sha256_in_use(self, sha256: str) -> bool:
        """Whether any sample still needs the bytes at this address."""
        return await self._session.scalar(select(Sample.id).where(Sample.sha256 == sha256).limit(1)) is not None


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """With the defaults that an INSERT of its own does not fill in."""
    from core.database.tables import utc_now

    return {"name": "", "created_by": "", "created_at": utc_now(), **values}
