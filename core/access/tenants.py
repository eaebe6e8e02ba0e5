"""What the inference side knows of tenants: who is disabled, and which names are not for whom."""

from __future__ import annotations

import asyncio

from limits import RateLimitItem

from core.access.budgets import BudgetItem, parse_budgets
from core.access.others import TellOthers, nobody
from core.access.rates import parse_rates
from core.database.repositories import Revisions
from core.database.repositories.tenants import Tenants
from core.database.session import Database
from core.database.tables import DEFAULT_TENANT
from core.database.tables import Tenant as TenantRow
from core.errors import Unprocessable

_REVISIONS = ("tenants", "models", "pipelines")
"""A name that is given anew to another model begins without the shares of the old one."""


class Tenant:
    """One tenant, as all of its tokens' records share it; brought up to date in place."""

    __slots__ = ("budgets", "burst", "disabled", "hidden", "max_concurrency", "name", "rates", "version")

    def __init__(self, name: str, *, disabled: bool = False) -> None:
        self.name = name
        self.disabled = disabled
        self.hidden: frozenset[str] = frozenset()
        """Names of models and pipelines that are not shared with it."""
        self.rates: tuple[RateLimitItem, ...] = ()
        self.burst: int | None = None
        self.budgets: tuple[BudgetItem, ...] = ()
        self.max_concurrency: int | None = None
        self.version = 0
        """Grows when its limits may have changed."""

    def take(self, row: TenantRow) -> None:
        """Take over what the row says. One whose limits cannot be read is as good as disabled."""
        self.disabled, self.burst, self.max_concurrency = row.disabled, row.burst, row.max_concurrency
        try:
            self.rates, self.budgets = parse_rates(row.rate or ()), parse_budgets(row.budgets or ())
        except Unprocessable:
            self.disabled = True
        self.version += 1


class Tenancy:
    """All tenants in memory, brought up to date by `refresh`. Belongs to one event loop."""

    def __init__(self, database: Database, tell_others: TellOthers = nobody) -> None:
        self._database = database
        self._tell_others = tell_others
        self._tenants: dict[str, Tenant] = {}
        self._unknown: set[str] = set()
        self._seen: tuple[int, ...] | None = None
        self._refreshing = asyncio.Lock()

    def of(self, name: str) -> Tenant:
        """The tenant of that name. One that is not known yet may do nothing until `refresh` has found it."""
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = Tenant(name, disabled=True)
            self._unknown.add(name)
        return tenant

    async def find_unknown(self) -> None:
        """Look for those that `of` was asked for in vain. Raises Unavailable."""
        if self._unknown:
            await self.refresh()

    async def changed(self) -> None:
        """Take over what this process has changed, and let the other workers do so. Raises Unavailable."""
        try:
            await self.refresh()
        finally:
            await self._tell_others()

    async def refresh(self) -> bool:
        """Take over what changed since the last refresh; false where nothing did. Raises Unavailable."""
        async with self._refreshing, self._database.session() as session:
            # Read before the rows: what changes between the two is then fetched once more, never missed.
            revisions = await Revisions(session).read_all()
            newest = tuple(revisions.get(name, 0) for name in _REVISIONS)
            if newest == self._seen and not self._unknown:
                return False
            tenants = Tenants(session)
            rows, restricted = await tenants.all(), await tenants.restricted()
            for row in rows:
                tenant = self._tenants.setdefault(row.name, Tenant(row.name))
                tenant.take(row)
                tenant.hidden = frozenset(name for name, some in restricted.items() if row.name not in some)
            known = {row.name for row in rows}
            for name in self._tenants.keys() - known:
                self._tenants[name].disabled = True  # records of tokens may still hold it
            self._unknown.clear()
            self._seen = newest
            return True


def anybody() -> Tenant:
    """A tenant for records that are made without one."""
    return Tenant(DEFAULT_TENANT)
