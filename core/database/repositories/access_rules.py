"""Which addresses may use which API."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from core.database.repositories.base import Repository
from core.database.repositories.revisions import Revisions
from core.database.tables import AccessRule

REVISION = "access_rules"


class AccessRules(Repository):
    """Queries about the rules. Every change raises the revision `access_rules`."""

    async def get(self, rule_id: int) -> AccessRule | None:
        """The rule with that id."""
        return await self._session.get(AccessRule, rule_id)

    async def all(self) -> Sequence[AccessRule]:
        """All rules, in the order they were made."""
        return (await self._session.scalars(select(AccessRule).order_by(AccessRule.id))).all()

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[AccessRule], str | None]:
        """Rules, in the order they were made."""
        return await self._page(select(AccessRule), AccessRule.id, limit, cursor)

    async def count(self) -> int:
        """How many there are."""
        return int(await self._session.scalar(select(func.count()).select_from(AccessRule)) or 0)

    async def add(self, rule: AccessRule) -> None:
        """Add a rule. Raises Conflict where it is there already."""
        # The revision's row is locked first, so that two changes cannot lock an address out between them.
        await self.lock()
        await self._add(rule, "There is such a rule already.")

    async def delete(self, rule: AccessRule) -> None:
        """Remove a rule."""
        await self.lock()
        await self._session.delete(rule)
        await self._session.flush()

    async def lock(self) -> None:
        """Let other changes wait for the end of this transaction."""
        await Revisions(self._session).bump(REVISION)
