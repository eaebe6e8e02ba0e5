"""What should be served, what was, and what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from core.database.failures import is_unique_violation
from core.database.repositories.base import Repository
from core.database.repositories.models import Models
from core.database.repositories.revisions import Revisions
from core.database.tables import Deployment, DeploymentHistory, DeploymentStatus, utc_now
from core.errors import ModelNotFound

REVISION = "deployments"
_STEP = 50


class Deployments(Repository):
    """Queries about deployments. Every change of what is desired raises the revision `deployments`."""

    async def get(self, model_id: int) -> Deployment | None:
        """The desired state of a model; None where it was never deployed."""
        return await self._session.get(Deployment, model_id, populate_existing=True)

    async def desired(self) -> Sequence[Deployment]:
        """Every desired state, the undeployed too, each with its model, in the order of the models' ids."""
        query = select(Deployment).options(joinedload(Deployment.model)).order_by(Deployment.model_id)
        return (await self._session.scalars(query)).all()

    async def put(self, model_id: int, spec: dict[str, Any], by: str = "") -> Deployment:
        """Desire `spec` for a model, one generation on. Raises ModelNotFound."""
        return await self._change(model_id, spec, running=True, by=by)

    async def undeploy(self, model_id: int, by: str = "") -> Deployment | None:
        """Desire nothing for a model, one generation on; None where nothing was desired already."""
        await Models(self._session).lock(model_id)
        now = await self.get(model_id)
        if now is None or not now.running:
            return None
        return await self._change(model_id, now.spec, running=False, by=by)

    async def previous(self, model_id: int) -> DeploymentHistory | None:
        """The newest state before that ran other versions, or other forms of them: where a rollback goes."""
        now = await self.get(model_id)
        generation = 0 if now is None else now.generation
        while now is not None:
            rows = await self._history_before(model_id, generation)
            for row in rows:
                if _runs(row.spec) != _runs(now.spec):
                    return row
            if len(rows) < _STEP:
                break
            generation = rows[-1].generation
        return None

    async def write_observed(
        self,
        model_id: int,
        node: str,
        *,
        generation: int,
        state: str,
        reason: str = "",
        versions: Sequence[dict[str, Any]] = (),
    ) -> bool:
        """Note what a node serves; False where a newer generation is noted already or the model is gone."""
        values = {"generation": generation, "state": state, "reason": reason, "versions": [*versions]}
        values["updated_at"] = utc_now()
        insert = self._insert(DeploymentStatus).values(model_id=model_id, node=node, **values)
        upsert = insert.on_conflict_do_update(
            index_elements=["model_id", "node"],
            set_=values,
            where=DeploymentStatus.generation <= insert.excluded.generation,
        ).returning(DeploymentStatus.model_id)
        try:
            async with self._session.begin_nested():
                return (await self._session.execute(upsert)).scalar() is not None
        except IntegrityError as error:
            if is_unique_violation(error):
                raise
            return False

    async def observed(self, model_id: int) -> Sequence[DeploymentStatus]:
        """The observed states of one model, a node each."""
        query = select(DeploymentStatus).where(DeploymentStatus.model_id == model_id)
        return (await self._session.scalars(query.order_by(DeploymentStatus.node))).all()

    async def all_observed(self, node: str | None = None) -> Sequence[DeploymentStatus]:
        """The observed states of all models, on one node or on all."""
        query = select(DeploymentStatus).order_by(DeploymentStatus.model_id, DeploymentStatus.node)
        if node is not None:
            query = query.where(DeploymentStatus.node == node)
        return (await self._session.scalars(query)).all()

    async def _change(self, model_id: int, spec: dict[str, Any], *, running: bool, by: str) -> Deployment:
        if not await Models(self._session).lock(model_id):
            raise ModelNotFound("There is no such model.")
        row = await self.get(model_id)
        if row is None:
            row = Deployment(model_id=model_id, generation=0)
            self._session.add(row)
        row.generation, row.running, row.spec, row.updated_by = row.generation + 1, running, spec, by
        self._session.add(
            DeploymentHistory(
                model_id=model_id, generation=row.generation, running=running, spec=spec, created_by=by
            )
        )
        await self._session.flush()
        await Revisions(self._session).bump(REVISION)
        return row

    async def _history_before(self, model_id: int, generation: int) -> Sequence[DeploymentHistory]:
        query = select(DeploymentHistory).where(
            DeploymentHistory.model_id == model_id,
            DeploymentHistory.generation < generation,
            DeploymentHistory.running,
        )
        query = query.order_by(DeploymentHistory.generation.desc()).limit(_STEP)
        return (await self._session.scalars(query)).all()


def _runs(spec: Mapping[str, Any]) -> tuple[Any, Any]:
    """What of a spec decides about answers: the versions, and the converted forms that they run as."""
    return spec.get("traffic"), spec.get("optimised") or {}
