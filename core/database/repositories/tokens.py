"""Access tokens of applications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, or_, select, update

from core.database.repositories.base import Repository
from core.database.repositories.revisions import Revisions
from core.database.tables import AccessToken, utc_now

REVISION = "tokens"


class TokenRow(NamedTuple):
    """What the inference side must know of a token, as plain values: there may be very many of them."""

    id: int
    hash: bytes
    previous_hash: bytes | None
    previous_until: datetime | None
    name: str
    tenant: str
    models: list[str] | None
    operations: list[str] | None
    rate: list[str] | None
    burst: int | None
    max_concurrency: int | None
    budgets: list[str] | None
    priority: int | None
    ip_allow: list[str] | None
    expires_at: datetime | None
    revoked_at: datetime | None


_COLUMNS = [getattr(AccessToken, name) for name in TokenRow._fields]


class Tokens(Repository):
    """Queries about tokens. Every change raises the revision `tokens` and stamps the row with it."""

    async def get(self, token_id: int) -> AccessToken | None:
        """The token with that id, revoked or not."""
        return await self._session.get(AccessToken, token_id)

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[AccessToken], str | None]:
        """All tokens, newest first."""
        return await self._page(select(AccessToken), AccessToken.id, limit, cursor, descending=True)

    async def named_like(self, text: str, limit: int) -> Sequence[AccessToken]:
        """Tokens in force with this in their name, in any case, newest first."""
        query = select(AccessToken).where(
            AccessToken.name.icontains(text, autoescape=True), AccessToken.revoked_at.is_(None)
        )
        return (await self._session.scalars(query.order_by(AccessToken.id.desc()).limit(limit))).all()

    async def of_tenant(self, tenant: str, limit: int) -> Sequence[AccessToken]:
        """The tokens that a tenant owns, revoked ones last, then newest first."""
        query = select(AccessToken).where(AccessToken.tenant == tenant)
        query = query.order_by(AccessToken.revoked_at.is_not(None), AccessToken.id.desc()).limit(limit)
        return (await self._session.scalars(query)).all()

    async def live_by_tenant(self, tenants: Sequence[str]) -> dict[str, int]:
        """How many tokens that are not revoked each of these tenants owns; those with none are left out."""
        query = select(AccessToken.tenant, func.count()).where(
            AccessToken.tenant.in_(tenants), AccessToken.revoked_at.is_(None)
        )
        return {
            name: int(number) for name, number in await self._session.execute(query.group_by(AccessToken.tenant))
        }

    async def expiring_before(self, moment: datetime, limit: int) -> Sequence[AccessToken]:
        """Tokens in force that end before a moment, the nearest end first."""
        end = AccessToken.expires_at
        query = select(AccessToken).where(AccessToken.revoked_at.is_(None), end < moment, end > utc_now())
        return (await self._session.scalars(query.order_by(end).limit(limit))).all()

    async def add(self, token: AccessToken) -> None:
        """Add a token. Raises Conflict where its hash is taken."""
        token.revision = await Revisions(self._session).bump(REVISION)
        await self._add(token, "There is a token with this secret already.")

    async def save(self, token: AccessToken) -> None:
        """Write what was changed on `token`, so that readers elsewhere fetch it anew."""
        token.revision = await Revisions(self._session).bump(REVISION)
        await self._session.flush()

    async def revoke(self, token: AccessToken) -> None:
        """End a token for good. The row stays: readers elsewhere must learn of it."""
        token.revoked_at = token.revoked_at or utc_now()
        await self.save(token)

    async def changed_since(self, revision: int, *, after_id: int = 0, limit: int = 1000) -> Sequence[TokenRow]:
        """Tokens changed after `revision`, revoked ones too, `limit` at a time in the order of their ids."""
        return await self._rows(AccessToken.revision > revision, after_id, limit)

    async def all_live(self, *, after_id: int = 0, limit: int = 1000) -> Sequence[TokenRow]:
        """Tokens that are not revoked, `limit` at a time in the order of their ids."""
        return await self._rows(AccessToken.revoked_at.is_(None), after_id, limit)

    async def revoked_last(self, limit: int) -> Sequence[bytes]:
        """The hashes of the tokens that were revoked last, newest first."""
        revoked = AccessToken.revoked_at
        newest = select(AccessToken.hash).order_by(revoked.desc(), AccessToken.id.desc()).limit(limit)
        return (await self._session.scalars(newest.where(revoked.is_not(None)))).all()

    async def expiring(self, until: datetime, limit: int) -> tuple[list[AccessToken], int]:
        """The tokens that end from now until then, the next first, at most `limit`; and how many there are."""
        ends = AccessToken.expires_at
        soon = (AccessToken.revoked_at.is_(None), ends > utc_now(), ends <= until)
        query = select(AccessToken).where(*soon).order_by(ends, AccessToken.id).limit(limit)
        count = await self._session.scalar(select(func.count()).select_from(AccessToken).where(*soon))
        return list((await self._session.scalars(query)).all()), int(count or 0)

    async def touch_last_used(self, used: Mapping[int, datetime]) -> None:
        """Note when each token (by id) was last used; an older time never replaces a newer one."""
        if not used:
            return
        before = AccessToken.last_used_at
        at = bindparam("at", type_=before.type)
        change = update(AccessToken).where(
            AccessToken.id == bindparam("token_id"), or_(before.is_(None), before < at)
        )
        connection = await self._session.connection()
        # In one order everywhere, so that two processes cannot wait for each other.
        await connection.execute(
            change.values(last_used_at=at), [{"token_id": key, "at": used[key]} for key in sorted(used)]
        )

    async def _rows(self, condition: Any, after_id: int, limit: int) -> list[TokenRow]:
        query = select(*_COLUMNS).where(condition, AccessToken.id > after_id).order_by(AccessToken.id).limit(limit)
        return [TokenRow._make(row) for row in await self._session.execute(query)]
