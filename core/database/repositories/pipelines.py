"""Pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import joinedload

from core.database.repositories.base import Repository
from core.database.repositories.defaults import DefaultTargets
from core.database.repositories.names import check_free
from core.database.repositories.revisions import Revisions
from core.database.tables import Pipeline, PipelineDeployment, PipelineVersion
from core.errors import Conflict, NotFound

REVISION: Final = "pipelines"


class Pipelines(Repository):
    """Queries about pipelines, their versions and deployments. Every change raises the revision `pipelines`."""

    async def by_name(self, name: str) -> Pipeline | None:
        """The pipeline of that name."""
        return await self._session.scalar(select(Pipeline).where(Pipeline.name == name))

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[Pipeline], str | None]:
        """Pipelines in the order of their names."""
        return await self._page(select(Pipeline), Pipeline.name, limit, cursor)

    async def add(self, name: str, created_by: str) -> Pipeline:
        """Add a pipeline without versions. Raises Conflict where a pipeline or a model has the name."""
        await check_free(self._session, name)
        row = Pipeline(name=name, created_by=created_by)
        await self._add(row, f"There is a pipeline called {name} already.")
        await self._changed()
        return row

    async def add_version(
        self, pipeline: Pipeline, definition: str, description: str, created_by: str
    ) -> PipelineVersion:
        """Add a definition under the next number; numbers are never used twice."""
        # One statement, whose row lock holds until the transaction ends: no number is given twice.
        change = update(Pipeline).where(Pipeline.id == pipeline.id)
        taken = change.values(next_version=Pipeline.next_version + 1, description=description)
        number = await self._session.scalar(taken.returning(Pipeline.next_version))
        if number is None:
            raise NotFound("There is no such pipeline.")
        row = PipelineVersion(
            pipeline_id=pipeline.id, version=number - 1, definition=definition, created_by=created_by
        )
        self._session.add(row)
        await self._session.flush()
        await self._session.refresh(pipeline)
        await self._changed()
        return row

    async def version(self, pipeline_id: int, version: int) -> PipelineVersion | None:
        """Version number `version` of a pipeline."""
        query = select(PipelineVersion).where(PipelineVersion.pipeline_id == pipeline_id)
        return await self._session.scalar(query.where(PipelineVersion.version == version))

    async def versions(self, pipeline_id: int) -> Sequence[PipelineVersion]:
        """All versions of a pipeline, newest first."""
        query = select(PipelineVersion).where(PipelineVersion.pipeline_id == pipeline_id)
        return (await self._session.scalars(query.order_by(PipelineVersion.version.desc()))).all()

    async def deployment(self, pipeline_id: int) -> PipelineDeployment | None:
        """The desired state of a pipeline; None where it was never deployed."""
        return await self._session.get(PipelineDeployment, pipeline_id, populate_existing=True)

    async def desired(self) -> Sequence[PipelineDeployment]:
        """Every desired state that is to be served, each with its pipeline, in the order of the names."""
        query = select(PipelineDeployment).join(Pipeline).where(PipelineDeployment.running)
        query = query.options(joinedload(PipelineDeployment.pipeline)).order_by(Pipeline.name)
        return (await self._session.scalars(query)).all()

    async def deploy(self, pipeline_id: int, version: int, spec: dict[str, Any], by: str) -> PipelineDeployment:
        """Desire a version, one generation on."""
        return await self._desire(pipeline_id, version, spec, running=True, by=by)

    async def undeploy(self, pipeline_id: int, by: str) -> PipelineDeployment | None:
        """Desire nothing, one generation on; None where nothing was desired already."""
        await self._lock(pipeline_id)
        now = await self.deployment(pipeline_id)
        if now is None or not now.running:
            return None
        return await self._desire(pipeline_id, now.version, now.spec, running=False, by=by)

    async def delete(self, pipeline: Pipeline) -> None:
        """Remove a pipeline with its versions. Raises Conflict while it is deployed."""
        await self._lock(pipeline.id)
        now = await self.deployment(pipeline.id)
        if now is not None and now.running:
            raise Conflict(f"The pipeline {pipeline.name} is deployed; undeploy it first.")
        await self._session.delete(pipeline)
        await self._session.flush()
        await DefaultTargets(self._session).forget(pipeline.name)
        await self._changed()

    async def _desire(
        self, pipeline_id: int, version: int, spec: dict[str, Any], *, running: bool, by: str
    ) -> PipelineDeployment:
        if not await self._lock(pipeline_id):
            raise NotFound("There is no such pipeline.")
        row = await self.deployment(pipeline_id)
        if row is None:
            row = PipelineDeployment(pipeline_id=pipeline_id, generation=0)
            self._session.add(row)
        row.generation, row.running, row.version = row.generation + 1, running, version
        row.spec, row.updated_by = spec, by
        await self._session.flush()
        await self._changed()
        return row

    async def _lock(self, pipeline_id: int) -> bool:
        """Keep others from changing it until the transaction ends; SQLite's one writer needs no lock."""
        query = select(Pipeline.id).where(Pipeline.id == pipeline_id).with_for_update()
        return await self._session.scalar(query) is not None

    async def _changed(self) -> None:
        await Revisions(self._session).bump(REVISION)
