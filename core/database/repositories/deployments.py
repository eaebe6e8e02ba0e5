"""What should be served, what was, and what is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from core.database.failures import is_unique_violation
from core.database.repositories.base import Repository
from core.database.repositories.models import Models
from core.database.repositories.revisions import Revisions
from core.database.tables import Deployment, DeploymentHistory, DeploymentStatus, Model, Version, utc_now
from core.errors import ModelNotFound

REVISION = "deployments"
_STEP = 50


class Wanted(NamedTuple):
    """A model that is to run, and how."""

    name: str
    task: str
    spec: dict[str, Any]


class Deployments(Repository):
    """Queries about deployments. Every change of what is desired raises the revision `deployments`."""

    async def get(self, model_id: int) -> Deployment | None:
        """The desired state of a model; None where it was never deployed."""
        return await self._session.get(Deployment, model_id, populate_existing=True)

    async def desired(self) -> Sequence[Deployment]:
        """Every desired state, the undeployed too, each with its model, in the order of the models' ids."""
        query = select(Deployment).options(joinedload(Deployment.model)).order_by(Deployment.model_id)
        return (await self._session.scalars(query)).all()

    async def running(self) -> Sequence[Wanted]:
        """What is to run, in the order of the models' ids; of hundreds, quicker than whole rows."""
        query = select(Model.name, Model.task, Deployment.spec).join(Deployment.model)
        query = query.where(Deployment.running).order_by(Deployment.model_id)
        return [Wanted(*row) for row in await self._session.execute(query)]

    async def reasons(self, names: Collection[str]) -> dict[str, str]:
        """What is said of the states of some models, where something is; of several nodes, one's."""
        query = select(Model.name, DeploymentStatus.reason).join(Model, Model.id == DeploymentStatus.model_id)
        query = query.where(Model.name.in_(names), DeploymentStatus.reason != "")
        found = await self._session.execute(query.order_by(DeploymentStatus.node))
        return {row.name: row.reason for row in found}

    async def failed(self, limit: int) -> Sequence[tuple[int, str, str]]:
        """Of what is to run and failed, on any node: the models' ids, names and reasons."""
        query = select(Model.id, Model.name, DeploymentStatus.reason)
        query = query.join(DeploymentStatus, DeploymentStatus.model_id == Model.id)
        query = query.join(Deployment, Deployment.model_id == Model.id).where(Deployment.running)
        query = query.where(DeploymentStatus.state == "failed").order_by(Model.id).limit(limit)
        return [(id, name, reason) for id, name, reason in await self._session.execute(query)]

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
        """The newest state before that ran other versions, or other forms of them: where a rollback goes.

        States whose versions were removed or archived since are passed over.
        """
        now = await self.get(model_id)
        generation = 0 if now is None else now.generation
        kept = await self._kept_versions(model_id) if now is not None else frozenset()
        while now is not None:
            rows = await self._history_before(model_id, generation)
            for row in rows:
                if _runs(row.spec) != _runs(now.spec) and kept.issuperset(_versions(row.spec)):
                    return row
            if len(rows) < _STEP:
                break
            generation = rows[-1].generation
        return None

    async def changes(
        self, since: datetime, limit: int, model: str | None = None
    ) -> Sequence[tuple[str, DeploymentHistory]]:
        """What was desired from then on, of one model or of all, with the model's name; the newest `limit`."""
        query = select(Model.name, DeploymentHistory).join(Model, Model.id == DeploymentHistory.model_id)
        query = query.where(DeploymentHistory.created_at >= since)
        if model is not None:
            query = query.where(Model.name == model)
        query = query.order_by(DeploymentHistory.created_at.desc(), DeploymentHistory.generation.desc()).limit(
            limit
        )
        return [(name, row) for name, row in await self._session.execute(query)]

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

    async def desired_of(self, model_ids: Collection[int]) -> Sequence[Deployment]:
        """The desired states of some models."""
        return (await self._session.scalars(select(Deployment).where(Deployment.model_id.in_(model_ids)))).all()

    async def observed_of(self, model_ids: Collection[int]) -> Sequence[DeploymentStatus]:
        """The observed states of some models, on every node."""
        query = select(DeploymentStatus).where(DeploymentStatus.model_id.in_(model_ids))
        return (
            await self._session.scalars(query.order_by(DeploymentStatus.model_id, DeploymentStatus.node))
        ).all()

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

    async def _kept_versions(self, model_id: int) -> frozenset[int]:
        query = select(Version.version).where(Version.model_id == model_id, Version.status != "archived")
        return frozenset((await self._session.scalars(query)).all())

    async def _history_before(self, model_id: int, generation: int) -> Sequence[DeploymentHistory]:
        query = select(DeploymentHistory).where(
            DeploymentHistory.model_id == model_id,
            DeploymentHistory.generation < generation,
            DeploymentHistory.running,
        )
        query = query.order_by(DeploymentHistory.generation.desc()).limit(_STEP)
        return (await self._session.scalars(query)).all()


def _versions(spec: Mapping[str, Any]) -> list[int]:
    return [int(share["version"]) for share in spec.get("traffic") or ()]


def _runs(spec: Mapping[str, Any]) -> tuple[Any, Any]:
    """What of a spec decides about answers: the versions, and the converted forms that they run as."""
    return spec.get("traffic"), spec.get("optimised") or {}
