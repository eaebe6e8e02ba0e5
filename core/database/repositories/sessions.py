"""Sign-in sessions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import joinedload

from core.database.repositories.base import Repository
from core.database.repositories.results import affected
from core.database.tables import Session, User, utc_now

_MOST = 1000


class HoldingRow(NamedTuple):
    """A session that holds, with what is known of its user."""

    id: str
    user_id: int
    refresh_hash: bytes
    second_factor_due: bool
    name: str
    role: str
    must_change_password: bool


class Sessions(Repository):
    """Queries about sign-in sessions."""

    async def add(self, session: Session) -> None:
        """Add a new session. Raises Conflict where its id is taken."""
        await self._add(session, "There is such a session already.")

    async def get(self, session_id: str) -> Session | None:
        """The session with its user."""
        query = select(Session).where(Session.id == session_id).options(joinedload(Session.user))
        return await self._session.scalar(query)

    async def holding(self, session_ids: Collection[str], now: datetime) -> Sequence[HoldingRow]:
        """Those of so many that hold, each with what its user may; a thousand ids at most."""
        query = select(
            Session.id,
            Session.user_id,
            Session.refresh_hash,
            Session.second_factor_due,
            User.name,
            User.role,
            User.must_change_password,
        ).join(User, User.id == Session.user_id)
        query = query.where(Session.id.in_(session_ids), Session.revoked_at.is_(None), Session.expires_at > now)
        rows = await self._session.execute(query.where(User.disabled.is_(False)))
        return [HoldingRow(*row) for row in rows]

    async def live_of(self, user_id: int, now: datetime) -> Sequence[Session]:
        """The sessions of a user that hold, the one used last first."""
        query = select(Session).where(
            Session.user_id == user_id, Session.revoked_at.is_(None), Session.expires_at > now
        )
        return (await self._session.scalars(query.order_by(Session.last_used_at.desc()).limit(_MOST))).all()

    async def rotate(self, session_id: str, old_hash: bytes, new_hash: bytes, expires_at: datetime) -> bool:
        """Replace the refresh token; False where `old_hash` is no longer the one in force, or never was."""
        change = (
            update(Session)
            .where(Session.id == session_id, Session.refresh_hash == old_hash, Session.revoked_at.is_(None))
            .values(refresh_hash=new_hash, last_used_at=utc_now(), expires_at=expires_at)
        )
        return affected(await self._session.execute(change)) == 1

    async def touch(self, session_id: str, now: datetime, expires_at: datetime) -> None:
        """Note that a session is in use, so that it goes on."""
        change = update(Session).where(Session.id == session_id, Session.revoked_at.is_(None))
        await self._session.execute(change.values(last_used_at=now, expires_at=expires_at))

    async def revoke(self, session_id: str) -> bool:
        """End a session; False where it had ended already or is unknown."""
        change = update(Session).where(Session.id == session_id, Session.revoked_at.is_(None))
        return affected(await self._session.execute(change.values(revoked_at=utc_now()))) == 1

    async def revoke_all_for(self, user_id: int, *, keep: str | None = None) -> int:
        """End every session of a user but `keep`; returns how many ended."""
        change = update(Session).where(Session.user_id == user_id, Session.revoked_at.is_(None))
        if keep is not None:
            change = change.where(Session.id != keep)
        return affected(await self._session.execute(change.values(revoked_at=utc_now())))

    async def delete_expired(self, now: datetime) -> int:
        """Remove the rows that can never be used again; returns how many."""
        return affected(await self._session.execute(delete(Session).where(Session.expires_at <= now)))
