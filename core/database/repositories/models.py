"""Models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import delete, or_, select

from core.database.repositories.base import Repository
from core.database.repositories.defaults import DefaultTargets
from core.database.repositories.names import check_free
from core.database.repositories.revisions import Revisions
from core.database.tables import Deployment, DeploymentStatus, Model, ModelTag
from core.errors import Conflict

REVISION = "models"


class Models(Repository):
    """Queries about models. Every change raises the revision `models`."""

    async def get(self, model_id: int) -> Model | None:
        """The model with that id."""
        return await self._session.get(Model, model_id)

    async def by_name(self, name: str) -> Model | None:
        """The model of that name."""
        return await self._session.scalar(select(Model).where(Model.name == name))

    async def page(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        search: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        states: Collection[str] | None = None,
    ) -> tuple[list[Model], str | None]:
        """Models in the order of their names; `search` is looked for in names and descriptions, in any case.

        `states` are observed ones, of any node; an empty collection means those that were never deployed.
        """
        query = select(Model)
        if search:
            texts = (Model.name, Model.description)
            query = query.where(or_(*(text.icontains(search, autoescape=True) for text in texts)))
        if task:
            query = query.where(Model.task == task)
        if tag:
            query = query.where(Model.id.in_(select(ModelTag.model_id).where(ModelTag.tag == tag)))
        if states:
            seen = select(DeploymentStatus.model_id).where(DeploymentStatus.state.in_(states))
            query = query.where(Model.id.in_(seen))
        elif states is not None:
            query = query.where(Model.id.not_in(select(Deployment.model_id)))
        return await self._page(query, Model.name, limit, cursor)

    async def tasks(self) -> Sequence[str]:
        """The tasks that there are models for, in order."""
        return (await self._session.scalars(select(Model.task).distinct().order_by(Model.task))).all()

    async def tags(self) -> Sequence[str]:
        """The tags that any model has, in order."""
        return (await self._session.scalars(select(ModelTag.tag).distinct().order_by(ModelTag.tag))).all()

    async def tags_of(self, model_ids: Collection[int]) -> Mapping[int, Sequence[str]]:
        """The tags of each of these models that has any, in order."""
        query = select(ModelTag).where(ModelTag.model_id.in_(model_ids)).order_by(ModelTag.tag)
        found: dict[int, list[str]] = {}
        for row in await self._session.scalars(query):
            found.setdefault(row.model_id, []).append(row.tag)
        return found

    async def set_tags(self, model_id: int, tags: Collection[str]) -> None:
        """Let a model have these tags and no others; `save` it afterwards."""
        await self._session.execute(delete(ModelTag).where(ModelTag.model_id == model_id))
        self._session.add_all([ModelTag(model_id=model_id, tag=tag) for tag in tags])

    async def add(self, name: str, task: str, *, description: str = "", created_by: str = "") -> Model:
        """Add a model without versions. Raises Conflict where the name is taken."""
        await check_free(self._session, name)
        model = Model(name=name, task=task, description=description, created_by=created_by)
        await self._add(model, f"There is a model called {name} already.")
        await Revisions(self._session).bump(REVISION)
        return model

    async def save(self, model: Model) -> None:
        """Write what was changed on `model`."""
        await self._session.flush()
        await Revisions(self._session).bump(REVISION)

    async def delete(self, model: Model) -> None:
        """Remove a model with its versions and history. Raises Conflict while it is deployed."""
        await self.lock(model.id)
        running = select(Deployment.model_id).where(Deployment.model_id == model.id, Deployment.running)
        if await self._session.scalar(running) is not None:
            raise Conflict(f"The model {model.name} is deployed; undeploy it first.")
        await self._session.delete(model)
        await self._session.flush()
        await DefaultTargets(self._session).forget(model.name)
        await Revisions(self._session).bump(REVISION)

    async def lock(self, model_id: int) -> bool:
        """Keep others from changing the model until the transaction ends; False where it does not exist.

        SQLite's one writer needs no lock.
        """
        query = select(Model.id).where(Model.id == model_id).with_for_update()
        return await self._session.scalar(query) is not None
