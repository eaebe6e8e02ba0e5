"""Models."""

from __future__ import annotations

from sqlalchemy import or_, select

from core.database.repositories.base import Repository
from core.database.repositories.revisions import Revisions
from core.database.tables import Deployment, Model
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
        self, limit: int, cursor: str | None = None, *, search: str | None = None
    ) -> tuple[list[Model], str | None]:
        """Models in the order of their names; `search` is looked for in names and descriptions, in any case."""
        query = select(Model)
        if search:
            texts = (Model.name, Model.description)
            query = query.where(or_(*(text.icontains(search, autoescape=True) for text in texts)))
        return await self._page(query, Model.name, limit, cursor)

    async def add(self, name: str, task: str, *, description: str = "", created_by: str = "") -> Model:
        """Add a model without versions. Raises Conflict where the name is taken."""
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
        await Revisions(self._session).bump(REVISION)

    async def lock(self, model_id: int) -> bool:
        """Keep others from changing the model until the transaction ends; False where it does not exist.

        SQLite's one writer needs no lock.
        """
        query = select(Model.id).where(Model.id == model_id).with_for_update()
        return await self._session.scalar(query) is not None
