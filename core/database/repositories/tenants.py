"""Tenants, and which names are shared with some of them only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select

from core.database.repositories.base import Repository
from core.database.repositories.revisions import Revisions
from core.database.tables import AccessToken, Model, Pipeline, Tenant

REVISION = "tenants"


class Tenants(Repository):
    """Queries about tenants. Every change, of shares too, raises the revision `tenants`."""

    async def get(self, tenant_id: int) -> Tenant | None:
        """The tenant with that id."""
        return await self._session.get(Tenant, tenant_id)

    async def by_name(self, name: str, *, hold: bool = False) -> Tenant | None:
        """The tenant of that name; with `hold`, nobody removes it before this transaction ends."""
        query = select(Tenant).where(Tenant.name == name)
        return await self._session.scalar(query.with_for_update() if hold else query)

    async def all(self) -> Sequence[Tenant]:
        """All of them, in the order of their names."""
        return (await self._session.scalars(select(Tenant).order_by(Tenant.name))).all()

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[Tenant], str | None]:
        """Tenants in the order of their names."""
        return await self._page(select(Tenant), Tenant.name, limit, cursor)

    async def add(self, tenant: Tenant) -> None:
        """Add a tenant. Raises Conflict where the name is taken."""
        await Revisions(self._session).bump(REVISION)
        await self._add(tenant, f"There is a tenant called {tenant.name} already.")

    async def save(self) -> None:
        """Write what was changed on tenants or shares, so that readers elsewhere fetch it anew."""
        await Revisions(self._session).bump(REVISION)
        await self._session.flush()

    async def delete(self, tenant: Tenant) -> None:
        """Remove a tenant; it is shared with no more, so that another of its name begins without."""
        for row in await self._restricted_rows():
            if row.tenants is not None and tenant.name in row.tenants:
                row.tenants = [name for name in row.tenants if name != tenant.name]
        await self._session.delete(tenant)
        await self.save()

    async def owns_tokens(self, name: str) -> bool:
        """Whether a token of the tenant is not revoked."""
        owned = select(AccessToken.id).where(AccessToken.tenant == name, AccessToken.revoked_at.is_(None))
        return await self._session.scalar(owned.limit(1)) is not None

    async def shared(self, name: str) -> Model | Pipeline | None:
        """The model or pipeline of that name, whose `tenants` says who may call it."""
        found = await self._session.scalar(select(Model).where(Model.name == name))
        return found or await self._session.scalar(select(Pipeline).where(Pipeline.name == name))

    async def restricted(self) -> Mapping[str, Sequence[str]]:
        """The names that are not for all tenants, each with those that it is for."""
        return {row.name: row.tenants or [] for row in await self._restricted_rows()}

    async def _restricted_rows(self) -> list[Model | Pipeline]:
        models = await self._session.scalars(select(Model).where(Model.tenants.is_not(None)))
        pipelines = await self._session.scalars(select(Pipeline).where(Pipeline.tenants.is_not(None)))
        return [*models, *pipelines]
